"""A teacher's words as vectors: read once, kept beside the shards, and what is said where there are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

import distill.data.replies
from distill.data.replies import encode_replies
from distill.data.split import Split, read_split
from distill.data.vectors import ShardVectors, iterate_vectors
from shared.errors import DataError, ShardError
from shared.schema import Row, Status
from shared.sentences import SentenceEncoder
from shared.shards.manifest import Manifest, choose_teacher, load_manifest
from shared.shards.verify import verify_shards
from tests.distill.distill_rows import WORDS, WriteFolder, make_rows, with_answer

FAILED = 12


def make_replies(count: int = 40) -> list[Row]:
    rng = np.random.default_rng(5)
    rows = [
        with_answer(row, embedding=None, reply=" ".join(rng.choice(WORDS, int(rng.integers(1, 6)))))
        for row in make_rows(count)
    ]
    return [with_answer(r, status=Status.FAILED, reply=None) if i == FAILED else r for i, r in enumerate(rows)]


@pytest.fixture
def asked(write_folder: WriteFolder) -> tuple[Path, Manifest, Split]:
    rows = make_replies()
    return read(write_folder({"train": [rows[:10], rows[10:]]}))


def read(path: Path) -> tuple[Path, Manifest, Split]:
    folder = choose_teacher(path)
    manifest = load_manifest(folder)
    return folder, manifest, read_split(folder, manifest, "train")


def gather(vectors: ShardVectors, split: Split) -> Any:
    return np.concatenate(list(iterate_vectors(split, vectors)))


def encode_asked(asked: Any, encoder: str) -> ShardVectors:
    folder, manifest, split = asked
    return encode_replies(folder, manifest, split, encoder)


def test_each_reply_is_what_the_encoder_makes_of_it(asked: Any, tiny_student: Path) -> None:
    vectors = encode_asked(asked, str(tiny_student))
    assert (vectors.width, vectors.widths, vectors.shard_columns) == (32, (32,), ())
    got = gather(vectors, asked[2])
    rows = [row for row in make_replies() if row.answer.status == Status.OK]
    assert got.shape == (len(rows), 32) == (39, 32)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_student), AutoModel.from_pretrained(tiny_student).eval()
    for row, vector in list(zip(rows, got, strict=True))[::7]:
        hidden = model(**tokenizer(row.answer.reply, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden.mean(0).detach().numpy(), atol=2e-3)


def test_they_are_made_once_and_kept_beside_the_shards(
    asked: Any, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = asked[0]
    first = gather(encode_asked(asked, str(tiny_student)), asked[2])
    assert len(list(folder.glob("vectors/reply-*.npy"))) == 2, "one a shard"
    assert verify_shards(folder).ok
    with monkeypatch.context() as patch:
        patch.setattr(SentenceEncoder, "encode", lambda *_: pytest.fail("encoded again"))
        np.testing.assert_array_equal(gather(encode_asked(asked, str(tiny_student)), asked[2]), first)


def test_a_new_shard_is_read_and_the_old_ones_are_not(
    write_folder: WriteFolder, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_replies()
    folder, manifest, split = read(write_folder({"train": [rows[:30]]}))
    encode_replies(folder, manifest, split, str(tiny_student))
    folder, manifest, split = read(write_folder({"train": [rows[30:]]}))
    texts: list[str] = []
    encode = SentenceEncoder.encode

    def watch(self: SentenceEncoder, some: Any) -> Any:
        texts.extend(some)
        return encode(self, some)

    monkeypatch.setattr(SentenceEncoder, "encode", watch)
    assert len(gather(encode_replies(folder, manifest, split, str(tiny_student)), split)) == 39
    assert texts == [row.answer.reply for row in rows[30:]]


def test_another_encoder_has_files_of_its_own(asked: Any, tiny_student: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    model = AutoModel.from_pretrained(tiny_student)
    weights = model.embeddings.word_embeddings.weight.data
    weights.copy_(weights.flip(0))
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(other)
    a, b = (gather(encode_asked(asked, str(encoder)), asked[2]) for encoder in (tiny_student, other))
    assert np.abs(a - b).max() > 0.01
    assert len(list(asked[0].glob("vectors/reply-*.npy"))) == 4


def test_a_run_that_is_stopped_leaves_no_half_file(
    asked: Any, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = SentenceEncoder.encode, []

    def stop(self: SentenceEncoder, texts: Any) -> Any:
        calls.append(texts)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return encode(self, texts)

    monkeypatch.setattr(SentenceEncoder, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        encode_asked(asked, str(tiny_student))
    assert len(list(asked[0].glob("vectors/*.npy"))) == 1, "that of the first shard"
    assert not list(asked[0].glob("vectors/.*.npy"))
    monkeypatch.undo()
    assert len(gather(encode_asked(asked, str(tiny_student)), asked[2])) == 39


@pytest.mark.parametrize("place", [0, 20])
def test_a_row_without_words_is_named(write_folder: WriteFolder, tiny_student: Path, place: int) -> None:
    rows = make_replies()
    rows[place] = with_answer(rows[place], reply=None)
    folder, manifest, split = read(write_folder({"train": [rows]}))
    with pytest.raises(DataError, match=f"'0-{place}' has no reply"):
        gather(encode_replies(folder, manifest, split, str(tiny_student)), split)


def test_a_file_that_was_cut_is_named(asked: Any, tiny_student: Path) -> None:
    encode_asked(asked, str(tiny_student))
    file = next(asked[0].glob("vectors/reply-*.npy"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ShardError, match=rf"{file.name} cannot be read .*remove it"):
        encode_asked(asked, str(tiny_student))


def test_the_key_changes_with_the_way_replies_are_read(
    asked: Any, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_asked(asked, str(tiny_student))
    monkeypatch.setattr(distill.data.replies, "_VERSION", -1)
    encode_asked(asked, str(tiny_student))
    assert len(list(asked[0].glob("vectors/reply-*.npy"))) == 4
