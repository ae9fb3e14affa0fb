import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from multidict import CIMultiDict

from harvest.chat.errors import MAX_ERROR_LENGTH, read_error
from harvest.teachers.endpoint.faults import (
    Kind,
    classify_exception,
    classify_response,
    read_retry_after,
)

SPENT = b'{"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}'


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REFUSED),
        (401, Kind.FATAL),
        (402, Kind.FATAL),
        (403, Kind.FATAL),
        (404, Kind.FATAL),
        (408, Kind.NOT_ACCEPTED),
        (409, Kind.NOT_ACCEPTED),
        (413, Kind.REFUSED),
        (422, Kind.REFUSED),
        (429, Kind.BUSY),
        (500, Kind.MAYBE_ACCEPTED),
        (502, Kind.MAYBE_ACCEPTED),
        (503, Kind.NOT_ACCEPTED),
        (504, Kind.MAYBE_ACCEPTED),
        (529, Kind.BUSY),
        (301, Kind.FATAL),
    ],
)
def test_statuses(status: int, kind: Kind) -> None:
    fault = classify_response(status, CIMultiDict(), b"")
    assert fault.kind is kind
    assert fault.cause == f"HTTP {status}"


def test_a_503_that_names_a_time_is_busy() -> None:
    fault = classify_response(503, CIMultiDict({"Retry-After": "3"}), b"")
    assert (fault.kind, fault.retry_after) == (Kind.BUSY, 3.0)


def test_a_spent_quota_is_no_rate_limit() -> None:
    fault = classify_response(429, CIMultiDict(), SPENT)
    assert fault.kind is Kind.FATAL
    assert "billing" in fault.message


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "flagged", "code": "content_policy_violation"}},
        {"error": {"message": "filtered", "code": "content_filter"}},
        {"error": {"code": "400", "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}},
    ],
)
def test_a_text_that_content_rules_refuse_is_one_row_not_the_run(body: object) -> None:
    for status in (400, 403):
        fault = classify_response(status, CIMultiDict(), json.dumps(body).encode())
        assert fault.kind is Kind.REFUSED
        assert fault.content


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (b'{"error": "plain text"}', "plain text"),
        (b'{"object": "error", "message": "old vLLM", "type": "BadRequestError", "code": 400}', "old vLLM"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'[{"error": {"code": 400, "message": "Gemini", "status": "INVALID_ARGUMENT"}}]', "Gemini"),
        (b"<html>Bad   Gateway</html>", "<html>Bad Gateway</html>"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"null", "None"),
        (b"[" * 100_000, "[" * (MAX_ERROR_LENGTH - 1) + "…"),
    ],
)
def test_error_bodies_of_all_shapes(body: bytes, message: str) -> None:
    assert read_error(body)[1] == message


def test_long_messages_are_cut() -> None:
    assert len(classify_response(400, CIMultiDict(), b"x" * 10_000).message) < MAX_ERROR_LENGTH + 20


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"Retry-After": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "-5"}, 0.0),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"retry-after-ms": "x", "Retry-After": "9"}, 9.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(CIMultiDict(headers), NOW) == seconds


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (httpx.ConnectError("refused"), Kind.NOT_ACCEPTED, "no connection"),
        (httpx.ConnectTimeout("slow"), Kind.NOT_ACCEPTED, "no connection"),
        (httpx.ProxyError("407"), Kind.NOT_ACCEPTED, "no connection"),
        (httpx.ReadTimeout("slow"), Kind.MAYBE_ACCEPTED, "timeout"),
        (httpx.ReadError("reset"), Kind.MAYBE_ACCEPTED, "connection lost"),
        (httpx.WriteError("reset"), Kind.MAYBE_ACCEPTED, "connection lost"),
        (httpx.RemoteProtocolError("half"), Kind.MAYBE_ACCEPTED, "broken reply"),
        (httpx.DecodingError("gzip"), Kind.MAYBE_ACCEPTED, "broken reply"),
        (httpx.UnsupportedProtocol("x"), Kind.FATAL, "bad URL"),
    ],
)
def test_exceptions_by_what_they_may_have_cost(error: Exception, kind: Kind, cause: str) -> None:
    fault = classify_exception(error)
    assert (fault.kind, fault.cause) == (kind, cause)
