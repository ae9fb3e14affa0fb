"""What a student writes: the same in any batch, ended where it ends, and drawn as its probabilities say."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from distill.compute.devices import Device
from distill.decoding import DECODINGS, Decoding, parse_decoding, show_decoding
from distill.models.adapters import unwrap
from distill.scoring.generate import find_end_tokens, generate, generate_replies
from shared.errors import DataError, UsageError
from tests.distill.random_causal import make_random

PEFT_WARNING = "ignore:`is_gradient_checkpointing`:FutureWarning"  # peft still asks under an old name
CPU = Device(torch.device("cpu"))
PROMPTS = [
    "The film is",
    "a",
    "the answer, the answer, the answer. The plot is so",
    "great",
    "The actor",
    "so so so so",
]
ENDS = list(range(40, 50))  # of a model that is not trained, any will do


def load(folder: Path) -> tuple[Any, Any, list[list[int]]]:
    """The model, with many end tokens so that replies differ in length, its tokenizer, and prompts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = ENDS
    return model, tokenizer, [tokenizer.encode(text) for text in PROMPTS]


def write_alone(model: Any, prompt: list[int], limit: int, ends: list[int]) -> tuple[tuple[int, ...], bool]:
    """Greedy decoding without padding and without a cache."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            return tuple(ids[len(prompt) :]), True
        ids.append(token)
    return tuple(ids[len(prompt) :]), False


def test_a_batch_writes_what_each_prompt_gets_alone(tiny_generator: Path) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    decoding = Decoding(max_new_tokens=24)
    replies = generate_replies(model, tokenizer, prompts, decoding, CPU)
    expected = [write_alone(model, prompt, 24, [*ENDS, tokenizer.eos_token_id]) for prompt in prompts]
    assert [(reply.ids, reply.ended) for reply in replies] == expected
    assert len({len(reply.ids) for reply in replies}) > 2, "they differ in length"
    assert {reply.ended for reply in replies} == {True, False}
    assert [reply.text for reply in replies] == [tokenizer.decode(reply.ids) for reply in replies]
    assert generate(model, tokenizer, prompts, decoding, CPU, batch_tokens=1) == [reply.text for reply in replies]


@pytest.mark.parametrize("decoding", [Decoding(10, temperature=1.3, top_p=0.9), Decoding(10, beams=3)])
def test_drawn_and_by_beams_a_reply_does_not_depend_on_its_batch(tiny_generator: Path, decoding: Decoding) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    together = generate_replies(model, tokenizer, prompts, decoding, CPU)
    for batch_tokens in (1, 60):
        assert generate_replies(model, tokenizer, prompts, decoding, CPU, batch_tokens) == together
    assert together != generate_replies(model, tokenizer, prompts, Decoding(10), CPU)
    if decoding.temperature:
        assert together != generate_replies(model, tokenizer, prompts, decoding, CPU, seed=1)
        same = generate_replies(model, tokenizer, [prompts[0]] * 8, decoding, CPU)
        assert len({reply.ids for reply in same}) > 1, "rows draw numbers of their own"


def test_beams_are_those_of_transformers(tiny_generator: Path) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    ends = list(find_end_tokens(model, tokenizer))
    for prompt, reply in zip(
        prompts, generate_replies(model, tokenizer, prompts, Decoding(12, beams=4), CPU), strict=True
    ):
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, num_beams=4, do_sample=False, eos_token_id=ends, pad_token_id=1
        )
        assert list(reply.ids) == [token for token in output[0, len(prompt) :].tolist() if token not in (*ends, 1)]


def test_tokens_are_drawn_as_often_as_they_are_probable(tiny_generator: Path) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    model.generation_config.eos_token_id = None
    temperature, count = 4.0, 4000
    with torch.inference_mode():
        probabilities = (model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].double() / temperature).softmax(0)
    replies = generate_replies(model, tokenizer, [prompts[0]] * count, Decoding(1, temperature=temperature), CPU)
    drawn = Counter(reply.ids[0] if reply.ids else tokenizer.eos_token_id for reply in replies)
    for token in probabilities.topk(8).indices.tolist():
        share = float(probabilities[token])
        assert abs(drawn[token] / count - share) < 5 * (share * (1 - share) / count) ** 0.5
    nucleus = generate_replies(
        model, tokenizer, [prompts[0]] * 200, Decoding(1, temperature=temperature, top_p=1e-6), CPU
    )
    assert {reply.ids for reply in nucleus} == {(int(probabilities.argmax()),)}


def test_the_models_own_settings_are_not_in_force(tiny_generator: Path) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    plain = generate(model, tokenizer, prompts, Decoding(10), CPU)
    model.generation_config = GenerationConfig(
        eos_token_id=ENDS, repetition_penalty=5.0, do_sample=True, temperature=9.0, no_repeat_ngram_size=1, num_beams=3
    )
    model.config.use_cache = False
    assert generate(model, tokenizer, prompts, Decoding(10), CPU) == plain
    assert model.generation_config.repetition_penalty == 5.0, "it is put back"


def test_prompt_and_reply_fit_the_models_positions(tiny_generator: Path) -> None:
    model, tokenizer, prompts = load(tiny_generator)
    model.generation_config.eos_token_id = None
    long = [5] * 250
    replies = generate_replies(model, tokenizer, [long, *prompts], Decoding(16), CPU)
    assert len(replies[0].ids) <= 6
    assert replies[1:] == generate_replies(model, tokenizer, prompts, Decoding(16), CPU)
    capped = generate_replies(model, tokenizer, prompts, Decoding(max_length=24), CPU)
    assert all(len(prompt) + len(reply.ids) <= 24 for prompt, reply in zip(prompts, capped, strict=True))
    with pytest.raises(DataError, match="the prompt of row 1 has 256 tokens; with a reply it may have 256"):
        generate(model, tokenizer, [prompts[0], [5] * 256], Decoding(), CPU)


@pytest.mark.parametrize("architecture", ["opt", "gpt2", "qwen2", "gemma2"])
def test_other_families_are_padded_as_well(tiny_generator: Path, architecture: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    model = make_random(architecture, len(tokenizer))
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    replies = generate_replies(model, tokenizer, prompts, Decoding(12), CPU)
    assert [(reply.ids, reply.ended) for reply in replies] == [write_alone(model, p, 12, [0]) for p in prompts]


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_an_adapter_writes_as_it_learnt(tiny_generator: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer, prompts = load(tiny_generator)
    plain = generate(model, tokenizer, prompts, Decoding(12), CPU)
    adapted = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, lora_alpha=32))
    replies = generate_replies(adapted, tokenizer, prompts, Decoding(12), CPU)
    assert [reply.text for reply in replies] != plain
    expected = [write_alone(unwrap(adapted), p, 12, [*ENDS, tokenizer.eos_token_id]) for p in prompts]
    assert [(reply.ids, reply.ended) for reply in replies] == expected


def test_a_decoding_is_read_as_it_is_shown() -> None:
    for decoding in (*DECODINGS.values(), Decoding(5, temperature=0.5, top_p=0.25, seeds=(1, 2), max_length=9)):
        assert parse_decoding(show_decoding(decoding).split()) == decoding
    assert parse_decoding(["minillm", "seeds=[1]", "max-new-tokens=8"]) == Decoding(8, 1.0, seeds=(1,), max_length=512)
    assert Decoding().cap(32).max_new_tokens == 32
    assert Decoding(8).cap(32).max_new_tokens == 8
    assert Decoding().cap(None).max_new_tokens == 256


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["warm"], "give one of greedy, minillm, llm-adapters, or NAME=VALUE"),
        (["heat=1"], "decoding has no heat; it has beams, max_length"),
        (["beams=2.5"], "beams is 2.5; give a whole number"),
        (["temperature=hot"], "temperature is 'hot'; give a number"),
        (["seeds=[1,x]"], "give a whole number"),
    ],
)
def test_a_decoding_that_cannot_be_read_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_decoding(texts)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0, "beams": 2},
        {"seeds": (1, 2)},
        {"top_p": 0.5},
        {"temperature": 1.0, "seeds": (1, 1)},
        {"beams": 0},
        {"temperature": -1.0},
        {"max_new_tokens": 0},
    ],
)
def test_a_decoding_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="decoding: "):
        Decoding(**options)
