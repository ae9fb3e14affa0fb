"""What a user wrote becomes a config, or is refused by name."""

from dataclasses import dataclass
from typing import Any

import pytest

from shared.errors import UsageError
from shared.options import make_config


@dataclass(frozen=True, slots=True)
class Config:
    model: str
    size: tuple[int, int] = (1, 2)
    rate: float | None = None


def test_options_are_checked_and_converted_by_type() -> None:
    assert make_config(Config, {"model": "m", "size": [3, "4"], "rate": 1}, "it") == Config("m", (3, 4), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m", "sise": 1}, "the teacher t has no option --sise; it has: --model, --rate, --size"),
        ({"size": (1, 2)}, "the teacher t needs --model"),
        ({"model": "m", "rate": "fast"}, "the teacher t: --rate: .*not 'fast'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(Config, options, "the teacher t", lambda name: f"--{name}")
