"""The training loop: the phases of a method, each of epochs of steps, resumed where the last run was stopped.

What a step draws depends on (seed, epoch, step) alone: the order of rows is a function of (seed, epoch), and torch is
seeded anew before each step. So a run that goes on from a checkpoint of any step comes to the same weights as one that
was never stopped, and no generator's state needs to be kept.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from signal import Signals
from typing import Any

import torch
from torch import nn

from distill.compute.processes import Processes
from distill.compute.weights import copy_trained
from distill.training.checkpoint import Checkpoints
from distill.training.method import Method, Phase, Result
from distill.training.progress import (
    Best,
    CurvePoint,
    EpochRecord,
    Evaluation,
    Progress,
    capture,
    describe_epoch,
    describe_point,
    restore,
)
from shared.console import Tracker, track
from shared.errors import Error, StoppedError
from shared.events import emit
from shared.signals import Stop, interrupt

POINTS_OF_AN_EPOCH = 20  # of its curve, at least, where it has as many steps


@dataclass(slots=True)
class Training:
    """One run of the loop, which tells of its last phase, first of what a checkpoint brought.

    `on_epoch` is called for each epoch, `on_point` for each point of the curve.

    A polite signal (shared.signals) ends it after the step, or in the score, that is under way: with a checkpoint, and
    StoppedError. Of several processes the first one does so, and the others end with it; where they share the student's
    weights all do, after the same step or score, whichever was told. While a phase is being made it ends the run at
    once, and what is kept is the checkpoint of before, if any.
    """

    method: Method
    title: str
    checkpoints: Checkpoints
    processes: Processes = Processes()
    on_epoch: Callable[[EpochRecord], None] | None = None
    on_point: Callable[[CurvePoint], None] | None = None
    results: dict[str, Result] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)
    told: Signals | None = field(default=None, init=False)  # what ends it, as soon as all that must know it do
    last_phase: tuple[str, Phase[Any], Progress] | None = field(default=None, init=False)  # once it was trained
    ended: bool = field(default=False, init=False)  # whether the end was saved before anything followed it

    def run(self) -> Progress:
        """Train all phases that no checkpoint has the result of, and give how the last one went.

        Raises Error when a loss is no longer finite, and StoppedError when a signal ended it.
        """
        with self.stop.heard():
            try:
                return self._train_all()
            except RuntimeError:
                if self.stop.told is None or self.processes.is_first:
                    raise
                interrupt(self.stop.told)  # the first process has left, and with it what they share

    def _train_all(self) -> Progress:
        self.processes.wait()  # for the first one to have removed a checkpoint that is not to be gone on from
        state: Mapping[str, Any] = self.checkpoints.load() or {"results": {}, "phase": None}
        self.processes.wait()  # for all to have read the same one, before the first one writes the next
        self.results = dict(state["results"])
        *before, last = self.method.phases
        for name in before:
            if name not in self.results:
                title = f"{self.title}, {name}"
                phase, progress = self._train(name, title, state)
                self.results[name] = phase.finish(progress)
                self.checkpoints.save({"results": self.results, "phase": None})
        phase, progress = self._train(last, self.title, state)
        if self.processes.shards:  # later, in the first one alone, there would be no whole state to save
            self.ended = self._save(last, phase, progress)
        self.last_phase = (last, phase, progress)
        self.results[last] = phase.finish(progress)
        return progress

    def save_end(self) -> bool:
        """Save a checkpoint from which `run` comes to the end at once: what follows it can be tried again.

        False where it was not written. A signal waits until it is; Ctrl-C pressed twice does not.
        """
        if self.last_phase is None or self.processes.shards:  # which saved it together
            return self.ended
        name, phase, progress = self.last_phase
        results = {before: result for before, result in self.results.items() if before != name}
        with self.stop.heard():
            return self.checkpoints.save({"results": results, "phase": name, **capture(progress, phase.learners)})

    def _train(self, name: str, title: str, state: Mapping[str, Any]) -> tuple[Phase[Any], Progress]:
        with self._at_once():  # reading and encoding take long, and there is nothing of the phase to keep yet
            phase = self.method.make_phase(name, self.results)
        for learner in phase.learners.values():
            if isinstance(learner, nn.Module):
                self.processes.copy_weights(learner)
        progress = restore(state, phase.learners) if state["phase"] == name else Progress()
        with track(title, phase.epochs * phase.steps) as tracker:
            tracker.advance(count_done(phase, progress))
            self._report(name, progress)
            while progress.epoch <= phase.epochs and not is_patience_over(phase, progress):
                self._train_epoch(name, phase, progress, tracker)
                if not progress.is_scored:
                    self._score(name, phase, progress)
                tracker.advance(0, _describe(phase, progress))  # its score, which came behind the step
                self._draw(name, phase, progress)
                record = close_epoch(phase, progress)
                emit("epoch", phase=name, **describe_epoch(record))
                if self.on_epoch is not None and name == self.method.phases[-1]:
                    self.on_epoch(record)
                self._agree(due=False)
                if self.told is not None:
                    self._leave(name, phase, progress)
        return phase, progress

    def _report(self, name: str, progress: Progress) -> None:
        """Tell of the epochs and points that a checkpoint brought, where the phase is the last one."""
        if name != self.method.phases[-1]:
            return
        if self.on_epoch is not None:
            for record in progress.epochs:
                self.on_epoch(record)
        if self.on_point is not None:
            for curve in (*(record.curve for record in progress.epochs), progress.curve):
                for point in curve:
                    self.on_point(point)

    def _train_epoch(self, name: str, phase: Phase[Any], progress: Progress, tracker: Tracker) -> None:
        started = time.perf_counter() - progress.seconds
        if progress.step == 0:
            for terms in phase.begin_epoch(progress.epoch):
                progress.add_terms(terms)
            progress.drawn.seconds = time.perf_counter() - started  # the pace is that of the steps
        started = self._train_steps(name, phase, progress, tracker, started)
        means = {term: mean.value() for term, mean in progress.terms.items()}  # waits for the device
        progress.seconds = time.perf_counter() - started
        if not all(map(math.isfinite, means.values())):
            self.checkpoints.remove()
            raise Error(
                f"the loss is not finite any more in epoch {progress.epoch} ({means}); lower {phase.rates}. Nothing "
                "was written"
            )

    def _train_steps(self, name: str, phase: Phase[Any], progress: Progress, tracker: Tracker, started: float) -> float:
        """Train the rest of an epoch that began at `started`; give that time, later by what scoring took."""
        with closing(phase.batches(progress.epoch, progress.step)) as batches:
            if progress.step and not progress.is_scored and phase.evaluation.is_due(progress.step, phase.steps):
                started += self._score(name, phase, progress)  # a signal broke it off in the last process
                if is_patience_over(phase, progress):
                    return started
                self._draw(name, phase, progress)
            for batch in batches:
                progress.add_terms(phase.step(batch, progress.epoch, progress.step))
                progress.step += 1
                progress.rows += len(batch)
                tracker.advance(1, _describe(phase, progress))
                progress.seconds = time.perf_counter() - started
                if phase.evaluation.is_due(progress.step, phase.steps):
                    started += self._score(name, phase, progress)
                    if is_patience_over(phase, progress):
                        break
                    self._draw(name, phase, progress)
                elif is_point_due(progress.step, phase.steps):
                    self._draw(name, phase, progress)
                due = self._agree(due=self.checkpoints.is_due(count_done(phase, progress)))
                if self.told is not None:
                    self._leave(name, phase, progress)
                if due:
                    self._save(name, phase, progress)
        return started

    def _agree(self, *, due: bool) -> bool:
        """Hear of a signal; processes that share weights hear of each other's, and whether a checkpoint is `due`."""
        if not self.processes.shards:
            self.told = self.stop.told
            return due
        told, one_is_due = self.processes.find_greatest(self.stop.told or 0, int(due))
        self.told = Signals(told) if told else None
        return bool(one_is_due)

    def _draw(self, name: str, phase: Phase[Any], progress: Progress) -> None:
        point = progress.draw_point(count_done(phase, progress), read_rates(phase))
        emit("step", phase=name, **describe_point(point))
        if self.on_point is not None and name == self.method.phases[-1]:
            self.on_point(point)

    def _score(self, name: str, phase: Phase[Any], progress: Progress) -> float:
        """Score the weights; give the seconds that it took. A signal breaks it off, and the weights are kept unscored.

        Nothing has changed where the scores are not in.
        """
        began = time.perf_counter()
        try:
            with nullcontext() if self.processes.shards else self._at_once():
                scores = dict(phase.score())
        except KeyboardInterrupt:
            if not self.processes.shards:  # whose others are in the middle of theirs
                self.told = self.stop.told
                self._leave(name, phase, progress)
            raise
        count_scores(phase, progress, scores)
        return time.perf_counter() - began

    def _at_once(self) -> AbstractContextManager[None]:
        """Let a signal break a block off in the first process, which the others end with."""
        return self.stop.at_once() if self.processes.is_first else nullcontext()

    def _save(self, name: str, phase: Phase[Any], progress: Progress) -> bool:
        return self.checkpoints.save({"results": self.results, "phase": name, **capture(progress, phase.learners)})

    def _leave(self, name: str, phase: Phase[Any], progress: Progress) -> None:
        """End the run, as a signal asked. Raises StoppedError, or KeyboardInterrupt where no checkpoint is written."""
        told = self.told
        if told is None or not (self.processes.is_first or self.processes.shards):
            return
        if not self._save(name, phase, progress):
            interrupt(told)
        raise StoppedError(
            f"{self.title} was stopped by {told.name} in epoch {progress.epoch} after step {progress.step}, and its "
            "checkpoint is kept: the same command goes on from there"
        )


