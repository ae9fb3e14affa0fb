"""How a causal student takes given replies: the likelihood of each token, and whether it would have said the same."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from distill.compute.devices import Device
from distill.data.sequences import PLACES, Sequences
from distill.scoring.lengths import batch_by_length, run_batches

BATCH_TOKENS = 8192
POSITIONS = 512  # whose logits exist at once


class Taken(NamedTuple):
    """What a student makes of one reply: its mean negative log-likelihood a token, in nats, and the share of the tokens
    with a top K at which the student's most probable token is the teacher's; None where the reply has no top K.
    """

    nll: float
    agreement: float | None


def measure_replies(
    generator: nn.Module, head: nn.Module, dialogues: Sequences, device: Device, pad_id: int = 0
) -> list[Taken]:
    """Measure how a student takes the replies of dialogues. Several processes share them."""
    generator.eval()
    batches = batch_by_length(dialogues.lengths.tolist(), BATCH_TOKENS)
    measure = _Measure(generator, head, dialogues, device, pad_id)
    return run_batches(measure.run, batches, len(dialogues), device.processes, "replies that are given")


class _Measure:
    def __init__(
        self, generator: nn.Module, head: nn.Module, dialogues: Sequences, device: Device, pad_id: int
    ) -> None:
        self._generator, self._head, self._dialogues = generator, head, dialogues
        self._device, self._pad_id = device, pad_id

    @torch.inference_mode()
    def run(self, rows: list[int]) -> list[Taken]:
        """Measure a batch."""
        batch = self._dialogues.take(np.array(rows)).collate(self._pad_id)
        inputs = {name: tensor.to(self._device.device) for name, tensor in batch.items()}
        with self._device.autocast():
            hidden = self._generator(inputs["input_ids"], inputs["attention_mask"])
            read = hidden.flatten(0, 1)[inputs[PLACES]]
            nll, first = measure_tokens(read, self._head, inputs["said"])
        has_top = inputs["has_top"].float()
        guess = inputs["top_ids"][:, 0] if inputs["top_ids"].shape[1] else inputs["said"]
        columns = torch.stack([nll, torch.ones_like(nll), (first == guess) * has_top, has_top], 1).double()
        sums = columns.new_zeros(len(rows), 4).index_add_(0, inputs["row"], columns).tolist()
        return [Taken(total / count, None if not tops else hits / tops) for total, count, hits, tops in sums]


def measure_tokens(hidden: Tensor, head: Callable[[Tensor], Tensor], said: Tensor) -> tuple[Tensor, Tensor]:
    """Give the negative log-likelihood of the tokens `said` (n,), float32, and the most probable ids, (n,)."""
    nll: list[Tensor] = []
    first: list[Tensor] = []
    for start in range(0, len(hidden), POSITIONS):
        logits = head(hidden[start : start + POSITIONS]).float()
        own = logits.gather(1, said[start : start + POSITIONS, None]).squeeze(1)
        nll.append(logits.logsumexp(1) - own)
        first.append(logits.argmax(1))
    return torch.cat(nll), torch.cat(first)
