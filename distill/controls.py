"""The controls by name, and what each leaves of a teacher's run: all that a config needs to know of them.

A control puts something that knows nothing in the teacher's place. distill.methods.controls has what each one does.
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
]


@dataclass(frozen=True, slots=True)
class ControlTraits:
    """What a control leaves of a teacher's run, and what it needs.

    `gives_soft_targets`  it makes the soft targets itself: there is nothing for L_m to match, and alpha must be above 0
    `has_aligner`         an aligner is trained wherever the terms ask for one
    `sees_unlabelled_rows`  rows without a label are of use to the student
    `needs_aligner`       it changes the aligner, so there must be one
    `needs_labels`        it changes the labels of a classification, so a regression cannot have it
    """

    gives_soft_targets: bool = False
    has_aligner: bool = True
    sees_unlabelled_rows: bool = True
    needs_aligner: bool = False
    needs_labels: bool = False


CONTROLS: dict[Control, ControlTraits] = {
    "none": ControlTraits(),
    "shuffled-teacher": ControlTraits(),
    "random-vectors": ControlTraits(),
    "constant-target": ControlTraits(),
    "frozen-aligner": ControlTraits(needs_aligner=True),
    "label-smoothing": ControlTraits(gives_soft_targets=True, sees_unlabelled_rows=False, needs_labels=True),
    "self-training": ControlTraits(gives_soft_targets=True, has_aligner=False),
}
