"""What is said between a pool and a replica: plain data, pickled.

pool -> replica    Settings, then Batches, and Close
replica -> pool    Up, then Room, Answered and Said, in any order; a Failure at any time, and nothing after it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from harvest.teachers.base import Request
from harvest.teachers.registry import TeacherChoice
from shared.errors import Error
from shared.schema import Answer
from shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Settings:
    """The teacher of all replicas.

    `recipe` is what it has to be by: a replica whose packages, files or devices would make another one answers
    nothing. `folder` is where relative paths begin.
    """

    choice: TeacherChoice
    task: Task
    name: str
    recipe: Mapping[str, Any]
    folder: str


@dataclass(frozen=True, slots=True)
class Means:
    """What one replica computes with: so many cores, and by `environment` the devices that it sees."""

    cores: int | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests. After the `last` of them the replica's teacher is told that no more will come, and what it has gathered
    is answered; requests that come later begin a new stream.
    """

    requests: Sequence[Request]
    last: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Let the teacher end what it has started, and end."""


@dataclass(frozen=True, slots=True)
class Up:
    """The teacher is built, on the machine of that name; what it loads it loads with its first request."""

    machine: str


@dataclass(frozen=True, slots=True)
class Room:
    """The replica takes `count` requests more in stream number `stream`; it has none left where it is `starving`."""

    stream: int
    count: int
    starving: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers and pictures, by the requests' keys."""

    answers: Sequence[tuple[str, Answer, Mapping[str, bytes]]]


@dataclass(frozen=True, slots=True)
class Said:
    """A notice of the teacher for the person at the keyboard."""

    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """No request can be answered by this replica any more."""

    error: Error


ToReplica: TypeAlias = Batch | Close
FromReplica: TypeAlias = Up | Room | Answered | Said | Failure
