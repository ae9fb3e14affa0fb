"""The presets by name, and the values that each gives to the options of a run that are not given."""

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["default", "armada", "armada-code"]

# ARMADA as arXiv:2603.10877v1 ran it on GLUE; its authors' released code is of SuperGLUE.
_ARMADA: Mapping[str, Any] = {
    "loss": ("euclid",),
    "soft": "aligner",
    "semantics": "paper",
    "alpha": 0.5,
    "beta": 1.0,
    "gamma": 1.0,
    "tau": 5.0,
    "schedule": "two-pass",
    "aligner_lr": 3e-3,
    "aligner_pretraining": 0,
    "epochs": 10,
    "batch_size": 32,
    "labelled_per_batch": None,
    "student_lr": 2e-5,
    "warmup": 0.0,
    "decay": "none",
    "weight_decay_on": "all",
    "eval_steps": None,
    "patience": None,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "armada": _ARMADA,
    "armada-code": {**_ARMADA, "semantics": "code", "batch_size": 8, "aligner_lr": 1e-3},
}
