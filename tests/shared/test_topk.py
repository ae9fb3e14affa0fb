"""The top K out of its columns: equal to what was put in, filled where positions differ, None where there is none."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.schema import Answer, Row, Status, row_schema, rows_to_batch
from shared.topk import NO_TOKEN, TOPK_COLUMNS, decode_topk, round_logprobs

IDS = [[5, 7, 9], [2, 4]]
LOGPROBS = [[math.log(p) for p in probabilities] for probabilities in ([0.25, 0.5, 0.125], [0.75, 0.1875])]
TAIL = [math.log(0.125), math.log(0.0625)]
ROUNDED = 1 / 256  # of a log-probability, at most


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
    expected = [[math.log(0.5), math.log(0.25), math.log(0.125)], [math.log(0.75), math.log(0.1875), -math.inf]]
    np.testing.assert_allclose(found.logprobs, expected, rtol=ROUNDED, atol=2e-3)
    np.testing.assert_allclose(found.tail, TAIL, rtol=ROUNDED, atol=2e-3)
    np.testing.assert_allclose(np.exp(found.logprobs).sum(1) + np.exp(found.tail), 1, atol=1e-6)
    assert all(np.array_equal(mine, others) for mine, others in zip(found, again, strict=True))
    assert [part.dtype.name for part in found] == ["int32", "float32", "float32"]


def test_a_slice_of_a_table_and_no_rows_are_read() -> None:
    kept = [Answer(Status.OK, topk_ids=[[number]], topk_logprobs=[[-0.5]], topk_tail=[-1.0]) for number in range(4)]
    table = make_table(*kept).slice(2)
    assert [found.ids.tolist() for found in decode_topk(table, [1, 0]) if found is not None] == [[[3]], [[2]]]
    assert decode_topk(table, []) == []
    assert decode_topk(table.slice(2), []) == []


def test_rounding_is_off_by_one_part_in_256_at_most_and_by_less_than_0015_of_any_probability() -> None:
    exact = -np.geomspace(1e-4, 90, 20_000, dtype=np.float32)
    rounded = round_logprobs(exact).astype(np.float64)
    assert np.abs(rounded[exact < -1e-2] / exact[exact < -1e-2] - 1).max() <= ROUNDED
    assert np.abs(np.exp(rounded) - np.exp(exact)).max() < 0.0015
    assert round_logprobs(rounded.astype(np.float32)).tolist() == rounded.tolist()
    assert len(np.unique(rounded[exact < -1])) < 8 * 128
    assert round_logprobs([0.0, -9999.0]).tolist() == [0.0, -9984.0]


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
