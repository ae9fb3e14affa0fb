"""What a causal student writes: greedy, drawn with a seed a row, or by beams; a row's reply does not depend on others.

Rows of about one length are padded on the left together. Of the model's own generation config only the end tokens
count: its temperature, penalties and the like are not those that a score names.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from distill.compute.devices import Device
from distill.decoding import DEFAULT_NEW_TOKENS, Decoding
from distill.models.adapters import unwrap
from distill.scoring.lengths import batch_by_length, pad, run_batches
from shared.errors import DataError
from shared.frozen_models import quiet_transformers

BATCH_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Generated:
    """A reply: its text without special tokens, its token ids up to the end token, and whether it came to that."""

    text: str
    ids: tuple[int, ...]
    ended: bool


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    device: Device,
    batch_tokens: int = BATCH_TOKENS,
    seed: int | None = None,
) -> list[str]:
    """Write a reply to each prompt and give the texts, without special tokens: see generate_replies."""
    return [r.text for r in generate_replies(model, tokenizer, prompts, decoding, device, batch_tokens, seed)]


def generate_replies(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    device: Device,
    batch_tokens: int = BATCH_TOKENS,
    seed: int | None = None,
) -> list[Generated]:
    """Write a reply to each prompt, which is token ids; `model` is a causal model of transformers, or peft's of one.

    A batch has at most `batch_tokens` tokens, prompts, replies and padding together. Each row draws with `seed`, the
    decoding's first unless given, and its place among the prompts, whatever batch it is in. Several processes share
    the rows. Raises DataError for a prompt that leaves no room for a reply.
    """
    model.eval()
    limits = _find_limits(unwrap(model), prompts, decoding)
    writer = _Writer(
        unwrap(model),
        tokenizer,
        prompts,
        limits,
        decoding,
        device,
        decoding.seeds[0] if seed is None else seed,
        find_end_tokens(model, tokenizer),
    )
    lengths = [(len(prompt) + limit) * decoding.beams for prompt, limit in zip(prompts, limits, strict=True)]
    # What a beam search finds depends on when it has to end.
    batches = batch_by_length(lengths, batch_tokens, limits if decoding.beams > 1 else None)
    with _own_config(unwrap(model)):
        return run_batches(writer.write, batches, len(prompts), device.processes, "replies")


def find_end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Give the ids that end a reply: those of the model's generation config, and the tokenizer's end token."""
    known = unwrap(model).generation_config.eos_token_id
    ids = [known] if isinstance(known, int) else list(known or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return tuple(dict.fromkeys(ids))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the replies of a batch of `prompts`, by their places among them; `limits` are their longest replies."""

    model: Any
    tokenizer: Any
    prompts: Sequence[Sequence[int]]
    limits: Sequence[int]
    decoding: Decoding
    device: Device
    seed: int
    ends: tuple[int, ...]

    @torch.inference_mode()
    def write(self, rows: list[int]) -> list[Generated]:
        prompts, limit = [self.prompts[row] for row in rows], max(self.limits[row] for row in rows)
        filling = self.ends[0] if self.ends else 0  # masked, and cut off behind an end token: any id will do
        ids = torch.tensor(list(pad(prompts, filling, left=True)))
        mask = torch.tensor(list(pad([[1] * len(prompt) for prompt in prompts], 0, left=True)))
        config = GenerationConfig(
            max_new_tokens=limit,
            num_beams=self.decoding.beams,
            do_sample=False,
            eos_token_id=list(self.ends) or None,
            pad_token_id=filling,
            use_cache=True,
        )
        processors = LogitsProcessorList()
        if self.decoding.temperature:
            drawn = np.stack([np.random.default_rng([self.seed, row]).random(limit) for row in rows])
            numbers = torch.from_numpy(drawn).to(self.device.device)
            processors.append(DrawByRow(numbers, ids.shape[1], self.decoding.temperature, self.decoding.top_p))
        with self.device.autocast(), quiet_transformers():
            output = self.model.generate(
                ids.to(self.device.device),
                attention_mask=mask.to(self.device.device),
                generation_config=config,
                logits_processor=processors,
                synced_gpus=self.device.processes.shards,  # the longest reply of any process keeps all of them going
            )
        said = output[:, ids.shape[1] :].tolist()
        return [self._cut(reply[: self.limits[row]]) for row, reply in zip(rows, said, strict=True)]

    def _cut(self, reply: list[int]) -> Generated:
        length = next((place for place, token in enumerate(reply) if token in self.ends), None)
        text = self.tokenizer.decode(reply[:length], skip_special_tokens=True)
        return Generated(text, tuple(reply[:length]), length is not None)


class DrawByRow(LogitsProcessor):
    """Draws each row's next token with numbers of its own, and leaves no other token to a greedy search.

    `numbers` (n, steps), uniform in [0, 1), are looked up in the cumulative probabilities, after temperature and top-p.
    """

    def __init__(self, numbers: Tensor, width: int, temperature: float, top_p: float) -> None:
        self._numbers, self._width, self._temperature = numbers, width, temperature
        self._warp = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Give (n, vocabulary): 0 at the drawn token, minus infinity elsewhere; `input_ids` are prompt and reply."""
        scores = scores.double() / self._temperature
        if self._warp is not None:
            scores = self._warp(input_ids, scores)
        upto = scores.softmax(dim=-1).cumsum(dim=-1)
        number = self._numbers[:, input_ids.shape[1] - self._width, None] * upto[:, -1:]
        token = torch.searchsorted(upto, number, right=True).clamp(max=upto.shape[1] - 1)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter(1, token, 0.0)


def _find_limits(model: Any, prompts: Sequence[Sequence[int]], decoding: Decoding) -> list[int]:
    """Give how many tokens each prompt's reply may have."""
    most = decoding.max_new_tokens or DEFAULT_NEW_TOKENS
    rooms = [decoding.max_length, getattr(model.config, "max_position_embeddings", None)]
    room = min((each for each in rooms if each), default=None)
    limits = []
    for row, prompt in enumerate(prompts):
        limit = most if room is None else min(most, room - len(prompt))
        if not prompt or limit < 1:
            raise DataError(
                f"the prompt of row {row} has {len(prompt)} tokens; with a reply it may have {room}: cut it, or drop it"
            )
        limits.append(limit)
    return limits


@contextmanager
def _own_config(model: Any) -> Iterator[None]:
    """Keep a model's own penalties and the like from filling in what a GenerationConfig leaves open."""
    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
