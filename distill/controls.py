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
    """What a control leaves of a teacher's run, and what it needs.

    `gives_soft_targets`  it makes the soft targets itself: there is nothing for L_m to match, and alpha must be above 0
    `has_aligner`         an aligner is trained wherever the terms ask for one
    `sees_unlabelled_rows`  rows without a label are of use to the student
    `needs_aligner`       it changes the aligner, so there must be one
    `needs_classes`  it is about the labels of a classification, so a regression cannot have it
    `trains_student`  a student is trained, by as many steps as in any variant
    `is_baseline`  it has the teacher's answers
    `for_labels`, `for_texts`  a student with label heads can have it; one that writes can
    """

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
    "none": ControlTraits(for_texts=True),
    "shuffled-teacher": ControlTraits(for_texts=True),
    "random-vectors": ControlTraits(),
    "constant-target": ControlTraits(),
    "frozen-aligner": ControlTraits(needs_aligner=True),
    "label-smoothing": ControlTraits(gives_soft_targets=True, sees_unlabelled_rows=False, needs_classes=True),
    "self-training": ControlTraits(gives_soft_targets=True, has_aligner=False),
    "linear-probe": ControlTraits(
        gives_soft_targets=True, has_aligner=False, sees_unlabelled_rows=False, trains_student=False
    ),
    "probe-distilled": ControlTraits(
        gives_soft_targets=True, has_aligner=False, trains_student=False, is_baseline=True
    ),
    "pseudo-labels": ControlTraits(gives_soft_targets=True, has_aligner=False, needs_classes=True, is_baseline=True),
    "untrained": ControlTraits(trains_student=False, for_labels=False, for_texts=True),
}
