"""What several processes share of a student, and what does not go with it: said before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.compute.devices import Device
from distill.compute.processes import Processes
from distill.config import make_distill_config
from distill.methods.placing import prepare_device
from shared.errors import UsageError

FOUR = Processes(1, 4)


def prepare(processes: Processes, half: torch.dtype | None = None, **options: Any) -> Device:
    config = make_distill_config(shards=Path(), **options)
    return prepare_device(config, Device(torch.device("cpu"), half, processes))


@pytest.mark.parametrize(
    ("half", "options", "said"),
    [
        (torch.float16, {}, "--precision bfloat16"),
        (None, {"frozen_layers": 1}, "frozen_layers"),
        (None, {"control": "linear-probe"}, "linear-probe trains none"),
    ],
)
def test_what_does_not_go_with_shared_weights_is_refused(
    half: torch.dtype | None, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(FOUR, half, parallel="fsdp", **options)
    assert not prepare(FOUR, half, parallel="ddp", **options).processes.shards


def test_weights_are_shared_by_several_processes_and_kept_whole_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(FOUR, parallel="fsdp").processes == Processes(1, 4, shards=True)
    assert not prepare(Processes(), parallel="fsdp").processes.shards
    assert "keeps the whole student" in capsys.readouterr().err
