"""What a user chose for one harvest: frozen data whose fields are the options of every harvest.

The flags of the command and the `harvest:` mapping of a recipe are made from these classes (see shared.options); a
teacher's own options are the fields of its config class (see harvest.teachers.registry).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from harvest.asking.interrupt import DRAIN_SECONDS
from harvest.asking.plan import EVERY_SPLIT, Share
from harvest.teachers.pool.config import PoolConfig as PoolConfig
from harvest.teachers.registry import TeacherChoice as TeacherChoice
from harvest.teachers.registry import check_teacher_options
from shared.errors import UsageError
from shared.options import Option, check_options, list_options, make_config, parse_names
from shared.schema import Status
from shared.secrets import refuse_secrets
from shared.suggestions import suggest
from shared.tasks.options import FILE_PANEL, TaskOptions

NO_SPLIT = "none"  # of --ask
UNSURE_BELOW = 0.8  # unless --unsure-below says otherwise
_ROWS = "Which rows"
RETRIED = tuple(status for status in Status if status not in (Status.OK, Status.UNASKED))  # can be asked again


def parse_limits(texts: Sequence[str]) -> dict[str, int]:
    """Read `N` and `split=N` as limits by split, `*` for each. Raises ValueError that says what to give."""
    limits = {}
    for text in texts:
        split, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise ValueError("give a number of rows, or split=number: train=2000")
        limits[split or EVERY_SPLIT] = int(number)
    return limits


def parse_share(text: str) -> Share:
    """Read `K/N`, 1/1 to N/N, as a share. Raises ValueError that says what to give."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError("give K/N, the Kth of N workers: 3/8")
    return Share(int(index) - 1, int(count))


def show_share(share: Share) -> str:
    """Write a share as `parse_share` reads it."""
    return f"{share.index + 1}/{share.count}"


def parse_statuses(texts: Sequence[str]) -> tuple[Status, ...]:
    """Read names of statuses that can be asked again, one or several to a text. Raises ValueError that lists them."""
    names = [name for text in texts for name in parse_names(text)]
    if strange := [name for name in names if name not in RETRIED]:
        raise ValueError(suggest(strange[0], RETRIED, there="it can be"))
    return tuple(map(Status, names))


def list_tasks() -> list[str]:
    """List the names of the known tasks."""
    from shared.tasks import TASKS

    return [*TASKS]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSource(TaskOptions):
    """How a task is read, whichever it is."""

    task_file: Annotated[
        str | None, Option("A file or folder that a known task is read from, instead of the hub.", panel=FILE_PANEL)
    ] = None


@dataclass(frozen=True, slots=True)
class TaskChoice(TaskSource):
    """Which texts: a registered task by name, or a file of the user's own with its columns."""

    task: Annotated[
        str,
        Option(
            "A task by name, a Parquet, JSONL or CSV file or folder, hf://datasets/org/name, or a task in YAML.",
            complete=list_tasks,
        ),
    ]


