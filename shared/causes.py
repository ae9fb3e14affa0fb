"""Counts causes of failures, however many different ones there are: the frequent ones survive."""

from collections import Counter
from collections.abc import Iterable

COUNTED_CAUSES = 10_000  # that are held at once


def count_causes(counts: Counter[str], causes: Iterable[str]) -> None:
    """Add `causes` to `counts`, which keeps its more frequent half where too many differ (each names its row, say)."""
    counts.update(causes)
    if len(counts) > COUNTED_CAUSES:
        frequent = dict(counts.most_common(COUNTED_CAUSES // 2))
        counts.clear()
        counts.update(frequent)
