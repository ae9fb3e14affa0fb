"""API keys: read from the environment by name, sent in one header, and kept out of everything else."""

import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from harvest.teachers.endpoint.redaction import Redaction
from shared.errors import UsageError
from shared.schema import Answer
from shared.secrets import MIN_SECRET_LENGTH, REDACTED

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLAIN_VARIABLE = re.compile(r"[A-Z][A-Z_]*[0-9]{0,2}", re.ASCII)  # no key looks like this


@dataclass(frozen=True, slots=True)
class Secret:
    """An API key. Neither `repr` nor `str` shows it."""

    value: str = field(repr=False)
    name: str = ""

    def __str__(self) -> str:
        return REDACTED

    def clean(self, text: str, *, cut: bool = False) -> str:
        """`text` without the key, however it is spelled; with `cut`, without its beginning at the end, too."""
        data = self.clean_bytes(text.encode("utf-8", "surrogatepass"), cut=cut)
        return data.decode("utf-8", "surrogatepass")

    def clean_bytes(self, data: bytes, *, cut: bool = False) -> bytes:
        """`data` without the key: servers have been seen to echo it in their replies."""
        return data if len(self.value) < MIN_SECRET_LENGTH else _make_redaction(self.value).clean(data, cut=cut)

    def clean_answer(self, answer: Answer) -> Answer:
        """An answer whose texts do not hold the key.

        Where one shows it that was made of a clean body (of parts put together, say), what spells it elsewhere goes.
        """
        if len(self.value) < MIN_SECRET_LENGTH:
            return answer
        texts = {name: getattr(answer, name) for name in ("reply", "finish_reason", "error")}
        cleaned = {name: text and self.clean(text) for name, text in texts.items()}
        if cleaned == texts:
            return answer
        spelled = ("raw", "reply_ids", "reply_logprobs", "topk_ids", "topk_logprobs", "topk_tail")
        changes: dict[str, Any] = {**cleaned, **dict.fromkeys(spelled)}
        return replace(answer, **changes)


NO_SECRET = Secret("")


@lru_cache(maxsize=4)
def _make_redaction(value: str) -> Redaction:
    return Redaction(value)


def check_variable(variable: str | None) -> None:
    """Raise UsageError, which does not repeat it, where `variable` is no name of an environment variable."""
    if variable is not None and not _VARIABLE.fullmatch(variable):
        raise UsageError(
            "--api-key-env takes the name of an environment variable, and what was given is none (not repeated here, "
            "for it may be the key): run: export MY_KEY=..., and give --api-key-env MY_KEY"
        )


def read_secret(variable: str | None) -> Secret:
    """The key in the environment variable `variable`; no key where that is None.

    Raises UsageError where the variable is not set, or holds what no HTTP header can carry; what may be a key in the
    place of its name is not repeated.
    """
    check_variable(variable)
    if variable is None:
        return NO_SECRET
    value = os.environ.get(variable, "").strip()
    if not value:
        shown = variable if _PLAIN_VARIABLE.fullmatch(variable) else "that --api-key-env names"
        raise UsageError(
            f"the API key is read from the environment variable {shown}, which is not set; "
            f"run: export {shown if shown == variable else 'MY_KEY'}=..., or name another variable with --api-key-env"
        )
    if not (value.isascii() and value.isprintable()):
        raise UsageError(f"the value of {variable} is no API key: it holds characters that no HTTP header can carry")
    return Secret(value, variable)
