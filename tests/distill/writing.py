"""Rows of tasks whose student writes, a tiny causal model that can, and prompts in plain words; for the tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.schema import Answer, Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOCABULARY = ("<unk>", "<s>", "</s>", *NUMBERS, "plus", "is", "what", "more", ":")
BOS, EOS = 1, 2
TOP = 4


@dataclass(frozen=True)
class PlainPrompter:
    """The text, and after it the answer."""

    def write(self, example: Example) -> str:
        return example.text

    def complete(self, example: Example, answer: str) -> str:
        return answer

    def answer(self, example: Example) -> str | None:
        return example.target_text


def make_writer(folder: Path, *, begins: bool = True) -> Path:
    """Save a random LLaMA of 2 layers x 32 that writes words; its tokenizer pads with nothing, and `begins` texts."""
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
        chat_template=(
            "{{ bos_token }}{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} </s> {% endfor %}"
            "{% if add_generation_prompt %}assistant : {% endif %}"
        ),
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=128,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_sums(count: int, seed: int = 0, *, draws: int = 1, top: bool = True, width: int | None = None) -> list[Row]:
    """Rows that add nothing or one to a number below five: `draws` replies to each, of which the odd ones are wrong.

    A reply's ids are those of the tiny writer, its end among them; the top K put .7 on what was said. `width` is that
    of a vector that is a direction for each sum, under noise.
    """
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(10, width or 1))
    rows = []
    for i in range(count):
        a, b = int(rng.integers(5)), int(rng.integers(2))
        right = NUMBERS[a + b]
        example = Example(f"{seed}-{i}", f"what is {NUMBERS[a]} plus {NUMBERS[b]}", target_text=right)
        vector = None if width is None else directions[a + b] * 3 + rng.normal(size=width) * 0.1
        for draw in range(draws):
            reply = right if draw % 2 == 0 else NUMBERS[(a + b + 1) % 10]
            ids = [*(VOCABULARY.index(word) for word in reply.split()), EOS]
            answer = Answer(Status.OK, reply=reply, finish_reason="stop", reply_ids=ids, embedding=vector, attempts=1)
            answer = add_top(answer, rng) if top else answer
            rows.append(Row(example, f"{seed:024x}{draw:08x}{i:032x}", draw, answer))
    return rows


def add_top(answer: Answer, rng: np.random.Generator) -> Answer:
    """Give an answer a top K: .7 on what it said, .2 on others, and .1 on the rest."""
    ids, logprobs = [], []
    for said in answer.reply_ids or ():
        others = [token for token in rng.permutation(len(VOCABULARY)).tolist() if token != said][: TOP - 1]
        ids.append([said, *others])
        logprobs.append(np.log([0.7, *[0.2 / (TOP - 1)] * (TOP - 1)]).tolist())
    values = {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
    return Answer(**{**values, "topk_ids": ids, "topk_logprobs": logprobs, "topk_tail": [np.log(0.1)] * len(ids)})


def unasked(rows: Sequence[Row]) -> list[Row]:
    """The same rows as those of a split that the teacher was not asked about."""
    return [Row(row.example, row.request_key, row.draw, Answer(Status.UNASKED)) for row in rows]


def make_choices(rows: Sequence[Row]) -> list[Row]:
    """The same rows as choices: the right number stands second of three."""
    made = []
    for row in rows:
        right = row.example.target_text or (row.example.choices and row.example.choices[1]) or ""
        place = NUMBERS.index(right)
        choices = (NUMBERS[(place + 1) % 10], right, NUMBERS[(place + 3) % 10])
        made.append(replace(row, example=replace(row.example, choices=choices, label=1, target_text=None)))
    return made


def write_sums(
    out: Path,
    writer: Path,
    train: list[Row],
    *,
    tokenizer: bool = True,
    choices: bool = False,
    validation: list[Row] | None = None,
) -> Path:
    """Write data/sums/: train, a `validation` that the teacher was not asked about unless given, and an asked test."""
    vocabulary = AutoTokenizer.from_pretrained(writer).get_vocab()
    recorded = {"tokenizer": {"name": "tiny", "sha256": fingerprint_tokenizer(vocabulary)}} if tokenizer else {}
    manifest = Manifest(
        task="sums",
        teacher="t",
        kind="choice" if choices else "generation",
        labels=(),
        metric="accuracy" if choices else "exact_match",
        recipe={"teacher": "t", **recorded},
        source="made by the test",
        answer_rule="choice" if choices else "exact",
        max_reply_tokens=4,
    )
    with TeacherFolder.open(out / "data" / "sums", manifest) as folder:
        splits = {"train": train, "validation": validation or unasked(make_sums(20, 1)), "test": make_sums(20, 2)}
        for split, rows in splits.items():
            folder.append(split, make_choices(rows) if choices else rows)
            folder.seal(split)
    return out / "data" / "sums"
