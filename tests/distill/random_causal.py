"""Random causal models of several families that write: as tiny as they can be."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,  # so large that what it writes varies
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_OWN: dict[str, dict[str, Any]] = {
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64, "init_std": 0.5},
    "gemma2": {"head_dim": 16, "sliding_window": 8},
}


def make_random(architecture: str, vocabulary: int) -> Any:
    """A model with learned positions (opt, gpt2), rotary ones (qwen2), or a sliding window of 8 tokens (gemma2)."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, vocab_size=vocabulary, **_SIZES, **_OWN.get(architecture, {}))
    return AutoModelForCausalLM.from_config(config).eval()
