"""The reader: draws, reads and encodes, with the real recogniser and a real sentence encoder."""

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from harvest.rendering import Layout, render
from harvest.teachers.reader import ReaderConfig, ReaderTeacher
from shared.errors import DataError, SourceError
from shared.example import Example
from shared.keys import canonical_json
from shared.schema import Row, Status, row_schema, rows_to_batch
from shared.sentences import SentenceEncoder
from shared.sources import MINILM
from shared.tasks import TASKS
from tests.harvest.asking_teachers import ask

TASK = TASKS["rotten_tomatoes"]
TEXTS = ["A visually stunning rumination on love.", "Crème brûlée: naïve, but good!", "这是一个好故事。"]


@pytest.fixture(scope="module")
def teacher() -> ReaderTeacher:
    return ReaderTeacher(ReaderConfig(encoder=MINILM), TASK, name="reader")


def test_it_reads_what_is_drawn_and_encodes_what_it_read(teacher: ReaderTeacher) -> None:
    before = datetime.now(UTC)
    answers = ask(teacher, TEXTS)
    assert [answer.reply for answer in answers] == TEXTS
    expected = SentenceEncoder(MINILM).encode(TEXTS)
    for answer, text, vector in zip(answers, TEXTS, expected, strict=True):
        assert answer.status is Status.OK
        assert answer.embedding is not None
        np.testing.assert_allclose(answer.embedding, vector, atol=3e-6)
        assert answer.image_sha256 == [page.sha256 for page in render(text, Layout())]
        assert answer.asked_at is not None
        assert before <= answer.asked_at <= datetime.now(UTC)
        assert answer.latency_ms is not None
        assert answer.latency_ms > 0
        assert (answer.attempts, answer.cost_usd) == (1, 0.0)


def test_it_encodes_what_it_read_and_not_what_was_written(teacher: ReaderTeacher) -> None:
    """The recogniser has no Cyrillic: the vector must be that of its misreading, or it peeped at the text."""
    text = "Съешь ещё этих мягких булок"
    (answer,) = ask(teacher, [text])
    assert answer.reply is not None
    assert answer.reply != text
    encoder = SentenceEncoder(MINILM)
    read, written = encoder.encode([answer.reply, text])
    assert answer.embedding is not None
    np.testing.assert_allclose(answer.embedding, read, atol=3e-6)
    assert np.abs(read - written).max() > 0.01


def test_two_fields_are_drawn_on_one_page(teacher: ReaderTeacher) -> None:
    example = Example("a", "A man sleeps.", text_pair="Nobody is awake.")
    (answer,) = ask(teacher, [example])
    assert answer.reply == "A man sleeps.\nNobody is awake."
    assert teacher.content(example) == {"draw": "A man sleeps.\n\nNobody is awake."}


def test_a_long_text_is_read_over_its_pages(teacher: ReaderTeacher) -> None:
    text = " ".join(f"Sentence number {number} of this long text." for number in range(60))
    (answer,) = ask(teacher, [text])
    assert answer.reply == text
    assert answer.image_sha256 is not None
    assert len(answer.image_sha256) > 1


def test_a_row_that_cannot_be_drawn_fails_alone(teacher: ReaderTeacher) -> None:
    good, bad, empty = ask(teacher, ["good", "مرحبا", ""])
    assert (good.status, good.reply) == (Status.OK, "good")
    assert (bad.status, bad.embedding) == (Status.FAILED, None)
    assert bad.error is not None
    assert "ARABIC LETTER" in bad.error
    assert (empty.status, empty.reply) == (Status.OK, "")
    assert [answer.status for answer in ask(teacher, ["مرحبا"])] == [Status.FAILED]
    with pytest.raises(DataError, match="ARABIC LETTER"):
        teacher.content(Example("a", "مرحبا"))


def test_answers_fit_the_schema(teacher: ReaderTeacher) -> None:
    rows = [
        Row(Example(str(n), text), f"{n:064}", 0, answer)
        for n, (text, answer) in enumerate(zip(TEXTS, ask(teacher, TEXTS), strict=True))
    ]
    batch = rows_to_batch(rows, row_schema())
    assert [len(vector) for vector in batch.column("embedding").to_pylist()] == [384] * 3


def test_the_recipe_changes_with_all_that_changes_an_answer(teacher: ReaderTeacher) -> None:
    recipe = canonical_json(teacher.recipe())
    assert recipe == canonical_json(ReaderTeacher(ReaderConfig(encoder=MINILM), TASK, name="other").recipe())
    assert recipe != canonical_json(ReaderTeacher(ReaderConfig(MINILM, (336, 336)), TASK, name="reader").recipe())
    assert set(teacher.recipe()) == {"teacher", "layout", "recogniser", "encoder"}


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from harvest.teachers.reader import *; from shared.sources import MINILM\n"
        "teacher = ReaderTeacher(ReaderConfig(encoder=MINILM), None, name='reader'); teacher.recipe()\n"
        "teacher.content(Example('a', 'Ångström 漢字'))\n"
        "print([m for m in ('torch', 'transformers', 'onnxruntime', 'rapidocr', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_encoder_that_is_not_there_stops_the_run_by_name() -> None:
    teacher = ReaderTeacher(ReaderConfig(encoder="./no-such-model"), TASK, name="reader")
    with pytest.raises(SourceError, match="no-such-model"):
        teacher.recipe()
    with pytest.raises(SourceError, match="no-such-model"):
        ask(teacher, ["good"])