def count_scores(phase: Phase[Any], progress: Progress, scores: dict[str, float]) -> None:
    """Note how the weights of the last step score, and keep them where that is the best so far."""
    evaluation = Evaluation(progress.step, scores)
    progress.evaluations.append(evaluation)
    module, dev = phase.best_module, evaluation.dev
    if module is None or dev is None:
        return
    progress.stale += 1
    if progress.best is None or dev > progress.best.dev:
        progress.best = Best(progress.epoch, progress.step, dev, copy_trained(module))
        progress.stale = 0


def count_done(phase: Phase[Any], progress: Progress) -> int:
    """Count the steps of a phase so far."""
    return (progress.epoch - 1) * phase.steps + progress.step


def is_point_due(step: int, steps: int) -> bool:
    """Tell whether the curve has a point after `step` steps of an epoch of so many `steps`, before its end."""
    return step % max(1, steps // POINTS_OF_AN_EPOCH) == 0 and step < steps


def read_rates(phase: Phase[Any]) -> dict[str, float]:
    """Read the learning rates of a phase's optimisers as they are now, by the name of each."""
    optimizers = {name: each for name, each in phase.learners.items() if isinstance(each, torch.optim.Optimizer)}
    return {name: float(each.param_groups[0]["lr"]) for name, each in optimizers.items()}


def is_patience_over(phase: Phase[Any], progress: Progress) -> bool:
    """Tell whether so many scores in a row were not the best that the phase stops."""
    patience = phase.evaluation.patience
    return patience is not None and progress.stale >= patience


def close_epoch(phase: Phase[Any], progress: Progress) -> EpochRecord:
    """Turn from an epoch whose last weights were scored, and are in its curve, to the next."""
    record = EpochRecord(
        progress.epoch,
        progress.evaluations[-1].scores,
        {name: mean.value() for name, mean in progress.terms.items()},
        {name: mean.count for name, mean in progress.terms.items()},
        progress.step,
        progress.rows,
        progress.seconds,
        count_done(phase, progress),
        progress.evaluations,
        progress.curve,
    )
    progress.epochs.append(record)
    progress.start_epoch()
    return record


def _describe(phase: Phase[Any], progress: Progress) -> str:
    best = progress.best
    scored = "" if best is None else f", best dev {best.dev:.4f} (epoch {best.epoch})"
    return f"epoch {progress.epoch}/{phase.epochs}{scored}"
