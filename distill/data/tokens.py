"""Texts as tokens: encoded a buffer at a time, kept without padding, padded a batch at a time."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from distill.data.columns import Array, Share, Tensors
from shared.shards.read import RowGroup


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of texts, end to end: those of text i from `offsets`[i] to `offsets`[i + 1]. `types` go with them."""

    ids: Array
    types: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        """Tokens of each text."""
        return np.diff(self.offsets)

    def take(self, rows: Array) -> "Tokens":
        """Pick those of some texts, in the order of `rows`."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Tokens(self.ids[where], self.types[where], offsets)

    def cut(self, start: int, end: int) -> "Tokens":
        """Give those of the texts from `start` up to `end`: nothing is copied but their offsets."""
        offsets = self.offsets[start : end + 1]
        here = slice(int(offsets[0]), int(offsets[-1]))
        return Tokens(self.ids[here], self.types[here], offsets - offsets[0])

    def pad(self, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make `input_ids`, `attention_mask` and `token_type_ids`, each (n, longest), int64; padding on the right."""
        lengths = self.lengths
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        types = np.zeros(mask.shape, np.int64)
        ids[mask], types[mask] = self.ids, self.types
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(types)


def join_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Put the texts of all parts one after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Tokens(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.types for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


class TextEncoder:
    """Encodes texts and pairs of texts as a fast tokenizer does, cut to `max_length` tokens, the longer text first.

    `embed`, where it is set, gives what the model takes in place of token ids: see distill.models.lower_layers.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.max_length = max_length
        self.embed: Callable[[Tokens], Tensor] | None = None
        self.pad_id: int = tokenizer.pad_token_id
        self.input_names: tuple[str, ...] = tuple(tokenizer.model_input_names)
        self._tokenizer = deepcopy(tokenizer.backend_tokenizer)  # the caller's keeps its own settings
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")

    def encode(self, texts: Sequence[str], pairs: Sequence[str | None]) -> tuple[Tokens, int]:
        """Give the tokens of texts[i], with pairs[i] where it is not None, and how many texts were cut."""
        inputs = [text if pair is None else (text, pair) for text, pair in zip(texts, pairs, strict=True)]
        encoded = self._tokenizer.encode_batch_fast(inputs)
        offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded], dtype=np.int64)]).astype(np.int64)
        total = int(offsets[-1])
        tokens = Tokens(
            np.fromiter(chain.from_iterable(e.ids for e in encoded), np.int32, total),
            np.fromiter(chain.from_iterable(e.type_ids for e in encoded), np.int8, total),
            offsets,
        )
        return tokens, sum(1 for e in encoded if e.overflowing)

    def collate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Make a padded batch, of the inputs that the model takes."""
        ids, mask, types = tokens.pad(self.pad_id)
        if self.embed is not None:
            return {"inputs_embeds": self.embed(tokens), "attention_mask": mask}
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.input_names:
            inputs["token_type_ids"] = types
        return inputs


class TextColumn:
    """Texts and pairs of texts as tokens. `truncated` counts those that were cut, when they are read first.

    It belongs to the one source that reads it.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.truncated = 0
        self._encoder = encoder
        self._counted: set[int] = set()  # row groups, by the number of their first row

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """The columns of a shard that hold the texts."""
        return ("text", "text_pair")

    def decode(self, table: pa.Table, rows: Array, group: RowGroup, start: int) -> Tokens:
        """Encode the texts of some rows: see BatchColumn."""
        texts = (table[name].take(pa.array(rows)).to_pylist() for name in self.shard_columns)
        tokens, cut = self._encoder.encode(*texts)
        if start not in self._counted:
            self._counted.add(start)
            self.truncated += cut
        return tokens

    def count_bytes(self, stored: int, rows: int) -> int:
        """Bound the memory of some texts: 5 bytes a token, and 8 a text. See BatchColumn.

        A text has no more tokens than bytes, and two that are special.
        """
        return 5 * min(stored + 2 * rows, rows * self._encoder.max_length) + 8 * rows

    def join(self, parts: Sequence[Tokens]) -> Tokens:
        """Put texts one after the other."""
        return join_tokens(parts)

    def take(self, values: Tokens, rows: Array) -> Tokens:
        """Pick the texts of some rows."""
        return values.take(rows)

    def measure(self, values: Tokens) -> Array:
        """Give the number of tokens of each text."""
        return values.lengths

    def collate(self, values: Tokens, share: Share | None = None) -> Tensors:
        """Pad the texts, or those that `share` picks, to the longest: the inputs that the model takes."""
        return self._encoder.collate(values if share is None else values.take(share(len(values))))
