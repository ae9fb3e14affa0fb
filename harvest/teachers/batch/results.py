"""What a job brought, by request: the lines of its results, in whatever order, doubled or strange."""

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvest.teachers.batch.ledger import RESULTS, Job
from harvest.teachers.batch.protocols.base import MALFORMED, BatchProtocol, Line, dump
from harvest.teachers.endpoint.faults import Fault, Kind, classify_response

_FINAL = (Kind.REFUSED, Kind.FATAL)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request of a job ended: with a reply `raw`, with a `fault` for good, or `unrun`, which says why."""

    raw: bytes | None = None
    fault: Fault | None = None
    unrun: str | None = None

    @property
    def rank(self) -> int:
        """Of several lines about one request the first of the highest rank counts: what was paid for, say."""
        return 2 if self.raw is not None else 1 if self.fault is not None else 0


@dataclass(slots=True)
class Results:
    """The outcomes of a job's requests, read from its file when they are wanted.

    `broken` counts the lines that are none, and `strange` those of requests that are not the job's.
    """

    job: Job
    protocol: BatchProtocol
    broken: int = 0
    strange: int = 0
    _places: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # rank, offset, length, by custom id

    def read(self) -> "Results":
        """Find the lines. Reads the whole file once; the job is at Step.ENDED."""
        own = {row.custom_id for row in self.job.rows}
        path = self.job.path / RESULTS
        if not path.exists():
            return self
        offset = 0
        with path.open("rb") as file:
            for data in file:
                line = self._parse(data)
                if line is not None and line.custom_id not in own:
                    self.strange += 1
                elif line is not None:
                    rank = _judge(line).rank
                    if rank > self._places.get(line.custom_id, (-1, 0, 0))[0]:
                        self._places[line.custom_id] = rank, offset, len(data)
                offset += len(data)
        return self

    def __len__(self) -> int:
        return len(self._places)

    def is_unrun(self, custom_id: str, number: int) -> bool:
        """Whether `find` would say that the request was not run."""
        rank, _, _ = self._places.get(custom_id, (0, 0, 0))
        return not rank and (custom_id in self._places or str(number + 1) not in self.job.state.bad_lines)

    def find(self, custom_id: str, number: int) -> Outcome:
        """How the request of that custom id, the `number`-th of the job (from 0), ended."""
        state = self.job.state
        if custom_id in self._places:
            _, offset, length = self._places[custom_id]
            with (self.job.path / RESULTS).open("rb") as file:
                file.seek(offset)
                line = self._parse(file.read(length))
            assert line is not None
            return _judge(line)
        if (bad := state.bad_lines.get(str(number + 1))) is not None:
            return Outcome(fault=Fault(Kind.REFUSED, "bad line", f"the provider refuses the request: {bad}"))
        return Outcome(unrun=state.problem or "the job ended without an answer to it")

    def _parse(self, data: bytes) -> Line | None:
        try:
            return self.protocol.read_line(_load(data))
        except MALFORMED:
            self.broken += bool(data.strip())
            return None


def _load(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)  # forgives what servers do send: NaN, half a surrogate pair


def _judge(line: Line) -> Outcome:
    if line.unrun is not None:
        return Outcome(unrun=line.unrun)
    raw = dump(line.body)
    if line.status == 200:
        return Outcome(raw=raw)
    fault = classify_response(line.status, {}, raw)
    return Outcome(fault=fault) if fault.kind in _FINAL else Outcome(unrun=fault.message)
