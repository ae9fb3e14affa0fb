"""What a user chose for one harvest: plain frozen data, made by the command line or by a recipe."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harvest.asking.plan import EVERY_SPLIT, Share
from shared.errors import UsageError
from shared.schema import Status


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """Which texts: a registered task by name, or a file of the user's own with its columns."""

    task: str
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None
    labels: Sequence[str] | None = None
    label_words: Sequence[str] | None = None
    question: str | None = None


@dataclass(frozen=True, slots=True)
class TeacherChoice:
    """Which teacher, the name that its shards are kept under (None: the teacher's own), and options of its own.

    The options are those of the teacher's config class; harvest.teachers.registry checks them.
    """

    teacher: str
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HarvestConfig:
    """One harvest. `out` defaults to data/<task>; `splits` None is all of the task's; for the rest see Scope.

    `onto` is a teacher folder whose answers get the vectors of this harvest's teacher (harvest.teachers.onto).
    """

    task: TaskChoice
    teacher: TeacherChoice
    out: Path | None = None
    onto: Path | None = None
    splits: Sequence[str] | None = None
    asked: Sequence[str] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    retry: Sequence[Status] = ()
    share: Share = Share()
    failure_limit: float = 0.5


def parse_limits(texts: Iterable[str]) -> dict[str, int]:
    """`N` and `split=N`, as they are written on a command line, as limits by split. Raises UsageError."""
    limits = {}
    for text in texts:
        split, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--limit {text}: give a number of rows, or split=number: --limit train=2000")
        limits[split or EVERY_SPLIT] = int(number)
    return limits


def parse_share(text: str) -> Share:
    """`K/N`, 1/1 to N/N, as a share. Raises UsageError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--worker {text}: give K/N, the Kth of N workers: --worker 3/8")
    return Share(int(index) - 1, int(count))


def parse_statuses(texts: Iterable[str]) -> tuple[Status, ...]:
    """Names of statuses that can be asked again, one or several to a text. Raises UsageError."""
    allowed = [status.value for status in Status if status not in (Status.OK, Status.UNASKED)]
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in allowed:
            raise UsageError(f"--retry {name}: one of {', '.join(allowed)}")
    return tuple(Status(name) for name in names)
