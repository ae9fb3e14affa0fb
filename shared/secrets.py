"""Finds keys and passwords where none belongs: in options, which end up in recipes, manifests and messages."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from shared.errors import UsageError

REDACTED = "[redacted]"  # what stands in the place of a key
# A short value ("EMPTY", which local servers are given) is no secret, and hiding it would damage ordinary text.
MIN_SECRET_LENGTH = 8
_MIN_GUESSED_LENGTH = 16  # of a variable that nobody named
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:API_?KEY|ACCESS_KEY|SECRET_KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
# Keys as OpenAI and its like, Anthropic, Hugging Face, Google, Groq, xAI, Together, GitHub and AWS make them; and JWTs.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[\w-]*\d)[\w-]{20,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}|gsk_\w{40,}|xai-\w{40,}"
    r"|tgp_v1_[\w-]{30,}|gh[pousr]_[A-Za-z0-9]{36}|(?:AKIA|ASIA)[0-9A-Z]{16}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)",
    re.ASCII,
)
# "user:password@" before a host; a name alone is none.
_CREDENTIALS = re.compile(r"(?<=//)[^/\s@:]*:[^/\s@]+(?=@)")


def list_secrets() -> list[str]:
    """List the values of the environment variables whose names say that they hold a secret, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_GUESSED_LENGTH and not value.startswith(("/", "~"))
    }
    return sorted(found, key=len, reverse=True)


def hide_secrets(text: str) -> str:
    """`text` without what list_secrets gives, what looks like a key, and the password of a URL: for messages."""
    for value in list_secrets():
        text = text.replace(value, REDACTED)
    return _CREDENTIALS.sub(REDACTED, _KEY.sub(REDACTED, text))


def refuse_secrets(options: Mapping[str, Any], variable: str | None = None) -> None:
    """Raise UsageError that names the option, and does not repeat it, where the value of one of `options` has a secret.

    A secret is the value of the environment variable `variable`, or of one whose name says so, or looks like a key.
    Keys are option names as the user writes them; texts in mappings and lists are looked at, too.
    """
    named = os.environ.get(variable, "").strip() if variable is not None else ""
    secrets = [*([named] if len(named) >= MIN_SECRET_LENGTH else []), *list_secrets()]
    for name, value in options.items():
        for text in _list_texts(value):
            if _KEY.search(text) or any(secret in text for secret in secrets):
                raise UsageError(
                    f"{name} holds what is, or looks like, an API key; it would end up in files and logs, so nothing "
                    "was written or sent. Put the key into an environment variable and name that with --api-key-env"
                )


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _list_texts(name)
            yield from _list_texts(inner)
    elif isinstance(value, str):
        yield value
        if "%" in value:
            yield unquote(value)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _list_texts(inner)
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
