"""What else the test rows say of each variant, beside the score that is tested: a mean, its interval, and a difference.

A method's further measures are the splits `test_<name>` of row_scores.parquet, as agreement and nll of a student that
writes. They are shown, and decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill.compare.statistics import FEWEST_SEEDS, compare
from distill.runs.record import ROW_SCORES
from distill.scoring.intervals import Estimate, estimate_mean
from distill.scoring.metrics import SET_METRICS

Array = np.ndarray[Any, Any]

AGREEMENT = "agreement"  # the share of a row's tokens


def read_measures(folders: Sequence[Path], split: str) -> dict[str, Array]:
    """Read the further measures of a split's rows by name, each (seeds, rows); those that all runs have alike."""
    tables = [pq.read_table(folder / ROW_SCORES) for folder in folders]
    found: dict[str, Array] = {}
    for name in pc.unique(tables[0]["split"]).to_pylist():
        if name.startswith(f"{split}_"):
            own = [table.filter(pc.equal(table["split"], name)) for table in tables]
            if all(each["row"].equals(own[0]["row"]) for each in own):
                found[name.removeprefix(f"{split}_")] = np.stack([each["score"].to_numpy() for each in own])
    return found


def estimate(scores: Array, least: float = -np.inf, most: float = np.inf) -> Estimate:
    """Estimate a mean of scores (seeds, rows), which is between `least` and `most`, and so is its interval.

    The interval counts the seeds as a sample where they are not too few.
    """
    if len(scores) < FEWEST_SEEDS:
        found = estimate_mean(scores.mean(axis=0))
    else:
        tested = compare(scores, np.zeros_like(scores))
        found = Estimate(tested.mean, tested.low, tested.high)
    return Estimate(found.mean, max(found.low, least), min(found.high, most))


def find_bounds(measure: str, scores: Array) -> tuple[float, float]:
    """Find what a measure's mean cannot pass: 0 and 1 where it is a share, of rows, tokens or labels."""
    is_share = measure in (AGREEMENT, *SET_METRICS) or np.isin(scores, (0.0, 1.0)).all()
    return (0.0, 1.0) if is_share else (-np.inf, np.inf)


def describe_measures(measures: Mapping[str, Mapping[str, Array]], baseline: str) -> list[dict[str, Any]]:
    """Describe the measures of each variant, a line each, and how they differ from those of the variant `baseline`."""
    lines = []
    for variant, own in measures.items():
        for name, scores in own.items():
            other = measures[baseline].get(name)
            least, most = find_bounds(name, scores)
            comparable = variant != baseline and other is not None and other.shape == scores.shape
            lines.append(
                {
                    "variant": variant,
                    "measure": name,
                    **asdict(estimate(scores, least, most)),
                    "against": asdict(estimate(scores - other, -most, most))
                    if comparable and other is not None
                    else None,
                }
            )
    return lines
