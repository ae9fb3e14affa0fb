"""What a sceptic would try first: a linear probe of the frozen student, and a student on hard pseudo-labels."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.batches import Batch, RowSource
from distill.data.columns import TEXT, Array
from distill.data.split import Bools
from distill.data.tokens import TextColumn
from distill.methods.armada import describe_epoch, save_predictions, score_predictions
from distill.methods.head_method import HEAD, HeadArmada, HeadPhase
from distill.methods.heads import TeacherHead
from distill.methods.materials import Materials
from distill.methods.students import build_student, save_weights
from distill.methods.targets import SoftTargets, keep_targets
from distill.models.head_selection import choose_head
from distill.models.teacher_head import span_rows
from distill.scoring.predict import Predictions, score
from distill.scoring.read_out import READ_OUTS, read_out
from distill.training.method import Phase, Result, RowScores
from distill.training.progress import EpochRecord, Learners, Progress
from distill.training.schedule import EvaluationSchedule
from distill.training.step import derive_seed
from shared.console import say

PROBE = "probe"
MOST_ROWS = 10_000  # that a probe is fitted on
_HARD = 16.0  # by which the log-probability of a pseudo-label is above the others


class PseudoLabelled(HeadArmada):
    """ARMADA without an aligner, whose targets are the label that the teacher's head finds the likeliest, and no other.

    Where a row has several labels, they are those that are likelier than not. Source: Lee (2013), "Pseudo-Label", with
    the head as the labelling model.
    """

    def make_targets(self, said: Array) -> SoftTargets:
        """Leave one label of each row's distribution."""
        if self.materials.phi == "sigmoid":
            return keep_targets(self.materials.rows.train, np.where(said > 0, _HARD, -_HARD).astype(np.float32))
        hard = np.full(said.shape, -_HARD, np.float32)
        hard[np.arange(len(said)), said.argmax(axis=1)] = 0.0
        hard -= np.log1p((said.shape[1] - 1) * np.exp(-_HARD))
        return keep_targets(self.materials.rows.train, hard)


@dataclass(slots=True)
class ProbePhase:
    """The fit of a linear probe on what the frozen student gives: a phase of one epoch without a step.

    It learns the visible labels, or where there are `targets` (m, c) those of the m answered rows, as the
    teacher's head gives them.
    """

    materials: Materials
    model: Any
    targets: Array | None = None
    probe: nn.Linear = field(default_factory=lambda: nn.Linear(1, 1))
    read_out: str = READ_OUTS[0]
    description: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1
    steps: int = 0
    evaluation: EvaluationSchedule = EvaluationSchedule()
    rates: str = ""

    @property
    def learners(self) -> Learners:
        """Nothing that a step changes."""
        return {}

    @property
    def best_module(self) -> nn.Module:
        """The probe."""
        return self.probe

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        """Fit the probe; the read-out and the strength are chosen by cross-validation on the same rows."""
        wanted = self._choose_rows()
        source = self.materials.read_training({TEXT: TextColumn(self.materials.encoder)}, wanted=wanted)
        read, target = read_out(self.model, source, self.materials.device, READ_OUTS), self._find_target(wanted)
        seed = derive_seed(self.materials.config.training.seed, "probe")
        signals = {
            name: span_rows(each, each.mean(0), np.maximum(each.std(0), 1e-6)) for name, each in read.features.items()
        }
        chosen = choose_head(
            signals, None, target, self.materials.outputs, seed, phi=self.materials.phi, networks=False
        )
        assert chosen.head is not None, "no teacher's own distribution is a candidate"
        ((weight, bias),) = chosen.head.layers
        weight = weight / chosen.head.std[:, None]
        self.probe = nn.Linear(len(weight), self.materials.outputs)
        with torch.no_grad():
            self.probe.weight.copy_(torch.from_numpy(weight.T.copy()))
            self.probe.bias.copy_(torch.from_numpy(bias - chosen.head.mean @ weight))
        self.read_out = chosen.signal
        self.description = {**chosen.description, "rows": int(wanted.sum())}
        say(f"the probe reads the {self.read_out} of the last layer; fitted on {int(wanted.sum()):,} rows")
        return ()

    def _choose_rows(self) -> Bools:
        rows = self.materials.rows
        wanted = rows.visible if self.targets is None else rows.train.answered
        numbers = np.flatnonzero(wanted)
        if len(numbers) <= MOST_ROWS:
            return wanted
        rng = np.random.default_rng(derive_seed(self.materials.config.training.seed, "probe rows"))
        chosen = np.zeros_like(wanted)
        chosen[rng.choice(numbers, MOST_ROWS, replace=False)] = True
        return chosen

    def _find_target(self, wanted: Bools) -> Array:
        train = self.materials.rows.train
        if self.targets is None:
            return train.target[wanted]
        said = self.targets[wanted[train.answered]]
        if self.materials.regression:
            return said[:, 0]
        if self.materials.phi == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-said.astype(np.float64))))
        shares = np.exp(said.astype(np.float64))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Make no batch."""
        yield from ()

    def step(self, batch: Batch, epoch: int, index: int) -> Mapping[str, Tensor]:
        """Learn nothing."""
        return {}

    def score(self) -> Mapping[str, float]:
        """Score the probe on the dev rows."""
        return {"dev": score(self.materials.rows.manifest, self.predict(self.materials.dev))}

    def predict(self, source: RowSource) -> Predictions:
        """Give what the probe says of a source's rows."""
        read = read_out(self.model, source, self.materials.device, (self.read_out,))
        with torch.inference_mode():
            logits = self.probe(torch.from_numpy(read.features[self.read_out])).numpy()
        return Predictions(read.number, read.target, logits)

    def finish(self, progress: Progress) -> Result:
        """Give nothing: no phase follows."""
        return {}


