"""Rows of a toy task, for the tests of stage 2."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.example import Example
from shared.schema import Answer, Row, Status

WORDS = ["bad", "awful", "poor", "good", "fine", "great", "film", "plot", "actor", "scene", "a", "the", "and", "so"]
WIDTH = 12  # of the teacher's vectors

WriteFolder = Callable[..., Path]


def make_rows(
    count: int, seed: int = 0, *, regression: bool = False, pairs: bool = False, vectors: bool = True, classes: int = 2
) -> list[Row]:
    """Rows whose label shows in one word of the text, and in the teacher's vector under noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(classes, WIDTH))
    rows = []
    for i in range(count):
        label = int(rng.integers(classes))
        words = [WORDS[int(j)] for j in rng.integers(6, len(WORDS), rng.integers(1, 9))]
        words.insert(int(rng.integers(len(words) + 1)), WORDS[3 * label % 6 + int(rng.integers(3))])
        example = Example(
            sample_id=f"{seed}-{i}",
            text=" ".join(words),
            text_pair=" ".join(reversed(words)) if pairs else None,
            label=None if regression else label,
            target=5.0 * label + float(rng.normal(scale=0.1)) if regression else None,
        )
        vector = (directions[label] + rng.normal(scale=0.5, size=WIDTH)) * 3 + 7 if vectors else None
        answer = Answer(Status.OK, embedding=vector, attempts=1)
        rows.append(Row(example, f"{seed:032x}{i:032x}", 0, answer))
    return rows


def with_answer(row: Row, **changes: Any) -> Row:
    """The same row with another answer."""
    return replace(row, answer=replace(row.answer, **changes))


def without_label(row: Row) -> Row:
    """The same row as an unlabelled one."""
    return replace(row, example=replace(row.example, label=None, target=None))
