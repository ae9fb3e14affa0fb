"""What a frozen model's last layer gives for texts: one vector a text, read out in several ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.compute.devices import Device
from distill.data.batches import RowSource
from distill.data.columns import TARGET, Array

READ_OUTS = ("mean", "first token", "last token")


@dataclass(frozen=True, slots=True)
class ReadOuts:
    """Vectors (n, width), float32, of n rows by the way they were read out; `number` is a row's place in the split."""

    number: Array
    target: Array
    features: Mapping[str, Array]


@torch.inference_mode()
def read_out(model: Any, source: RowSource, device: Device, ways: Sequence[str]) -> ReadOuts:
    """Run a transformers classifier over the texts of a source's rows, in the order of the shards, without dropout.

    The mean is over the tokens of the text, those that separate texts among them.
    """
    model.eval()
    share, gather = device.processes.share, device.processes.gather
    numbers, targets, blocks = [], [], []
    for block in source.blocks():
        rows = block.read().join()
        lengths = rows.measure()
        assert lengths is not None, "texts have a length"
        order = np.argsort(-lengths, kind="stable")
        outputs = []
        for start, end in device.split_by_tokens(lengths[order]):
            batch = rows.take(order[start:end]).collate(share).to(device.device)
            inputs = batch.inputs()
            with device.autocast():
                hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
            outputs.append(gather(_pool(hidden.float(), inputs["attention_mask"], ways), len(batch)))
        together = np.empty((len(order), outputs[0].shape[1]), np.float32)
        together[order] = torch.cat(outputs).cpu().numpy()
        numbers.append(rows.number)
        targets.append(rows.values[TARGET])
        blocks.append(together)
    features = np.split(np.concatenate(blocks), len(ways), axis=1)
    return ReadOuts(np.concatenate(numbers), np.concatenate(targets), dict(zip(ways, features, strict=True)))


def _pool(hidden: Tensor, mask: Tensor, ways: Sequence[str]) -> Tensor:
    """(n, t, d) -> (n, d times the ways)."""
    rows, places = torch.arange(len(hidden), device=hidden.device), torch.arange(mask.shape[1], device=hidden.device)
    weights = mask[:, :, None].to(hidden.dtype)
    pooled = {
        "mean": (hidden * weights).sum(1) / weights.sum(1),
        "first token": hidden[rows, mask.argmax(1)],
        "last token": hidden[rows, (mask * (places + 1)).argmax(1)],
    }
    return torch.cat([pooled[way] for way in ways], dim=1)
