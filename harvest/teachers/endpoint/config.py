"""What a user says about an endpoint."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from harvest.chat.dialects import DIALECTS, Dialect, Scoring, recognise_host
from harvest.chat.prompts import Draw
from harvest.rendering import Layout
from harvest.teachers.pages import PAGE_SIZE, KeepOption
from shared.errors import UsageError
from shared.options import Option, check_json, check_options, parse_json_object
from shared.secrets import hide_secrets
from shared.suggestions import suggest

AUTO = "auto"
_ASKED = "What is asked"
_PACE = "Pace and money"
_BATCH = "By jobs, within a day and for less"
# Of a query parameter whose value is a secret: key, api-key, x_token, access_token, password, sig, ...
_SECRET_PARAMETER = re.compile(
    r"key|token(?!s)|secret|passw|pwd|credential|auth|bearer|jwt|^sig|signature", re.IGNORECASE
)

_SEVERAL = re.compile(r"[,;\s]\s*https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """An endpoint that speaks OpenAI's chat completions, or nearly, what is asked of it, and how hard it may be driven.

    Raises UsageError where a value cannot be meant.
    """

    endpoint: Annotated[
        tuple[str, ...],
        Option(
            "Base URL, with its /v1 if it has one. Repeated, for several servers of one model: see docs/endpoints.md.",
            parse=tuple,
            repeated=True,
            panel=_ASKED,
            metavar="URL",
        ),
    ]
    model: Annotated[str, Option("The endpoint's name of the model.", panel=_ASKED)]
    api_key_env: Annotated[
        str | None,
        Option(
            "Environment variable that holds the key. Unless given, a well-known host's usual one; no other host is "
            "sent a key.",
            panel=_ASKED,
        ),
    ] = None
    dialect: Annotated[
        str, Option(f"The server's: {', '.join(DIALECTS)}; auto finds out. See docs/endpoints.md.", panel=_ASKED)
    ] = AUTO
    scoring: Annotated[
        str,
        Option(
            f"Where label probabilities come from: {', '.join(Scoring)}; auto finds out. See docs/endpoints.md.",
            panel=_ASKED,
        ),
    ] = AUTO
    top_logprobs: Annotated[
        int | None, Option("Alternatives asked for each token. Unless given, by scoring.", at_least=1, panel=_ASKED)
    ] = None
    votes: Annotated[int, Option("Samples a row, where votes are the scoring.", at_least=1, panel=_ASKED)] = 5
    max_tokens: Annotated[
        int | None, Option("Longest reply, in tokens. Unless given, by scoring.", at_least=1, panel=_ASKED)
    ] = None
    temperature: Annotated[float | None, Option("Sampling temperature. Unless given, by scoring.", panel=_ASKED)] = None
    top_p: Annotated[
        float | None,
        Option("Sample from the most probable tokens that make up this probability.", above=0, at_most=1, panel=_ASKED),
    ] = None
    draw: Annotated[
        Draw, Option("What is sent as pictures: fields (the text), all (the question, too), none.", panel=_ASKED)
    ] = Draw.NONE
    size: Annotated[tuple[int, int], replace(PAGE_SIZE, panel=_ASKED)] = (512, 512)
    pictures: Annotated[bool, Option("Show the pictures that the rows have of their own.", panel=_ASKED)] = True
    longest_side: Annotated[
        int | None,
        Option(
            "Pixels that a side of those pictures may have: larger ones are sent smaller. Unless given, none is.",
            at_least=32,
            panel=_ASKED,
        ),
    ] = None
    keep_images: KeepOption = False
    body: Annotated[
        Mapping[str, Any],
        Option(
            "JSON merged into each request: '{\"seed\": 1}'. A null removes a field.",
            parse=parse_json_object,
            metavar="JSON",
            panel=_ASKED,
        ),
    ] = field(default_factory=dict)
    keep_topk: Annotated[
        bool, Option("Keep the tokens' log-probabilities, where the endpoint tells their ids.", panel=_ASKED)
    ] = False
    tokenizer: Annotated[
        str | None,
        Option(
            "Whose ids those tokens have: a hub id, a folder, or a GGUF file. It is noted for students of the same "
            "tokenizer, and is not sent.",
            panel=_ASKED,
        ),
    ] = None
    concurrency: Annotated[int, Option("Most requests in flight, at each server.", at_least=1, panel=_PACE)] = 64
    rpm: Annotated[float | None, Option("Most requests a minute, at each server.", above=0, panel=_PACE)] = None
    tpm: Annotated[float | None, Option("Most tokens a minute, at each server.", above=0, panel=_PACE)] = None
    attempts: Annotated[int, Option("Attempts of one request.", at_least=1, panel=_PACE)] = 6
    connect_timeout: Annotated[float, Option("Seconds to wait for a connection.", above=0, panel=_PACE)] = 10.0
    read_timeout: Annotated[float, Option("Seconds to wait for a reply.", above=0, panel=_PACE)] = 120.0
    body_timeout: Annotated[
        float,
        Option(
            "Seconds to wait for the rest of a reply that was answered 200: it is never asked again.",
            above=0,
            panel=_PACE,
        ),
    ] = 120.0
    patience: Annotated[
        float,
        Option(
            "Seconds after which a request is not tried again; so many of nothing but 429 end the run.",
            above=0,
            panel=_PACE,
        ),
    ] = 600.0
    price_in: Annotated[float | None, Option("US dollars a million prompt tokens.", at_least=0, panel=_PACE)] = None
    price_out: Annotated[float | None, Option("US dollars a million completion tokens.", at_least=0, panel=_PACE)] = (
        None
    )
    max_cost: Annotated[float | None, Option("Stop before this many US dollars are spent.", above=0, panel=_PACE)] = (
        None
    )
    max_requests: Annotated[
        int | None,
        Option("Stop before more requests than this are sent; each attempt counts.", at_least=1, panel=_PACE),
    ] = None

    batch: Annotated[
        bool,
        Option(
            "Ask by the provider's batch route: half the price, answers within a day. See docs/endpoints.md.",
            panel=_BATCH,
        ),
    ] = False
    jobs: Annotated[int, Option("Most jobs at the provider at once.", at_least=1, panel=_BATCH)] = 4
    job_rows: Annotated[
        int | None, Option("Most requests in one job. Unless given, the provider's limit.", at_least=1, panel=_BATCH)
    ] = None
    queue_tokens: Annotated[
        int | None,
        Option("Most prompt tokens in the provider's queue, where your account has a limit.", at_least=1, panel=_BATCH),
    ] = None
    poll: Annotated[float, Option("Seconds between two looks at a job.", above=0, panel=_BATCH)] = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", normalise_urls(self.endpoint))
        if self.batch and len(self.endpoint) > 1:
            raise UsageError(
                "--batch goes by one provider's jobs, which are its own to run and to bill: give one --endpoint"
            )
        if not self.model:
            raise UsageError("no model was named; give --model")
        if self.dialect != AUTO and self.dialect not in DIALECTS:
            raise UsageError(f"--dialect {self.dialect}: {suggest(self.dialect, [AUTO, *DIALECTS], there='there are')}")
        if self.scoring not in (names := [AUTO, *Scoring]):
            raise UsageError(f"--scoring {self.scoring}: {suggest(self.scoring, names, there='there are')}")
        if self.scoring == Scoring.WORDS:
            self._check_words()
        check_options(self)
        check_json(self.body, "--body")
        if taken := _OWN_FIELDS.intersection(self.body):
            raise UsageError(f"--body cannot set {', '.join(sorted(taken))}: there are options for that")

    def _check_words(self) -> None:
        """Raise UsageError where whole words cannot be scored."""
        named = self.host if self.dialect == AUTO else DIALECTS[self.dialect]
        if named is not None and not named.scores_words:
            raise UsageError(f"--scoring words: {explain_no_words(named)}")
        if self.draw is not Draw.NONE or self.keep_topk:
            raise UsageError("--scoring words asks in writing, for no reply: it goes without --draw and --keep-topk")

    @property
    def base_url(self) -> str:
        """The base URL, the first where there are several."""
        return self.endpoint[0]

    @property
    def host(self) -> Dialect | None:
        """The dialect of the well-known host that is asked; None for any other."""
        return recognise_host(self.base_url)

    @property
    def layout(self) -> Layout | None:
        """The pages that are drawn, None where all is sent as text."""
        return None if self.draw is Draw.NONE else Layout(*self.size)


def explain_no_words(dialect: Dialect) -> str:
    """Why a server of `dialect` does not score whole words, and what to do instead."""
    return (
        f"an endpoint of the dialect {dialect.name} scores first tokens only, llama.cpp's server alone whole words; "
        "--letters asks for a letter instead of a word, and --teacher transformers and vllm score whole words"
    )


_OWN_FIELDS = frozenset(
    {"model", "messages", "input", "n", "max_tokens", "max_completion_tokens", "max_output_tokens", "stream"}
)


def normalise_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Base URLs as normalise_url has each. Raises UsageError where one comes twice, or not all are of one provider."""
    given = tuple(map(normalise_url, urls))
    if not given:
        raise UsageError("no base URL was given; give --endpoint")
    if len(set(given)) < len(given):
        raise UsageError(f"--endpoint {next(url for url in given if given.count(url) > 1)} was given twice")
    hosts = {url: recognise_host(url) for url in given}
    first = hosts[given[0]]
    for url, host in hosts.items():
        if host is not first:
            one, other = ("your own" if each is None else each.name for each in (first, host))
            raise UsageError(
                f"--endpoint {given[0]} is {one} and {url} is {other}: several are asked as one only where all are "
                "servers of one provider, or of your own. Give each a run and a --name"
            )
    return given


def normalise_url(url: str) -> str:
    """`url` as recipes keep it: lower-case host, no default port, no /chat/completions, no slash at its end.

    Raises UsageError where it is no http(s) URL, or calls a part of itself a password or a key: that is not repeated.
    """
    if _SEVERAL.search(url.strip()):
        raise UsageError(
            f"{hide_secrets(url)!r} is more than one base URL: give --endpoint once for each (a list in a recipe)"
        )
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise UsageError("the base URL cannot be read: a port or an address in it is malformed") from None
    if (
        "@" in parts.netloc
        or (parts.scheme not in ("http", "https") and "@" in url)  # user:key@host, without its http://
        or any(_SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parts.query))
    ):
        raise UsageError(
            "the base URL carries a password or a key, which would end up in recipes and logs; "
            "put the key into an environment variable and name that with --api-key-env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{hide_secrets(url)!r} is no http or https URL; a base URL looks like https://api.openai.com/v1"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host = f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, host, path, parts.query, ""))
