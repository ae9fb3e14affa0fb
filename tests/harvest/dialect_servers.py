"""What the providers of chat routes promise and refuse, as data: written from their words, not from our dialects.

A server that is made of one takes the fields that its provider names, and no other; it wants the key where the provider
wants it; and it answers, counts and refuses in the provider's own shapes. What is asked for is in the text of a row:
CONTENT, LONG and SPENT have the three refusals, anything else is "positive".
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harvest.chat.pricing import Usage
from tests.harvest.fault_server import Asked, ErrorReply, FaultServer

KEY = "sk-canary-0123456789abcdef"
CONTENT, LONG, SPENT = "CONTENT", "LONG", "SPENT"
POSITIVE, NEGATIVE = 0.7, 0.2  # the probabilities of the two words
SAMPLING = frozenset({"model", "messages", "temperature", "top_p"})
OLD = SAMPLING | {"max_tokens"}
NEW = SAMPLING | {"max_completion_tokens"}
LOGPROBS = frozenset({"logprobs", "top_logprobs"})
SCHEMA = ("response_format", "json_schema", "schema")

Refusals = Mapping[str, ErrorReply]
Writer = Callable[[str, list[Any] | None, Any], dict[str, Any]]


def fail(status: int, message: str, code: Any = None, **more: Any) -> ErrorReply:
    """An error in OpenAI's shape."""
    return ErrorReply(status, {"error": {"message": message, "type": "invalid_request_error", "code": code, **more}})


def fail_flat(status: int, message: Any, **more: Any) -> ErrorReply:
    """An error without a body around it."""
    return ErrorReply(status, {"object": "error", "message": message, **more})


OPENAI_LONG = fail(400, "This model's maximum context length is 128000 tokens.", "context_length_exceeded")
OPENAI_SPENT = fail(429, "You exceeded your current quota.", "insufficient_quota")


