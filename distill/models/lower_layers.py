"""A student whose embeddings and first layers stay as they came: their outputs are computed once a text, and kept.

What is left to train costs as much as the layers above. The kept outputs take 4 bytes a token and dimension on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from distill.compute.devices import Device
from distill.data.batches import RowSource
from distill.data.columns import TEXT
from distill.data.tokens import TextEncoder, Tokens, join_tokens
from shared.console import track
from shared.disk import lock_file, write_whole
from shared.errors import SourceError

_TOLERANCE = 1e-3  # of logits, computed in float32 in one piece and in two


class _GivenEmbeddings(nn.Module):
    """Stands where a model's embeddings were, and passes on what it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Tensor:
        return inputs_embeds


@dataclass(frozen=True, slots=True)
class Lower:
    """The embeddings and first layers that were taken off a model, which has the other layers only until `put_back`."""

    embeddings: nn.Module
    layers: nn.ModuleList

    def put_back(self, model: Any) -> None:
        """Make `model` whole again, with the layers that were trained on top."""
        owner, name = _find_stack(model)
        setattr(owner, name, nn.ModuleList([*self.layers, *getattr(owner, name)]))
        model.base_model.embeddings = self.embeddings

    @torch.inference_mode()
    def compute(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Give the outputs of the lower layers, (n, t, width), for token ids; `model` is the one they came from."""
        owner, name = _find_stack(model)
        upper, given = getattr(owner, name), model.base_model.embeddings
        setattr(owner, name, self.layers)
        model.base_model.embeddings = self.embeddings
        try:
            model.eval()
            outputs: Tensor = model.base_model(**inputs).last_hidden_state
            return outputs
        finally:
            setattr(owner, name, upper)
            model.base_model.embeddings = given


def take_lower(model: Any, layers: int, name: str) -> Lower:
    """Take the embeddings and the first `layers` layers off a classifier, which then takes `inputs_embeds` in place.

    Raises SourceError for a model, called `name`, that cannot be cut so: one that has not more layers, is no encoder,
    or whose logits would be others.
    """
    found = _find_stack(model)
    if found is None or not hasattr(model.base_model, "embeddings"):
        raise SourceError(f"the student {name} ({type(model).__name__}) cannot have frozen layers: train all of it")
    owner, attribute = found
    stack = getattr(owner, attribute)
    if layers > len(stack):
        raise SourceError(f"the student {name} has {len(stack)} layers, and {layers} of them were to be frozen")
    inputs = {
        "input_ids": torch.arange(1, 9)[None] % model.config.vocab_size,
        "attention_mask": torch.ones(1, 8).long(),
    }
    model.eval()
    with torch.inference_mode():
        whole = model(**inputs).logits
    lower = Lower(model.base_model.embeddings, nn.ModuleList(stack[:layers]))
    setattr(owner, attribute, nn.ModuleList(stack[layers:]))
    model.base_model.embeddings = _GivenEmbeddings()
    hidden = lower.compute(model, inputs)
    with torch.inference_mode():
        in_two = model(inputs_embeds=hidden, attention_mask=inputs["attention_mask"]).logits
    if not torch.allclose(whole, in_two, atol=_TOLERANCE):
        raise SourceError(
            f"the student {name} ({type(model).__name__}) gives other logits in two pieces: train all of it"
        )
    return lower


def _find_stack(model: Any) -> Any:
    """Find what holds a model's list of layers, and under which name; None where there is no such list."""
    count = model.config.num_hidden_layers
    for owner in model.base_model.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and name in ("layer", "layers") and len(child) <= count:
                return owner, name
    return None


class KeptOutputs:
    """What the lower layers gave for texts, found again by their tokens."""

    def __init__(self, ids: Tensor, types: Tensor, offsets: Tensor, values: Tensor) -> None:
        self._values = values
        tokens = Tokens(ids.numpy(), types.numpy(), offsets.numpy())
        self._starts = dict(zip(_make_keys(tokens), tokens.offsets[:-1].tolist(), strict=True))

    def pad(self, tokens: Tokens) -> Tensor:
        """Give outputs, (n, longest, width), 0 past the end of each. Raises KeyError for one that is not kept."""
        lengths = torch.from_numpy(tokens.lengths)
        starts = torch.tensor([self._starts[key] for key in _make_keys(tokens)])
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        padded = self._values[torch.where(mask, starts[:, None] + places, 0)]
        return padded * mask[:, :, None]


def _make_keys(tokens: Tokens) -> list[bytes]:
    ids, types = tokens.ids.astype(np.int32), tokens.types.astype(np.int8)
    bounds = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    return [ids[start:end].tobytes() + types[start:end].tobytes() for start, end in bounds]


def keep_outputs(
    path: Path, lower: Lower, model: Any, sources: Sequence[RowSource], encoder: TextEncoder, device: Device
) -> KeptOutputs:
    """Read the lower layers' outputs for all texts of `sources` from `path`, or compute and write them.

    Of several processes that want the same file one computes it and the others wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lower.embeddings.to(device.device)
    lower.layers.to(device.device)
    with lock_file(path.with_suffix(".lock")):
        if not path.exists():
            tokens = _collect_tokens(sources)
            values = _compute_all(lower, model, tokens, encoder, device)
            fields = {"ids": tokens.ids, "types": tokens.types, "offsets": tokens.offsets}
            tensors = {name: torch.from_numpy(field) for name, field in fields.items()} | {"values": values}
            with write_whole(path) as temporary:
                save_file(tensors, temporary)
    with safe_open(path, "pt") as file:  # mapped, so that processes share it
        return KeptOutputs(*(file.get_tensor(name) for name in ("ids", "types", "offsets", "values")))


def _collect_tokens(sources: Sequence[RowSource]) -> Tokens:
    """Collect the tokens of all texts, each once."""
    kept: dict[bytes, Tokens] = {}
    for source in sources:
        for block in source.blocks():
            tokens: Tokens = block.read().join().values[TEXT]
            for row, key in enumerate(_make_keys(tokens)):
                kept.setdefault(key, tokens.take(np.array([row])))
    return join_tokens(list(kept.values()))


def _compute_all(lower: Lower, model: Any, tokens: Tokens, encoder: TextEncoder, device: Device) -> Tensor:
    order = np.argsort(-tokens.lengths, kind="stable")
    values = None
    with track("outputs of the frozen layers", len(order)) as tracker:
        for start, end in device.split_by_tokens(tokens.lengths[order]):
            rows = order[start:end]
            inputs = {name: tensor.to(device.device) for name, tensor in encoder.collate(tokens.take(rows)).items()}
            with device.autocast():
                hidden = lower.compute(model, inputs).float().cpu()
            if values is None:
                values = torch.empty(int(tokens.offsets[-1]), hidden.shape[-1])
            for row, outputs in zip(rows, hidden, strict=True):
                first, end = int(tokens.offsets[row]), int(tokens.offsets[row + 1])
                values[first:end] = outputs[: end - first]
            tracker.advance(len(rows))
    assert values is not None
    return values
