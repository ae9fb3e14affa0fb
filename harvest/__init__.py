"""Stage 1: examples -> requests -> teacher -> shards. Spends money, so it keeps every answer.

The names below are the library: what the commands do, as functions (docs/api.md). A module is imported when a name of
it is first used, so that importing the package loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harvest.config import HarvestConfig as HarvestConfig
    from harvest.config import PoolConfig as PoolConfig
    from harvest.config import TaskChoice as TaskChoice
    from harvest.config import TeacherChoice as TeacherChoice
    from harvest.config import make_harvest_config as make_harvest_config
    from harvest.job import Report as Report
    from harvest.job import plan_harvest as plan_harvest
    from harvest.job import run_harvest as run_harvest
    from harvest.looking.rows import stream_rows as stream_rows
    from harvest.looking.rows import stream_tables as stream_tables
    from harvest.looking.status import read_status as read_status
    from harvest.sharing.pull import pull_harvest as pull_harvest
    from harvest.sharing.push import push_harvest as push_harvest
    from harvest.teachers.base import Estimate as Estimate
    from harvest.teachers.base import Reply as Reply
    from harvest.teachers.base import Request as Request
    from harvest.teachers.base import Teacher as Teacher
    from harvest.teachers.registry import TeacherEntry as TeacherEntry
    from harvest.teachers.registry import register_teacher as register_teacher
    from shared.errors import Error as Error
    from shared.example import Example as Example
    from shared.options import Option as Option
    from shared.schema import Answer as Answer
    from shared.schema import Row as Row
    from shared.schema import Status as Status
    from shared.tasks import Task as Task
else:
    _NAMES = {
        "harvest.config": ("HarvestConfig", "PoolConfig", "TaskChoice", "TeacherChoice", "make_harvest_config"),
        "harvest.job": ("Report", "plan_harvest", "run_harvest"),
        "harvest.looking.rows": ("stream_rows", "stream_tables"),
        "harvest.looking.status": ("read_status",),
        "harvest.sharing.pull": ("pull_harvest",),
        "harvest.sharing.push": ("push_harvest",),
        "harvest.teachers.base": ("Estimate", "Reply", "Request", "Teacher"),
        "harvest.teachers.registry": ("TeacherEntry", "register_teacher"),
        "shared.errors": ("Error",),
        "shared.example": ("Example",),
        "shared.options": ("Option",),
        "shared.schema": ("Answer", "Row", "Status"),
        "shared.tasks": ("Task",),
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}
    __all__ = list(_MODULES)

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
