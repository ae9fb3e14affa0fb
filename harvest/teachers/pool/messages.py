"""What is said between a pool and a replica: plain data, pickled.

pool -> replica    Settings, then Batches, and Close
replica -> pool    Up, then Room, Answered and Said, in any order, and Alive every BEAT_SECONDS; a Failure at any time,
                   and nothing after it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import pyarrow as pa

from harvest.teachers.base import Reply, Request
from harvest.teachers.pool.columns import Columns, pack, unpack
from harvest.teachers.registry import TeacherChoice
from shared.errors import Error, TeacherError
from shared.example import Example
from shared.schema import answer_schema, answers_to_batch
from shared.tasks import Task

BEAT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The teacher of all replicas.

    `recipe` is what it has to be by: a replica whose packages, files or devices would make another one answers
    nothing. `folder` is where relative paths begin. `columns` are those of answers, as text: their bytes do not tell.
    """

    choice: TeacherChoice
    task: Task
    name: str
    recipe: Mapping[str, Any]
    folder: str
    columns: str


@dataclass(frozen=True, slots=True)
class Means:
    """What one replica computes with: so many cores, and by `environment` the devices that it sees."""

    cores: int | None = None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests, packed. After the `last` of them the replica's teacher is told that no more will come, and what it has
    gathered is answered; requests that come later begin a new stream.
    """

    keys: Sequence[str]
    draws: Sequence[int]
    examples: Columns
    last: bool = False

    @classmethod
    def pack(cls, requests: Sequence[Request], last: bool) -> Self:
        """Pack requests."""
        keys, draws = [one.key for one in requests], [one.draw for one in requests]
        return cls(keys, draws, pack([one.example for one in requests]), last)

    def unpack(self) -> list[Request]:
        """Give the requests."""
        return list(map(Request, self.keys, unpack(Example, self.examples), self.draws))


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
    """Answers to the requests of some keys, as the bytes of a record batch; the rest is as in a ReplyBatch."""

    keys: Sequence[str]
    answers: bytes
    pictures: Mapping[str, bytes]
    audio: Mapping[str, bytes]

    @classmethod
    def pack(cls, replies: Sequence[Reply]) -> Self:
        """Pack replies. Raises TeacherError, naming the row, where one has a value that its column does not take."""
        keys = [one.request.key for one in replies]
        pictures = {name: content for one in replies for name, content in one.pictures.items()}
        audio = {one.request.key: one.audio for one in replies if one.audio is not None}
        try:
            answers = answers_to_batch([one.answer for one in replies])
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise _explain_unkept(replies, error) from None
        return cls(keys, answers.serialize().to_pybytes(), pictures, audio)

    def unpack(self) -> pa.RecordBatch:
        """Give the answers, a record batch of shared.schema.answer_schema."""
        return pa.ipc.read_record_batch(pa.py_buffer(self.answers), answer_schema())


def _explain_unkept(replies: Sequence[Reply], error: Exception) -> TeacherError:
    """Say which of several answers cannot be kept."""
    for one in replies:
        try:
            answers_to_batch([one.answer])
        except (pa.ArrowException, TypeError, ValueError) as own:
            return TeacherError(f"the teacher's answer to row {one.request.example.sample_id} cannot be kept ({own})")
    return TeacherError(f"the teacher's answers cannot be kept ({error})")


@dataclass(frozen=True, slots=True)
class Said:
    """A notice of the teacher for the person at the keyboard."""

    text: str


@dataclass(frozen=True, slots=True)
class Alive:
    """The replica hears and says something still, however long its model takes."""


@dataclass(frozen=True, slots=True)
class Failure:
    """No request can be answered by this replica any more."""

    error: Error

    @classmethod
    def of(cls, error: Error) -> Self:
        """Make one of an error: of a package's own kind, which might not be read again, one of the project's."""
        kind = next(each for each in type(error).__mro__ if each.__module__ == Error.__module__)
        return cls(kind(str(error)))


ToReplica: TypeAlias = Batch | Close
FromReplica: TypeAlias = Up | Room | Answered | Said | Alive | Failure
