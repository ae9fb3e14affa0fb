"""Dialogues: what a prompt and a reply are as tokens, and what a batch of them is held to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from distill.compute.processes import Processes
from distill.data.dialogues import DialogueColumn, DialogueEncoder, make_encoder, read_examples
from distill.data.sequences import Sequences, join_sequences
from distill.methods.writing_phase import make_targets
from shared.example import Example, Message
from shared.schema import Row, row_schema, rows_to_batch
from shared.shards.read import RowGroup
from tests.distill.writing import BOS, EOS, TOP, VOCABULARY, PlainPrompter, make_sums, make_writer

GROUP = RowGroup(Path("part-0.parquet"), "train", 0, 0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_writer(tmp_path_factory.mktemp("writer")))


def encoder(tokenizer: Any, max_length: int = 64) -> DialogueEncoder:
    return make_encoder(tokenizer, max_length, [EOS])


def make_table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_batches([rows_to_batch(rows, row_schema())])


def decode(column: DialogueColumn, rows: list[Row]) -> Sequences:
    return column.decode(make_table(rows), np.arange(len(rows)), GROUP, 0)


def spell(ids: Any) -> str:
    return " ".join(VOCABULARY[int(token)] for token in ids)


def test_a_prompt_begins_once_and_a_reply_ends_once(tokenizer: Any) -> None:
    made = encoder(tokenizer)
    assert made.encode_prompts(["what is one", "<s> what is one", ""]) == [
        [BOS, *tokenizer.convert_tokens_to_ids(["what", "is", "one"])],
        [BOS, *tokenizer.convert_tokens_to_ids(["what", "is", "one"])],
        [BOS],
    ]
    assert made.end([5, 6]) == [5, 6, EOS]
    assert made.end([5, 6, EOS]) == [5, 6, EOS]


def test_a_tokenizer_that_begins_no_text_begins_no_prompt_but_an_empty_one(tmp_path: Path) -> None:
    made = encoder(AutoTokenizer.from_pretrained(make_writer(tmp_path, begins=False)))
    assert spell(made.encode_prompts(["what is one"])[0]) == "what is one"
    assert made.encode_prompts([""]) == [[BOS]]


def test_what_does_not_fit_is_cut_from_the_prompts_left_and_never_from_the_reply(tokenizer: Any) -> None:
    made = encoder(tokenizer, 6)
    assert made.fit([1, 2, 3, 4], [5, 6, 7]) == ([2, 3, 4], [5, 6, 7], None, None)
    assert made.fit([1, 2, 3, 4], [5, 6, 7, 8, 9]) == ([4], [5, 6, 7, 8, 9], None, None)
    assert made.fit([1, 2, 3, 4], [5, 6, 7, 8, 9, 10]) is None


@pytest.mark.parametrize("same_tokenizer", [True, False])
def test_a_batch_names_each_token_of_a_reply_by_place(tokenizer: Any, same_tokenizer: bool) -> None:
    rows = make_sums(5)
    long = rows[2]
    ids = [*(VOCABULARY.index(word) for word in "it is more more seven".replace("it", "what").split()), EOS]
    rows[2] = replace(long, answer=replace(long.answer, reply="what is more more seven", reply_ids=ids))
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer)
    batch = column.collate(decode(column, rows))
    assert isinstance(batch, dict)
    flat = batch["input_ids"].reshape(-1)
    width = batch["input_ids"].shape[1]
    for index, row in enumerate(rows):
        mine = batch["row"] == index
        assert spell(batch["said"][mine]) == f"{row.answer.reply} </s>"
        assert (flat[batch["places"][mine] + 1] == batch["said"][mine]).all()
        assert int(batch["places"][mine][0]) % width == int(batch["prompt_lengths"][index]) - 1
        whole = batch["input_ids"][index][: batch["lengths"][index]]
        assert spell(whole) == f"<s> {row.example.text} {row.answer.reply} </s>"
        assert batch["attention_mask"][index].tolist() == [1] * len(whole) + [0] * (width - len(whole))


def test_an_end_token_within_padding_or_prompt_is_told_from_the_replys(tokenizer: Any) -> None:
    """The end token pads: the reply's own is a target all the same, and no padding is."""
    rows = make_sums(2)
    first = rows[0]
    rows[0] = replace(first, example=replace(first.example, text="what </s> is </s> one plus two </s>"))
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reference")
    batch = column.collate(decode(column, rows))
    assert isinstance(batch, dict)
    assert batch["said"].tolist().count(EOS) == 2
    assert len(batch["said"]) == 4


