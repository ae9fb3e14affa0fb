"""The student that writes: a causal language model, its hidden states and head apart, and heads that training needs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from distill.config import KeptLayers, LoraTargets, Pooling
from distill.models.adapters import add_causal_lora, unwrap
from distill.models.locating import locate
from distill.models.orthogonal import OrthogonalLinear, init_linear
from distill.models.pretrained import compute_layers_twice, loading, replace_dropout
from shared.errors import SourceError
from shared.sources import ResolvedModel

_TOLERANCE = 1e-3  # of logits, computed by the model and by its head over its hidden states


class Head(nn.Module):
    """Makes logits (n, V) of hidden states (n, d), as a causal model does: its output layer, a scale, and a cap."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config.get_text_config()
        self.output = model.get_output_embeddings()
        # Granite divides by one, Cohere multiplies by the other; Gemma 2 caps.
        self.scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        self.cap = getattr(config, "final_logit_softcapping", None)

    def forward(self, hidden: Tensor) -> Tensor:
        """Give the logits."""
        logits: Tensor = self.output(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


class VectorHeads(nn.Module):
    """P_s and A_s of arXiv:2603.10877v1 on a pooled hidden state: P_s orthogonal, to `joint`; A_s to dim h_t."""

    def __init__(self, width: int, joint: int, vector_width: int) -> None:
        super().__init__()
        self.projection = OrthogonalLinear(width, joint)
        self.auxiliary = nn.Linear(joint, vector_width)
        self.auxiliary.apply(init_linear)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Give p_s and a_s, in float32: an orthogonal map in bfloat16 is none."""
        with torch.autocast(pooled.device.type, enabled=False):
            projected = self.projection(pooled.float())
            return projected, self.auxiliary(projected)


class Generator(nn.Module):
    """A causal model of transformers, or what peft makes of one; `heads` hang beside it where vectors are learnt.

    `vector_widths` are then the width of the joint space, and that of h_t.
    """

    def __init__(self, model: Any, vector_widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.model = model
        self._head = (Head(unwrap(model)),)  # in a tuple, so that its weights are not counted twice
        width = unwrap(model).get_output_embeddings().weight.shape[1]
        self.heads = None if vector_widths is None else VectorHeads(width, *vector_widths)

    @property
    def head(self) -> Head:
        """What makes logits of hidden states."""
        return self._head[0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Give the hidden states (n, t, d) that the head reads, of ids that are padded on the right."""
        base = unwrap(self.model).base_model
        hidden: Tensor = base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return hidden


def pool_hidden(hidden: Tensor, prompts: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Pool hidden states (n, t, d) of dialogues into (n, d): of so many tokens, `prompts` (n,) of them the prompt's."""
    place = torch.arange(hidden.shape[1], device=hidden.device)
    if pooling == "mean-prompt":
        chosen = place < prompts[:, None]
    elif pooling == "mean-reply":
        chosen = (place >= prompts[:, None]) & (place < lengths[:, None])
    else:
        last = {"last-prompt-token": prompts - 1, "last-token": lengths - 1, "first-token": torch.zeros_like(lengths)}
        chosen = place == last[pooling][:, None]
    pooled: Tensor = (hidden * chosen[:, :, None]).sum(1) / chosen.sum(1, keepdim=True)
    return pooled


def load_generator(
    source: ResolvedModel,
    layers: int | None = None,
    kept: KeptLayers = "first",
    dropout: float | None = None,
    lora_rank: int | None = None,
    lora_targets: LoraTargets = "default",
    gradient_checkpointing: bool = False,
) -> Any:
    """Load a causal language model in float32, cut to `layers` of its layers where given: see cut_layers.

    `dropout` replaces every dropout rate of its config. `lora_rank` freezes it and gives it low-rank updates.
    Raises SourceError, also for a model that writes nothing, or whose head is not where others have it.
    """
    with loading(source, "a causal language model"):
        config = AutoConfig.from_pretrained(source.location, **locate(source))
        if not any("CausalLM" in name or "LMHead" in name for name in config.architectures or ("CausalLM",)):
            raise SourceError(
                f"the student {source.source} ({', '.join(config.architectures)}) is no causal language model: it "
                "cannot write. Name one that can with --student"
            )
        if dropout is not None:
            replace_dropout(config, dropout)
        model = AutoModelForCausalLM.from_pretrained(
            source.location, config=config, dtype=torch.float32, **locate(source)
        )
    if layers is not None:
        cut_layers(model, layers, kept, source.source)
    model.config.use_cache = False
    _check_head(model, source.source)
    if gradient_checkpointing:
        compute_layers_twice(model, source)
    return model if lora_rank is None else add_causal_lora(model, source, lora_rank, lora_targets)


def cut_layers(model: Any, count: int, kept: KeptLayers, name: str) -> None:
    """Keep `count` layers of a model: the first ones, or with `ends` the first and the last ones.

    Of an odd number of ends one more is of the first. Raises SourceError where it has not as many, or no list of them.
    """
    stacks = [
        (owner, attribute, child)
        for owner in model.base_model.modules()
        for attribute, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and attribute in ("layers", "layer", "h", "blocks")
    ]
    total = model.config.get_text_config().num_hidden_layers
    found = next((stack for stack in stacks if len(stack[2]) == total), None)
    if found is None:
        raise SourceError(f"the student {name} ({type(model).__name__}) has no list of layers that could be cut")
    if count > total:
        raise SourceError(f"the student {name} has {total} layers, not {count}")
    owner, attribute, layers = found
    places = choose_layers(total, count, kept)
    setattr(owner, attribute, nn.ModuleList([layers[place] for place in places]))
    for index, layer in enumerate(getattr(owner, attribute)):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = index  # where it keeps its keys and values
    config = model.config.get_text_config()
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [config.layer_types[place] for place in places]


def choose_layers(total: int, count: int, kept: KeptLayers) -> list[int]:
    """List the layers that are kept of `total`."""
    first = count if kept == "first" else -(-count // 2)
    return [*range(first), *range(total - (count - first), total)]


@torch.inference_mode()
def _check_head(model: Any, name: str) -> None:
    """Refuse a model whose logits are not those of its head over its hidden states."""
    model.eval()
    ids = torch.arange(1, 9)[None] % model.config.get_text_config().vocab_size
    mask = torch.ones_like(ids)
    whole = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    if model.get_output_embeddings() is not None:
        generator = Generator(model)
        if torch.allclose(whole, generator.head(generator(ids, mask)), atol=_TOLERANCE, rtol=_TOLERANCE):
            return
    raise SourceError(
        f"the student {name} ({type(model).__name__}) makes its logits in a way of its own: take another student"
    )


def set_ends(model: Any, ends: Sequence[int], pad_id: int | None) -> None:
    """Let a model's generation end at any of `ends`, beside those that it knows, and its config name the padding."""
    base = unwrap(model)
    known = base.generation_config.eos_token_id
    every = [*([known] if isinstance(known, int) else known or ()), *ends]
    base.generation_config.eos_token_id = list(dict.fromkeys(every))
    base.generation_config.pad_token_id = base.config.pad_token_id = pad_id
