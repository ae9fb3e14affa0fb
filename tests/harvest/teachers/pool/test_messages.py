"""What travels between a pool and its replicas arrives as it was, whatever of it is missing."""

import pickle
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest

from harvest.teachers.base import Reply, Request
from harvest.teachers.pool.messages import Answered, Batch, Failure
from shared.errors import TeacherError
from shared.example import Example, Message, RowPicture
from shared.schema import Answer, Status, answers_to_batch
from tests.harvest.teachers.pool.echo_teacher import EchoError

EXAMPLES = (
    Example("1", "a film"),
    Example("2", "two", "pair", ("a", "b"), 1, messages=(Message("user", "hello"),)),
    Example("3", "seen", target=0.5, references=("x",), pictures=(RowPicture("", b"bytes"), RowPicture("a.png"))),
)
NOW = datetime.now(UTC)
VECTOR = np.arange(4, dtype=np.float32)
ANSWERS = (
    Answer(Status.OK, reply="yes", embedding=VECTOR, attempts=1, asked_at=NOW),
    Answer(Status.FAILED, error="no", cost_usd=None),
    Answer(Status.OK, embedding=VECTOR[:2], topk_ids=((1, 2), (3,)), image_sha256=("ab",), raw=b"raw"),
)


def make_requests() -> list[Request]:
    return [Request(f"{number:064x}", example, number) for number, example in enumerate(EXAMPLES)]


@pytest.mark.parametrize("count", range(4))
def test_requests_arrive_as_they_were(count: int) -> None:
    requests = make_requests()[:count]
    batch: Batch = pickle.loads(pickle.dumps(Batch.pack(requests, last=True)))
    assert (batch.unpack(), batch.last) == (requests, True)


@pytest.mark.parametrize("answers", [ANSWERS, ANSWERS[:1], [ANSWERS[0]] * 3])
def test_answers_arrive_as_they_were(answers: Sequence[Answer]) -> None:
    replies = [
        Reply(*pair, {"ab": b"png"} if not number else {}, audio=b"wav" if number == 1 else None)
        for number, pair in enumerate(zip(make_requests(), answers, strict=False))
    ]
    message: Answered = pickle.loads(pickle.dumps(Answered.pack(replies)))
    assert message.keys == [reply.request.key for reply in replies]
    assert message.unpack().equals(answers_to_batch(answers))
    assert message.pictures == {"ab": b"png"}
    assert message.audio == {replies[1].request.key: b"wav"} if len(replies) > 1 else not message.audio


def test_an_error_of_a_package_arrives_as_one_of_the_project() -> None:
    failure: Failure = pickle.loads(pickle.dumps(Failure.of(EchoError("no model", "the echo"))))
    assert (type(failure.error), str(failure.error)) == (TeacherError, "no model in the echo")