@dataclass(frozen=True, slots=True)
class HarvestConfig:
    """One harvest. `splits` None is all of the task's; for the rest see harvest.asking.plan.Scope.

    `pool` is where the teacher's replicas answer, if it has any, and `onto` a teacher folder whose answers get the
    vectors of this harvest's teacher (harvest.teachers.onto).
    """

    task: TaskChoice
    teacher: TeacherChoice
    pool: PoolConfig = PoolConfig()
    out: Annotated[
        Path | None,
        Option("Folder of the task's shards, or its address (s3://bucket/data/<task>). Unless given, data/<task>."),
    ] = None
    letters: Annotated[
        bool, Option("Ask for a letter in place of a label's word: the question lists the words with letters.")
    ] = False
    calibrate: Annotated[
        bool, Option("Ask about an empty text, too: its label scores are kept in calibration.json, beside the answers.")
    ] = False
    onto: Annotated[
        Path | None, Option("A teacher=<name> folder: its answers and this teacher's vectors make one row.")
    ] = None
    splits: Annotated[
        tuple[str, ...] | None, Option("Only this split; may be repeated.", name="split", panel=_ROWS)
    ] = None
    asked: Annotated[
        tuple[str, ...] | None,
        Option(
            "Ask only about this split and carry the others' rows unanswered; may be repeated. none: about no split.",
            name="ask",
            panel=_ROWS,
        ),
    ] = None
    limits: Annotated[
        Mapping[str, int],
        Option(
            "At most N rows a split, or split=N; may be repeated. A larger limit contains a smaller one's rows.",
            name="limit",
            metavar="[SPLIT=]N",
            parse=parse_limits,
            repeated=True,
            panel=_ROWS,
        ),
    ] = field(default_factory=dict)
    escalate: Annotated[
        Path | None,
        Option("A cheaper teacher's folder: ask only about the rows that it is unsure of.", panel=_ROWS),
    ] = None
    unsure_below: Annotated[
        float | None,
        Option(
            "With --escalate: unsure is a row without a whole answer, or whose most probable label has less than this; "
            "of several labels a row, with one that is neither given nor refused with so much. "
            f"Unless given, {UNSURE_BELOW:g}.",
            above=0,
            at_most=1,
            panel=_ROWS,
        ),
    ] = None
    retry: Annotated[
        tuple[Status, ...],
        Option(
            f"Ask again the kept rows of this status: {', '.join(RETRIED)}; may be repeated.",
            parse=parse_statuses,
            repeated=True,
            metavar="STATUS",
            complete=lambda: RETRIED,
            panel=_ROWS,
        ),
    ] = ()
    draws: Annotated[
        int,
        Option("Answers to each prompt, each a row, from a teacher that samples: --temperature 0.7.", at_least=1),
    ] = 1
    share: Annotated[
        Share,
        Option(
            "K/N: own the Kth of N disjoint shares of the requests.",
            name="worker",
            metavar="K/N",
            parse=parse_share,
            show=show_share,
            panel=_ROWS,
        ),
    ] = Share()
    drain: Annotated[
        float,
        Option(
            "Seconds that requests in flight have to arrive after SIGTERM or SIGHUP. After Ctrl-C they have until the "
            "next one.",
            at_least=0,
        ),
    ] = DRAIN_SECONDS
    failure_limit: Annotated[
        float, Option("Stop when more than this share of requests fails.", at_least=0, at_most=1)
    ] = 0.5

    def __post_init__(self) -> None:
        check_options(self)
        if any(limit < 1 for limit in self.limits.values()):
            raise UsageError(f"limits are {dict(self.limits)}; a limit is 1 or more rows")
        if self.unsure_below is not None and self.escalate is None:
            raise UsageError(
                "--unsure-below says which of a cheaper teacher's rows are asked about: name its folder with --escalate"
            )


COMMON_OPTIONS = frozenset(one.name for one in list_options(HarvestConfig))


def make_harvest_config(
    options: Mapping[str, Any], owner: str = "harvest", spell: Callable[[str], str] = str
) -> HarvestConfig:
    """Make a checked HarvestConfig of one flat mapping, as a recipe's `harvest:` or a command line has it.

    A name that is not an option of every harvest is one of the chosen teacher's own. Values are as YAML has them, or
    as texts of a command line. `owner` is whose options they are and `spell` turns a name into what the user writes.
    Raises UsageError that names the option: one that neither harvest nor teacher has, one that is missing, or one that
    cannot be.
    """
    variable = options.get("api_key_env")
    refuse_secrets(
        {spell(name): value for name, value in options.items()}, variable if isinstance(variable, str) else None
    )
    own = {name: value for name, value in options.items() if name not in COMMON_OPTIONS}
    common = {name: value for name, value in options.items() if name in COMMON_OPTIONS}
    config = make_config(HarvestConfig, common, owner, spell)
    choice = replace(config.teacher, options={**config.teacher.options, **own})
    check_teacher_options(choice.teacher, choice.options, COMMON_OPTIONS, spell)
    return replace(config, teacher=choice)
