"""Spells out what is no character to look at, so that no text of others steers a terminal or breaks a page."""

import re

# Control characters but for the line's end and the tab, and those that turn the direction of text (Unicode TR9).
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def make_printable(text: str) -> str:
    """`text` with what is no character to look at spelled out, as Python spells it. Lines and tabs stay."""
    return _UNPRINTABLE.sub(_spell_out, text)


def _spell_out(match: "re.Match[str]") -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
