"""The options of `harvest view`, and what its page asks for: filters, an order, and which of the rows that are left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from shared.errors import UsageError
from shared.options import Option, check_options, make_config, spell_flags

ROWS_AT_ONCE = 50
_FILE = "A file"
_SERVED = "On this machine, in place of a file"
Sort: TypeAlias = Literal["order", "split", "status", "gold", "said", "verdict", "mass", "cost", "asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """What of a teacher folder is shown, and where the page goes."""

    teacher: Annotated[str | None, Option("Which teacher, where there are several.")] = None
    serve: Annotated[bool, Option("Serve the page: all rows, live while a harvest goes on.", panel=_SERVED)] = False
    port: Annotated[
        int | None, Option("Where it is served; any free port, unless given.", at_least=1, at_most=65535, panel=_SERVED)
    ] = None
    rows: Annotated[
        int,
        Option(
            "Rows in the file: a random sample where there are more. Totals are of all rows.", at_least=1, panel=_FILE
        ),
    ] = 2000
    pictures: Annotated[
        int,
        Option("Rows in the file whose pictures are drawn again, those that are wrong first.", at_least=0, panel=_FILE),
    ] = 40
    out: Annotated[Path | None, Option("The file to write; <task>-<teacher>.html here, unless given.", panel=_FILE)] = (
        None
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.serve and self.out is not None:
            raise UsageError("--serve writes no file: leave --out out")
        if self.port is not None and not self.serve:
            raise UsageError("--port is for --serve: give both")


def make_view_config(options: Mapping[str, Any]) -> ViewConfig:
    """Make the config of the options that were given as flags. Raises UsageError that names what cannot be."""
    return make_config(ViewConfig, options, "harvest view", spell_flags(ViewConfig))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowQuery:
    """Which rows a page wants to show: those that pass every filter that is given, in an order, some at once.

    `gold` and `said` are names of labels, `verdict` how the teacher's answer stands to the right one; `mass`
    (probability on no label) and `cost` (US dollars) are lower bounds; `find` is sought in id, text and reply, in any
    case.
    """

    split: str | None = None
    status: str | None = None
    gold: str | None = None
    said: str | None = None
    verdict: Literal["right", "wrong", "unjudged"] | None = None
    mass: float | None = None
    cost: float | None = None
    find: str | None = None
    sort: Sort = "order"
    down: bool = False
    first: Annotated[int, Option(at_least=0)] = 0
    count: Annotated[int, Option(at_least=1, at_most=500)] = ROWS_AT_ONCE

    def __post_init__(self) -> None:
        check_options(self)
