"""Shards to batches: row groups in random order, shuffled within a bounded buffer, batched by length.

What an epoch gives depends on (seed, epoch) alone, so that a batch is named by (epoch, its index).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.features import Vectors, decode_vectors
from distill.split import Bools, Split
from distill.tokens import TextEncoder, Tokens, join_tokens
from shared.shards.read import RowGroup, read_row_group

Array = np.ndarray[Any, Any]
Lookup = Callable[[Array], Array]  # row numbers -> vectors (n, width)

CHUNK = 16  # batches that are sorted by length together


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a split, one entry each; `number` is a row's place in the split."""

    number: Array
    target: Array
    labelled: Bools
    tokens: Tokens | None
    vectors: Array | None

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: Array) -> "Rows":
        """Some of them, in the order of `rows`."""
        return Rows(
            self.number[rows],
            self.target[rows],
            self.labelled[rows],
            None if self.tokens is None else self.tokens.take(rows),
            None if self.vectors is None else self.vectors[rows],
        )

    def sort_by_length(self) -> "Rows":
        """Shortest text first; rows without text stay as they are."""
        return self if self.tokens is None else self.take(np.argsort(self.tokens.lengths, kind="stable"))


def join_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of all parts, one part after the other; the parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    vectors = [part.vectors for part in parts if part.vectors is not None]
    return Rows(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.labelled for part in parts]),
        join_tokens(tokens) if tokens else None,
        np.concatenate(vectors) if vectors else None,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows as tensors: `inputs` for the student's model, `vectors` float32 (n, width), `target` and `labelled`."""

    inputs: dict[str, Tensor]
    vectors: Tensor | None
    target: Tensor
    labelled: Tensor
    number: Array

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            None if self.vectors is None else self.vectors.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.labelled.to(device, non_blocking=True),
            self.number,
        )


