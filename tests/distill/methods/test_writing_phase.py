"""The steps of a student that writes."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.compute.devices import choose_device
from distill.config import make_distill_config
from distill.data.answers import open_teachers
from distill.data.run_rows import read_rows
from distill.methods.choose import make_method
from distill.methods.generative import Generative
from distill.methods.materials import find_model
from tests.distill.writing import make_sums, make_writer, write_sums


def take_step(shards: Path, writer: Path, work: Path, precision: Any, learn: str) -> tuple[float, Tensor]:
    """The loss of a first step, and its gradients of all weights, one after the other."""
    config = make_distill_config(
        shards=shards, student=str(writer), learn=[learn], precision=precision, template="lm-eval", batch_size=8
    )
    device = choose_device("cpu", precision)
    rows = read_rows(config, open_teachers(config.data.shards, config.data.teacher))
    method = make_method(config, rows, find_model(str(writer)), device, work)
    assert isinstance(method, Generative)
    phase = method.make_phase("student", {})
    with closing(phase.batches(1, 0)) as batches:
        terms = phase.step(next(batches), 1, 0)
    weights = [weight.grad.flatten() for weight in method.generator.parameters() if weight.grad is not None]
    return terms["student/total"].item(), torch.cat(weights)


@pytest.mark.parametrize("term", ["reply", "topk"])
def test_small_weights_leave_a_gradient_in_float16(tmp_path: Path, term: str) -> None:
    """Of a millionth of a loss, the logits' gradients are below what 16 bits can hold, unless they are scaled."""
    writer = make_writer(tmp_path / "writer")
    shards = write_sums(tmp_path, writer, make_sums(8))
    (loss, wanted), (half_loss, found) = (
        take_step(shards, writer, tmp_path, precision, f"{term}=1e-6") for precision in ("float32", "float16")
    )
    assert half_loss == pytest.approx(loss, rel=1e-2)
    assert float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted)) < 0.02
