"""The twelve tasks of ARMADA as files of the hub's layout, columns and names, with rows that a test makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

GLUE, SUPERGLUE = "nyu-mll/glue", "aps/super_glue"
# The repository, the columns of text, and how many labels there are (0: a number).
LAYOUT: Mapping[str, tuple[str, tuple[str, ...], int]] = {
    "cola": (GLUE, ("sentence",), 2),
    "mrpc": (GLUE, ("sentence1", "sentence2"), 2),
    "rte": (GLUE, ("sentence1", "sentence2"), 2),
    "stsb": (GLUE, ("sentence1", "sentence2"), 0),
    "cb": (SUPERGLUE, ("premise", "hypothesis"), 3),
    "copa": (SUPERGLUE, ("premise", "choice1", "choice2", "question"), 2),
    "boolq": (SUPERGLUE, ("question", "passage"), 2),
    "wic": (SUPERGLUE, ("word", "sentence1", "sentence2"), 2),
    "mnli": (GLUE, ("premise", "hypothesis"), 3),
    "qnli": (GLUE, ("question", "sentence"), 2),
    "qqp": (GLUE, ("question1", "question2"), 2),
    "sst2": (GLUE, ("sentence",), 2),
}
SPLITS: Mapping[str, tuple[str, ...]] = {
    "mnli": ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
}
SIGNS = ("bad", "good", "fine")  # one a label, in the first text
FILLERS = ("film", "plot", "actor", "scene", "the", "and", "so")


def write_hub(folder: Path, rows: Mapping[str, int], *, hidden: bool = True) -> None:
    """Write all tasks into a mirror of the hub; `rows` are those of train, validation and test.

    The labels of test splits are -1, as the hub hides them, unless not `hidden`.
    """
    for task in LAYOUT:
        for split in SPLITS.get(task, ("train", "validation", "test")):
            kind = split.partition("_")[0]
            write_split(folder, task, split, rows[kind], hidden=hidden and kind == "test")


def write_split(folder: Path, task: str, split: str, rows: int, *, hidden: bool) -> None:
    """Write one split of a task as one Parquet file."""
    repository, texts, labels = LAYOUT[task]
    made = [make_row(task, split, number, texts, labels) for number in range(rows)]
    if hidden:
        made = [{**row, "label": -1 if labels else -1.0} for row in made]
    path = folder / "datasets" / repository / task / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"label": pl.Int64() if labels else pl.Float32(), "idx": pl.Int32()}
    pl.DataFrame(made, schema_overrides=types).write_parquet(path)


def make_row(task: str, split: str, number: int, texts: tuple[str, ...], labels: int) -> dict[str, Any]:
    """Make one row, whose label shows in the first text; its number makes the texts its own."""
    value = number % (labels or 6)
    fillers = [FILLERS[(number + place) % len(FILLERS)] for place in range(3)]
    first = f"{SIGNS[value % 3]} {' '.join(fillers)} {split} {number}"
    row: dict[str, Any] = {name: first if place == 0 else f"{name} {number}" for place, name in enumerate(texts)}
    if task == "copa":
        row["question"] = ("cause", "effect")[number % 2]
    if task == "wic":
        row |= {"start1": 0, "start2": 0, "end1": 3, "end2": 3}
    return {**row, "idx": number, "label": value if labels else float(value)}
