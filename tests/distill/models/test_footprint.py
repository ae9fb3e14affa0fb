"""The arithmetic of memory against a model: its weights are counted, and what it saves for the way back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from distill.models.footprint import Plan, count_state, forecast, read_shape
from distill.models.pretrained import compute_layers_twice
from shared.sources import ResolvedModel, resolve_model

TOKENS = 2 * 24


def make_model(layers: int, *, tied: bool = True) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.train()
    return model


class SavedBytes:
    """Counts the bytes that are saved for the way back, each storage once; weights are none of them."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.sizes: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._shapes = {weight.shape for weight in model.parameters()}

    def pack(self, tensor: Tensor) -> Tensor:
        cast = tensor.shape in self._shapes or tensor.T.shape in self._shapes if tensor.dim() == 2 else tensor.dim() < 2
        if not cast:
            self.sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            self._kept.append(tensor)
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        return tensor


def count_saved(layers: int, *, twice: bool) -> int:
    """The bytes that the layers of a model save of TOKENS tokens under autocast, as on a card."""
    model = make_model(layers)
    if twice:
        compute_layers_twice(model, ResolvedModel("tiny", "tiny", None, "folder"))
    saved, ids = SavedBytes(model), torch.ones(2, TOKENS // 2, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state
    assert hidden.requires_grad
    return sum(saved.sizes.values())


@pytest.mark.parametrize("twice", [False, True])
def test_activations_are_what_the_layers_save(twice: bool) -> None:
    shape = read_shape(make_model(1).config)
    per_layer = (count_saved(3, twice=twice) - count_saved(1, twice=twice)) / 2
    expected = TOKENS * shape.width * 4 if twice else shape.count_saved(TOKENS)
    assert per_layer == expected


def test_weights_are_those_of_the_model_and_cards_share_all_that_lasts() -> None:
    for tied in (True, False):
        model = make_model(2, tied=tied)
        assert read_shape(model.config).weights == sum(weight.numel() for weight in model.parameters())
    shape = read_shape(make_model(2).config)
    one, four = forecast(shape, Plan(64)), forecast(shape, Plan(64, processes=4, sharded=True))
    assert (one.weights, one.gradients, one.moments) == tuple(
        4 * part for part in (four.weights, four.gradients, four.moments)
    )
    assert one.weights == one.gradients == one.moments / 2 == 4 * shape.weights
    assert forecast(shape, Plan(64, processes=4)).total == one.total, "each card has a whole student"


def test_what_lasts_of_a_student_is_counted_without_loading_it(tiny_causal: Path) -> None:
    source = resolve_model(str(tiny_causal))
    model = LlamaModel.from_pretrained(tiny_causal)
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    weights = model.num_parameters()
    assert count_state(source, None, adapts=False, halves=False) == 16 * weights
    assert count_state(source, None, adapts=True, halves=True) == 4 * (weights - linear) + 2 * linear
    assert count_state(source, 1, adapts=False, halves=True) < count_state(source, 2, adapts=False, halves=True)
