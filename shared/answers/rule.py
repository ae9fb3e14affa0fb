"""An answer rule, and the right answer of a row."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from shared.answers.readings import TOLERANCE, locate_stated, to_number
from shared.answers.thinking import split_thinking

_NUMERAL = re.compile(r"[-−]?\d[\d.,/]*")  # however it is spelt
_Find: TypeAlias = Callable[[str], str | None]
_Pick: TypeAlias = Callable[[str, Sequence[str]], int | None]


class _Answered(Protocol):
    """What has a right answer: an Example, or a row of a table."""

    @property
    def choices(self) -> Sequence[str] | None: ...
    @property
    def label(self) -> int | None: ...
    @property
    def target_text(self) -> str | None: ...
    @property
    def references(self) -> Sequence[str] | None: ...


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How a reply is turned into an answer and judged. `note` says in a line what the rule does.

    Only what stands behind a reply's thinking is read: thinking that was cut states nothing.
    """

    name: str
    note: str
    find: _Find
    pick: _Pick
    numeric: bool = False

    def extract(self, reply: str, choices: Sequence[str] | None) -> str | None:
        """Read the answer that `reply` states, one of `choices` where there are any; None where it states none."""
        reply = split_thinking(reply).answer
        if choices is None:
            return self.find(reply)
        place = self.pick(reply, choices)
        return None if place is None else choices[place]

    def locate(self, reply: str, choices: Sequence[str] | None) -> int | None:
        """Find the character at which the final answer of `reply` begins; None where it states none that can be found.

        It begins after the last "the answer is", "Answer:" or "####", or in the last LaTeX box; without any of these at
        the last place where the answer stands as it is spelt, or for a rule of numbers at the last number.
        """
        stated, (answer, before, _) = self.extract(reply, choices), split_thinking(reply)
        if stated is None:
            return None
        if (span := locate_stated(answer)) is not None:
            return before + span[0]
        spelt = re.finditer(f"(?={re.escape(stated)})", answer, re.IGNORECASE)  # overlapping ones, too
        place = max((match.start() for match in spelt), default=-1)
        if place < 0 and self.numeric:
            place = max((match.start() for match in _NUMERAL.finditer(answer)), default=-1)
        return before + place if place >= 0 else None

    def is_right(
        self,
        reply: str,
        *,
        choices: Sequence[str] | None = None,
        label: int | None = None,
        target_text: str | None = None,
        references: Sequence[str] | None = None,
    ) -> bool:
        """Judge whether `reply` states the right answer: the choice number `label`, or any of the right texts.

        `references` are all right texts and `target_text` stands for them where there are none. A choice that has the
        same text as the right one is right. Raises ValueError where the row has no right answer to judge by.
        """
        reply = split_thinking(reply).answer
        if choices is not None and label is not None:
            place = self.pick(reply, choices)
            return place is not None and choices[place] == choices[label]
        right = references or ([] if target_text is None else [target_text])
        if not right:
            raise ValueError("the row has no right answer to judge the reply by")
        stated = self.find(reply)
        return stated is not None and any(self._is_same(stated, self.find(text)) for text in right)

    def _is_same(self, stated: str, right: str | None) -> bool:
        if right is None or stated == right:
            return stated == right
        numbers = (to_number(stated), to_number(right)) if self.numeric else (None, None)
        return None not in numbers and abs(numbers[0] - numbers[1]) <= TOLERANCE  # type: ignore[operator]


def gold_text(row: _Answered) -> str | None:
    """Give a row's right answer as text: its right choice, or its target text; None where it has neither."""
    if row.choices is not None and row.label is not None:
        return row.choices[row.label]
    return row.target_text if row.target_text is not None else next(iter(row.references or ()), None)


def has_gold(row: _Answered) -> bool:
    """Say whether a reply to the row can be judged: it has a right choice or a right text."""
    return gold_text(row) is not None