class Source:
    """The rows of a split that `wanted` marks, with their tokens, their vectors, or both.

    `labelled` marks the rows whose label may be seen. `lookup` gives vectors in place of the shards' own. At most about
    `buffer_rows` rows, rounded up to a row group, are in memory; a source of no more rows is read and tokenised once.
    """

    def __init__(
        self,
        split: Split,
        wanted: Bools,
        labelled: Bools,
        *,
        encoder: TextEncoder | None = None,
        vectors: Vectors | None = None,
        lookup: Lookup | None = None,
        buffer_rows: int,
    ) -> None:
        self.rows = int(wanted.sum())
        self.truncated = 0  # texts that were cut, counted while the first pass reads them
        self._split, self._wanted, self._labelled = split, wanted, labelled
        self._encoder, self._vectors, self._lookup = encoder, vectors, lookup
        self._buffer_rows = buffer_rows
        self._groups = [
            (group, start)
            for group, start in zip(split.groups, split.starts(), strict=True)
            if wanted[start : start + group.rows].any()
        ]
        self._kept: Rows | None = None
        self._counted: set[int] = set()

    def blocks(self, rng: np.random.Generator | None = None) -> Iterator[Rows]:
        """All rows once, a buffer at a time: shuffled, or without `rng` in the order of the shards."""
        if self.rows <= self._buffer_rows:
            if self._kept is None:
                self._kept = self._read(self._groups)
            yield self._kept if rng is None else self._kept.take(rng.permutation(self.rows))
            return
        order = np.arange(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
        buffer: list[tuple[RowGroup, int]] = []
        filled = 0
        for index in order:
            group, start = self._groups[index]
            buffer.append((group, start))
            filled += int(self._wanted[start : start + group.rows].sum())
            if filled >= self._buffer_rows or index == order[-1]:
                rows = self._read(buffer)
                yield rows if rng is None else rows.take(rng.permutation(len(rows)))
                buffer, filled = [], 0

    def _read(self, groups: Sequence[tuple[RowGroup, int]]) -> Rows:
        numbers: list[Array] = []
        tokens: list[Tokens] = []
        vectors: list[Array] = []
        read_vectors = self._vectors if self._lookup is None else None
        columns = [
            *(("text", "text_pair") if self._encoder else ()),
            *(read_vectors.columns if read_vectors else ()),
        ]
        for group, start in groups:
            rows = np.flatnonzero(self._wanted[start : start + group.rows])
            numbers.append(rows + start)
            table = read_row_group(group, columns)
            if self._encoder is not None:
                texts = (table[name].take(pa.array(rows)).to_pylist() for name in ("text", "text_pair"))
                encoded, cut = self._encoder.encode(*texts)
                tokens.append(encoded)
                if start not in self._counted:
                    self._counted.add(start)
                    self.truncated += cut
            if read_vectors is not None:
                vectors.append(decode_vectors(table, rows, read_vectors, group))
        number = np.concatenate(numbers)
        if self._lookup is not None:
            vectors = [self._lookup(number)]
        return Rows(
            number,
            self._split.target[number],
            self._labelled[number],
            join_tokens(tokens) if tokens else None,
            np.concatenate(vectors) if vectors else None,
        )


class Cursor:
    """Draws rows from a source without end: each cycle gives every row once, in an order of its own."""

    def __init__(self, source: Source, seed: Sequence[int]) -> None:
        self._source, self._seed = source, list(seed)
        self._cycle = 0
        self._blocks: Iterator[Rows] = iter(())
        self._block: Rows | None = None
        self._position = 0

    def take(self, count: int) -> Rows:
        """The next `count` rows."""
        parts = []
        while count:
            if self._block is None or self._position == len(self._block):
                self._block, self._position = self._next_block(), 0
            end = min(len(self._block), self._position + count)
            parts.append(self._block.take(np.arange(self._position, end)))
            count -= end - self._position
            self._position = end
        return join_rows(parts)

    def _next_block(self) -> Rows:
        block = next(self._blocks, None)
        if block is None:
            self._blocks = self._source.blocks(np.random.default_rng([*self._seed, self._cycle]))
            self._cycle += 1
            block = next(self._blocks)
        return block


@dataclass(frozen=True, slots=True)
class Part:
    """A share of every batch: `rows` of a source, drawn over and over, or with `once` until it has given each row."""

    source: Source
    rows: int
    once: bool = False


def count_batches(source: Source, batch_size: int) -> int:
    """Batches of one pass."""
    return -(-source.rows // batch_size)


def iterate_batches(
    parts: Sequence[Part], steps: int, seed: int, epoch: int, encoder: TextEncoder | None = None
) -> Iterator[Batch]:
    """`steps` batches of an epoch, each made of rows of every part. Texts of like length share a batch.

    CHUNK batches are drawn and sorted by length at a time and come in random order, so that padding is small and yet
    no epoch goes from short to long. `encoder` pads the texts.
    """
    rng = np.random.default_rng([seed, epoch])
    cursors = [Cursor(part.source, [seed, epoch, index]) for index, part in enumerate(parts)]
    for done in range(0, steps, CHUNK):
        count = min(CHUNK, steps - done)
        drawn = []
        for part, cursor in zip(parts, cursors, strict=True):
            left = part.source.rows - done * part.rows if part.once else count * part.rows
            drawn.append(cursor.take(min(left, count * part.rows)).sort_by_length())
        for index in rng.permutation(count):
            pieces = [
                rows.take(np.arange(index * part.rows, min((index + 1) * part.rows, len(rows))))
                for part, rows in zip(parts, drawn, strict=True)
            ]
            yield collate(join_rows(pieces), encoder)


def collate(rows: Rows, encoder: TextEncoder | None = None) -> Batch:
    """Rows as tensors; texts are padded to the longest."""
    return Batch(
        {} if rows.tokens is None or encoder is None else encoder.collate(rows.tokens),
        None if rows.vectors is None else torch.from_numpy(rows.vectors.astype(np.float32)),
        torch.from_numpy(rows.target),
        torch.from_numpy(rows.labelled),
        rows.number,
    )
