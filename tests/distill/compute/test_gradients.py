"""Gradients of two processes over gloo: they are sums, and most are on their way before the way back has ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

from distill.compute.devices import choose_device
from distill.compute.gradients import GradientSums
from distill.compute.processes import Processes
from distill.methods.micro_batches import MicroBatches, cut_inputs
from distill.models.outputs import Outputs
from tests.distill.ranks import server

pytestmark = pytest.mark.real

BUCKET_BYTES = 400
STEPS = 3


class Net(nn.Module):
    """Four layers of 8 x 8, and weights that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(8, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.also_unused = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x.sum()


class Counted:
    """Counts the sums that are begun."""

    def __init__(self) -> None:
        self.count, self.begin = 0, distributed.all_reduce

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        return self.begin(*arguments, **options)


def check_sums(rank: int, folder: Path) -> None:
    """As one of two processes, go back twice a step, and hold the sums against those of each weight alone."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = Net()
    sums = GradientSums(net, Processes(rank, 2), BUCKET_BYTES)
    torch.manual_seed(rank)
    for step in range(STEPS):
        parts = [torch.randn(5, 8), torch.randn(3, 8)]
        net.zero_grad()
        torch.stack([net(part) for part in parts]).sum().backward()
        expected = [weight.grad.clone() for weight in net.layers.parameters() if weight.grad is not None]
        for each in expected:
            distributed.all_reduce(each)
        net.zero_grad()
        net(parts[0]).backward()
        counted = Counted()
        distributed.all_reduce = counted
        sums.begin_last()
        net(parts[1]).backward()
        begun = counted.count
        sums.finish()
        distributed.all_reduce = counted.begin
        # A bucket holds one layer of 288 bytes; the last ones have nothing to sum.
        assert (begun, counted.count) == ((0, 4) if step == 0 else (4, 4))
        found = [weight.grad for weight in net.layers.parameters()]
        assert len(found) == len(expected) == 8
        for mine, right in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, right)
        assert net.unused.weight.grad is None
    torch.distributed.destroy_process_group()


class Rows(nn.Module):
    """The outputs of a student for rows of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, inputs: dict[str, torch.Tensor]) -> Any:
        x = inputs["x"]
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return Outputs(x, x, x)


def find_terms(outputs: Outputs) -> dict[str, torch.Tensor]:
    return {"total": (outputs.main**2).sum()}


def check_parts(rank: int, folder: Path) -> None:
    """As one of two processes, of which one has 4 rows in two parts and the other 3 rows at once."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    processes = Processes(rank, 2)
    device = choose_device("cpu", "float32", processes)
    torch.manual_seed(0)
    net: Any = Rows()
    sums = GradientSums(net, processes, BUCKET_BYTES)
    drawn = torch.Generator().manual_seed(0)  # the parts have seeds of their own
    for _ in range(STEPS):
        x = torch.randn(7, 8, generator=drawn)
        net.zero_grad()
        terms = find_terms(net({"x": x}))
        terms["total"].backward()
        expected = [weight.grad.clone() for weight in net.layers.parameters()]
        net.zero_grad()
        parts = cut_inputs({"x": x[processes.share(7)]}, 3)
        assert len(parts) == 2 - rank
        made = MicroBatches(net, device, device.make_scaler(), sums, 7, parts, range(len(parts)))
        found = made.backpropagate(find_terms, compares_rows=False)
        sums.finish()
        torch.testing.assert_close(found["total"], terms["total"].detach())
        for weight, right in zip(net.layers.parameters(), expected, strict=True):
            torch.testing.assert_close(weight.grad, right)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("check", [check_sums, check_parts])
def test_gradients_are_summed_while_the_way_back_goes_on(check: Callable[[int, Path], None], tmp_path: Path) -> None:
    started = [server.Process(target=check, args=(rank, tmp_path)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        process.kill()
        assert process.exitcode == 0
