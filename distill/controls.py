"""The controls by name, and what each leaves of a teacher's run: all that a config needs to know of them.

A control puts something that knows nothing in the teacher's place; a baseline has the teacher's answers, and makes of
them what takes less than a distillation. distill.methods.controls has what each one does.
"""

from dataclasses import dataclass
from typing import Literal

Control = Literal[
    "none",
    "shuffled-teacher",
    "random-vectors",
    "constant-target",
    "frozen-aligner",
    "label-smoothing",
    "self-training",
    "linear-probe",
    "probe-distilled",
    "pseudo-labels",
    "untrained",
]


@dataclass(frozen=True, slots=True)
class ControlTraits:
    """What a control is, for a reader of a comparison; what it leaves of a teacher's run, and what it needs.

    `summary`             what it puts in the teacher's place, or makes of the answers
    `gives_soft_targets`  it makes the soft targets itself: there is nothing for L_m to match, and alpha must be above 0
    `has_aligner`         an aligner is trained wherever the terms ask for one
    `sees_unlabelled_rows`  rows without a label are of use to the student
    `needs_aligner`       it changes the aligner, so there must be one
    `needs_classes`  it is about the labels of a classification, so a regression cannot have it
    `trains_student`  a student is trained, by as many steps as in any variant
    `is_baseline`  it has the teacher's answers
    `for_labels`, `for_texts`  a student with label heads can have it; one that writes can
    """

    summary: str
    gives_soft_targets: bool = False
    has_aligner: bool = True
    sees_unlabelled_rows: bool = True
    needs_aligner: bool = False
    needs_classes: bool = False
    trains_student: bool = True
    is_baseline: bool = False
    for_labels: bool = True
    for_texts: bool = False


CONTROLS: dict[Control, ControlTraits] = {
    "none": ControlTraits("the teacher's run itself", for_texts=True),
    "shuffled-teacher": ControlTraits("the teacher's own answers, each given to another row", for_texts=True),
    "random-vectors": ControlTraits("random answers with the moments of the teacher's"),
    "constant-target": ControlTraits(
        "the same answer for all rows, which tells how frequent the labels are and nothing else"
    ),
    "frozen-aligner": ControlTraits(
        "an aligner that stays as the seed made it, so that its soft targets know nothing", needs_aligner=True
    ),
    "label-smoothing": ControlTraits(
        "no teacher: the label, smoothed until it has the entropy of the teacher's soft targets",
        gives_soft_targets=True,
        sees_unlabelled_rows=False,
        needs_classes=True,
    ),
    "self-training": ControlTraits(
        "no teacher: a student trained on the labels alone labels all rows for the next",
        gives_soft_targets=True,
        has_aligner=False,
    ),
    "linear-probe": ControlTraits(
        "no teacher and no training: a linear classifier, fitted on the labels, reads the frozen student",
        gives_soft_targets=True,
        has_aligner=False,
        sees_unlabelled_rows=False,
        trains_student=False,
    ),
    "probe-distilled": ControlTraits(
        "a linear classifier, fitted on the teacher's soft targets, reads the frozen student",
        gives_soft_targets=True,
        has_aligner=False,
        trains_student=False,
        is_baseline=True,
    ),
    "pseudo-labels": ControlTraits(
        "a student trained on the likeliest label of each soft target of the teacher",
        gives_soft_targets=True,
        has_aligner=False,
        needs_classes=True,
        is_baseline=True,
    ),
    "untrained": ControlTraits(
        "the student as it was loaded, which takes no step", trains_student=False, for_labels=False, for_texts=True
    ),
}
