"""Which tokens of a reply are its final answer's, and what they weigh in a loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.data.answer_weights import AnswerWeights
from distill.data.dialogues import DialogueColumn, make_encoder
from distill.data.sequences import PLACES
from distill.losses.tokens import sum_losses
from distill.methods.writing_phase import make_targets
from distill.models.generator import Generator
from shared.answers import find_rule
from shared.example import Example
from shared.schema import Answer, Row, Status, row_schema, rows_to_batch
from shared.shards.read import RowGroup
from tests.distill.writing import EOS, VOCABULARY, PlainPrompter, make_writer

# What a reply says, and what of it is its answer's; all of the last is, since it states none.
REPLIES = (("more plus one is seven", 1), ("two", 1), ("seven more seven", 1), ("what more", 2))
WEIGHT = 3.0


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_writer(tmp_path_factory.mktemp("tiny") / "writer")


def make_column(writer: Path, rule: str = "choice") -> DialogueColumn:
    tokenizer = AutoTokenizer.from_pretrained(writer)
    weights = AnswerWeights(find_rule(rule), tokenizer, WEIGHT)
    return DialogueColumn(make_encoder(tokenizer, 64, [EOS]), PlainPrompter(), "reply", True, answers=weights)


def make_table() -> pa.Table:
    rows = []
    for i, (reply, _) in enumerate(REPLIES):
        ids = [*map(VOCABULARY.index, reply.split()), EOS]
        example = Example(str(i), "what is one", choices=("two", "seven"), label=1)
        rows.append(Row(example, f"{i:064x}", 0, Answer(Status.OK, reply=reply, reply_ids=ids, attempts=1)))
    return pa.Table.from_batches([rows_to_batch(rows, row_schema())])


def read_batch(column: DialogueColumn) -> dict[str, torch.Tensor]:
    group = RowGroup(Path("part-0.parquet"), "train", 0, 0)
    batch = column.collate(column.decode(make_table(), np.arange(len(REPLIES)), group, 0))
    assert isinstance(batch, dict)
    return batch


def test_rows_whose_lengths_are_looked_at_are_not_weighed(writer: Path) -> None:
    found = make_column(writer).encode_rows(make_table(), np.arange(len(REPLIES)))
    assert [each.weights for each in found if each is not None] == [None] * len(REPLIES)


@torch.no_grad()
def test_an_answers_tokens_and_the_end_weigh_more_in_the_mean_over_all(writer: Path) -> None:
    """Against a restatement in float64, a token at a time, from the logits of the whole text."""
    batch = read_batch(make_column(writer))
    model: Any = AutoModelForCausalLM.from_pretrained(writer).double()
    generator = Generator(model)
    hidden = generator(batch["input_ids"], batch["attention_mask"]).flatten(0, 1)[batch[PLACES]]
    none = torch.zeros(1)
    targets = make_targets(batch, 1 / batch["weighed"].double(), none, none)
    found = sum_losses(hidden, generator.head, targets, "forward-kl", 3).total
    total = weighed = 0.0
    for row, (reply, answered) in enumerate(REPLIES):
        length = int(batch["lengths"][row])
        ids, count = batch["input_ids"][row, :length], len(reply.split()) + 1
        logprobs = model(ids[None]).logits[0].log_softmax(1)
        unstated = row == len(REPLIES) - 1
        for place in range(length - count, length):
            weight = WEIGHT if place >= length - 1 - answered and not unstated else 1.0
            total -= weight * float(logprobs[place - 1, ids[place]])
            weighed += weight
    assert batch["weighed"].tolist() == [weighed]
    assert found.item() == pytest.approx(total / weighed, rel=1e-10)


@pytest.mark.parametrize(
    ("rule", "reply", "answer"),
    [
        ("number", "3 + 4 is 7. The answer is 7.", "7."),
        ("number", "3 + 4 = 7\n#### 7", "7"),
        ("number", "so \\boxed{12} it is", "12} it is"),
        ("number", "first 3, then 1,234 in all", "1,234 in all"),
        ("number", "<think>the answer is 5, or not</think>It is 7", "7"),
        ("number", "I do not know", None),
        ("letter", "A is wrong, so the answer is (B)", "(B)"),
        ("exact", "the whole reply", "the whole reply"),
    ],
)
def test_where_an_answer_begins(rule: str, reply: str, answer: str | None) -> None:
    start = find_rule(rule).locate(reply, None)
    assert (None if start is None else reply[start:]) == answer
