"""The answers that a teacher folder keeps, found by their row, for a second teacher that adds to or scores them."""

from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from shared.errors import UsageError
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards import RowGroup, choose_teacher, iterate_pieces, iterate_rows, load_manifest, read_row_group
from shared.tasks import Task

_IDENTITY = ("sample_id", "draw", "text", "text_pair", "status")
_CACHED_PIECES = 4  # rows come in about the order of the first pass, so that few pieces of it are read at a time


class KeptAnswers:
    """The answers of the teacher folder `path` names. Raises UsageError where they are those of another task."""

    def __init__(self, path: Path, task: Task) -> None:
        self.folder = choose_teacher(path)
        self.manifest = load_manifest(self.folder)
        if (self.manifest.task, self.manifest.labels) != (task.name, task.labels):
            raise UsageError(
                f"{self.folder} answers the task {self.manifest.task} with labels {list(self.manifest.labels)}, "
                f"not {task.name} with {list(task.labels)}"
            )
        self._places: dict[bytes, tuple[int, int]] | None = None  # where each answer lies: its piece, its row there
        self._pieces: list[RowGroup | pa.Table] = []
        self._rows: dict[int, list[Row]] = {}

    def find(self, example: Example, draw: int) -> Answer | None:
        """The answer to an example; None where there is none."""
        if self._places is None:
            self._places = self._find_places()
        place = self._places.get(_identify(example.sample_id, draw, example.text, example.text_pair))
        if place is None:
            return None
        number, row = place
        if number not in self._rows:
            while len(self._rows) >= _CACHED_PIECES:
                del self._rows[next(iter(self._rows))]
            piece = self._pieces[number]
            table = read_row_group(piece) if isinstance(piece, RowGroup) else piece
            self._rows[number] = list(iterate_rows(table))
        return self._rows[number][row].answer

    def close(self) -> None:
        """Let go of what was read."""
        self._places = None
        self._pieces.clear()
        self._rows.clear()

    def _find_places(self) -> dict[bytes, tuple[int, int]]:
        places = {}
        for piece in iterate_pieces(self.folder, self.manifest, _IDENTITY):
            columns = (piece.table[name].to_pylist() for name in _IDENTITY)
            for row, (*identity, status) in enumerate(zip(*columns, strict=True)):
                if piece.current[row] and status != Status.UNASKED:
                    places[_identify(*identity)] = len(self._pieces), row
            self._pieces.append(piece.table if piece.row_group is None else piece.row_group)
        return places


def _identify(sample_id: str, draw: int, text: str, text_pair: str | None) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (sample_id, str(draw), text, text_pair or ""):
        digest.update(b"%d\0" % len(part) + part.encode())
    return digest.digest()
