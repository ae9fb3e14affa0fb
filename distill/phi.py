"""Phi of arXiv:2603.10877v1: what makes the outputs of two label heads comparable, by the kind of the task.

    softmax   a row has one of the labels: outputs are logits (n, c), and a target is a class index
    sigmoid   a row has several labels: outputs are logits (n, c), one binary head a label, and a target is c booleans
    identity  a row has a number: outputs are values (n, 1)

The paper has the first and the last; the second is what its MM-IMDb needs, read as c tasks of two classes. Whatever is
a sum over classes there is a sum over labels here: the log-likelihood of a row's whole set, in nats.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

Phi: TypeAlias = Literal["softmax", "sigmoid", "identity"]

PHIS: Mapping[str, Phi] = {"classification": "softmax", "multilabel": "sigmoid", "regression": "identity"}
