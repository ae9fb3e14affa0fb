"""The top K out of its columns: equal to what was put in, filled where positions differ, None where there is none."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.schema import Answer, Row, Status, row_schema, rows_to_batch
from shared.topk import NO_TOKEN, TOPK_COLUMNS, decode_topk

IDS = [[5, 7, 9], [2, 4]]
LOGPROBS = [[-2.0, -0.5, -4.0], [-0.25, -3.0]]
TAIL = [-3.0, -8.0]


def make_table(*answers: Answer) -> pa.Table:
    rows = [Row(Example(str(number), "text"), f"{number:064x}", 0, answer) for number, answer in enumerate(answers)]
    return pa.Table.from_batches([rows_to_batch(rows, row_schema())])


def test_positions_come_back_most_probable_first_and_filled_to_one_width() -> None:
    kept = Answer(Status.OK, topk_ids=IDS, topk_logprobs=LOGPROBS, topk_tail=TAIL)
    table = pa.concat_tables([make_table(kept, Answer(Status.FAILED)), make_table(Answer(Status.OK), kept)])
    nothing, found, again = decode_topk(table, [1, 0, 3])
    assert nothing is None
    assert found is not None
    assert again is not None
    assert found.ids.tolist() == [[7, 5, 9], [2, 4, NO_TOKEN]]
    assert found.logprobs.tolist() == [[-0.5, -2.0, -4.0], [-0.25, -3.0, -math.inf]]
    assert found.tail.tolist() == TAIL
    assert all(np.array_equal(mine, others) for mine, others in zip(found, again, strict=True))
    assert [part.dtype.name for part in found] == ["int32", "float32", "float32"]


def test_a_slice_of_a_table_and_no_rows_are_read() -> None:
    kept = [Answer(Status.OK, topk_ids=[[number]], topk_logprobs=[[-0.5]], topk_tail=[-1.0]) for number in range(4)]
    table = make_table(*kept).slice(2)
    assert [found.ids.tolist() for found in decode_topk(table, [1, 0]) if found is not None] == [[[3]], [[2]]]
    assert decode_topk(table, []) == []
    assert decode_topk(table.slice(2), []) == []


def test_columns_of_different_lengths_are_refused() -> None:
    table = make_table(Answer(Status.OK, topk_ids=IDS, topk_logprobs=LOGPROBS, topk_tail=TAIL[:1]))
    with pytest.raises(ValueError, match="different lengths"):
        decode_topk(table.select(TOPK_COLUMNS), [0])


def test_a_tokenizer_is_known_by_its_tokens_and_ids_in_any_order(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {"a": 0, "b": 1, "<|end|>": 2}
    same = Tokenizer(models.WordLevel({"b": 1, "a": 0}, unk_token="a"))
    same.add_special_tokens(["<|end|>"])
    assert fingerprint_tokenizer(vocabulary) == fingerprint_tokenizer(same.get_vocab(with_added_tokens=True))
    assert fingerprint_tokenizer(vocabulary) != fingerprint_tokenizer({"a": 1, "b": 0, "<|end|>": 2})
    assert fingerprint_tokenizer(vocabulary) != fingerprint_tokenizer(same.get_vocab(with_added_tokens=False))
