"""Controls that need something trained first: labels smoothed like a teacher's targets, a student that taught itself.

Both give the student soft targets in the teacher's place, without L_m: `Data.targets` of the training loop.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.compute.devices import Device
from distill.config import DistillConfig
from distill.data.batches import Batch, Source
from distill.data.split import Split
from distill.data.tokens import TextEncoder
from distill.data.vectors import Array, rank_answered
from distill.losses.objective import Objective
from distill.models.aligner import Aligner
from distill.models.outputs import Outputs
from distill.scoring.predict import predict, predict_aligner
from distill.training.loop import make_aligner_optimizer, pass_aligner

Targets = Callable[[Batch], Outputs]

_LEAST_SMOOTHING = 1e-6  # keeps the log of the smoothed label finite


# --- label smoothing, matched in entropy ---


def fit_smoothing(
    config: DistillConfig,
    objective: Objective,
    aligner: Aligner,
    labelled: Source,
    answered: Source,
    device: Device,
) -> tuple[Targets, dict[str, float]]:
    """Train the aligner as a run would, and give smoothed labels that are as uncertain as its soft targets are.

    The aligner makes as many passes as in a two-pass run. `answered` are the rows whose targets' entropy is measured.
    What is returned says so: `aligner_steps`, the mean `entropy` in nats at tau, and the `smoothing` that gives it.
    """
    optimizer = make_aligner_optimizer(config, aligner)
    steps = 0
    for index in range(config.aligner_pretraining + config.epochs):
        steps += pass_aligner(config, objective, aligner, optimizer, labelled, device, index)
    logits, _ = predict_aligner(aligner, answered, device)
    targets, fitted = smooth_like(logits, config.tau)
    return targets, {"aligner_steps": steps, **fitted}


def smooth_like(logits: Array, tau: float) -> tuple[Targets, dict[str, float]]:
    """Smoothed labels with the mean entropy of softmax(logits / tau), (n, classes); and that entropy and smoothing."""
    classes = logits.shape[1]
    entropy = measure_entropy(logits / tau)
    smoothing = match_smoothing(entropy, classes)

    def targets(batch: Batch) -> Outputs:
        return smooth_labels(batch.target, classes, smoothing, tau)

    return targets, {"entropy": entropy, "smoothing": smoothing}


def measure_entropy(logits: Array) -> float:
    """The mean over rows of the entropy of softmax(logits), in nats."""
    logs = logits.astype(np.float64)
    logs = logs - logs.max(axis=1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return float(-(np.exp(logs) * logs).sum(axis=1).mean())


def match_smoothing(entropy: float, classes: int) -> float:
    """The smoothing s whose distribution, 1 - s + s/c on the label and s/c on every other, has this entropy in nats.

    The entropy grows with s, from 0 to log c at s = 1, so bisection finds it. Source: Szegedy et al. (2016), section 7.
    """

    def entropy_of(smoothing: float) -> float:
        other = smoothing / classes
        own = 1 - smoothing + other
        return float(-(own * np.log(own) + (classes - 1) * other * np.log(other)))

    low, high = _LEAST_SMOOTHING, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy_of(middle) < entropy else (low, middle)
    return (low + high) / 2


def smooth_labels(target: Tensor, classes: int, smoothing: float, tau: float) -> Outputs:
    """Targets of class indices (n,): logits whose softmax at temperature tau is the smoothed label, for both heads.

    They are natural log-probabilities, too, of a distribution that misses nothing.
    """
    share = torch.full((len(target), classes), smoothing / classes, device=target.device)
    share[torch.arange(len(target), device=target.device), target] += 1 - smoothing
    logits = (tau * share.log()).log_softmax(1)
    return Outputs(logits, logits, logits.new_zeros(len(target), 0))


# --- self-training ---


def pseudo_label(model: Any, split: Split, answered: Source, encoder: TextEncoder, device: Device) -> Targets:
    """What a trained classifier itself says of all answered rows, as soft targets for both heads of the next student.

    They are natural log-probabilities, or values of a regression, and are kept in memory: 4 bytes each. Source of the
    method: Furlanello et al. (2018), with one generation.
    """
    logits, _ = predict(model, answered, encoder, device)
    return look_up_targets(split, torch.from_numpy(logits).log_softmax(1).numpy() if logits.shape[1] > 1 else logits)


# --- targets by row ---


def look_up_targets(split: Split, kept: Array) -> Targets:
    """Targets that were made beforehand, for both heads: `kept` (m, c) has one for each answered row of the split."""
    place = rank_answered(split)

    def targets(batch: Batch) -> Outputs:
        own = torch.from_numpy(kept[place[batch.number]]).to(batch.target.device, non_blocking=True)
        return Outputs(own, own, own.new_zeros(len(own), 0))

    return targets
