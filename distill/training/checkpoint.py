"""Checkpoints: all that a run needs to go on to the same weights, in one file that is whole or is not there.

The file is what torch.save writes and, behind it, MARK and the SHA-256 digest of all bytes before: a byte that flipped
on the disk would else lead to other weights without a word. torch.load finds the end of its archive by itself.

Where several processes share the student's weights, the file names a folder beside it that has these, and the digests
of its files (see distill.training.shards): the folder is written first, so that the file makes the two a checkpoint.
"""

import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import torch
from torch.distributed.checkpoint.api import CheckpointException

from distill.compute.processes import Processes
from distill.training.shards import (
    Sharded,
    clear_shards,
    find_damage,
    read_shards,
    remove_shards,
    take_out,
    write_shards,
)
from shared.console import say
from shared.disk import write_whole
from shared.errors import Error, UsageError

SECONDS = 300.0  # between checkpoints, unless steps were asked for
MARK = b"harvest-distill checkpoint, SHA-256: "
_DIGEST_BYTES = 32
_TRAILER_BYTES = len(MARK) + _DIGEST_BYTES
_PIECE_BYTES = 8 << 20


class Checkpoints:
    """The one checkpoint of a run, replaced again and again: every `steps` steps of a phase, or every SECONDS.

    `identity` is what a run must share with another to go on from its checkpoint: names and plain values. Of several
    `processes` the first one writes, or all together, where they share the student's weights. `run_id` is the same in
    all processes that train one run, one after the other; `goes_on` is whether there was one before this.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        steps: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.path = path
        self._identity, self._steps, self._processes = dict(identity), steps, processes or Processes()
        self._started = self._saved_at = time.monotonic()
        self.seconds_before = 0.0  # of this run, in processes that ended
        self.run_id, self.goes_on = uuid4().hex[:12], False

    def is_due(self, step: int) -> bool:
        """Tell whether to save after that many steps of a phase."""
        if not self._processes.is_first:
            return False
        if self._steps is not None:
            return step % self._steps == 0
        return time.monotonic() - self._saved_at >= SECONDS

    def save(self, state: Mapping[str, Any]) -> bool:
        """Replace the checkpoint; after a crash at any point there is the old one or the new one.

        A disk that is full costs the checkpoint and not the run: false where it was not written. Processes that share
        the student's weights must call it together, and all are told; of others the first one writes, and is told.
        """
        sharded: Sharded = {}
        whole, shards = take_out(state, sharded), None
        if sharded:
            name = self._processes.agree(uuid4().hex[:12])
            try:
                shards = {"name": name, "digests": write_shards(self._shards / name, sharded, self._processes)}
            except (CheckpointException, OSError, RuntimeError) as error:
                self._say_unwritten(error)
                if self._processes.is_first:
                    remove_shards(self._shards / name)  # half of it may be what filled the disk
                return False
        saved = self._processes.is_first and self._write(whole, shards)
        return self._processes.agree(saved) if self._processes.shards else saved

    def _say_unwritten(self, error: BaseException) -> None:
        say(f"the checkpoint {self.path} cannot be written ({error}); training goes on without it")
        self._saved_at = time.monotonic()  # it is not tried again after each step

    def _write(self, state: Mapping[str, Any], shards: Mapping[str, Any] | None) -> bool:
        try:
            with write_whole(self.path) as temporary, temporary.open("wb") as file:
                writer: Any = _HashingWriter(file)
                begun = {"identity": self._identity, "run_id": self.run_id, "spent": self._measure(), "shards": shards}
                torch.save({**begun, **state}, writer)
                file.write(MARK + writer.digest)
            clear_shards(self._shards, None if shards is None else shards["name"])
        except (OSError, RuntimeError) as error:
            self._say_unwritten(error)
            return False
        self._saved_at = time.monotonic()
        return True

    def load(self) -> dict[str, Any] | None:
        """Load the state that was saved last, to the CPU; None where there is none. Raises Error if it is damaged.

        Of sharded weights each process gets its part, however many wrote them; all must call it together.
        """
        state = self._read(mapped=False)
        if state is None:
            return None
        self.seconds_before = state["spent"]
        if state.get("shards") is None:
            return state
        loaded: dict[str, Any] = read_shards(self._shards / state["shards"]["name"], state, self._processes)
        return loaded

    def settle(self, discard: bool) -> None:
        """Refuse another run's checkpoint, or a damaged one, as `load` does; with `discard`, remove it instead.

        All processes must call it together: each looks at some of the files of sharded weights.
        """
        try:
            state = self._read(mapped=True)
            self._check_shards(state)
        except Error:
            if not discard:
                raise
            self.remove()
            return
        if state is None:
            return
        differences = self._compare(state["identity"])
        if not differences:
            self.run_id, self.goes_on = state["run_id"], True
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
        if self._processes.is_first:
            self.path.unlink(missing_ok=True)
            clear_shards(self._shards, None)

    @property
    def _shards(self) -> Path:
        return self.path.with_suffix(".shards")

    def _check_shards(self, state: Mapping[str, Any] | None) -> None:
        """Raise Error where the folder that a checkpoint names is not as it was written."""
        if state is None or state.get("shards") is None:
            return
        folder, digests = self._shards / state["shards"]["name"], state["shards"]["digests"]
        problem = find_damage(folder, digests, self._processes)
        if problem is not None:
            raise Error(f"the checkpoint {self.path} {problem}; {self._explain_way_out()}")

    def _explain_way_out(self) -> str:
        aside = self.path.with_name(f"{self.path.name}.damaged")
        return f"move it aside to start the run over: mv '{self.path}' '{aside}' (or give --overwrite)"

    def _measure(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def _read(self, mapped: bool) -> dict[str, Any] | None:
        """Read the file, its digest first. Raises Error, which says what to do, where it is not as it was written."""
        if not self.path.exists():
            return None
        way_out = self._explain_way_out()
        problem = _find_damage(self.path)
        if problem is not None:
            raise Error(
                f"the checkpoint {self.path} {problem}: going on from it could lead to other weights; {way_out}"
            )
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # whatever unpickling raises
            raise Error(f"{self.path} cannot be read ({type(error).__name__}: {error}); {way_out}") from error
        if not isinstance(state, dict) or not {"identity", "run_id", "spent"} <= state.keys():
            raise Error(f"{self.path} is no checkpoint of a run; {way_out}")
        return state

    def _compare(self, other: Mapping[str, Any]) -> list[str]:
        names = dict.fromkeys((*self._identity, *other))
        return [
            f"{name} was {other.get(name)!r} and is {self._identity.get(name)!r}"
            for name in names
            if other.get(name) != self._identity.get(name)
        ]


class _HashingWriter:
    """A file to write to, from beginning to end, that knows the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, sha256()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def _find_damage(path: Path) -> str | None:
    """What shows that a file is not the checkpoint that was written; None where its digest is that of its bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - _TRAILER_BYTES
            file.seek(max(size, 0))
            trailer = file.read()
            if size < 0 or not trailer.startswith(MARK):
                return "has no checksum at its end (it is empty, cut, or another program's or version's)"
            file.seek(0)
            digest, left = sha256(), size
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                digest.update(piece)
                left -= len(piece)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest.digest() == trailer[len(MARK) :] else "is damaged: its bytes are not those that were written"
