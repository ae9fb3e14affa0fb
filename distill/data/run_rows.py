"""The rows of one run: those that it trains on, with the labels that it may see, and those that score it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.config import TEXT_KINDS, DistillConfig
from distill.data.answers import Answers, TeacherShards, join_teachers
from distill.data.split import Bools, Split, keep_labels, read_split
from shared.errors import DataError
from shared.shards.manifest import Manifest

TRAIN, DEV, TEST = "train", "validation", "test"


@dataclass(frozen=True, slots=True)
class RunRows:
    """The splits of a run, and all teachers' answers to the rows that it trains on.

    Of `train` those rows are answered that every teacher answered, and those labels count that are `visible`. `dev`
    chooses the best epoch; `test` is None where the shards have no labelled rows of it.
    """

    teachers: tuple[TeacherShards, ...]
    train: Split
    answers: tuple[Answers, ...]
    visible: Bools
    dev: Split
    test: Split | None

    @property
    def folder(self) -> Path:
        """The first teacher's folder, which says what the rows, their labels and their splits are."""
        return self.teachers[0].folder

    @property
    def manifest(self) -> Manifest:
        """The first teacher's manifest."""
        return self.teachers[0].manifest

    @property
    def dev_rows(self) -> int:
        """How many rows choose the best epoch."""
        return int(mark_scored(self.dev).sum())


def read_rows(config: DistillConfig, teachers: tuple[TeacherShards, ...]) -> RunRows:
    """Look through the light columns of all splits.

    Raises what read_split and join_teachers do, and DataError where training may see no label, or labels of one kind
    only, or where no row chooses the best epoch.
    """
    folder, manifest = teachers[0].folder, teachers[0].manifest
    train, answers = join_teachers(teachers, read_split(folder, manifest, TRAIN))
    visible = choose_visible(train, config.data.labels, config.training.seed, distinct=manifest.kind not in TEXT_KINDS)
    dev = read_split(folder, manifest, DEV)
    if not mark_scored(dev).any():
        raise DataError(f"{folder} has no labelled rows in the split {DEV!r}, which chooses the best epoch")
    test = read_split(folder, manifest, TEST) if manifest.shards_of(TEST) else None
    if test is not None and not mark_scored(test).any():
        test = None
    return RunRows(teachers, train, answers, visible, dev, test)


def choose_visible(split: Split, labels: int | None, seed: int, *, distinct: bool = True) -> Bools:
    """Mark the rows that training may see the label of.

    Raises DataError where there is none, or one label only, unless they need not be `distinct`.
    """
    visible = split.labelled & split.answered if labels is None else keep_labels(split, labels, seed)
    if not visible.any():
        raise DataError(f"the split {split.name} has no row that has both a label and an answer (status ok)")
    if distinct and np.ptp(split.target[visible]) == 0:
        raise DataError(
            f"the {int(visible.sum()):,} labels of the split {split.name} that training may see are all the same: "
            "there is nothing to tell apart. Keep more with --labels, or harvest more rows"
        )
    return visible


def mark_scored(split: Split) -> Bools:
    """Mark the rows that score a student: all labelled examples, once each, whether or not the teacher answered."""
    return split.labelled & split.first


def describe_rows(rows: RunRows, *, sees_unlabelled: bool) -> str:
    """Say in one line which training rows are used, and which are not."""
    answered, labelled = int(rows.train.answered.sum()), int(rows.visible.sum())
    line = f"{rows.manifest.task}: {answered:,} training rows, {labelled:,} with a label"
    if dropped := len(rows.train) - answered:
        line += f"; {dropped:,} left out, because their answer is not whole (status is not ok)"
    if not sees_unlabelled:
        line += f"; no teacher: the student sees the {labelled:,} labelled rows"
    return line
