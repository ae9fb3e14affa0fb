"""What a place where replicas run owes to the pool."""

from collections.abc import Sequence
from typing import Protocol

from harvest.teachers.pool.messages import FromReplica, ToReplica


class Link(Protocol):
    """The pool's end of one replica. `send` and `receive` are called in two threads, and may wait there."""

    def send(self, message: ToReplica) -> None:
        """Hand a message over. Of a replica that has ended nothing comes of it: `receive` says so."""

    def receive(self) -> Sequence[FromReplica] | None:
        """Wait for messages; None once the replica has ended, or cannot be reached any more."""

    def explain_end(self) -> str:
        """Say how the replica ended, as "ended with code 1"; called after `receive` gave None."""

    def close(self) -> None:
        """Have the teacher end what it has started, and wait for that; end the replica by force where it lasts."""

    def kill(self) -> None:
        """End the replica now, with all that it has started, whatever it is at. It may have ended before."""


class Host(Protocol):
    """Starts replicas, and replaces those that died."""

    def start(self, number: int) -> Link:
        """Start replica `number`, from 0, and return at once. Raises Error where none can be started."""

    def check(self) -> None:
        """Raise Error where what the replicas share is gone. Called now and then while they answer."""

    def close(self) -> None:
        """Let go of what the replicas shared. They have ended."""
