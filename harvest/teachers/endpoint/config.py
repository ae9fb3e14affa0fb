"""What a user says about an endpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from shared.errors import UsageError

AUTO = "auto"
_SECRET_PARAMETERS = frozenset({"key", "api_key", "api-key", "apikey", "token", "access_token"})


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """An endpoint that speaks OpenAI's chat completions, what is asked of it, and how hard it may be driven.

    `endpoint` is the base URL, with its /v1. `api_key_env` names the environment variable that holds the key; a
    well-known host has its usual one, any other endpoint is sent no key where it is None. `dialect` and `scoring` may
    be "auto": a probe finds them. `top_logprobs`, `max_tokens` and `temperature` have a default by scoring where None.
    `draw` says what is sent as pictures, of `size` (width, height) pixels. `body` is merged into every request's body,
    and a null removes a field. `keep_topk` keeps the tokens' log-probabilities where the endpoint tells their ids.

    `concurrency` (requests in flight), `rpm` and `tpm` (requests and tokens a minute) are ceilings. `attempts` counts
    those of one request. Timeouts are seconds: `body_timeout` is for a reply that was answered 200 and is never asked
    again. `patience` is how many seconds of nothing but 429 end the run. Prices are US dollars a million tokens;
    `max_cost` is US dollars, `max_requests` counts every attempt.

    Raises UsageError where a value cannot be meant.
    """

    endpoint: str
    model: str
    api_key_env: str | None = None
    dialect: str = AUTO
    scoring: str = AUTO
    top_logprobs: int | None = None
    votes: int = 5
    max_tokens: int | None = None
    temperature: float | None = None
    draw: Draw = Draw.NONE
    size: tuple[int, int] = (512, 512)
    body: Mapping[str, Any] = field(default_factory=dict)
    keep_topk: bool = False
    concurrency: int = 64
    rpm: float | None = None
    tpm: float | None = None
    attempts: int = 6
    connect_timeout: float = 10.0
    read_timeout: float = 120.0
    body_timeout: float = 120.0
    patience: float = 600.0
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None
    max_requests: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", normalise_url(self.endpoint))
        if not self.model:
            raise UsageError("no model was named; give --model")
        if self.dialect != AUTO and self.dialect not in DIALECTS:
            raise UsageError(f"--dialect {self.dialect}: there are auto, {', '.join(DIALECTS)}")
        if self.scoring != AUTO and self.scoring not in set(Scoring):
            raise UsageError(f"--scoring {self.scoring}: there are auto, {', '.join(Scoring)}")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
        if taken := _OWN_FIELDS.intersection(self.body):
            raise UsageError(f"--body cannot set {', '.join(sorted(taken))}: there are options for that")

    @property
    def layout(self) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return None if self.draw is Draw.NONE else Layout(*self.size)


_ABOVE_ZERO = (
    *("top_logprobs", "votes", "max_tokens", "concurrency", "rpm", "tpm", "attempts", "connect_timeout"),
    *("read_timeout", "body_timeout", "patience", "max_cost", "max_requests"),
)
_OWN_FIELDS = frozenset({"model", "messages", "n", "max_tokens", "max_completion_tokens", "stream"})


def normalise_url(url: str) -> str:
    """`url` as recipes keep it: lower-case host, no default port, no /chat/completions, no slash at its end.

    Raises UsageError where it is no http(s) URL or carries a secret (the message does not repeat it).
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UsageError("the base URL cannot be read: a port or an address in it is malformed") from None
    if (
        parts.username
        or parts.password
        or any(name.lower() in _SECRET_PARAMETERS for name, _ in parse_qsl(parts.query))
    ):
        raise UsageError(
            "the base URL carries a password or a key, which would end up in recipes and logs; "
            "put the key into an environment variable and name that with --api-key-env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no http or https URL; a base URL looks like https://api.openai.com/v1")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host = f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, host, path, parts.query, ""))
