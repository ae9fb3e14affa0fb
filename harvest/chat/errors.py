"""What an error body says: one reading for every endpoint's shape."""

import json

MAX_ERROR_LENGTH = 500


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
