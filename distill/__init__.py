"""Stage 2: shards -> batches -> aligner and student. Never opens a socket to a teacher.

The names below are the library: what the commands do, as functions (docs/api.md). A module is imported when a name of
it is first used, so that importing the package loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.compare.plan import Comparison as Comparison
    from distill.compare.plan import make_comparison as make_comparison
    from distill.compare.run import run_comparison as run_comparison
    from distill.config import DistillConfig as DistillConfig
    from distill.config import make_distill_config as make_distill_config
    from distill.run import run_distillation as run_distillation
    from distill.runs.evaluate import evaluate_run as evaluate_run
    from distill.runs.export import export_run as export_run
    from distill.runs.folder import read_metrics as read_metrics
    from distill.runs.load import load_student as load_student
    from shared.errors import Error as Error
else:
    _NAMES = {
        "distill.compare.plan": ("Comparison", "make_comparison"),
        "distill.compare.run": ("run_comparison",),
        "distill.config": ("DistillConfig", "make_distill_config"),
        "distill.run": ("run_distillation",),
        "distill.runs.evaluate": ("evaluate_run",),
        "distill.runs.export": ("export_run",),
        "distill.runs.folder": ("read_metrics",),
        "distill.runs.load": ("load_student",),
        "shared.errors": ("Error",),
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}
    __all__ = list(_MODULES)

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
