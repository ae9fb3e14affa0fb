"""The teacher's head: fitted on a run's labelled rows before the student, it gives every answered row soft targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.config import Column
from distill.data.answers import Answers, gather_distributions, gather_vectors, join_teachers
from distill.data.columns import VECTORS, Array
from distill.data.controls import TeacherSwap
from distill.data.distributions import read_label_logprobs
from distill.data.run_rows import mark_scored
from distill.data.split import Split
from distill.data.vectors import (
    VectorColumn,
    has_column,
    iterate_share,
    iterate_vectors,
    make_scratch,
    measure_vectors,
    rank_answered,
)
from distill.methods.materials import Materials
from distill.models.head_selection import OWN, choose_head
from distill.models.teacher_head import Coordinates, Head, log_softmax, span_rows
from distill.scoring.calibration import measure_calibration
from distill.scoring.metrics import accuracy, f1_micro
from distill.scoring.predict import Predictions, score
from distill.training.method import Result
from distill.training.step import derive_seed
from shared.console import say
from shared.errors import DataError, ShardError

VECTOR_SIGNAL, LABEL_SIGNAL = "vectors", "label_logprobs"
MOST_ROWS, MOST_NUMBERS = 5000, 2**27  # that a head is fitted on: rows, and numbers in their vectors


@dataclass(frozen=True, slots=True)
class TeacherHead:
    """What fits the head on a run's rows, and what it gives; `swap` puts other answers in the place of the teacher's.

    `signals` are what a head may read, each by its name; `distributions` are the teacher's own label log-probabilities
    (m, c), or logits, of the m answered rows, where those are a candidate. `moments` standardise each signal.
    """

    materials: Materials
    signals: Mapping[str, VectorColumn]
    moments: Mapping[str, tuple[Array, Array]]
    distributions: Array | None
    swap: TeacherSwap | None = None

    def fit(self) -> Result:
        """Fit and choose the head on the labelled rows, say which it is, and give it as a checkpoint keeps it."""
        rows, seed = self._choose_rows(), derive_seed(self.materials.config.training.seed, "head")
        target = self.materials.rows.train.target[rows]
        own = None if self.distributions is None else self.distributions[self._place(rows)]
        coordinates = {name: self._span(name, rows) for name in self.signals}
        chosen = choose_head(coordinates, own, target, self.materials.outputs, seed, phi=self.materials.phi)
        described = {**chosen.description, "rows": len(rows), **self._measure(chosen.held_out, target)}
        say(_say_chosen(described, self.materials.rows.train.by_teacher))
        head = chosen.head
        return {
            "signal": chosen.signal,
            "head": None if head is None else [_to_tensors(pair) for pair in ((head.mean, head.std), *head.layers)],
            "rows": torch.from_numpy(rows),
            "held_out": torch.from_numpy(np.asarray(chosen.held_out, np.float32)),
            "description": described,
        }

    def give_targets(self, result: Result) -> Array:
        """Give soft targets of all answered rows, (m, c) float32: log-probabilities, logits where a row has several
        labels, or values of a regression.

        To the rows it was fitted on those that were held out. They lie in a nameless file. Each process computes those
        of its share of the row groups, and gets the others': all must ask together.
        """
        if result["head"] is None:
            assert self.distributions is not None
            return self.distributions
        train, head = self.materials.rows.train, restore_head(result)
        shape = (int(train.answered.sum()), self.materials.outputs)
        targets = make_scratch(self.materials.work, np.float32, shape)
        processes = self.materials.device.processes
        for place, block in iterate_share(train, self.signals[result["signal"]], processes):
            targets[place : place + len(block)] = self._normalise(head.apply(block))
        processes.add_array(targets)
        targets[self._place(result["rows"].numpy())] = self._normalise(result["held_out"].numpy())
        return targets

    def measure_hidden(self, targets: Array) -> dict[str, Any]:
        """Measure soft targets of the answered rows on those whose label the shards have and the run may not see."""
        train = self.materials.rows.train
        rows = np.flatnonzero(train.labelled & train.answered & train.first & ~self.materials.rows.visible)
        if not len(rows):
            return {"hidden_rows": 0}
        said = Predictions(rows, train.target[rows], targets[self._place(rows)])
        measured = self._measure(said.logits, said.target)
        return {
            "hidden": score(self.materials.rows.manifest, said),
            "hidden_rows": len(rows),
            **{f"hidden_{name}": value for name, value in measured.items()},
        }

    def predict(self, result: Result, split: Split) -> Predictions | None:
        """Give what it says of the scored rows of another split that the teacher answered; None where it cannot."""
        if self.swap is not None or not (mark_scored(split) & split.answered).any():
            return None
        try:
            rows, answers = join_teachers(self.materials.rows.teachers, split)
            if result["head"] is None:
                parts = gather_distributions(answers, rows, self.materials.outputs, self.materials.work)
                logits = read_label_logprobs(rows, parts, self.materials.work, phi=self.materials.phi)
            else:
                vectors = find_signals(self.materials, answers, rows)[result["signal"]]
                head = restore_head(result)
                if vectors.width != len(head.mean):
                    return None
                logits = np.concatenate([head.apply(block) for block in iterate_vectors(rows, vectors)])
        except (DataError, ShardError, KeyError) as error:
            say(f"the teacher's head is not scored on its own: {error}")
            return None
        numbers = np.flatnonzero(rows.answered)
        scored = mark_scored(rows)[numbers]
        return Predictions(numbers[scored], rows.target[numbers[scored]], logits[scored])

    def _choose_rows(self) -> Array:
        """Choose the rows to fit on: those that show their label, one draw of each, or a part of them by the seed."""
        train = self.materials.rows.train
        rows = np.flatnonzero(self.materials.rows.visible & train.answered)
        first = rows[train.first[rows]]
        rows = first if len(first) else rows
        widest = max((vectors.width for vectors in self.signals.values()), default=1)
        most = max(2, min(MOST_ROWS, MOST_NUMBERS // widest))
        if len(rows) <= most:
            return rows
        rng = np.random.default_rng(derive_seed(self.materials.config.training.seed, "head rows"))
        return np.sort(rng.choice(rows, most, replace=False))

    def _span(self, name: str, rows: Array) -> Coordinates:
        wanted = np.zeros(len(self.materials.rows.train), np.bool_)
        wanted[rows] = True
        source = self.materials.read_training({VECTORS: self.signals[name]}, wanted=wanted)
        return span_rows(
            np.concatenate([block.read().join().values[VECTORS] for block in source.blocks()]), *self.moments[name]
        )

    def _place(self, rows: Array) -> Array:
        return np.asarray(rank_answered(self.materials.rows.train)[rows])

    def _normalise(self, said: Array) -> Array:
        return log_softmax(said) if self.materials.phi == "softmax" else said

    def _measure(self, held_out: Array, target: Array) -> dict[str, float]:
        if self.materials.regression:
            return {"mse": float(np.square(held_out[:, 0] - target).mean())}
        calibration = measure_calibration(held_out[None], target)
        if self.materials.phi == "sigmoid":
            right = {"f1_micro": f1_micro(held_out, target)}
        else:
            right = {"accuracy": accuracy(held_out, target)}
        return {**right, "nll": calibration.nll, "brier": calibration.brier, "ece": calibration.error}


def make_head(materials: Materials, swap: TeacherSwap | None = None) -> TeacherHead:
    """Find what a head may read of the teacher's answers to the training rows.

    With `soft` head the teacher's own label distributions are no candidate. Raises what gather_vectors does where
    there is neither a vector nor a distribution.
    """
    rows, config, seed = materials.rows, materials.config, materials.config.training.seed
    own = find_signals(materials, rows.answers, rows.train)
    moments: dict[str, tuple[Array, Array]] = {}
    for name, vectors in own.items():
        try:
            moments[name] = measure_vectors(rows.train, vectors)
        except DataError as error:
            if name == VECTOR_SIGNAL:
                raise
            say(f"the teacher's head does without the {name}: {error}")
    signals = {
        name: own[name] if swap is None else swap.swap_vectors(rows.train, own[name], seed, materials.work)
        for name in moments
    }
    distributions = None
    has_logprobs = any(has_column(one.split, "label_logprobs") for one in rows.answers)
    if config.method.soft != "head" and not materials.regression and has_logprobs and moments.keys() == own.keys():
        parts = gather_distributions(rows.answers, rows.train, materials.outputs, materials.work)
        distributions = read_label_logprobs(rows.train, parts, materials.work, swap, seed, phi=materials.phi)
    return TeacherHead(materials, signals, moments, distributions, swap)


def find_signals(materials: Materials, answers: Sequence[Answers], split: Split) -> dict[str, VectorColumn]:
    """Find what a head may read: the vectors that an aligner would, and the label log-probabilities beside them."""
    signal = materials.config.signal
    named = {VECTOR_SIGNAL: gather_vectors(answers, split, signal.vectors, signal.reply_encoder, materials.work)}
    if not signal.vectors and all(
        has_column(one.split, "embedding") and has_column(one.split, "label_logprobs") for one in answers
    ):
        column: tuple[Column, ...] = ("label_logprobs",)
        named[LABEL_SIGNAL] = gather_vectors(answers, split, column, signal.reply_encoder, materials.work)
    return named


def restore_head(result: Result) -> Head:
    """Make the head again that a phase's result holds."""
    (mean, std), *layers = [(first.numpy(), second.numpy()) for first, second in result["head"]]
    return Head(mean, std, tuple(layers))


def _to_tensors(pair: tuple[Array, Array]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.ascontiguousarray(each, np.float32)) for each in pair)
    return first, second


def _say_chosen(described: Mapping[str, Any], by_teacher: bool) -> str:
    what = described["kind"] if described["kind"] == OWN else f"{described['kind']} on its {described['signal']}"
    settings = "".join(f", {name} {described[name]:.3g}" for name in ("strength", "temperature") if name in described)
    how = f"{described['folds']}-fold cross-validation on" if described["folds"] else "not cross-validated, on only"
    names = {
        "accuracy": "accuracy",
        "f1_micro": "F1 (micro)",
        "nll": "NLL",
        "brier": "Brier",
        "ece": "ECE",
        "mse": "mean square error",
    }
    scores = ", ".join(f"{word} {described[name]:.3f}" for name, word in names.items() if name in described)
    labels = "labels of the teacher's own" if by_teacher else "labels"
    return f"the teacher's head: {what}{settings}; {how} {described['rows']:,} {labels}: {scores}"
