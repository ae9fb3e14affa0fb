"""The loop with a method of this test's own: a line through points, in two phases. No model of distill, no loss of it.

Resuming, the best epoch and what is refused are the loop's, whatever it trains.
"""

import os
import signal
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.training.checkpoint import Checkpoints
from distill.training.loop import Training
from distill.training.method import Phase, Result, RowScores
from distill.training.progress import EpochRecord, Learners, Progress
from distill.training.schedule import EvaluationSchedule
from distill.training.step import derive_seed, take_step
from shared.errors import Error, StoppedError

STEPS = 3
AT_EPOCHS = EvaluationSchedule()
Points = list[float]


class EndedError(Exception):
    """The test's own end of a run."""


class LinePhase:
    """Learns y = 2 x from points that it draws; its scores are what the test says."""

    steps = STEPS
    rates = "the test's rate"

    def __init__(self, method: "LineMethod", line: nn.Linear, name: str, scores: list[float]) -> None:
        self.epochs, self.best_module = method.epochs[name], line if scores else None
        self.evaluation = method.evaluation if scores else AT_EPOCHS
        self._method, self._line, self._name, self._scores = method, line, name, scores
        self._optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)

    @property
    def learners(self) -> Learners:
        return {"line": self._line, "optimizer": self._optimizer}

    def begin_epoch(self, epoch: int) -> Iterable[Mapping[str, Tensor]]:
        if self._name == "main":
            self._method.calls.append(f"before {epoch}")
            yield {"before": torch.tensor(float(epoch))}

    def batches(self, epoch: int, start: int) -> Generator[Points]:
        self._epoch = epoch
        return self._draw(epoch, start)

    def _draw(self, epoch: int, start: int) -> Generator[Points]:
        for index in range(start, self.steps):
            torch.manual_seed(derive_seed(0, self._name, epoch, index))
            yield torch.rand(2).tolist()

    def step(self, batch: Points, epoch: int, index: int) -> Mapping[str, Tensor]:
        self._method.take_turn(f"{self._name} {epoch}.{index}")
        x = torch.tensor(batch)[:, None]
        loss = (self._line(x) - self._method.slope * x).square().mean()
        take_step(self._line, self._optimizer, loss)
        return {"loss": loss}

    def score(self) -> Mapping[str, float]:
        self._method.count_turn()
        self._method.weights.append(self._line.weight.item())
        return {"right": self._scores[self._epoch - 1]} if self._scores else {}

    def finish(self, progress: Progress) -> Result:
        return {"weight": self._line.weight.detach().clone(), "epochs": len(progress.epochs)}


