"""A LLaMA of 40,000 random parameters, made on the spot, for the teachers that score or write tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|text|>", "<|end|>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = ("Write one sentence about it. the sea, the land and the old stones by the house",)


def make_tiny_llama(
    folder: Path, texts: Sequence[str] = TEXTS, *, positions: int = 512, ends: Sequence[int] = (0, 1)
) -> Path:
    """Write the model and its tokenizer, which is learnt from `texts`, as from_pretrained and vLLM read them.

    A text ends with <|text|> (0), a turn with <|end|> (1), and a reply, after some tokens, with one of `ends`.
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
        chat_template=_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,  # a head of 32 numbers: vLLM knows none of 16
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=0.25,
        eos_token_id=list(ends),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
