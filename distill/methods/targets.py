"""Soft targets that stand in the place of the aligner's: kept for each row, or made of its label."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.data.columns import SOFT, TARGET, Array, BatchColumn, RowValues
from distill.data.controls import cut_blocks
from distill.data.split import Split
from distill.data.vectors import rank_answered
from distill.models.outputs import Outputs
from distill.phi import Phi

_LEAST_SMOOTHING = 1e-6  # keeps the log of the smoothed label finite


class SoftTargets(Protocol):
    """Soft targets for both heads of the student."""

    @property
    def columns(self) -> Mapping[str, BatchColumn]:
        """The columns that a batch needs for them."""

    def give(self, batch: Batch) -> Outputs:
        """Give those of a batch, main and auxiliary; nothing is projected."""


@dataclass(frozen=True, slots=True)
class RowTargets:
    """Targets that were made beforehand, one for each row."""

    columns: Mapping[str, BatchColumn]

    def give(self, batch: Batch) -> Outputs:
        """Give those of a batch."""
        own = batch.tensor(SOFT)
        return Outputs(own, own, own.new_zeros(len(own), 0))


def keep_targets(split: Split, targets: Array) -> RowTargets:
    """Keep targets (m, c) of the m answered rows of a split, in their order."""
    return RowTargets({SOFT: RowValues(targets, rank_answered(split))})


@dataclass(frozen=True, slots=True)
class SmoothedLabels:
    """The label, smoothed by `smoothing` over so many `classes`; `entropy` in nats is what it was chosen to have.

    Where a row has several labels, each is smoothed alone, over its two classes.
    """

    classes: int
    smoothing: float
    entropy: float
    tau: float
    phi: Phi = "softmax"
    columns: Mapping[str, BatchColumn] = field(default_factory=dict)

    def give(self, batch: Batch) -> Outputs:
        """Give those of a batch."""
        if self.phi == "sigmoid":
            return smooth_label_sets(batch.tensor(TARGET), self.smoothing, self.tau)
        return smooth_labels(batch.tensor(TARGET), self.classes, self.smoothing, self.tau)


def smooth_like(said: Array, tau: float, phi: Phi = "softmax") -> SmoothedLabels:
    """Smooth labels so that they have the mean entropy of Phi(said / tau), (n, classes); several labels, each alone."""
    classes = said.shape[1]
    if phi == "sigmoid":
        entropy = measure_set_entropy(said, tau)
        return SmoothedLabels(classes, match_smoothing(entropy / classes, 2), entropy, tau, phi)
    entropy = measure_entropy(said, tau)
    return SmoothedLabels(classes, match_smoothing(entropy, classes), entropy, tau)


def measure_set_entropy(logits: Array, tau: float = 1.0) -> float:
    """Measure the mean over rows of the entropies of sigmoid(logits / tau), summed over labels, in nats."""
    total = 0.0
    for rows in cut_blocks(*logits.shape):
        z = (logits[rows] / tau).astype(np.float64)
        total += float((np.logaddexp(0, z) - z / (1 + np.exp(-z))).sum())
    return total / len(logits)


def measure_entropy(logits: Array, tau: float = 1.0) -> float:
    """Measure the mean over rows of the entropy of softmax(logits / tau), in nats."""
    entropies = []
    for rows in cut_blocks(*logits.shape):
        logs = (logits[rows] / tau).astype(np.float64)
        logs = logs - logs.max(axis=1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
        entropies.append(-(np.exp(logs) * logs).sum(axis=1))
    return float(np.concatenate(entropies).mean())


def match_smoothing(entropy: float, classes: int) -> float:
    """Find the smoothing s whose distribution, 1 - s + s/c on the label and s/c elsewhere, has this entropy in nats.

    The entropy grows with s, from 0 to log c at s = 1, so bisection finds it. Source: Szegedy et al. (2016), section 7.
    """
    low, high = _LEAST_SMOOTHING, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _measure_smoothed(middle, classes) < entropy else (low, middle)
    return (low + high) / 2


def _measure_smoothed(smoothing: float, classes: int) -> float:
    other = smoothing / classes
    own = 1 - smoothing + other
    return float(-(own * np.log(own) + (classes - 1) * other * np.log(other)))


def smooth_labels(target: Tensor, classes: int, smoothing: float, tau: float) -> Outputs:
    """Give targets of class indices (n,), for both heads: logits whose softmax at tau is the smoothed label.

    They are natural log-probabilities, too, of a distribution that misses nothing.
    """
    share = torch.full((len(target), classes), smoothing / classes, device=target.device)
    share[torch.arange(len(target), device=target.device), target] += 1 - smoothing
    logits = (tau * share.log()).log_softmax(1)
    return Outputs(logits, logits, logits.new_zeros(len(target), 0))


def smooth_label_sets(target: Tensor, smoothing: float, tau: float) -> Outputs:
    """Give targets of booleans (n, c), for both heads: of each label, smoothed over being there and not.

    They are logits whose sigmoid at tau is 1 - smoothing/2 where the label is there, and smoothing/2 elsewhere.
    """
    logit = tau * (math.log1p(-smoothing / 2) - math.log(smoothing / 2))
    logits = torch.where(target, logit, -logit)
    return Outputs(logits, logits, logits.new_zeros(len(target), 0))