def write_chat(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    logprobs = {} if entries is None else {"logprobs": {"content": entries}}
    return {"model": "m", "choices": [choice | logprobs], "usage": usage}


def write_lists(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A chat completion of Together's, whose log-probabilities stand in parallel lists."""
    reply = write_chat(text, None, usage)
    reply["choices"][0]["logprobs"] = entries and {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
    }
    return reply


def write_deployed(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A chat completion of Azure's, which names the model behind a deployment."""
    return {**write_chat(text, entries, usage), "model": "gpt-4o-2024-11-20"}


def write_thought(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A chat completion of Bedrock's open-weight models, which think in their text."""
    thought = "<reasoning>Good.</reasoning>"
    first = {"token": thought, "logprob": -0.1, "top_logprobs": []}
    return write_chat(thought + text, None if entries is None else [first, *entries], usage)


def write_parts(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A chat completion of Mistral's reasoning models, whose content is parts."""
    reply = write_chat(text, entries, usage)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Good."}]}
    reply["choices"][0]["message"]["content"] = [thought, {"type": "text", "text": text}]
    return reply


def write_response(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A reply of the Responses API."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": entries or []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        **{"model": "m", "status": "completed", "error": None, "incomplete_details": None, "usage": usage},
        "output": [{"type": "reasoning", "summary": []}, message],
    }


def write_ollama(text: str, entries: list[Any] | None, usage: Any) -> dict[str, Any]:
    """A reply of Ollama's own route."""
    logprobs = {} if entries is None else {"logprobs": entries}
    message = {"role": "assistant", "content": text}
    return {"model": "m", "message": message, "done": True, "done_reason": "stop", **usage, **logprobs}


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's route. `fields` are all that a body may have, `mode` the best scoring that it can give.

    `seed` is its field for one, with the dots of a path, and `several` whether `n` gives several answers. `constraint`
    is where a body holds the words that an answer is held to; they are bare in it where `bare`. `usage` is what a reply
    counts, and `counted` what that comes to.
    """

    fields: frozenset[str]
    mode: str
    refusals: Refusals = field(default_factory=dict)
    base: str = "/v1"
    path: str = "/v1/chat/completions"
    header: tuple[str, str] = ("authorization", f"Bearer {KEY}")
    most_logprobs: int = 20
    seed: str | None = None
    several: bool = False
    constraint: tuple[str, ...] = SCHEMA
    bare: bool = False
    usage: Any = field(default_factory=lambda: {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49})
    counted: Usage = Usage(40, 9)
    write: Writer = write_chat

    def serve(self) -> FaultServer:
        """The server; its `url` has to be made with `make_url`."""
        return FaultServer(answer=self.answer, chat_path=self.path)

    def make_url(self, server: FaultServer) -> str:
        """The base URL that its users give."""
        return server.url.removesuffix("/v1") + self.base

    def answer(self, asked: Asked) -> dict[str, Any] | ErrorReply:
        """One answer, or why there is none."""
        body = asked.body
        if asked.headers.get(self.header[0]) != self.header[1]:
            return fail(401, "no key")
        if unknown := sorted(set(body) - self.fields):
            return fail(400, f"unknown fields: {unknown}")
        if self._count_logprobs(body) > self.most_logprobs:
            return fail(400, f"at most {self.most_logprobs} alternatives")
        said = json.dumps(body)
        if refused := [reply for sign, reply in self.refusals.items() if sign in said]:
            return refused[0]
        reply = self.write(self._choose_text(body), self._score() if self._count_logprobs(body) else None, self.usage)
        if "choices" in reply:
            reply["choices"] *= body.get("n", 1)
        return reply

    def _count_logprobs(self, body: Mapping[str, Any]) -> int:
        wanted = body.get("logprobs", "top_logprobs" in body)
        return int(wanted if isinstance(wanted, int) and wanted is not True else body.get("top_logprobs", 0))

    def _choose_text(self, body: Mapping[str, Any]) -> str:
        held: Any = body
        for name in self.constraint:
            held = held.get(name) if isinstance(held, Mapping) else None
        if held is None:
            return "positive"
        assert '"positive"' in json.dumps(held).replace('\\"', '"')
        return "positive" if self.bare else '{"label": "positive"}'

    @staticmethod
    def _score() -> list[Any]:
        pairs = [("positive", math.log(POSITIVE)), ("negative", math.log(NEGATIVE))]
        top = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in pairs]
        return [{**top[0], "top_logprobs": top}]


CACHED = {
    **{"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    **{"prompt_tokens_details": {"cached_tokens": 30}, "completion_tokens_details": {"reasoning_tokens": 5}},
}
THOUGHT_BESIDE = {
    **{"prompt_tokens": 40, "completion_tokens": 4, "total_tokens": 49},
    **{"completion_tokens_details": {"reasoning_tokens": 5}, "prompt_tokens_details": {"cached_tokens": 30}},
}
GOOGLE: Refusals = {
    LONG: ErrorReply(
        400,
        [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number."}}],
    ),
    SPENT: ErrorReply(
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}],
                }
            }
        ],
    ),
}
FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
AZURE: Refusals = {
    CONTENT: fail(400, FILTERED, "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
    LONG: OPENAI_LONG,
    SPENT: OPENAI_SPENT,
}
STRUCTURED = frozenset({"response_format"})
PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        NEW | LOGPROBS | STRUCTURED | {"n", "seed"},
        "top_logprobs",
        {CONTENT: fail(400, "flagged", "content_policy_violation"), LONG: OPENAI_LONG, SPENT: OPENAI_SPENT},
        seed="seed",
        several=True,
        usage=CACHED,
        counted=Usage(40, 9, 30),
    ),
    "responses": Provider(
        frozenset({"model", "input", "temperature", "top_p", "max_output_tokens", "top_logprobs", "include", "text"})
        | {"store"},
        "top_logprobs",
        {CONTENT: fail(400, "flagged", "content_policy_violation"), LONG: OPENAI_LONG, SPENT: OPENAI_SPENT},
        path="/v1/responses",
        constraint=("text", "format", "schema"),
        usage={"input_tokens": 40, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 9},
        counted=Usage(40, 9, 30),
        write=write_response,
    ),
    "azure": Provider(
        NEW | LOGPROBS | STRUCTURED | {"n", "seed"},
        "top_logprobs",
        AZURE,
        base="/openai/deployments/ours?api-version=2024-10-21",
        path="/openai/deployments/ours/chat/completions",
        header=("api-key", KEY),
        seed="seed",
        several=True,
        write=write_deployed,
    ),
    "anthropic": Provider(
        OLD,
        "votes",
        {
            LONG: fail(400, "prompt is too long: 210000 tokens > 200000 maximum"),
            SPENT: fail(400, "Your credit balance is too low to access the Anthropic API."),
        },
    ),
    "gemini": Provider(
        OLD | LOGPROBS | STRUCTURED | {"n"},
        "top_logprobs",
        GOOGLE,
        base="/v1beta/openai",
        path="/v1beta/openai/chat/completions",
        several=True,
        usage=THOUGHT_BESIDE,
        counted=Usage(40, 9, 30),
    ),
    "vertex": Provider(
        OLD | STRUCTURED | {"n", "seed"},
        "choice",
        GOOGLE,
        base="/v1/projects/p/locations/l/endpoints/openapi",
        path="/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        seed="seed",
        several=True,
        usage=THOUGHT_BESIDE,
        counted=Usage(40, 9, 30),
    ),
    "bedrock": Provider(
        NEW | LOGPROBS | STRUCTURED,
        "top_logprobs",
        {
            LONG: ErrorReply(400, {"message": "Input is too long for requested model."}),
            SPENT: ErrorReply(429, {"message": "Too many tokens per day, please wait before trying again."}),
        },
        base="/openai/v1",
        path="/openai/v1/chat/completions",
        write=write_thought,
    ),
    "mistral": Provider(
        OLD | STRUCTURED | {"n", "random_seed"},
        "choice",
        {LONG: fail_flat(400, "too large for model with 32768 maximum context length", code="3051")},
        seed="random_seed",
        several=True,
        write=write_parts,
    ),
    "deepseek": Provider(
        OLD | LOGPROBS | STRUCTURED,
        "top_logprobs",
        {
            CONTENT: fail(400, "Content Exists Risk", "invalid_request_error"),
            LONG: fail(400, "This model's maximum context length is 65536 tokens.", "invalid_request_error"),
            SPENT: fail(402, "Insufficient Balance", "invalid_request_error"),
        },
        usage={
            **{"prompt_tokens": 40, "prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 10},
            **{"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 49},
        },
        counted=Usage(40, 9, 30),
    ),
    "groq": Provider(
        NEW | STRUCTURED | {"seed"},
        "choice",
        {LONG: fail(413, "Request too large for model `m` on tokens per minute (TPM)", "rate_limit_exceeded")},
        base="/openai/v1",
        path="/openai/v1/chat/completions",
        seed="seed",
        usage=CACHED,
        counted=Usage(40, 9, 30),
    ),
    "fireworks": Provider(
        OLD | LOGPROBS | STRUCTURED | {"n"},
        "top_logprobs",
        {
            LONG: fail(400, "The prompt is too long: 140000, model maximum context length: 131071"),
            SPENT: fail(412, "Account a is suspended, possibly due to reaching the monthly spending limit", "X"),
        },
        base="/inference/v1",
        path="/inference/v1/chat/completions",
        most_logprobs=5,
        several=True,
    ),
    "together": Provider(
        OLD | {"logprobs", "response_format", "n", "seed"},
        "top_logprobs",
        {SPENT: fail(402, "Credit limit exceeded")},
        seed="seed",
        several=True,
        constraint=("response_format", "schema"),
        write=write_lists,
    ),
    "openrouter": Provider(
        OLD | LOGPROBS | STRUCTURED | {"provider", "usage"},
        "top_logprobs",
        {
            CONTENT: ErrorReply(
                403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}}
            ),
            LONG: fail(400, "This endpoint's maximum context length is 8192 tokens.", 400),
            SPENT: fail(402, "Insufficient credits", 402),
        },
        base="/api/v1",
        path="/api/v1/chat/completions",
        usage=CACHED,
        counted=Usage(40, 9, 30),
    ),
    "vllm": Provider(
        OLD | LOGPROBS | {"structured_outputs", "return_token_ids", "n", "seed"},
        "top_logprobs",
        {LONG: fail_flat(400, "This model's maximum context length is 1024 tokens.", code=400)},
        seed="seed",
        several=True,
        constraint=("structured_outputs", "choice"),
        bare=True,
    ),
    "sglang": Provider(
        OLD | LOGPROBS | {"ebnf", "n"},
        "top_logprobs",
        {LONG: fail_flat(400, "The input (9 tokens) is longer than the model's context length (8 tokens).", code=400)},
        several=True,
        constraint=("ebnf",),
        bare=True,
        usage={**CACHED, "reasoning_tokens": 5},
        counted=Usage(40, 9, 30),
    ),
    "llamacpp": Provider(
        OLD | LOGPROBS | {"grammar", "seed"},
        "top_logprobs",
        {LONG: fail(400, "the request exceeds the available context size", 400, type="exceed_context_size_error")},
        most_logprobs=10_000,
        seed="seed",
        constraint=("grammar",),
        bare=True,
    ),
    "ollama": Provider(OLD | LOGPROBS | STRUCTURED | {"seed"}, "top_logprobs", seed="seed"),
    "ollama-chat": Provider(
        frozenset({"model", "messages", "options", "stream", "truncate", "format"}) | LOGPROBS,
        "top_logprobs",
        {LONG: ErrorReply(400, {"error": "the input length exceeds the context length"})},
        path="/api/chat",
        seed="options.seed",
        constraint=("format",),
        usage={"prompt_eval_count": 40, "eval_count": 9},
        write=write_ollama,
    ),
    "lmstudio": Provider(
        OLD | STRUCTURED | {"seed"},
        "choice",
        {LONG: ErrorReply(400, {"error": "However, the model is loaded with context length of only 4096 tokens."})},
        seed="seed",
    ),
    "compatible": Provider(OLD | LOGPROBS | STRUCTURED | {"n"}, "top_logprobs", {SPENT: OPENAI_SPENT}, several=True),
}