class ProbeMethod:
    """A linear probe on the frozen student, as a method: of the visible labels, or of what a teacher's `head` says."""

    def __init__(self, materials: Materials, head: TeacherHead | None = None) -> None:
        self.materials, self.head = materials, head
        self._model = build_student(materials, None).student.model
        self._fitted: Result | None = None
        self._phase: ProbePhase | None = None

    @property
    def phases(self) -> tuple[str, ...]:
        """The head, where the probe learns from one, and the probe."""
        return (PROBE,) if self.head is None else (HEAD, PROBE)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if self.head is not None and name == HEAD:
            return HeadPhase(self.head)
        targets = None
        if self.head is not None:
            self._fitted = results[HEAD]
            targets = self.head.give_targets(results[HEAD])
        self._phase = ProbePhase(self.materials, self._model, targets)
        return self._phase

    def describe_epoch(self, record: EpochRecord) -> dict[str, Any]:
        """Give the one epoch as the run's log has it."""
        return describe_epoch(record)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """What the probe says of the scored rows of each split. All processes must ask for it together."""
        assert self._phase is not None, "it was trained"
        sources = {"validation": self.materials.dev, "test": self.materials.test}
        return {split: self._phase.predict(source) for split, source in sources.items() if source is not None}

    def score_rows(self) -> dict[str, RowScores]:
        """Score rows as ARMADA does."""
        return score_predictions(self.materials.rows.manifest, self.predictions)

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Give what metrics.json says of the method."""
        assert self._phase is not None, "it was trained"
        config, test = self.materials.config.method, self.predictions.get("test")
        return {
            "loss": config.loss_name,
            "semantics": config.semantics,
            "control": config.control,
            "test": None if test is None else score(self.materials.rows.manifest, test),
            "aligner_dev": None,
            "aligner_steps": 0,
            "first_phase": None,
            "truncated_texts": 0,
            "alpha": config.alpha,
            "teacher_head": None if self._fitted is None else self._fitted["description"],
            "probe": self._phase.description,
        }

    def collect(self) -> None:
        """Do nothing: every process has the probe."""

    def save_predictions(self, folder: Path) -> None:
        """Write predictions.npz as ARMADA does."""
        save_predictions(folder, self.materials.rows.manifest, self.predictions)

    def save(self, folder: Path) -> None:
        """Write probe.safetensors: `weight` (c, width) and `bias` (c,) over the read-out that metrics.json names."""
        assert self._phase is not None, "it was trained"
        save_weights(self._phase.probe.state_dict(), folder / "probe.safetensors")
