"""Checkpoints: all that a run needs to go on to the same weights, in one file that is whole or is not there."""

import time
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from shared.console import say
from shared.disk import write_whole
from shared.errors import Error, UsageError

SECONDS = 300.0  # between checkpoints, unless steps were asked for


class Checkpoints:
    """The one checkpoint of a run, replaced again and again: every `steps` steps of a phase, or every SECONDS.

    `identity` is what a run must share with another to go on from its checkpoint: names and plain values. `writes` is
    false in all but one of several processes.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], steps: int | None = None, writes: bool = True) -> None:
        self.path = path
        self._identity, self._steps, self._writes = dict(identity), steps, writes
        self._started = self._saved_at = time.monotonic()
        self.seconds_before = 0.0  # of this run, in processes that ended

    def is_due(self, step: int) -> bool:
        """Tell whether to save after that many steps of a phase."""
        if not self._writes:
            return False
        if self._steps is not None:
            return step % self._steps == 0
        return time.monotonic() - self._saved_at >= SECONDS

    def save(self, state: Mapping[str, Any]) -> bool:
        """Replace the checkpoint; after a crash at any point there is the old one or the new one.

        A disk that is full costs the checkpoint and not the run: false where it was not written. Of several processes
        one writes.
        """
        if not self._writes:
            return False
        saved = True
        try:
            with write_whole(self.path) as temporary, temporary.open("wb") as file:
                torch.save({"identity": self._identity, "spent": self._measure(), **state}, file)
        except (OSError, RuntimeError) as error:
            say(f"the checkpoint {self.path} cannot be written ({error}); training goes on without it")
            saved = False
        self._saved_at = time.monotonic()
        return saved

    def load(self) -> dict[str, Any] | None:
        """Load the state that was saved last, to the CPU; None where there is none. Raises Error if it is damaged."""
        state = self._read(mapped=False)
        if state is not None:
            self.seconds_before = state["spent"]
        return state

    def settle(self, discard: bool) -> None:
        """Refuse another run's checkpoint, as `load` does; with `discard`, remove it instead."""
        state = self._read(mapped=True)
        if state is None:
            return
        differences = self._compare(state["identity"])
        if not differences:
            say(f"{self.path.parent} holds this run, unfinished: going on from its checkpoint")
        elif discard:
            self.remove()
        else:
            raise UsageError(
                f"{self.path.parent} holds an unfinished run with other settings: {'; '.join(differences)}. Give "
                "those to go on with it, another --name to leave it, or --overwrite to start over"
            )

    def remove(self) -> None:
        """Forget the checkpoint, so that the run would start over."""
        if self._writes:
            self.path.unlink(missing_ok=True)

    def _measure(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def _read(self, mapped: bool) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise Error(f"{self.path} cannot be read ({error}); remove it to start the run over") from error
        return state

    def _compare(self, other: Mapping[str, Any]) -> list[str]:
        names = dict.fromkeys((*self._identity, *other))
        return [
            f"{name} was {other.get(name)!r} and is {self._identity.get(name)!r}"
            for name in names
            if other.get(name) != self._identity.get(name)
        ]
