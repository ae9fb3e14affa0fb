"""What an error body says: one reading for every endpoint's shape."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

MAX_ERROR_LENGTH = 500
_LOOKED_AT = 4000  # of a body, for signs: details stand behind the message


class Refusal(Enum):
    """Why an endpoint refuses what its status alone does not tell."""

    QUOTA = auto()  # what was paid for, or a day's or a month's share, is used up: no waiting mends it
    CONTEXT = auto()  # the text is longer than the model's context
    CONTENT = auto()  # content rules refuse the text


@dataclass(frozen=True, slots=True)
class Sign:
    """A regular expression that is found, in any case, in the error bodies of one refusal.

    It is looked for in "code: message", and in the body as it came. `statuses` are those that it is believed with; None
    for all below 500.
    """

    refusal: Refusal
    pattern: str
    statuses: frozenset[int] | None = None


COMMON_SIGNS = (
    Sign(
        Refusal.CONTENT,
        r"^(?:content_filter|content_policy_violation|moderation_blocked|safety|prohibited_content): ",
    ),
    Sign(
        Refusal.QUOTA,
        r"^(?:insufficient_quota|billing_hard_limit_reached|billing_not_active|access_terminated): ",
        frozenset({429}),
    ),
    Sign(
        Refusal.CONTEXT,
        r"^(?:context_length_exceeded|exceed_context_size_error|string_above_max_length): |maximum context length"
        r"|prompt is too long|longer than the model's context length|exceeds the (?:available )?context",
        frozenset({400, 413, 422}),
    ),
)


def find_refusal(status: int, body: bytes, signs: Iterable[Sign] = ()) -> Refusal | None:
    """Which refusal an error body tells by one of `signs`, or of the common ones; None where by none."""
    if status >= 500:
        return None
    code, text = read_error(body)
    said = (f"{code}: {text}", body[:_LOOKED_AT].decode("utf-8", "replace"))
    for sign in (*signs, *COMMON_SIGNS):
        if sign.statuses is not None and status not in sign.statuses:
            continue
        if any(re.search(sign.pattern, part, re.IGNORECASE) for part in said):
            return sign.refusal
    return None


def read_error(body: bytes) -> tuple[str, str]:
    """The code (or type) and the message of an error body; its beginning where it is no JSON error.

    Shapes: {"error": {"message", "code", "type"}} (OpenAI and its speakers; OpenRouter adds "metadata"),
    {"error": "text"}, {"message": "text", "code"} (older vLLM), {"detail": ...} (FastAPI), [{"error": ...}] (Gemini).
    """
    try:
        value = json.loads(body)
        if isinstance(value, list) and value:
            value = value[0]
        error = value.get("error", value) if isinstance(value, dict) else value
        if isinstance(error, dict):
            metadata = error.get("metadata")
            if isinstance(metadata, dict) and metadata.get("reasons"):  # OpenRouter: flagged by moderation
                return "moderation_blocked", shorten(f"{error.get('message')} {metadata['reasons']}")
            code = error.get("code")
            inner = error.get("innererror")
            if isinstance(inner, dict) and inner.get("code") == "ResponsibleAIPolicyViolation":  # Azure
                code = "content_filter"
            code = code if isinstance(code, str) else error.get("type") or error.get("status")
            message = error.get("message") or error.get("detail") or json.dumps(error)
            return str(code or "").lower(), shorten(str(message))
        return "", shorten(str(error))
    except (ValueError, RecursionError):
        return "", shorten(body[: 4 * MAX_ERROR_LENGTH].decode("utf-8", "replace"))


def shorten(text: str) -> str:
    """`text` on one line, without what no UTF-8 can carry, at most MAX_ERROR_LENGTH characters."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
