"""What a user chose to compare: the options of `harvest compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from harvest.config import UNSURE_BELOW
from shared.errors import UsageError
from shared.options import Option, check_options
from shared.tasks.options import FILE_PANEL, TaskOptions


def parse_teachers(texts: Sequence[str]) -> list[str]:
    """Take the texts of --teacher as they are. Raises ValueError for an empty one."""
    if not all(texts):
        raise ValueError("give a teacher's name, a YAML file, or a teacher=<name> folder")
    return list(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(TaskOptions):
    """Several teachers and the rows that they are held against each other on.

    Each of `teachers` is the name of one, a YAML file of its options as `harvest run --config` takes it, a folder that
    is kept, or, in a file of --config, the options themselves.
    """

    task: Annotated[str | None, Option("The task, as `harvest run` takes it; a teacher's file may name it.")] = None
    task_file: Annotated[
        str | None, Option("A file or folder that a known task is read from, instead of the hub.", panel=FILE_PANEL)
    ] = None
    teachers: Annotated[
        tuple[str | Mapping[str, Any], ...],
        Option(
            "A teacher: its name, a YAML file of its options (as for `harvest run --config`), or a teacher=<name> "
            "folder that is kept, which is asked nothing; given twice or more.",
            name="teacher",
            metavar="NAME|FILE|FOLDER",
            parse=parse_teachers,
            repeated=True,
        ),
    ]
    limit: Annotated[int, Option("How many rows with a known answer each is asked about.", at_least=2)] = 100
    split: Annotated[
        str | None, Option("The rows' split. Unless given, train, or else the first that has known answers.")
    ] = None
    max_cost: Annotated[
        float | None, Option("The most US dollars that all teachers together may cost here.", above=0)
    ] = None
    unsure_below: Annotated[
        float,
        Option(
            "A cascade asks the dearer teacher where the cheaper one's most probable label has less than this; of "
            "several labels a row, where one is neither given nor refused with so much.",
            above=0,
            at_most=1,
        ),
    ] = UNSURE_BELOW
    out: Annotated[Path | None, Option("Folder of the task's shards. Unless given, data/<task>.")] = None

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.teachers) < 2:
            raise UsageError("harvest compare needs two or more of --teacher")
