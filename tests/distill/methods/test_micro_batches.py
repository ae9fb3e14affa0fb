"""A step that is computed in parts has the losses and the gradients of the whole batch."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.compute.devices import choose_device
from distill.compute.gradients import GradientSums
from distill.config import make_distill_config
from distill.losses.objective import make_objective
from distill.methods.micro_batches import MicroBatches, cut_inputs
from distill.models.classifier import Student
from distill.models.outputs import Outputs
from distill.models.pretrained import load_student
from shared.sources import resolve_model

ROWS, TOKENS, CLASSES = 10, 6, 3
BY_ROW: dict[str, Any] = {"alpha": 0.7, "soft": "kl", "gamma": 0.5, "tau": 2.0}
COMPARING: dict[str, Any] = {"preset": "armada", "loss": ["cka", "contrastive", "procrustes"]}


class Step:
    """A student, a batch for it, and an objective; its labels are given for some of the rows."""

    def __init__(self, folder: Path, lora: int | None, dropout: float, options: dict[str, Any]) -> None:
        config = make_distill_config(shards="nowhere", **options)
        assert config.method.matches == (options is COMPARING)
        self.compares_rows = config.method.matches
        torch.manual_seed(0)
        labels = tuple("abc")
        model = load_student(resolve_model(str(folder)), CLASSES, labels, None, dropout, lora, "default", False)
        self.student = Student(model, "paper", 12).train()
        self.inputs = {
            "input_ids": torch.randint(5, 19, (ROWS, TOKENS)),
            "attention_mask": torch.ones(ROWS, TOKENS, dtype=torch.int64),
        }
        said = torch.randn(ROWS, CLASSES).log_softmax(1)
        self.find_terms = partial(
            make_objective(config.method, "softmax").student_terms,
            teacher=Outputs(said, said, torch.randn(ROWS, 768)),
            target=torch.randint(CLASSES, (ROWS,)),
            labelled=torch.arange(ROWS) % 3 > 0,
        )

    def take(self, micro_batch: int | None, *, by_row: bool = False) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The terms and the gradients, as the project computes them."""
        parts, device = cut_inputs(self.inputs, micro_batch), choose_device("cpu", "float32")
        sums = GradientSums(self.student, device.processes)
        made = MicroBatches(self.student, device, device.make_scaler(), sums, ROWS, parts, range(len(parts)))
        terms = made.backpropagate(self.find_terms, compares_rows=self.compares_rows and not by_row)
        return terms, self.take_gradients()

    def take_at_once(self, micro_batch: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The same by one graph over the outputs of all parts, which takes the memory of the whole batch."""
        computed = []
        for seed, part in enumerate(cut_inputs(self.inputs, micro_batch)):
            torch.manual_seed(seed)
            outputs = self.student(part)
            computed.append((outputs.main, outputs.auxiliary, outputs.projected))
        terms = self.find_terms(Outputs(*map(torch.cat, zip(*computed, strict=True))))
        terms["total"].backward()
        return terms, self.take_gradients()

    def take_gradients(self) -> list[Tensor]:
        """All gradients, which are then forgotten."""
        found = [weight.grad for weight in self.student.parameters() if weight.grad is not None]
        assert sum(float(gradient.abs().sum()) for gradient in found) > 0
        self.student.zero_grad()
        return found


def check_same(one: tuple[dict[str, Tensor], list[Tensor]], other: tuple[dict[str, Tensor], list[Tensor]]) -> None:
    """Both have the same terms and the same gradients."""
    assert one[0].keys() == other[0].keys()
    for name, term in one[0].items():
        assert term.item() == pytest.approx(other[0][name].item(), abs=1e-6), name
    assert len(one[1]) == len(other[1])
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert (ours - theirs).abs().max() <= 5e-6 * (1 + theirs.norm())  # sums in another order, by another CPU


@pytest.mark.parametrize("options", [BY_ROW, COMPARING], ids=["by row", "comparing rows"])
@pytest.mark.parametrize("lora", [None, 2])
def test_parts_give_the_step_of_the_whole_batch(tiny_student: Path, lora: int | None, options: dict[str, Any]) -> None:
    alike = Step(tiny_student, lora, 0.0, options)
    whole = alike.take(None)
    check_same(alike.take(4), whole)
    check_same(alike.take(1), whole)
    dropping = Step(tiny_student, lora, 0.3, options)
    with_dropout = dropping.take_at_once(4)
    check_same(dropping.take(4), with_dropout)
    assert dropping.take(None)[0]["total"].item() != pytest.approx(with_dropout[0]["total"].item(), abs=1e-4)


def test_rows_that_are_compared_need_the_whole_batch(tiny_student: Path) -> None:
    """Plain accumulation gives other gradients, so that the second pass is what the test above sees."""
    step = Step(tiny_student, None, 0.0, COMPARING)
    (_, plain), (_, whole) = step.take(4, by_row=True), step.take(None)
    assert any((ours - theirs).abs().max() > 0.01 * theirs.norm() for ours, theirs in zip(plain, whole, strict=True))
