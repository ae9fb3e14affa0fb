"""One row of a file of answers: the chat completion that it comes to, and what was asked, as it is matched by."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from harvest.chat.errors import read_error
from harvest.chat.imported import spell_reply
from harvest.importing.layouts import ERROR, ERRORS, MESSAGE, MESSAGES, REASON, REQUEST, RESPONSE, FileLayout
from harvest.importing.match import hash_endings, hash_text, join_texts
from shared.errors import DataError

_LONGEST_ERROR = 300


class Record(NamedTuple):
    """What a row brings: a chat completion, or why it has none; neither, where the row says nothing."""

    raw: bytes | None = None
    problem: str | None = None


def make_record(row: Mapping[str, Any], layout: FileLayout) -> Record:
    """Make the record of a row. Raises DataError for what is no answer at all: embeddings, say."""
    if layout.kind == "batch":
        return _read_batch(row)
    if layout.kind == "curator":
        return _read_curator(row)
    text = _read_reply(row[layout.answers[0]])
    reason = row.get(REASON)
    return Record() if text is None else Record(spell_reply(text, reason if isinstance(reason, str) else None))


def _read_batch(row: Mapping[str, Any]) -> Record:
    """A line of a batch's output (https://platform.openai.com/docs/api-reference/batch)."""
    error, response = decode(row.get(ERROR)), decode(row.get(RESPONSE))
    if error:
        said = error.get("message") or error.get("code") if isinstance(error, dict) else error
        return Record(problem=f"the batch says: {str(said)[:_LONGEST_ERROR]}")
    if not isinstance(response, dict):
        return Record(problem="the batch has neither a response nor an error for it")
    body, status = response.get("body"), response.get("status_code", 200)
    if status != 200:
        return Record(problem=f"HTTP {status}: {read_error(orjson.dumps(body))[1][:_LONGEST_ERROR]}")
    if not isinstance(body, dict):
        return Record(problem="the response has no body")
    if isinstance(body.get("choices"), list):
        return Record(_dump(body))
    if isinstance(body.get("output"), list):
        return _read_response(body)
    if isinstance(body.get("data"), list):
        raise DataError("these are embeddings, not replies: save them as an array of floats, and give it as --vectors")
    return Record(_dump(body))


def _read_response(body: Mapping[str, Any]) -> Record:
    """The body of OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses/object)."""
    parts = [
        part
        for item in body["output"]
        if isinstance(item, dict) and item.get("type") == "message"
        for part in item.get("content") or ()
        if isinstance(part, dict)
    ]
    text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
    refused = any(part.get("type") == "refusal" for part in parts)
    details = body.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    reason = "refusal" if refused else "length" if why == "max_output_tokens" else why or "stop"
    told = body.get("usage")
    usage = None
    if isinstance(told, dict):
        usage = {"prompt_tokens": told.get("input_tokens"), "completion_tokens": told.get("output_tokens")}
    return Record(spell_reply(text, reason, usage))


def _read_curator(row: Mapping[str, Any]) -> Record:
    """A line of the response files that Bespoke Curator keeps (its class GenericResponse)."""
    text = _read_reply(row[MESSAGE])
    if text is None:
        errors = decode(row.get(ERRORS))
        said = "; ".join(map(str, errors)) if isinstance(errors, list) and errors else None
        return Record(problem=None if said is None else f"curator says: {said[:_LONGEST_ERROR]}")
    reason = row.get(REASON)
    return Record(spell_reply(text, reason if isinstance(reason, str) else None))


def _read_reply(value: Any) -> str | None:
    """The text of a reply: of a conversation that of its last assistant's message; None of an empty cell."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value  # pandas makes floats of them where some are missing
    messages = read_conversation(value)
    if messages is not None:
        said = [content for role, content in messages if role == "assistant"]
        return said[-1] if said else None
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if value is None or value == "":
        return None
    return str(value)


def find_texts(row: Mapping[str, Any], columns: Sequence[str]) -> list[int]:
    """Hash what a row was asked, and each part of it that may be a text of the task."""
    if len(columns) > 1:
        return [hash_text(join_texts(None if row[name] is None else str(row[name]) for name in columns))]
    value = row[columns[0]]
    if columns[0] == REQUEST:
        request = decode(value)
        value = request.get(MESSAGES) if isinstance(request, dict) else None
    return hash_prompt(value)


def hash_prompt(value: Any) -> list[int]:
    """Hash a prompt: a text, or a conversation, of which the user's last message is what was asked."""
    messages = read_conversation(value)
    if messages is None:
        return [] if value is None else hash_endings(str(value))
    asked = messages[:-1] if messages and messages[-1][0] == "assistant" else messages
    whole = "\n\n".join(f"{role.title()}: {content}" for role, content in asked)  # as a task's conversation is spelled
    last = next((content for role, content in reversed(asked) if role == "user"), "")
    return [hash_text(whole), *hash_endings(last)]


def read_conversation(value: Any) -> list[tuple[str, str]] | None:
    """A conversation as (role, content); None of anything else."""
    found = decode(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
    if not (isinstance(found, list) and found and all(isinstance(one, dict) and "role" in one for one in found)):
        return None
    return [(str(one["role"]), _read_content(one.get("content"))) for one in found]


def _read_content(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def decode(value: Any) -> Any:
    """A value of a nested column, which JSON and CSV have as text."""
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _dump(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a number of more than 64 bits
        return json.dumps(body, default=str).encode()
