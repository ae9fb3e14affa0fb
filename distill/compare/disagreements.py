"""Test rows where student and teacher disagree, with the pictures that the teacher saw."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from distill.compare.results import Chosen
from distill.data.split import read_split
from shared.console import say
from shared.errors import UsageError
from shared.shards.manifest import Manifest
from shared.shards.read import read_row_group

Array = np.ndarray[Any, Any]

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row that the teacher and most of the students see differently. `pictures` are PNG files in base64.

    `student` is the share of seeds that said `student_label`; `teacher_label` is what most aligners made of the
    teacher's vector.
    """

    sample_id: str
    text: str
    label: str
    student_label: str
    student: float
    teacher_label: str
    pictures: tuple[str, ...]


def find_disagreements(
    chosen: Sequence[Chosen], folder: Path, manifest: Manifest, images: Path | None
) -> list[Disagreement]:
    """Find up to SHOWN rows of the first teacher variant with the most labels, those first that more seeds agree on.

    Half of them, where there are as many, are rows that the teacher has right, and half rows that the student has. None
    for a regression and for several labels a row, or where the teacher was not asked about the test rows. Pictures are
    taken from `images` where they are, byte for byte, what the teacher saw; the others are left out and counted in a
    message.
    """
    teachers = [
        one for one in chosen if one.role == "teacher" and one.predictions and one.predictions.aligner is not None
    ]
    if manifest.kind != "classification" or not teachers:
        return []
    one = max(teachers, key=lambda each: float("inf") if each.labels is None else each.labels)
    said = one.predictions
    assert said is not None
    assert said.aligner is not None
    student, share = _count_votes(said.logits)
    teacher, _ = _count_votes(said.aligner)
    differing = np.flatnonzero(student != teacher)
    order = differing[np.argsort(-share[differing], kind="stable")]
    of_teacher, of_student = (
        [row for row in order if labels[row] == said.target[row]] for labels in (teacher, student)
    )
    half = max(SHOWN // 2, SHOWN - len(of_student))
    rows = [*of_teacher[:half]]
    rows += of_student[: SHOWN - len(rows)]
    if images is not None and not images.is_dir():
        raise UsageError(f"there is no folder {images}; make it with: harvest show {folder} --images {images}")
    return [
        Disagreement(
            sample_id,
            text,
            manifest.labels[said.target[row]],
            manifest.labels[student[row]],
            float(share[row]),
            manifest.labels[teacher[row]],
            pictures,
        )
        for row, (sample_id, text, pictures) in zip(rows, _read_rows(folder, manifest, one, rows, images), strict=True)
    ]


def _count_votes(logits: Array) -> tuple[Array, Array]:
    """Give the label of most seeds for each row, and the share of seeds that said it."""
    votes = np.eye(logits.shape[-1])[logits.argmax(axis=-1)].mean(axis=0)
    return votes.argmax(axis=1), votes.max(axis=1)


def _read_rows(
    folder: Path, manifest: Manifest, one: Chosen, rows: Sequence[int], images: Path | None
) -> list[tuple[str, str, tuple[str, ...]]]:
    split = read_split(folder, manifest, one.reported_from)
    numbers = one.rows[rows]
    found, unseen = {}, 0
    for group, start in zip(split.groups, split.starts(), strict=True):
        wanted = {int(row) - start: int(row) for row in numbers if start <= row < start + group.rows}
        if not wanted:
            continue
        table = read_row_group(group, ["sample_id", "text", "text_pair", "image_sha256"])
        for place, row in wanted.items():
            values = {name: table[name][place].as_py() for name in table.column_names}
            text = values["text"] if values["text_pair"] is None else f"{values['text']}\n{values['text_pair']}"
            seen = values["image_sha256"] or []
            pictures = _read_pictures(images, values["sample_id"], seen) if images is not None else ()
            unseen += len(seen) - len(pictures) if images is not None else 0
            found[row] = values["sample_id"], text, pictures
    if unseen:
        say(f"{images}: {unseen} of the pictures are missing, or are not what the teacher saw; the report has the text")
    return [found[int(row)] for row in numbers]


def _read_pictures(images: Path, sample_id: str, seen: Sequence[str]) -> tuple[str, ...]:
    pictures = []
    for number, digest in enumerate(seen):
        path = images / f"{sample_id.replace('/', '_')}-{number}.png"
        if path.is_file() and sha256(content := path.read_bytes()).hexdigest() == digest:
            pictures.append(b64encode(content).decode())
    return tuple(pictures)
