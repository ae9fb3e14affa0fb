"""How much memory the training of a decoder takes on each card, by arithmetic: nothing is loaded.

It counts the student of Llama's kind that bfloat16 trains here (weights in float32, see distill.compute.devices), a
step of AdamW, and what a way back needs of the way there. What a driver, a library and a fragmented allocator keep
comes on top. Activations are those that eager transformers with fused attention saves: the test counts them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from distill.losses.tokens import GPU_LOGITS
from distill.models.locating import locate
from distill.models.pretrained import loading
from shared.sources import ResolvedModel

LEFT = 0.9  # of a card: the driver, the libraries and the gaps of the allocator have the rest
FULL, HALF = 4, 2  # bytes of a number in float32, and in 16 bits
MOMENTS = 2
GATHERED = 3  # layers at once: the one that is computed, the next one, and the buffer that this comes in


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder: `width` d, `inner` f of its gated MLP, `keys` numbers of all keys, and whether its head is `tied`."""

    layers: int
    width: int
    inner: int
    heads: int
    keys: int
    queries: int
    vocabulary: int
    tied: bool

    @property
    def linear(self) -> int:
        """Weights of a layer's linear maps."""
        return 2 * self.width * self.queries + 2 * self.width * self.keys + 3 * self.width * self.inner

    @property
    def layer(self) -> int:
        """Weights of a layer."""
        return self.linear + 2 * self.width

    @property
    def outer(self) -> int:
        """Weights outside the layers: embeddings, the last norm, and the head where it is not tied to them."""
        return self.vocabulary * self.width * (1 if self.tied else 2) + self.width

    @property
    def weights(self) -> int:
        """All weights."""
        return self.layers * self.layer + self.outer

    def count_adapter(self, rank: int) -> int:
        """Count the weights of low-rank updates of a layer's linear maps."""
        ends = 2 * (self.width + self.queries) + 2 * (self.width + self.keys) + 3 * (self.width + self.inner)
        return self.layers * rank * ends

    def count_saved(self, tokens: int) -> int:
        """Count the bytes that a layer saves of so many tokens for the way back."""
        each = 30 * self.width + 4 * self.keys + 8 * self.inner + 4 * self.heads + 8
        return tokens * (each + 2 * (self.queries - self.width))


def read_shape(config: Any) -> Shape:
    """Read the shape of a decoder in a transformers config."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=config.intermediate_size,
        heads=heads,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        queries=heads * size,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is trained: `rank` of an adapter, 0 for all weights; the tokens that a card computes at a time.

    Of several `processes` each has the whole student, or where it is `sharded` its part. `twice` computes each layer a
    second time on the way back, and saves its input alone.
    """

    tokens: int
    rank: int = 0
    processes: int = 1
    sharded: bool = False
    twice: bool = False


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on a card. `gathered` is what is put together of shared weights, or cast of whole ones, during a step."""

    weights: float
    gradients: float
    moments: float
    gathered: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of them at once, as they are at the turn of a step."""
        return self.weights + self.gradients + self.moments + self.gathered + self.activations + self.logits


def forecast(shape: Shape, plan: Plan) -> Footprint:
    """Forecast what a step takes on each card."""
    parts = plan.processes if plan.sharded else 1
    linear = shape.layers * shape.linear
    frozen = HALF * linear + FULL * (shape.weights - linear)
    trained = shape.count_adapter(plan.rank) if plan.rank else shape.weights
    weights = (frozen if plan.rank else 0) + FULL * trained
    saved = shape.layers * FULL * shape.width * plan.tokens + shape.count_saved(plan.tokens)
    numbers = min(plan.tokens * shape.vocabulary, GPU_LOGITS)
    head = 0 if plan.rank else 2 * FULL * shape.vocabulary * shape.width  # its gradient, of a part and of all so far
    return Footprint(
        weights=weights / parts,
        gradients=FULL * trained / parts,
        moments=MOMENTS * FULL * trained / parts,
        gathered=_count_gathered(shape, plan),
        activations=saved if plan.twice else shape.layers * shape.count_saved(plan.tokens),
        # In 16 bits, in float32, what is summed of them, and their gradient in 16 bits.
        logits=numbers * (2 * HALF + 2 * FULL) + head,
    )


def _count_gathered(shape: Shape, plan: Plan) -> float:
    if not plan.sharded or plan.processes == 1:
        # What autocast casts of weights in float32 stays until the way back.
        cast = shape.count_adapter(plan.rank) if plan.rank else shape.layers * shape.linear
        return HALF * cast
    layers, outer = GATHERED * HALF * shape.layer, FULL * shape.outer
    if plan.rank:
        return layers + outer
    return layers + 2 * outer + (HALF + FULL) * shape.layer  # gradients, as a whole until they are shared out


def count_state(source: ResolvedModel, layers: int | None, *, adapts: bool, halves: bool) -> int:
    """Count the bytes of a student's weights, gradients and moments, of whatever kind it is. Raises SourceError.

    The head is left out. `adapts` is whether an adapter is trained over frozen weights, whose own is left out, too;
    `halves` whether linear maps are computed in 16 bits.
    """
    with loading(source):
        config = AutoConfig.from_pretrained(source.location, **locate(source))
        if layers is not None:
            config.get_text_config().num_hidden_layers = layers
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=source.trusts_code)
    weights: int = sum(weight.numel() for weight in model.parameters())
    linear: int = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    if adapts:
        return FULL * (weights - linear) + (HALF if halves else FULL) * linear
    return FULL * (2 + MOMENTS) * weights + (HALF * linear if halves else 0)