def test_the_top_k_stays_with_its_tokens_and_an_added_end_has_none(tokenizer: Any) -> None:
    rows = make_sums(4)
    answer = rows[1].answer
    cut: dict[str, Any] = {
        name: (getattr(answer, name) or ())[:-1] for name in ("reply_ids", "topk_ids", "topk_logprobs", "topk_tail")
    }
    rows[1] = replace(rows[1], answer=replace(answer, **cut))
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer=True, with_top=True)
    made = join_sequences([decode(column, rows[:2]), decode(column, rows[2:])]).take(np.array([3, 1, 0]))
    batch = made.collate(0)
    assert batch["has_top"].tolist() == [True, True, True, False, True, True]
    named = batch["has_top"]
    assert (batch["top_ids"][named][:, 0] == batch["said"][named]).all()
    assert np.exp(batch["tail"][named].numpy()) == pytest.approx(0.1, rel=1e-2)  # a log is kept to a part in 512
    assert batch["counts"].tolist() == [6, 5]


def test_a_token_that_its_own_top_k_lacks_is_told_from_others(tokenizer: Any) -> None:
    rows = make_sums(6)
    for place in (1, 4):
        said, _ = rows[place].answer.reply_ids or ()
        others = [token for token in range(len(VOCABULARY)) if token != said][:TOP]
        ids = [others, (rows[place].answer.topk_ids or ())[1]]
        rows[place] = replace(rows[place], answer=replace(rows[place].answer, topk_ids=ids))
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer=True, with_top=True)
    wanted = [place not in (2, 8) for place in range(12)]
    assert decode(column, rows).named.tolist() == wanted
    batch = decode(replace(column, shuffle=3), rows).collate(0)
    none, one = torch.zeros(1), torch.ones(1)
    targets = make_targets(batch, none, one, one)
    assert (targets.tail_weight == 0).tolist() == wanted
    assert (targets.top_weight == 1).all()


def test_a_share_of_a_batch_counts_the_tokens_of_the_whole(tokenizer: Any) -> None:
    rows = make_sums(5)
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer=True, with_top=True)
    values = decode(column, rows)
    parts = [column.collate(values, Processes(rank, 2).share) for rank in (0, 1)]
    for part in parts:
        assert isinstance(part, dict)
        assert part["counts"].tolist() == [10, 10]
    assert [len(part["said"]) for part in parts if isinstance(part, dict)] == [6, 4]


def test_a_row_without_a_reply_or_without_room_is_none(tokenizer: Any) -> None:
    rows = make_sums(3)
    rows[0] = replace(rows[0], answer=replace(rows[0].answer, reply=None, reply_ids=None))
    long = "one " * 70
    rows[2] = replace(rows[2], answer=replace(rows[2].answer, reply=long, reply_ids=[4] * 70))
    column = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer=True)
    found = column.encode_rows(make_table(rows), np.arange(3))
    assert [each is None for each in found] == [True, False, True]


def test_shuffled_replies_are_those_of_other_rows_and_shuffled_tops_those_of_other_tokens(tokenizer: Any) -> None:
    rows = make_sums(40)
    plain = DialogueColumn(encoder(tokenizer), PlainPrompter(), "reply", same_tokenizer=True, with_top=True)
    own = decode(plain, rows)
    text = decode(replace(plain, with_top=False, shuffle=3), rows)
    assert (text.prompts == own.prompts).all()
    assert sorted(text.ids.tolist()) == sorted(own.ids.tolist())
    assert (text.ids != own.ids).any()
    tops = decode(replace(plain, shuffle=3), rows)
    assert (tops.ids == own.ids).all()
    assert (tops.named == own.named).all(), "what is learnt beside the distributions is learnt at no other tokens"
    assert sorted(map(tuple, tops.top_ids.tolist())) == sorted(map(tuple, own.top_ids.tolist()))
    assert (tops.top_ids[:, 0] != own.top_ids[:, 0]).mean() > 0.3
    again = decode(replace(plain, shuffle=3), rows)
    assert (again.top_ids == tops.top_ids).all()


def test_examples_are_read_as_they_were_written() -> None:
    example = Example(
        "a",
        "text",
        choices=("x", "y"),
        label=1,
        references=("r", "s"),
        messages=(Message("user", "hi"), Message("assistant", "ho")),
    )
    rows = [replace(make_sums(1)[0], example=example), *make_sums(2)]
    assert read_examples(make_table(rows)) == [row.example for row in rows]
