"""API keys: read from the environment by name, sent in one header, and kept out of everything else."""

import os
from dataclasses import dataclass, field

from shared.errors import UsageError

REDACTED = "[redacted]"
# A short value ("EMPTY", which local servers are given) is no secret, and replacing it would damage ordinary text.
MIN_SECRET_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Secret:
    """An API key. Neither `repr` nor `str` shows it."""

    value: str = field(repr=False)
    name: str = ""

    def __str__(self) -> str:
        return REDACTED

    def clean(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self.value, REDACTED) if len(self.value) >= MIN_SECRET_LENGTH else text

    def clean_bytes(self, data: bytes) -> bytes:
        """`data` without the key: servers have been seen to echo it in their replies."""
        if len(self.value) < MIN_SECRET_LENGTH:
            return data
        return data.replace(self.value.encode(), REDACTED.encode())


NO_SECRET = Secret("")


def read_secret(variable: str | None) -> Secret:
    """The key in the environment variable `variable`; no key where that is None.

    Raises UsageError where the variable is not set, or holds what no HTTP header can carry.
    """
    if variable is None:
        return NO_SECRET
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UsageError(
            f"the API key is read from the environment variable {variable}, which is not set; "
            f"run: export {variable}=..., or name another variable with --api-key-env"
        )
    if not (value.isascii() and value.isprintable()):
        raise UsageError(f"the value of {variable} is no API key: it holds characters that no HTTP header can carry")
    return Secret(value, variable)
