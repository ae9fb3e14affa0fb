"""The rows of one run: those that it trains on, with the labels that it may see, and those that score it.

GLUE and SuperGLUE hide the labels of their test rows. Where the test split has no labelled row, others are held out in
its place: half of validation, or a fifth of train where validation is small. Whether a row is among them depends on its
sample_id alone, so neither on the order of rows, nor on how many were harvested, nor on the seed.

Where no row of any split has a label, the teacher's most probable one stands in for it: a student can be trained on
texts that nobody labelled, and its scores are agreement with the teacher.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from distill.config import TEXT_KINDS, DistillConfig
from distill.data.answers import Answers, TeacherShards, join_teachers
from distill.data.split import Bools, Split, keep_labels, label_by_teacher, read_split
from shared.errors import DataError, UsageError
from shared.shards.manifest import Manifest
from shared.shards.read import read_row_groups
from shared.stores.ahead import fetch_ahead

TRAIN, DEV, TEST = "train", "validation", "test"

OF_VALIDATION, OF_TRAIN = 0.5, 0.2  # the shares that are held out
SMALL = 100  # labelled validation rows, below which they are not shared out
BY_TEACHER = "no row has a label: the teacher's most probable ones stand in, and scores are agreement with the teacher"
FEWEST = 20  # held-out rows; fewer score nothing, and are not held out


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows that are learnt from, those that choose, and those that are reported; no row is in two of them.

    `test_from` and `dev_from` are the splits that `test` and `dev` were taken from. `test` is None where no split has
    labelled rows to spare.
    """

    train: Split
    dev: Split
    test: Split | None
    dev_from: str
    test_from: str | None

    @property
    def by_teacher(self) -> bool:
        """Whether the labels of all of them are the teacher's."""
        return self.train.by_teacher

    @property
    def held_out(self) -> int:
        """How many labelled rows of train are not learnt from."""
        parts = [(self.dev, self.dev_from), (self.test, self.test_from)]
        return sum(int(part.labelled.sum()) for part, name in parts if part is not None and name == TRAIN)

    def describe(self) -> str | None:
        """Say in one line which labels and rows stand in for those that there are not; None where none do."""
        said = [BY_TEACHER] if self.by_teacher else []
        if self.test is not None and self.test_from not in (None, TEST):
            rest = "choose nothing" if self.test_from == DEV else "are not learnt from"
            rows = int(mark_scored(self.test).sum())
            said.append(f"the test split has no labels: {rows:,} rows of {self.test_from}, picked by a hash, {rest}")
        if self.dev_from != DEV:
            rows = int(mark_scored(self.dev).sum())
            said.append(f"validation has no labels: {rows:,} other rows of {self.dev_from} choose the epoch")
        return "; ".join(said) or None


def read_splits(folder: Path, manifest: Manifest) -> Splits:
    """Look through the light columns of all splits, and hold rows out where the test split has no labels.

    Raises what read_split does, and DataError where no row can choose the best epoch.
    """
    kept = [TRAIN, *(name for name in (DEV, TEST) if manifest.shards_of(name))]
    read = {name: read_split(folder, manifest, name) for name in kept}
    if manifest.kind in ("classification", "multilabel") and not any(split.labelled.any() for split in read.values()):
        read = {name: label_by_teacher(split) for name, split in read.items()}
    return _share_out(folder, manifest, read)


def _share_out(folder: Path, manifest: Manifest, read: Mapping[str, Split]) -> Splits:
    """Choose what each row is for; `read` are the splits by name."""
    train = read[TRAIN]
    dev, test = _keep_labelled(read.get(DEV)), _keep_labelled(read.get(TEST))
    if test is None and dev is not None and mark_scored(dev).sum() >= SMALL:
        held = mark_held_out(dev, 0.0, OF_VALIDATION)
        return Splits(train, _leave_labels(dev, ~held), _leave_labels(dev, held), DEV, DEV)
    dev_from, test_from = DEV, TEST if test is not None else None
    if test is None:
        test = _take(train, 0.0, OF_TRAIN)
        test_from = None if test is None else TRAIN
    if dev is None:
        dev, dev_from = _take(train, OF_TRAIN, 2 * OF_TRAIN), TRAIN
        if dev is None:
            read_split(folder, manifest, DEV)  # says so where there is none
            raise DataError(
                f"{folder} has no labelled rows in the split {DEV!r}, which chooses the best epoch: give some a label "
                f"in the file, or about {round(FEWEST / OF_TRAIN)} rows of train, of which some then take their "
                "place. `harvest run` follows the file, and asks nobody again"
            )
    learnt = train
    for part, origin in ((dev, dev_from), (test, test_from)):
        if part is not None and origin == TRAIN:
            rest = ~part.labelled
            learnt = replace(learnt, labelled=learnt.labelled & rest, answered=learnt.answered & rest)
    return Splits(learnt, dev, test, dev_from, test_from)


