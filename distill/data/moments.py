"""Mean and deviation of many vectors, a block of rows after the other; of a sample with its error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.columns import Array

_COLUMNS = 4096  # that are looked at together: in float64 a block takes four times what it takes in float16


class Moments:
    """The mean (d,) and the sum of squared deviations (d,) of the rows that were added, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(width), np.zeros(width)

    @property
    def deviation(self) -> Array:
        """The standard deviation (d,), of at least one row."""
        return np.asarray(np.sqrt(self.squares / self.count))

    def add(self, block: Array) -> None:
        """Count some rows, (n, d)."""
        total = self.count + len(block)
        for first in range(0, len(self.mean), _COLUMNS):
            columns = slice(first, first + _COLUMNS)
            values = block[:, columns].astype(np.float64)
            mean = values.mean(axis=0)
            squares = ((values - mean) ** 2).sum(axis=0)
            self._merge(columns, len(block), total, mean, squares)
        self.count = total

    def merge(self, other: "Moments") -> None:
        """Count the rows that another counted."""
        if other.count:
            total = self.count + other.count
            self._merge(slice(None), other.count, total, other.mean, other.squares)
            self.count = total

    def _merge(self, columns: slice, count: int, total: int, mean: Array, squares: Array) -> None:
        """Merge two sets' moments. Source: Chan, Golub and LeVeque (1979)."""
        difference = mean - self.mean[columns]
        self.squares[columns] += squares + difference**2 * (self.count * count / total)
        self.mean[columns] += difference * (count / total)


@dataclass(frozen=True, slots=True)
class SampleError:
    """Standard errors of a sample's moments, root mean square over dimensions.

    That of a mean is in standard deviations, that of a deviation is a share of it.
    """

    mean: float
    deviation: float


def measure_error(groups: Sequence[Moments], share: float) -> SampleError:
    """Measure the error of the moments of all `groups` together, by how the groups differ.

    Each is a random part of the sample of about the same size, and the sample is a `share` of all rows. Rows that lie
    together in a shard may be alike, so that their number alone does not say how sure a mean is. Source: the method of
    random groups (Wolter, Introduction to Variance Estimation, 2007, chapter 2).
    """
    means, deviations = (np.stack([getattr(each, name) for each in groups]) for name in ("mean", "deviation"))
    middle = deviations.mean(axis=0)
    varies = middle > 0
    left = np.sqrt((1 - share) / len(groups))
    errors = [
        left * np.sqrt(np.mean((part.std(axis=0, ddof=1)[varies] / middle[varies]) ** 2)) if varies.any() else 0.0
        for part in (means, deviations)
    ]
    return SampleError(*map(float, errors))
