"""OpenAI's Responses API, for models and servers that give there what their chat completions lack.

Source: platform.openai.com, "Create a model response" and "Structured model outputs". Never found out, only named: it
is a route of hosts that have chat completions too (OpenAI, Azure at /openai/v1, LM Studio, Groq, Ollama). There is
neither `n` nor a seed, and an answer's limit is at least 16 tokens. Nothing is to be stored there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harvest.chat.dialects.base import Dialect, Json, make_schema

_FINISHES = {"completed": "stop", "max_output_tokens": "length"}


def _ask_logprobs(count: int) -> Json:
    return {"top_logprobs": count, "include": ["message.output_text.logprobs"]}


def _ask_choice(words: Sequence[str]) -> Json:
    return {"text": {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": make_schema(words)}}}


def _write_request(body: Json) -> Json:
    rest = {name: value for name, value in body.items() if name != "messages"}
    return {**rest, "input": [{**message, "content": _write_content(message)} for message in body["messages"]]}


def _write_content(message: Json) -> Any:
    if isinstance(message["content"], str):
        return message["content"]
    return [
        {"type": "input_text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"]}
        for part in message["content"]
    ]


def _read_reply(body: Json) -> Json:
    if body.get("error") or not isinstance(body.get("output"), list):
        return body
    parts = list(_list_parts(body["output"]))
    texts = [part for part in parts if part.get("type") == "output_text"]
    refusals = [part["refusal"] for part in parts if part.get("type") == "refusal"]
    thoughts = [part["text"] for part in parts if part.get("type") in ("summary_text", "reasoning_text")]
    logprobs = [entry for part in texts for entry in part.get("logprobs") or ()]
    ended = str((body.get("incomplete_details") or {}).get("reason") or body.get("status"))
    message = {"content": "".join(part["text"] for part in texts), "reasoning": "".join(thoughts)}
    if refusals:
        message["refusal"] = "".join(refusals)
    choice = {"message": message, "finish_reason": _FINISHES.get(ended, ended), "logprobs": {"content": logprobs}}
    return {"model": body.get("model"), "choices": [choice], "usage": _read_usage(body.get("usage"))}


def _list_parts(output: Sequence[Any]) -> Iterator[Json]:
    """The parts of all items: of messages and of thinking."""
    for item in output:
        yield from item.get("content") or ()
        yield from item.get("summary") or ()


def _read_usage(usage: Any) -> Json | None:
    if not isinstance(usage, Mapping):
        return None
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
    }


RESPONSES = Dialect(
    "responses",
    example="https://api.openai.com/v1",
    chat_path="/responses",
    max_tokens_field="max_output_tokens",
    least_tokens=16,
    several=False,
    extra={"store": False},
    ask_logprobs=_ask_logprobs,
    ask_choice=_ask_choice,
    write_request=_write_request,
    read_reply=_read_reply,
)
