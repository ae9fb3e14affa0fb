"""How far a phase is, and that as plain values which a checkpoint keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distill.compute.weights import read_trained, write_optimizer, write_trained

Learner = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler
Learners = Mapping[str, Learner]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the dev rows said after `step` steps of an epoch: the first of the `scores` chooses the best weights."""

    step: int
    scores: dict[str, float]

    @property
    def dev(self) -> float | None:
        """The score that chooses the best weights."""
        return next(iter(self.scores.values()), None)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a phase was like from one point of its curve to the next, which is after `step` of the phase's steps.

    `terms` are means over the steps between the two, `rates` the learning rates by optimiser, `rows` those that were
    learnt from, in so many `seconds`; `scores` are of the dev rows, empty where the weights were not scored there.
    """

    step: int
    epoch: int
    terms: dict[str, float]
    scores: dict[str, float]
    rates: dict[str, float]
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of a phase: the dev `scores` at its end, and the means of its `terms` over the `counts` of steps.

    A phase that is not scored has no scores. `evaluations` are all of the epoch, the one at its end among them. `rows`
    are those of its `steps`; `done` are the phase's steps so far. `curve` has a point for each part of the epoch.
    """

    epoch: int
    scores: dict[str, float]
    terms: dict[str, float]
    counts: dict[str, int]
    steps: int
    rows: int
    seconds: float
    done: int
    evaluations: list[Evaluation]
    curve: list[CurvePoint]

    @property
    def dev(self) -> float | None:
        """The first of the scores at its end."""
        return next(iter(self.scores.values()), None)


@dataclass(frozen=True, slots=True)
class Best:
    """The best score so far, the first one of equals: the epoch and its step, and the weights that were kept of it."""

    epoch: int
    step: int
    dev: float
    weights: dict[str, Tensor]


@dataclass(slots=True)
class Mean:
    """A mean that is summed where the values are, so that no step waits for the device."""

    total: Any = 0.0
    count: int = 0

    def add(self, value: Tensor) -> None:
        """Count one more value."""
        self.total = self.total + value
        self.count += 1

    def value(self) -> float:
        """Give the mean; 0 of no values."""
        return float(self.total) / self.count if self.count else 0.0


@dataclass(slots=True)
class Drawn:
    """What an epoch came to by the last point of its curve: sums and counts of its terms, rows and seconds."""

    terms: dict[str, tuple[Any, int]] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Progress:
    """How far a phase is: `step` steps in epoch `epoch`, which starts from 1; and what they gave.

    The means, `rows`, `seconds`, `evaluations` and `curve` are those of the epoch so far; `stale` are the scores since
    the best one. With the weights and the optimisers' states it is all that a phase goes on from.
    """

    epoch: int = 1
    step: int = 0
    terms: dict[str, Mean] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    drawn: Drawn = field(default_factory=Drawn)
    stale: int = 0
    best: Best | None = None
    epochs: list[EpochRecord] = field(default_factory=list)

    @property
    def is_scored(self) -> bool:
        """Whether the weights of the last step were scored."""
        return bool(self.evaluations) and self.evaluations[-1].step == self.step

    def add_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Count a step's terms."""
        for name, term in terms.items():
            self.terms.setdefault(name, Mean()).add(term.detach())

    def draw_point(self, done: int, rates: dict[str, float]) -> CurvePoint:
        """Add a point to the curve, after `done` steps of the phase. Waits for the device."""
        drawn = self.drawn
        terms = {}
        for name, mean in self.terms.items():
            total, count = drawn.terms.get(name, (0.0, 0))
            if mean.count > count:
                terms[name] = float(mean.total - total) / (mean.count - count)
        scores = dict(self.evaluations[-1].scores) if self.is_scored else {}
        rows, seconds = self.rows - drawn.rows, self.seconds - drawn.seconds
        point = CurvePoint(done, self.epoch, terms, scores, rates, rows, seconds)
        self.curve.append(point)
        sums = {name: (mean.total, mean.count) for name, mean in self.terms.items()}
        self.drawn = Drawn(sums, self.rows, self.seconds)
        return point

    def start_epoch(self) -> None:
        """Turn to the next epoch."""
        self.epoch, self.step, self.rows, self.seconds = self.epoch + 1, 0, 0, 0.0
        self.terms, self.evaluations, self.curve, self.drawn = {}, [], [], Drawn()


