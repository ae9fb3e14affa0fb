"""A head on the teacher's answers: label logits, or values, by ridge regression or by a small network.

It is fitted on a few labelled rows, and how strongly it is held back is chosen on them: see
distill.models.head_selection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from distill.phi import Phi

Array = np.ndarray[Any, Any]

HIDDEN, RATE, CHECK_EVERY = 64, 1e-3, 10  # of the network: units, learning rate, steps between two looks at it
MOST_INPUTS = 32  # principal coordinates that the network reads
_LEAST_SHARE = 1e-6  # of the largest eigenvalue: a direction below it is rounding


@dataclass(frozen=True, slots=True)
class Head:
    """Layers of weights (d, k) and biases (k,) with rectified units between, over vectors standardised first.

    All of it is float32; what it gives are logits (m, c), or values (m, 1).
    """

    mean: Array
    std: Array
    layers: tuple[tuple[Array, Array], ...]

    def apply(self, x: Array) -> Array:
        """(m, d) -> (m, c)."""
        hidden = (x.astype(np.float32) - self.mean) / self.std
        for index, (weight, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0) if index else hidden) @ weight + bias
        return np.asarray(hidden)

    def cool(self, temperature: float) -> "Head":
        """Divide what it gives by a temperature."""
        weight, bias = self.layers[-1]
        return replace(self, layers=(*self.layers[:-1], (weight / temperature, bias / temperature)))


@dataclass(frozen=True, slots=True)
class Coordinates:
    """n rows x (n, d) in the r <= min(n, d) coordinates that they span: z (n, r) in float64, of mean square norm 1.

    The basis (d, r) is orthonormal, so that a ridge penalty on coordinates is one on the d dimensions, and rows wider
    than many cost n x d once and n x r from there on. The largest coordinates come last.
    """

    mean: Array
    std: Array
    norm: float
    basis: Array
    z: Array

    def unfold(self, layers: Sequence[tuple[Array, Array]]) -> Head:
        """Make a head on the d dimensions of layers over the coordinates; the first may read only the last of them."""
        (weight, bias), *others = layers
        over_all = self.basis[:, -len(weight) :] @ (weight / self.norm).astype(np.float32)
        rest = ((w.astype(np.float32), b.astype(np.float32)) for w, b in others)
        return Head(self.mean, self.std, ((over_all, bias.astype(np.float32)), *rest))


def span_rows(x: Array, mean: Array, std: Array) -> Coordinates:
    """Find the coordinates that rows x (n, d) span, standardised by `mean` and `std` (d,).

    The matrix of products is decomposed, n x n or d x d, whichever is smaller. Beside x there is one more array of its
    size.
    """
    rows = x.astype(np.float32)
    rows -= mean
    rows /= std
    count, width = rows.shape
    norm = max(float(np.sqrt(np.square(rows, dtype=np.float64).sum() / count)), 1e-12)
    rows /= norm
    products = (rows @ rows.T if count < width else rows.T @ rows).astype(np.float64)
    values, vectors = np.linalg.eigh(products)
    kept = values > _LEAST_SHARE * values[-1]
    if not kept.any():
        kept[-1:] = True  # all rows are the mean: one coordinate, of zeros
    basis = vectors[:, kept]
    if count < width:
        basis = rows.T @ (basis / np.sqrt(np.maximum(values[kept], 1e-12))).astype(np.float32)
    basis = basis.astype(np.float32)
    return Coordinates(mean, std, norm, basis, (rows @ basis).astype(np.float64))


Layers = list[tuple[Array, Array]]
Fit = Callable[[Array, Array], Layers]  # of coordinates (n, r) and their targets (n,)


def apply_layers(layers: Layers, z: Array) -> Array:
    """Give what layers over coordinates (m, r) come to, (m, c)."""
    hidden = z[:, -len(layers[0][0]) :]
    for index, (weight, bias) in enumerate(layers):
        hidden = (np.maximum(hidden, 0) if index else hidden) @ weight + bias
    return np.asarray(hidden)


@dataclass(frozen=True, slots=True)
class RidgeLogistic:
    """Multinomial logistic regression by L-BFGS: mean cross-entropy + strength / 2 |weight|^2.

    With `phi` "sigmoid" it is one of two classes for each label: the cross-entropy is summed over labels.
    """

    classes: int
    strength: float
    phi: Phi = "softmax"

    def __call__(self, z: Array, target: Array) -> Layers:
        """Fit class indices (n,), or the probabilities of classes, or of labels (n, c)."""
        from scipy.optimize import minimize

        wanted = np.eye(self.classes)[target] if target.ndim == 1 else target.astype(np.float64)
        prior = np.log(np.maximum(wanted.sum(0), 0.5))  # a class without a row is rare, not impossible
        if self.phi == "sigmoid":
            prior = prior - np.log(np.maximum(len(wanted) - wanted.sum(0), 0.5))
        else:
            prior = prior - prior.mean()
        start = np.concatenate([np.zeros(z.shape[1] * self.classes), prior])
        options = {"maxiter": 500, "gtol": 1e-6, "maxcor": 20}
        found = minimize(self._measure, start, (z, wanted), method="L-BFGS-B", jac=True, options=options).x
        return [(found[: -self.classes].reshape(z.shape[1], self.classes), found[-self.classes :])]

    def _measure(self, flat: Array, z: Array, wanted: Array) -> tuple[float, Array]:
        weight, bias = flat[: -self.classes].reshape(z.shape[1], self.classes), flat[-self.classes :]
        said = z @ weight + bias
        if self.phi == "sigmoid":
            slope = (1 / (1 + np.exp(-said)) - wanted) / len(z)
            loss = (np.logaddexp(0, said) - wanted * said).sum() / len(z)
        else:
            logs = log_softmax(said)
            slope = (np.exp(logs) * wanted.sum(1, keepdims=True) - wanted) / len(z)
            loss = -(wanted * logs).sum() / len(z)
        loss += self.strength / 2 * (weight**2).sum()
        return float(loss), np.concatenate([(z.T @ slope + self.strength * weight).reshape(-1), slope.sum(0)])


@dataclass(frozen=True, slots=True)
class Ridge:
    """Linear regression in closed form: mean square error + strength |weight|^2."""

    strength: float

    def __call__(self, z: Array, target: Array) -> Layers:
        """Fit values (n,)."""
        mean, middle = z.mean(0), target.astype(np.float64).mean()
        centred = z - mean
        matrix = centred.T @ centred / len(z) + self.strength * np.eye(z.shape[1])
        weight = np.linalg.solve(matrix, centred.T @ (target - middle) / len(z))[:, None]
        return [(weight, middle - mean @ weight)]


@dataclass(frozen=True, slots=True)
class SmallNetwork:
    """A classifier with a layer of HIDDEN rectified units, by AdamW on all rows at once for `steps` steps."""

    classes: int
    decay: float
    steps: int
    seed: int

    def __call__(self, z: Array, target: Array) -> Layers:
        """Fit class indices (n,), or the labels (n, c) that each row has."""
        return self.trace(z, target)[-1]

    def trace(self, z: Array, target: Array) -> list[Layers]:
        """Give the network as it was after every CHECK_EVERY steps."""
        inputs = min(z.shape[1], MOST_INPUTS)
        x = torch.from_numpy(z[:, -inputs:] * inputs**0.5).float()
        y = torch.from_numpy(target)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            first, second = nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, self.classes)
            optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()], lr=RATE, weight_decay=self.decay)
            found = []
            for step in range(1, self.steps + 1):
                said = second(first(x).relu())
                if y.dtype == torch.bool:
                    loss = functional.binary_cross_entropy_with_logits(said, y.float(), reduction="sum") / len(y)
                else:
                    loss = functional.cross_entropy(said, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step % CHECK_EVERY == 0:
                    found.append([_read(first, inputs**0.5), _read(second, 1.0)])
        return found


def _read(layer: nn.Linear, scale: float) -> tuple[Array, Array]:
    return layer.weight.detach().double().numpy().T * scale, layer.bias.detach().double().numpy().copy()


def log_softmax(logits: Array) -> Array:
    """Give the logs of softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
