"""Which head a student learns from: cross-validation on the labelled rows alone, by likelihood.

The likelihood of held-out labels is small for a head that is wrong and for one that is too sure, so it chooses a
calibrated one; what bounds a student is how well its soft targets are calibrated (arXiv:2407.18041).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distill.models.teacher_head import (
    CHECK_EVERY,
    Coordinates,
    Fit,
    Head,
    Layers,
    Ridge,
    RidgeLogistic,
    SmallNetwork,
    apply_layers,
    log_softmax,
)
from distill.phi import Phi

Array = np.ndarray[Any, Any]

OWN = "own distribution"
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
UNTRIED = 0.1  # the strength where there are too few rows to choose one
FOLDS = 5
LEAST_ROWS = 2 * FOLDS  # for a cross-validation
MANY_ROWS = 200  # from which on a network is tried, and a temperature fitted
NETWORK_DECAYS, NETWORK_STEPS = (1.0,), 100


@dataclass(frozen=True, slots=True)
class Chosen:
    """What won: the `head` and the `signal` that it reads, or None and OWN where that is the teacher's distribution.

    `held_out` are the logits (n, c), or values (n, 1), that it gives to the rows it was fitted on, by heads fitted
    without them. `description` is what a report says of it.
    """

    signal: str
    head: Head | None
    held_out: Array
    description: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Tried:
    name: str
    signal: str
    settings: dict[str, float]
    fit: Fit | None  # None of OWN, which is not fitted
    held_out: Array
    loss: float


def choose_head(
    signals: Mapping[str, Coordinates],
    own: Array | None,
    target: Array,
    outputs: int,
    seed: int,
    *,
    phi: Phi = "softmax",
    networks: bool = True,
) -> Chosen:
    """Choose among heads over each of the signals' coordinates of n rows, and the teacher's `own` logs (n, c) if given.

    `target` are class indices (n,), probabilities (n, c), or values (n,) where there is 1 output; with `phi` "sigmoid"
    the labels (n, c) that each row has, or their probabilities, and then `own` are logits. The least mean
    negative log-likelihood of held-out rows wins, or square error. Where there are fewer than LEAST_ROWS rows the
    teacher's own is taken, or else a head of the strength UNTRIED, whose `held_out` are then not held out.
    """
    if len(target) < LEAST_ROWS:
        return _choose_untried(signals, own, target, outputs, phi)
    phi = phi if outputs > 1 else "identity"
    folds = assign_folds(_stratify(target, phi), seed)
    tried = [] if own is None else [_Tried(OWN, OWN, {}, None, own, measure_loss(own, target, phi))]
    for signal, coordinates in signals.items():
        tried += _try_ridges(signal, coordinates.z, target, outputs, phi, folds)
        if networks and outputs > 1 and len(target) >= MANY_ROWS:
            tried += _try_networks(signal, coordinates.z, target, outputs, phi, folds, seed)
    best = min(tried, key=lambda each: each.loss)
    head, held_out, settings = None, best.held_out, dict(best.settings)
    if best.fit is not None:
        head = signals[best.signal].unfold(best.fit(signals[best.signal].z, target))
        if outputs > 1 and len(target) >= MANY_ROWS:
            settings["temperature"] = find_temperature(held_out, target, phi)
            head, held_out = head.cool(settings["temperature"]), held_out / settings["temperature"]
    losses: dict[str, float] = {}
    for each in tried:
        name = each.name if each.name == OWN else f"{each.name} on {each.signal}"
        losses[name] = min(losses.get(name, np.inf), each.loss)
    return Chosen(best.signal, head, held_out, _describe(best.name, best.signal, settings, FOLDS, losses))


def _choose_untried(
    signals: Mapping[str, Coordinates], own: Array | None, target: Array, outputs: int, phi: Phi
) -> Chosen:
    if own is not None:
        return Chosen(OWN, None, own, _describe(OWN, OWN, {}, 0, {}))
    signal, coordinates = next(iter(signals.items()))
    layers = _make_ridge(UNTRIED, outputs, phi)(coordinates.z, target)
    said = apply_layers(layers, coordinates.z)
    return Chosen(signal, coordinates.unfold(layers), said, _describe("ridge", signal, {"strength": UNTRIED}, 0, {}))


def _describe(
    name: str, signal: str, settings: Mapping[str, float], folds: int, losses: Mapping[str, float]
) -> dict[str, Any]:
    return {"kind": name, "signal": signal, **settings, "folds": folds, "held_out_loss": dict(losses)}


def _stratify(target: Array, phi: Phi) -> Array:
    if phi == "identity":
        return np.zeros(len(target), np.int64)
    if phi == "sigmoid":
        return np.asarray((target > 0.5).sum(axis=1))  # how many labels a row has
    return np.asarray(target if target.ndim == 1 else target.argmax(axis=1))


def assign_folds(strata: Array, seed: int) -> Array:
    """Assign each row a fold, so that each stratum is spread evenly over the FOLDS; which rows, the seed chooses."""
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    folds = np.empty(len(strata), np.int64)
    folds[order] = np.arange(len(strata)) % FOLDS
    return folds


def _make_ridge(strength: float, outputs: int, phi: Phi) -> Fit:
    return RidgeLogistic(outputs, strength, phi) if outputs > 1 else Ridge(strength)


def _try_ridges(signal: str, z: Array, target: Array, outputs: int, phi: Phi, folds: Array) -> list[_Tried]:
    """Try strengths from the largest down, until two in a row were worse than the last: weak ones take longest."""
    tried: list[_Tried] = []
    for strength in STRENGTHS:
        fit = _make_ridge(strength, outputs, phi)
        held_out = cross_fit(fit, z, target, outputs, folds)
        loss = measure_loss(held_out, target, phi)
        tried.append(_Tried("ridge", signal, {"strength": strength}, fit, held_out, loss))
        losses = [each.loss for each in tried[-3:]]
        if len(losses) == 3 and losses[0] < losses[1] < losses[2]:
            break
    return tried


def cross_fit(fit: Fit, z: Array, target: Array, outputs: int, folds: Array) -> Array:
    """Give each row what a fit on the other folds says of it, (n, outputs)."""
    held_out = np.empty((len(z), outputs))
    for fold in range(FOLDS):
        inside = folds == fold
        held_out[inside] = apply_layers(fit(z[~inside], target[~inside]), z[inside])
    return held_out


def _try_networks(
    signal: str, z: Array, target: Array, outputs: int, phi: Phi, folds: Array, seed: int
) -> list[_Tried]:
    tried = []
    for decay in NETWORK_DECAYS:
        whole = SmallNetwork(outputs, decay, NETWORK_STEPS, seed)
        held_out = np.empty((NETWORK_STEPS // CHECK_EVERY, len(z), outputs))
        for fold in range(FOLDS):
            inside = folds == fold
            traced: Sequence[Layers] = whole.trace(z[~inside], target[~inside])
            held_out[:, inside] = [apply_layers(layers, z[inside]) for layers in traced]
        for index, said in enumerate(held_out):
            steps = (index + 1) * CHECK_EVERY
            fit = SmallNetwork(outputs, decay, steps, seed)
            settings = {"decay": decay, "steps": steps}
            tried.append(_Tried("network", signal, settings, fit, said, measure_loss(said, target, phi)))
    return tried


def measure_loss(said: Array, target: Array, phi: Phi) -> float:
    """Give the mean negative log-likelihood of classes, or of label sets, under logits, or the mean square error."""
    if phi == "identity":
        return float(np.square(said[:, 0] - target).mean())
    if phi == "sigmoid":
        return float((np.logaddexp(0, said) - target * said).sum(axis=1).mean())
    if target.ndim == 2:
        return float(-(target * log_softmax(said)).sum(axis=1).mean())
    return float(-log_softmax(said)[np.arange(len(target)), target].mean())


def find_temperature(logits: Array, target: Array, phi: Phi = "softmax") -> float:
    """Find the temperature, between 1/4 and 4, with the least mean negative log-likelihood (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    measure = partial(_measure_cooled, logits, target, phi)
    return float(np.exp(minimize_scalar(measure, bounds=(-np.log(4), np.log(4)), method="bounded").x))


def _measure_cooled(logits: Array, target: Array, phi: Phi, log_temperature: float) -> float:
    return measure_loss(logits / np.exp(log_temperature), target, phi)
