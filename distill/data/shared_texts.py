"""Texts that several processes encode together before training: each encodes its share, and all keep all tokens."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa

from distill.compute.processes import Processes
from distill.data.columns import PIECE_BYTES, Array, Piece, cut_groups, read_piece
from distill.data.split import Bools, Split
from distill.data.tokens import TextColumn, TextEncoder, Tokens
from shared.shards.read import GroupReader, RowGroup


class SharedTexts(TextColumn):
    """Texts of the `wanted` rows as `tokens`, which were encoded beforehand, in the order of the split.

    It names the columns of the texts, though it has no use for them: row groups are put together by what those take in
    the shards, and several processes are to put together what one does.
    """

    def __init__(self, encoder: TextEncoder, wanted: Bools, tokens: Tokens, truncated: int) -> None:
        super().__init__(encoder)
        self.truncated = truncated
        self._tokens, self._place = tokens, np.cumsum(wanted) - 1  # the place of a wanted row among those

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Tokens:
        """Give the tokens of all wanted rows of a piece, in the order of the split: see BatchColumn."""
        place = int(self._place[start + rows[0]])
        return self._tokens.cut(place, place + len(rows))


def share_texts(split: Split, wanted: Bools, encoder: TextEncoder, processes: Processes, folder: Path) -> SharedTexts:
    """Encode the wanted rows' texts, a row group or a piece of one in each process at a time.

    All processes must call it together. Tokens lie in nameless files in `folder`, 5 bytes each, and 8 bytes a text.
    """
    column, reader = TextColumn(encoder), GroupReader()
    pieces = [piece for group in cut_groups(split, wanted, [column], PIECE_BYTES) for piece in group]
    with TemporaryFile(dir=folder) as ids, TemporaryFile(dir=folder) as types, TemporaryFile(dir=folder) as offsets:
        total = 0
        offsets.write(np.zeros(1, np.int64).tobytes())
        for first in range(0, len(pieces), processes.count):
            own = pieces[first + processes.rank : first + processes.rank + 1]  # none, where the others have the last
            for encoded in processes.gather_objects([_encode(column, reader, piece) for piece in own]):
                for tokens in encoded:
                    ids.write(tokens.ids.tobytes())
                    types.write(tokens.types.tobytes())
                    offsets.write((total + tokens.offsets[1:]).tobytes())
                    total += len(tokens.ids)
        kept = Tokens(_map(ids, np.int32), _map(types, np.int8), _map(offsets, np.int64))
    return SharedTexts(encoder, wanted, kept, sum(processes.gather_objects(column.truncated)))


def _encode(column: TextColumn, reader: GroupReader, piece: Piece) -> Tokens:
    return column.decode(read_piece(reader, piece, column.shard_columns), piece.rows, piece.group, piece.start)


def _map(file: IO[bytes], dtype: type[np.generic]) -> Array:
    """Map a file into memory: the mapping keeps its bytes when the file is closed."""
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)
