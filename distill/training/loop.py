"""The training loop: the phases of a method, each of epochs of steps, resumed where the last run was stopped.

What a step draws depends on (seed, epoch, step) alone: the order of rows is a function of (seed, epoch), and torch is
seeded anew before each step. So a run that goes on from a checkpoint of any step comes to the same weights as one that
was never stopped, and no generator's state needs to be kept.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from distill.compute.processes import Processes
from distill.compute.weights import copy_trained
from distill.training.checkpoint import Checkpoints
from distill.training.method import Method, Phase, Result
from distill.training.progress import Best, EpochRecord, Evaluation, Progress, capture, restore
from shared.console import Tracker, track
from shared.errors import Error


@dataclass(slots=True)
class Training:
    """One run of the loop. `on_epoch` is called for each epoch of the last phase, first for those of a checkpoint."""

    method: Method
    title: str
    checkpoints: Checkpoints
    processes: Processes = Processes()
    on_epoch: Callable[[EpochRecord], None] | None = None
    results: dict[str, Result] = field(default_factory=dict)

    def run(self) -> Progress:
        """Train all phases that no checkpoint has the result of, and give how the last one went.

        Raises Error when a loss is no longer finite.
        """
        self.processes.wait()  # for the first one to have removed a checkpoint that is not to be gone on from
        state: Mapping[str, Any] = self.checkpoints.load() or {"results": {}, "phase": None}
        self.processes.wait()  # for all to have read the same one, before the first one writes the next
        self.results = dict(state["results"])
        *before, last = self.method.phases
        for name in before:
            if name not in self.results:
                title = f"{self.title}, {name}"
                phase, progress = self._train(name, title, state, None)
                self.results[name] = phase.finish(progress)
                self.checkpoints.save({"results": self.results, "phase": None})
        phase, progress = self._train(last, self.title, state, self.on_epoch)
        self.results[last] = phase.finish(progress)
        return progress

    def _train(
        self, name: str, title: str, state: Mapping[str, Any], on_epoch: Callable[[EpochRecord], None] | None
    ) -> tuple[Phase[Any], Progress]:
        phase = self.method.make_phase(name, self.results)
        for learner in phase.learners.values():
            if isinstance(learner, nn.Module):
                self.processes.copy_weights(learner)
        progress = restore(state, phase.learners) if state["phase"] == name else Progress()
        with track(title, phase.epochs * phase.steps) as tracker:
            tracker.advance((progress.epoch - 1) * phase.steps + progress.step)
            if on_epoch is not None:
                for record in progress.epochs:
                    on_epoch(record)
            while progress.epoch <= phase.epochs and not is_patience_over(phase, progress):
                self._train_epoch(name, phase, progress, tracker)
                record = close_epoch(phase, progress)
                if on_epoch is not None:
                    on_epoch(record)
        return phase, progress

    def _train_epoch(self, name: str, phase: Phase[Any], progress: Progress, tracker: Tracker) -> None:
        started = time.perf_counter() - progress.seconds
        if progress.step == 0:
            for terms in phase.begin_epoch(progress.epoch):
                progress.add_terms(terms)
        with closing(phase.batches(progress.epoch, progress.step)) as batches:
            for batch in batches:
                progress.add_terms(phase.step(batch, progress.epoch, progress.step))
                progress.step += 1
                progress.rows += len(batch)
                tracker.advance(1, f"epoch {progress.epoch}/{phase.epochs}{_describe(progress.best)}")
                if phase.evaluation.is_due(progress.step, phase.steps):
                    paused = time.perf_counter()
                    evaluate(phase, progress)
                    started += time.perf_counter() - paused
                    if is_patience_over(phase, progress):
                        break
                if self.checkpoints.is_due((progress.epoch - 1) * phase.steps + progress.step):
                    progress.seconds = time.perf_counter() - started
                    state = {"phase": name, **capture(progress, phase.learners)}
                    self.checkpoints.save({"results": self.results, **state})
        means = {term: mean.value() for term, mean in progress.terms.items()}  # waits for the device
        progress.seconds = time.perf_counter() - started
        if not all(map(math.isfinite, means.values())):
            self.checkpoints.remove()
            raise Error(
                f"the loss is not finite any more in epoch {progress.epoch} ({means}); lower {phase.rates}. Nothing "
                "was written"
            )


def evaluate(phase: Phase[Any], progress: Progress) -> None:
    """Score a phase, and keep its weights where the score is the best so far."""
    evaluation = Evaluation(progress.step, dict(phase.score()))
    progress.evaluations.append(evaluation)
    module, dev = phase.best_module, evaluation.dev
    if module is None or dev is None:
        return
    progress.stale += 1
    if progress.best is None or dev > progress.best.dev:
        progress.best = Best(progress.epoch, progress.step, dev, copy_trained(module))
        progress.stale = 0


def is_patience_over(phase: Phase[Any], progress: Progress) -> bool:
    """Tell whether so many scores in a row were not the best that the phase stops."""
    patience = phase.evaluation.patience
    return patience is not None and progress.stale >= patience


def close_epoch(phase: Phase[Any], progress: Progress) -> EpochRecord:
    """Score an epoch where its last step was not scored, and turn to the next."""
    if not progress.evaluations or progress.evaluations[-1].step < progress.step:
        evaluate(phase, progress)
    record = EpochRecord(
        progress.epoch,
        progress.evaluations[-1].scores,
        {name: mean.value() for name, mean in progress.terms.items()},
        {name: mean.count for name, mean in progress.terms.items()},
        progress.step,
        progress.rows,
        progress.seconds,
        (progress.epoch - 1) * phase.steps + progress.step,
        progress.evaluations,
    )
    progress.epochs.append(record)
    progress.start_epoch()
    return record


def _describe(best: Best | None) -> str:
    return "" if best is None else f", best dev {best.dev:.4f} (epoch {best.epoch})"
