"""How a student's replies are decoded where they are scored: what a user may choose, by name or option by option."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from shared.errors import UsageError
from shared.options import parse_assignment
from shared.suggestions import hint

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Decoding:
    """Temperature 0 is greedy, or a beam search with `beams` above 1; above 0 it draws, once with each of `seeds`.

    A reply has at most `max_new_tokens` tokens (None: the task's cap, or 256), and a prompt with its reply at most
    `max_length` (None: as many as the model has positions). Raises UsageError for what cannot be.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seeds: tuple[int, ...] = (0,)
    max_length: int | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_length", "beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"decoding: {name} is {value}; it must be at least 1")
        if not (0 <= self.temperature < 100 and 0 < self.top_p <= 1):
            raise UsageError(
                f"decoding: temperature is {self.temperature} and top_p {self.top_p}; a temperature is 0 or more, "
                "and top_p more than 0 and at most 1"
            )
        if self.temperature and self.beams > 1:
            raise UsageError("decoding: beams are not drawn: give temperature 0 with beams, or 1 beam")
        if not self.temperature and (self.top_p < 1 or len(self.seeds) > 1):
            raise UsageError("decoding: top_p and several seeds are for replies that are drawn: give a temperature")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"decoding: seeds are {list(self.seeds)}; give different ones, 0 or more")

    def cap(self, max_reply_tokens: int | None) -> "Decoding":
        """Give the same with the task's cap on a reply where none was given."""
        return replace(self, max_new_tokens=self.max_new_tokens or max_reply_tokens or DEFAULT_NEW_TOKENS)


# By name. MiniLLM: T = 1, 512 tokens in all, five seeds (microsoft/LMOps, minillm/scripts/gpt2/eval).
# LLM-Adapters: four beams (AGI-Edgerunners/LLM-Adapters, evaluate.py).
DECODINGS = {
    "greedy": Decoding(),
    "minillm": Decoding(max_new_tokens=512, temperature=1.0, seeds=(10, 20, 30, 40, 50), max_length=512),
    "llm-adapters": Decoding(beams=4),
}


def parse_decoding(texts: Sequence[str]) -> Decoding:
    """Read a decoding as users write it: a name of DECODINGS, NAME=VALUE over it, or both. Raises ValueError."""
    names = [text for text in texts if "=" not in text]
    if len(names) > 1 or not set(names) <= DECODINGS.keys():
        strange = next((name for name in names if name not in DECODINGS), "")
        raise ValueError(f"{hint(strange, DECODINGS)}give one of {', '.join(DECODINGS)}, or NAME=VALUE: temperature=1")
    known = {field.name for field in fields(Decoding)}
    given: dict[str, Any] = {}
    for text in texts:
        if text in names:
            continue
        name, value = parse_assignment(text)
        name = name.replace("-", "_")
        if name not in known:
            raise ValueError(f"decoding has no {name}; it has {', '.join(sorted(known))}")
        if name == "seeds":
            value = tuple(value) if isinstance(value, list) else (value,)
        numbers = value if isinstance(value, tuple) else (value,)
        whole = name not in ("temperature", "top_p")
        if any(isinstance(each, bool) or not isinstance(each, int if whole else int | float) for each in numbers):
            raise ValueError(f"{name} is {value!r}; give {'a whole number' if whole else 'a number'}")
        given[name] = value
    return replace(DECODINGS[names[0]] if names else Decoding(), **given)


def show_decoding(decoding: Decoding) -> str:
    """Say it in a line: what differs from greedy decoding, as `parse_decoding` reads it."""
    plain = Decoding()
    differing = [
        field.name for field in fields(Decoding) if getattr(decoding, field.name) != getattr(plain, field.name)
    ]
    return " ".join(f"{name}={_show(getattr(decoding, name))}" for name in differing) or "greedy"


def _show(value: Any) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else f"{value:g}"
