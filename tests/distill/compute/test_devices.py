"""Where a run computes."""

import numpy as np
import pytest
import torch

from distill.compute.devices import Device, choose_device
from distill.compute.processes import Processes
from shared.errors import UsageError


def test_precision_is_what_was_asked_for() -> None:
    x = torch.randn(4, 4)
    with choose_device("cpu", "bfloat16").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with choose_device("cpu", "float32").autocast():
        assert (x @ x).dtype == torch.float32


def test_auto_takes_bfloat16_only_where_the_cpu_has_it() -> None:
    with open("/proc/cpuinfo") as file:
        flags = file.read()
    has_bfloat16 = "avx512_bf16" in flags or "amx_tile" in flags
    assert choose_device("cpu", "auto").half == (torch.bfloat16 if has_bfloat16 else None)


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto", "float32").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used"):
        choose_device(name, "auto")


@pytest.mark.parametrize("processes", [Processes(), Processes(0, 3)])
@pytest.mark.parametrize("longest", [3, 40, 5000])
def test_batches_hold_all_rows_and_about_as_many_tokens_each(processes: Processes, longest: int) -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, longest, 997))[::-1]
    bounds = list(Device(torch.device("cpu"), processes=processes).split_by_tokens(lengths))
    assert [start for start, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == len(lengths)
    budget = max((end - start) * int(lengths[start]) for start, end in bounds if end - start > 1)
    for start, end in bounds[:-1]:  # one row more would not go in
        assert (end - start + 1) * lengths[start] > budget or end - start == 1
