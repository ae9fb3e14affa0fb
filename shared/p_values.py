"""P-values of several tests, corrected for how many they are."""

from collections.abc import Sequence


def correct_holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's method (1979), in their order: the chance of any false claim stays below the level."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