def find_scored(folder: Path, manifest: Manifest, name: str) -> Split:
    """Find the rows of a split that score a student: of validation those that choose, of test those that are reported.

    Raises what read_splits does.
    """
    if name in (DEV, TEST) and manifest.shards_of(TRAIN):
        test = read_split(folder, manifest, TEST) if manifest.shards_of(TEST) else None
        if _keep_labelled(test) is None:
            splits = read_splits(folder, manifest)
            found = splits.dev if name == DEV else splits.test
            if found is not None:
                return found
    return read_split(folder, manifest, name)


def _keep_labelled(split: Split | None) -> Split | None:
    """Keep a split that has rows to score by; None for others."""
    return split if split is not None and mark_scored(split).any() else None


def _take(train: Split, low: float, high: float) -> Split | None:
    """Take the held-out rows of train; None where they are too few."""
    part = _leave_labels(train, mark_held_out(train, low, high))
    return part if mark_scored(part).sum() >= FEWEST else None


def _leave_labels(split: Split, rows: Bools) -> Split:
    """Leave only some rows their labels."""
    return replace(split, labelled=split.labelled & rows)


def mark_held_out(split: Split, low: float, high: float) -> Bools:
    """Mark the labelled rows whose sha256 of the sample_id, as a share of all, lies from `low` to below `high`.

    All draws of an example go together.
    """
    shares = [
        int.from_bytes(sha256(f"held out\0{sample_id}".encode()).digest()[:8], "big") / 2**64
        for table in read_row_groups(fetch_ahead(split.groups, ["sample_id"]), ["sample_id"])
        for sample_id in table["sample_id"].to_pylist()
    ]
    share = np.array(shares)
    return split.labelled & (share >= low) & (share < high)


@dataclass(frozen=True, slots=True)
class RunRows:
    """The splits of a run, and all teachers' answers to the rows that it trains on.

    Of `train` those rows are answered that every teacher answered, and those labels count that are `visible`. `dev`
    chooses the best epoch; `test` is None where there are no labelled rows to spare for it. `splits` are as they were
    read, before teachers were joined.
    """

    teachers: tuple[TeacherShards, ...]
    splits: Splits
    train: Split
    answers: tuple[Answers, ...]
    visible: Bools

    @property
    def dev(self) -> Split:
        """The rows that choose the best epoch."""
        return self.splits.dev

    @property
    def test(self) -> Split | None:
        """The rows that are reported, and choose nothing."""
        return self.splits.test

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

    Raises what read_splits and join_teachers do, DataError where training may see no label, or labels of one kind only,
    and UsageError where the labels are the teacher's and the config is that of a student that should not know them.
    """
    manifest = teachers[0].manifest
    splits = read_splits(teachers[0].folder, manifest)
    if splits.by_teacher and config.role in ("undistilled", "control"):
        raise UsageError(
            f"{teachers[0].folder} has no row with a label, so the teacher's stand in, and a student that should know "
            f"nothing of the teacher ({config.name_variant(manifest.kind)}) would learn from them. Label some hundred "
            "rows, or train one that learns from the teacher; nothing was trained"
        )
    train, answers = join_teachers(teachers, splits.train)
    visible = choose_visible(train, config.data.labels, config.training.seed, distinct=manifest.kind not in TEXT_KINDS)
    return RunRows(teachers, splits, train, answers, visible)


def choose_visible(split: Split, labels: int | None, seed: int, *, distinct: bool = True) -> Bools:
    """Mark the rows that training may see the label of.

    Raises DataError where there is none, or one label only, unless they need not be `distinct`.
    """
    visible = split.labelled & split.answered if labels is None else keep_labels(split, labels, seed)
    if not visible.any():
        why = (
            ". Give some rows of it a label in the file: `harvest run` follows the file, and asks nobody again. "
            "(Labels of the teacher stand in only where no split has any, and the teacher gave label probabilities)"
        )
        why = "" if split.labelled.any() else why
        raise DataError(f"the split {split.name} has no row that has both a label and an answer (status ok){why}")
    seen = split.target[visible]
    if distinct and (seen == seen[0]).all():
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
    if dropped := len(rows.train) - answered - rows.splits.held_out:
        line += f"; {dropped:,} left out, because their answer is not whole (status is not ok)"
    if stands_in := rows.splits.describe():
        line += f"; {stands_in}"
    if not sees_unlabelled:
        line += f"; no teacher: the student sees the {labelled:,} labelled rows"
    return line
