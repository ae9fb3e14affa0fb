"""Ollama's server: its compatible route, and its own.

Source: docs.ollama.com, "OpenAI compatibility", "Chat" and "Structured outputs"; log-probabilities came with its
0.12.11. One answer a request. The compatible route has no field for the length of the context, which is short unless
the server is told otherwise, and cuts a longer text silently. Its own route takes `options.num_ctx`, and is told here
to refuse instead (`truncate`, from 0.12.6 on).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harvest.chat.dialects.base import Dialect, Json, make_schema

_OPTIONS = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "num_predict"}


def _ask_choice(words: Sequence[str]) -> Json:
    return {"format": make_schema(words)}


def _write_request(body: Json) -> Json:
    options = {ours: body[name] for name, ours in _OPTIONS.items() if name in body}
    return {
        **{name: value for name, value in body.items() if name not in _OPTIONS},
        "messages": [_write_message(message) for message in body["messages"]],
        "options": {**options, **body.get("options", {})},
        "stream": False,
    }


def _write_message(message: Json) -> Json:
    """A message whose pictures, in base64, stand beside its text."""
    if isinstance(message["content"], str):
        return message
    texts = [part["text"] for part in message["content"] if part["type"] == "text"]
    images = [part["image_url"]["url"].partition(",")[2] for part in message["content"] if part["type"] == "image_url"]
    return {**message, "content": "\n\n".join(texts), "images": images}


def _read_reply(body: Json) -> Json:
    message = body.get("message")
    if not isinstance(message, Mapping):
        return body
    choice: dict[str, Any] = {"message": message, "finish_reason": body.get("done_reason")}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": body["logprobs"]}
    usage = {"prompt_tokens": body.get("prompt_eval_count"), "completion_tokens": body.get("eval_count")}
    return {"model": body.get("model"), "choices": [choice], "usage": usage}


OLLAMA = Dialect(
    "ollama",
    hosts=("ollama.com",),
    owners=("library",),
    example="http://localhost:11434/v1",
    key_variable="OLLAMA_API_KEY",
    several=False,
    seed_field="seed",
)
OLLAMA_CHAT = replace(
    OLLAMA,
    name="ollama-chat",
    hosts=(),
    owners=(),
    example="http://localhost:11434",
    chat_path="/api/chat",
    beside_v1=True,
    extra={"truncate": False},
    ask_choice=_ask_choice,
    write_request=_write_request,
    read_reply=_read_reply,
)