def find_loss(terms: Mapping[str, float]) -> float | None:
    """Give the term that is the whole loss, as methods name it: student/total, or aligner/loss; None where none is."""
    whole = [name for name in terms if name.endswith(("/total", "/loss"))]
    return terms[max(whole)] if whole else None


def describe_point(point: CurvePoint) -> dict[str, Any]:
    """Give a point of a curve as it is told to machines."""
    pace = point.rows / point.seconds if point.seconds > 0 else None
    dev, loss = next(iter(point.scores.values()), None), find_loss(point.terms)
    known = {"epoch": point.epoch, "step": point.step, "loss": loss, "dev": dev, "rows_per_second": pace}
    return {**known, "terms": point.terms, "learning_rates": point.rates}


def describe_epoch(record: EpochRecord) -> dict[str, Any]:
    """Give an epoch as it is told to machines."""
    known = {"epoch": record.epoch, "step": record.done, "loss": find_loss(record.terms), "dev": record.dev}
    return {**known, "seconds": record.seconds, "terms": record.terms, "scores": record.scores}


def capture(progress: Progress, learners: Learners) -> dict[str, Any]:
    """Give what `restore` needs: tensors and plain values. `learners` are modules, optimisers and scalers, by name."""
    best = progress.best
    return {
        "learners": {name: _read(learner) for name, learner in learners.items()},
        "progress": {
            "epoch": progress.epoch,
            "step": progress.step,
            "terms": {name: (mean.total, mean.count) for name, mean in progress.terms.items()},
            "rows": progress.rows,
            "seconds": progress.seconds,
            "evaluations": [asdict(evaluation) for evaluation in progress.evaluations],
            "curve": [asdict(point) for point in progress.curve],
            "drawn": {name: getattr(progress.drawn, name) for name in Drawn.__dataclass_fields__},
            "stale": progress.stale,
            "epochs": [asdict(record) for record in progress.epochs],
            "best": None if best is None else {name: getattr(best, name) for name in Best.__dataclass_fields__},
        },
    }


def restore(state: Mapping[str, Any], learners: Learners) -> Progress:
    """Bring modules, optimisers and scalers to a captured state, and give the progress that goes with it."""
    for name, learner in learners.items():
        _write(learner, state["learners"][name])
    kept = state["progress"]
    return Progress(
        epoch=kept["epoch"],
        step=kept["step"],
        terms={name: Mean(*mean) for name, mean in kept["terms"].items()},
        rows=kept["rows"],
        seconds=kept["seconds"],
        evaluations=_read_evaluations(kept["evaluations"]),
        curve=_read_curve(kept["curve"]),
        drawn=Drawn(**kept["drawn"]),
        stale=kept["stale"],
        best=None if kept["best"] is None else Best(**kept["best"]),
        epochs=[
            EpochRecord(
                **{
                    **record,
                    "evaluations": _read_evaluations(record["evaluations"]),
                    "curve": _read_curve(record["curve"]),
                }
            )
            for record in kept["epochs"]
        ],
    )


def _read_evaluations(kept: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    return [Evaluation(**each) for each in kept]


def _read_curve(kept: Sequence[Mapping[str, Any]]) -> list[CurvePoint]:
    return [CurvePoint(**each) for each in kept]


def _read(learner: Learner) -> dict[str, Any]:
    return read_trained(learner) if isinstance(learner, nn.Module) else learner.state_dict()


def _write(learner: Learner, state: dict[str, Any]) -> None:
    if isinstance(learner, nn.Module):
        write_trained(learner, state)
    elif isinstance(learner, torch.optim.Optimizer):
        write_optimizer(learner, state)
    elif state:  # empty of a scaler that did nothing, where the run began on another device
        learner.load_state_dict(state)