class LineMethod:
    """A first phase whose line the main one starts from; `scores` are the main one's by epoch.

    `stop_at` counts the steps until the run is stopped; `signalled_at` those, and the scores, until it is sent a
    SIGTERM, and `signalled_in` the phase that is being made then.
    """

    phases = ("first", "main")

    def __init__(
        self,
        scores: list[float],
        stop_at: int | None = None,
        slope: float = 2.0,
        evaluation: EvaluationSchedule = AT_EPOCHS,
        signalled_at: int | None = None,
        signalled_in: str | None = None,
    ) -> None:
        self._signalled_at, self._signalled_in = signalled_at, signalled_in
        self.evaluation = evaluation
        self.epochs = {"first": 2, "main": len(scores)}
        self.calls: list[str] = []
        self.weights: list[float] = []
        self.slope = slope
        self._scores, self._stop_at = scores, stop_at

    def take_turn(self, call: str) -> None:
        if self._stop_at is not None and sum("." in each for each in self.calls) == self._stop_at:
            raise EndedError
        self.calls.append(call)
        self.count_turn()

    def count_turn(self) -> None:
        if self._signalled_at is not None:
            self._signalled_at -= 1
            if self._signalled_at == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        if name == self._signalled_in:
            os.kill(os.getpid(), signal.SIGTERM)
        torch.manual_seed(0)
        line = nn.Linear(1, 1)
        if name == "main":
            with torch.no_grad():
                line.weight.copy_(results["first"]["weight"])
        self.calls.append(name)
        self.weights.clear()
        return LinePhase(self, line, name, self._scores if name == "main" else [])

    def describe_epoch(self, record: EpochRecord) -> dict[str, Any]:
        return {"dev": record.dev}

    def score_rows(self) -> Mapping[str, RowScores]:
        return {}

    def describe(self, progress: Progress) -> dict[str, Any]:
        return {}

    def collect(self) -> None: ...

    def save_predictions(self, folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...


def train(
    method: LineMethod, folder: Path, steps: int | None = 1
) -> tuple[Progress, list[EpochRecord], dict[str, Result]]:
    records: list[EpochRecord] = []
    training = Training(method, "a line", Checkpoints(folder / "c.pt", {}, steps), on_epoch=records.append)
    return training.run(), records, training.results


def test_phases_run_in_order_and_the_epochs_of_the_last_are_reported(tmp_path: Path) -> None:
    method = LineMethod([0.1, 0.2])
    progress, records, results = train(method, tmp_path)
    assert method.calls == [
        "first",
        *(f"first {epoch}.{step}" for epoch in (1, 2) for step in range(STEPS)),
        "main",
        *(["before 1", *(f"main 1.{step}" for step in range(STEPS))]),
        *(["before 2", *(f"main 2.{step}" for step in range(STEPS))]),
    ]
    assert records == progress.epochs
    assert [record.scores for record in records] == [{"right": 0.1}, {"right": 0.2}]
    assert [(record.steps, record.rows) for record in records] == [(STEPS, 2 * STEPS)] * 2
    assert [record.counts for record in records] == [{"before": 1, "loss": STEPS}] * 2
    assert [record.terms["before"] for record in records] == [1.0, 2.0]
    assert results["first"]["epochs"] == 2


def test_the_best_epoch_is_kept_the_first_of_equals(tmp_path: Path) -> None:
    method = LineMethod([0.3, 0.7, 0.7, 0.5])
    progress, _, _ = train(method, tmp_path)
    assert progress.best is not None
    assert (progress.best.epoch, progress.best.dev) == (2, 0.7)
    assert progress.best.weights["weight"].item() == method.weights[1]
    assert len(set(method.weights)) == 4


EARLY = EvaluationSchedule(every=2, patience=2)


def test_a_phase_is_scored_within_epochs_and_stops_when_its_patience_is_over(tmp_path: Path) -> None:
    method = LineMethod([0.1, 0.2, 0.2, 0.9], evaluation=EARLY)
    progress, records, _ = train(method, tmp_path)
    assert [[each.step for each in record.evaluations] for record in records] == [[2, 3], [2, 3], [2]]
    assert [(record.steps, record.done) for record in records] == [(3, 3), (3, 6), (2, 8)]
    assert method.calls[-1] == "main 3.1", "no step follows the second score that is not the best"
    assert progress.best is not None
    assert (progress.best.epoch, progress.best.step, progress.best.dev) == (2, 2, 0.2)
    assert progress.best.weights["weight"].item() == method.weights[2]


def test_stopped_at_any_step_a_phase_stops_at_the_same_score(tmp_path: Path) -> None:
    scores = [0.1, 0.2, 0.2, 0.9]
    _, whole, results = train(LineMethod(scores, evaluation=EARLY), tmp_path, None)
    for stop_at in range(6, 14):
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        with pytest.raises(EndedError):
            train(LineMethod(scores, stop_at, evaluation=EARLY), folder)
        _, records, again = train(LineMethod(scores, evaluation=EARLY), folder)
        assert torch.equal(results["main"]["weight"], again["main"]["weight"])
        assert [record.evaluations for record in records] == [record.evaluations for record in whole]


@pytest.mark.parametrize("checkpoint_steps", [1, 2, 4])
@pytest.mark.parametrize("stop_at", range(1, 12))
def test_stopped_at_any_step_it_goes_on_to_the_same_weights(
    tmp_path: Path, stop_at: int, checkpoint_steps: int
) -> None:
    whole, records, results = train(LineMethod([0.1, 0.2]), tmp_path, None)
    (tmp_path / "c.pt").unlink()
    stopped = LineMethod([0.1, 0.2], stop_at)
    with pytest.raises(EndedError):
        train(stopped, tmp_path, checkpoint_steps)
    again = LineMethod([0.1, 0.2])
    progress, records_again, results_again = train(again, tmp_path, checkpoint_steps)
    assert torch.equal(results["main"]["weight"], results_again["main"]["weight"])
    assert list(map(vars_of, records)) == list(map(vars_of, records_again))
    assert progress.best is not None
    assert whole.best is not None
    assert torch.equal(progress.best.weights["weight"], whole.best.weights["weight"])
    first_steps = 2 * STEPS
    assert ("first" in again.calls) == (stop_at < first_steps), "a finished phase is not trained again"
    repeated = {call for call in again.calls if "." in call} & set(stopped.calls)
    assert len(repeated) < checkpoint_steps, "and of an unfinished one only what no checkpoint has"


@pytest.mark.parametrize("evaluation", [AT_EPOCHS, EARLY], ids=["at epochs", "early"])
def test_a_polite_signal_keeps_a_checkpoint_of_that_moment(tmp_path: Path, evaluation: EvaluationSchedule) -> None:
    """At every step and in every score: no step is made again, and the run comes to the same weights and scores."""
    scores = [0.1, 0.2, 0.2]
    whole = LineMethod(scores, evaluation=evaluation)
    _, records, results = train(whole, tmp_path, None)
    steps = [call for call in whole.calls if "." in call]
    for signalled_at in range(1, len(steps) + len(whole.weights) + 1):
        folder = tmp_path / str(signalled_at)
        folder.mkdir()
        stopped = LineMethod(scores, evaluation=evaluation, signalled_at=signalled_at)
        with pytest.raises(StoppedError, match=r"was stopped by SIGTERM in epoch .* checkpoint is kept"):
            train(stopped, folder, None)
        again = LineMethod(scores, evaluation=evaluation)
        _, records_again, results_again = train(again, folder, None)
        assert [call for call in (*stopped.calls, *again.calls) if "." in call] == steps
        assert torch.equal(results["main"]["weight"], results_again["main"]["weight"])
        assert [record.evaluations for record in records] == [record.evaluations for record in records_again]


@pytest.mark.parametrize("name", ["first", "main"])
def test_a_signal_while_a_phase_is_made_ends_the_run_before_a_step_of_it(tmp_path: Path, name: str) -> None:
    """It may read and encode for hours, and what came before is kept."""
    stopped = LineMethod([0.1], signalled_in=name)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path)
    assert [call for call in stopped.calls if call.startswith(f"{name} ")] == []
    again = LineMethod([0.1])
    train(again, tmp_path)
    assert ("first" in again.calls) == (name == "first")


def vars_of(record: EpochRecord) -> dict[str, Any]:
    """An epoch as plain values, whatever the clock said."""
    fields = asdict(record)
    return {**fields, "seconds": 0, "curve": [{**point, "seconds": 0} for point in fields["curve"]]}


def test_a_loss_that_is_not_finite_ends_the_run_and_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"not finite any more in epoch 1 .*lower the test's rate\. Nothing was written"):
        train(LineMethod([0.1], slope=float("inf")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_different_uses_differ() -> None:
    seeds = {derive_seed(seed, use) for seed in range(5) for use in ("student", "heads", "aligner")}
    assert len(seeds) == 15
    assert derive_seed(1, "pass", 2) == derive_seed(1, "pass", 2) != derive_seed(1, "pass", 3)
