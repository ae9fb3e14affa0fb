"""Sentence vectors from a frozen transformers encoder, pooled as the model's own files say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shared.errors import SourceError
from shared.frozen_models import FrozenModel, choose_inference_device

_BATCH_TOKENS = 1024  # padding included: bounds memory, and keeps a short text from waiting for a long one


@dataclass(frozen=True, slots=True)
class Pooling:
    """How a text's token vectors become one: the mean or the first token's, scaled to length 1 if `normalise`."""

    mode: Literal["mean", "cls"] = "mean"
    normalise: bool = False


def read_pooling(model: FrozenModel) -> Pooling:
    """Read the pooling from the files of a sentence-transformers model; the plain mean where there are none.

    Raises SourceError for a pooling that is neither mean nor first token.
    """
    mode: Literal["mean", "cls"] = "mean"
    config = model.read_json("1_Pooling/config.json") or {}
    modes = {name for name, chosen in config.items() if name.startswith("pooling_mode") and chosen is True}
    if modes == {"pooling_mode_cls_token"}:
        mode = "cls"
    elif modes - {"pooling_mode_mean_tokens"}:
        raise SourceError(
            f"1_Pooling/config.json of {model.resolved.source} asks for {', '.join(sorted(modes))}; only mean and "
            "first token can be computed here. Choose another encoder"
        )
    modules = model.read_json("modules.json") or ()
    return Pooling(mode, any(module["type"].endswith("Normalize") for module in modules))


class SentenceEncoder:
    """A frozen text encoder, named as shared.sources.resolve_model takes it. Its weights load with the first text."""

    def __init__(self, source: str) -> None:
        self._source = FrozenModel(source)
        self._model: Any = None
        self._tokenizer: Any = None
        self._pooling = Pooling()
        self._window = 0

    def fingerprint(self) -> str:
        """Identify the model, as shared.sources.fingerprint_model does."""
        return self._source.fingerprint

    @property
    def width(self) -> int:
        """The dimensions of its vectors. Reads the model's files; imports no torch."""
        return self._source.width

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Encode each text to one vector: float32 of shape (n, d).

        A text longer than the model's window is encoded window by window and pooled over all windows; nothing is cut
        off. Raises SourceError where the model cannot be loaded.
        """
        import torch

        self.load()
        if not texts:
            return np.zeros((0, self._model.config.hidden_size), np.float32)
        encoded = self._tokenizer(list(texts), truncation=True, max_length=self._window, return_overflowing_tokens=True)
        windows, owners = encoded["input_ids"], encoded["overflow_to_sample_mapping"]
        sums = np.zeros((len(texts), self._model.config.hidden_size), np.float64)
        weights = np.zeros((len(texts), 1))
        for batch in split_by_length([len(window) for window in windows], _BATCH_TOKENS):
            inputs = self._tokenizer.pad({"input_ids": [windows[i] for i in batch]}, return_tensors="pt")
            inputs = inputs.to(self._model.device)
            with torch.inference_mode():
                hidden = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = hidden[:, 0] if self._pooling.mode == "cls" else (hidden * mask).sum(1)
            for row, vector in zip(batch, pooled.cpu().numpy(), strict=True):
                sums[owners[row]] += vector
                weights[owners[row]] += 1 if self._pooling.mode == "cls" else len(windows[row])
        vectors = sums / weights
        if self._pooling.normalise:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def load(self) -> None:
        """Load the weights, unless they are: beforehand where several threads are to encode at once.

        Raises SourceError where that fails.
        """
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = self._source.load(AutoTokenizer)
        self._pooling = read_pooling(self._source)
        model = self._source.load(AutoModel, dtype=torch.float32)
        # RoBERTa and MPNet number positions from 2; a model without a table of positions has no such limit.
        positions = getattr(model.config, "max_position_embeddings", None)
        limits = [self._tokenizer.model_max_length, *([] if positions is None else [positions - 2])]
        self._window = min(limits)
        self._model = model.to(choose_inference_device()).eval()

    def close(self) -> None:
        """Let go of the weights; the next text loads them again."""
        self._model = self._tokenizer = None


def split_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group the indices of items of similar length, so that little is padding.

    A batch holds at most `budget` of length, padding included, or one item that is longer alone.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
