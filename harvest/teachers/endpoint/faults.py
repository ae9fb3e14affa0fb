"""What can go wrong with one HTTP attempt, told apart by what it may have cost.

not accepted      never sent, or turned away unread: nothing is billed, asking again is free
short             this process can open no more connections: nothing was sent; fewer at once, and asked again
busy              429: refused for now, not billed; the limiter waits, the retry loop never sees it
maybe accepted    the request was sent and no reply came: it may be billed; asked again with the same Idempotency-Key
refused           this request will never be answered: a failed or a refused row
fatal             no request will be answered (a wrong key, no such model, no credit): the run stops
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import httpx

from harvest.chat.errors import MAX_ERROR_LENGTH, Refusal, Sign, find_refusal, read_error
from harvest.teachers.endpoint.unconnected import explain_unconnected
from shared.descriptors import SHORTAGE

NO_CONNECTION = "no connection"


class Kind(Enum):
    """What a fault says about the request's chances and its bill."""

    NOT_ACCEPTED = auto()
    SHORT = auto()
    BUSY = auto()
    MAYBE_ACCEPTED = auto()
    REFUSED = auto()
    FATAL = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong. `cause` is short and equal for equal faults; `message` has the details.

    `retry_after` is in seconds. `content` is True where the endpoint's content rules refused the text itself.
    """

    kind: Kind
    cause: str
    message: str
    retry_after: float | None = None
    content: bool = False


def classify_exception(error: Exception) -> Fault:
    """The fault that a failed attempt's exception stands for, where no reply had begun."""
    message = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
    if isinstance(error, httpx.ConnectError) and _is_shortage(error.__cause__):
        return Fault(Kind.SHORT, "no descriptor", message)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return Fault(Kind.NOT_ACCEPTED, NO_CONNECTION, explain_unconnected(error)[:MAX_ERROR_LENGTH])
    if isinstance(error, httpx.UnsupportedProtocol):
        return Fault(Kind.FATAL, "bad URL", message)
    if isinstance(error, httpx.TimeoutException):
        return Fault(Kind.MAYBE_ACCEPTED, "timeout", message)
    if isinstance(error, httpx.NetworkError):
        return Fault(Kind.MAYBE_ACCEPTED, "connection lost", message)
    return Fault(Kind.MAYBE_ACCEPTED, "broken reply", message)


def _is_shortage(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in SHORTAGE


_FATAL_STATUSES = {
    401: "the endpoint does not accept the API key",
    402: "the endpoint asks for payment: the credit is used up",
    403: "the endpoint forbids the request",
    404: "the endpoint knows no such model or path",
    405: "the path takes no chat requests",
}
_RETRIED_STATUSES = frozenset({408, 409, 425})


# Google's errors say in their details how long to wait, and in no header (google.rpc.RetryInfo).
_RETRY_DELAY = re.compile(rb'"retryDelay": ?"([0-9]+(?:\.[0-9]+)?)s"')


def classify_response(status: int, headers: Mapping[str, str], body: bytes, signs: Sequence[Sign] = ()) -> Fault:
    """The fault that a reply other than 200 stands for; `signs` are those of the endpoint's dialect.

    `headers` are read without regard to case.
    """
    _, text = read_error(body)
    message = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    refusal = find_refusal(status, body, signs)
    retry_after = read_retry_after(headers)
    if retry_after is None and status == 429 and (told := _RETRY_DELAY.search(body)):
        retry_after = float(told[1])
    if refusal is Refusal.CONTENT:
        return Fault(Kind.REFUSED, "content refused", message, content=True)
    if refusal is Refusal.QUOTA:
        return Fault(Kind.FATAL, "quota used up", f"{message}; the quota is used up: see the provider's billing page")
    if refusal is Refusal.CONTEXT:
        return Fault(Kind.REFUSED, "too long", f"{message}; the text is longer than the model's context")
    if status == 429 or (status in (503, 529) and retry_after is not None) or status == 529:
        return Fault(Kind.BUSY, f"HTTP {status}", message, retry_after)
    if status >= 500 or status in _RETRIED_STATUSES:
        # 503 and the three are answers of a server that did no work; other errors may hide work that was done.
        kind = Kind.NOT_ACCEPTED if status in (503, *_RETRIED_STATUSES) else Kind.MAYBE_ACCEPTED
        return Fault(kind, f"HTTP {status}", message, retry_after)
    if status in _FATAL_STATUSES:
        return Fault(Kind.FATAL, f"HTTP {status}", f"{_FATAL_STATUSES[status]} ({message})")
    if 300 <= status < 400:
        where = headers.get("location", "elsewhere")
        text = f"the endpoint redirects to {where}; give that as --endpoint ({message})"
        return Fault(Kind.FATAL, f"HTTP {status}", text)
    return Fault(Kind.REFUSED, f"HTTP {status}", message)


def read_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by `retry-after-ms` (OpenAI) or `Retry-After` (RFC 9110 section 10.2.3: seconds or a date)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                continue
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return None
