"""Telling a model's thinking from its answer, where both stand in one text.

Reasoning models write their thinking between marks before the answer: <think> (DeepSeek-R1, Qwen3), <thinking>,
<reasoning>, [THINK] (Magistral), ◁think▷ (Kimi). Templates that put the first mark into the prompt leave only the
second one in the reply.
"""

import re
from typing import NamedTuple

_NAMES = "think|thinking|thought|reasoning"
_OPEN = re.compile(rf"\s*(?:<(?:{_NAMES})>|\[THINK\]|◁think▷)", re.IGNORECASE)
_CLOSE = re.compile(rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷", re.IGNORECASE)


class Parts(NamedTuple):
    """A text's answer, and how many of its characters stand before it; `is_cut` where it ends in its thinking."""

    answer: str
    before: int
    is_cut: bool


def split_thinking(text: str) -> Parts:
    """Find the answer of a text that may begin with thinking: all behind the last mark that ends it.

    A mark that stands later in a text which does not begin with one is a word of the answer, unless it ends thinking
    whose beginning is not told.
    """
    if "<" not in text and "[" not in text and "◁" not in text:  # no mark is there: nearly all answers
        return Parts(text, 0, False)
    ends = [match.end() for match in _CLOSE.finditer(text)]
    if ends:
        return Parts(text[ends[-1] :], ends[-1], False)
    if _OPEN.match(text):
        return Parts("", len(text), True)
    return Parts(text, 0, False)
