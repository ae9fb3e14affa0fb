"""A step in float16: gradients that overflow cost the step, and not the run."""

import pytest
import torch

from distill.compute.devices import choose_device
from distill.compute.gradients import GradientSums
from distill.compute.processes import Processes
from distill.config import Precision
from distill.training.step import CLIP_NORM, SKIPPED, end_step


def test_a_step_that_overflows_is_left_out_and_halves_the_scale() -> None:
    torch.manual_seed(0)
    line = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1, fused=True)
    scaler = choose_device("cpu", "float16").make_scaler()
    scale, before = scaler.get_scale(), line.weight.detach().clone()
    for weight, skipped in ((torch.inf, 1), (1.0, 0)):
        optimizer.zero_grad()
        scaler.scale(weight * line(torch.ones(1, 3)).sum()).backward()
        terms = end_step(line, optimizer, GradientSums(line, Processes()), scaler)
        assert terms.keys() == {SKIPPED}
        assert terms[SKIPPED].item() == skipped
        assert torch.equal(line.weight.detach(), before) == bool(skipped)
        assert scaler.get_scale() == scale / 2
    gradients = torch.cat([each.grad.flatten() for each in line.parameters() if each.grad is not None])
    assert gradients.norm() == pytest.approx(CLIP_NORM), "clipped at the size that they have unscaled"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_elsewhere_nothing_is_scaled(precision: Precision) -> None:
    assert choose_device("cpu", precision).make_scaler().scale(torch.tensor(3.0)) == 3
