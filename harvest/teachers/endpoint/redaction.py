"""Finds a secret in what a server sends back, in the spellings that servers, proxies and libraries give it.

The secret is looked for as it is, then with escapes undone (JSON, percent, HTML, quoted-printable, several of them on
top of each other): itself, backwards, and in hexadecimal and base64, whole or in pieces. Bytes without any of them are
given back as they were.

Sources: RFC 8259 section 7, RFC 3986 section 2.1, RFC 2045 section 6.7, RFC 4648 sections 4, 5 and 8, HTML Living
Standard section 13.5.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.secrets import REDACTED

_REDACTED = REDACTED.encode()
_WORD = 4  # bytes that are looked up together
# Fibonacci hashing of a word to so many bits (Knuth, TAOCP 3, section 6.4).
_BITS = 16
_MULTIPLIER, _SHIFT = np.uint32(2_654_435_761), np.uint32(32 - _BITS)
LEAST_PIECE = 12  # characters: shorter pieces would be found in ordinary text
LEAST_TAIL = 4  # of the secret's beginning, at the end of a body that broke off
MAX_LAYERS = 4  # of escapes on top of each other

# What an escape begins with, and one escaped ASCII character: its number in hexadecimal, or in decimal (group 2).
_Escapes: TypeAlias = tuple[tuple[bytes, re.Pattern[bytes]], ...]
_ESCAPES: _Escapes = (
    (b"\\", re.compile(rb"\\+(?:u00|x)([2-7][0-9a-f])", re.IGNORECASE)),
    (b"%", re.compile(rb"%(?:25)*([2-7][0-9a-f])", re.IGNORECASE)),
    (b"&", re.compile(rb"&(?:amp;)*#(?:x0*([2-7][0-9a-f])|0*([3-9][0-9]|1[01][0-9]|12[0-6]));", re.IGNORECASE)),
    (b"=", re.compile(rb"=([2-7][0-9a-f])", re.IGNORECASE)),
    (b"\\/", re.compile(rb"\\+(/)")),
    (b"=", re.compile(rb"=\r?(\n)")),  # a line that quoted-printable folds
)
_BEGINS = tuple(dict.fromkeys(begin[:1] for begin, _ in _ESCAPES))
# The beginning of an escape, at the end of what broke off.
_CUT_ESCAPE = re.compile(
    rb"(?:\\+(?:u0{0,2}[2-7]?|x[2-7]?)?|%(?:25)*[2-7]?|&(?:amp;)*#?x?[0-9a-f]{0,3}|=[2-7]?)\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """One way of writing the secret, in lower case. Pieces of at least `least` characters are not to be seen."""

    text: bytes
    least: int

    def list_chunks(self) -> Iterator[tuple[int, bytes]]:
        """Places and texts of short pieces: any piece that is not to be seen holds one of them whole."""
        size = max((self.least + 1) // 2, 1)
        for at in range(0, len(self.text) - size + 1, size):
            yield at, self.text[at : at + size]


class Redaction:
    """Takes one secret, which is printable ASCII, out of bytes."""

    def __init__(self, secret: str) -> None:
        self._spellings = tuple(dict.fromkeys(_list_spellings(secret.encode())))
        self._chunks = [(one, at, chunk) for one in self._spellings for at, chunk in one.list_chunks()]
        spelled = frozenset(b"".join(one.text for one in self._spellings))
        self._least = min(one.least for one in self._spellings)
        # A piece, wherever it lies, holds so many words of four bytes whole, which follow each other.
        self._found = b"\1" * ((self._least - _WORD + 1) // _WORD)
        grams = b"".join(
            one.text[at : at + _WORD] for one in self._spellings for at in range(len(one.text) - _WORD + 1)
        )
        self._seen = np.zeros(1 << _BITS, np.uint8)
        self._seen[_hash_words(grams)] = 1
        characters = spelled | {ord("\\"), ord("%"), ord("&")}
        # What a quote is to JSON stays what it is.
        self._undone = {n: bytes((n,)) for n in range(128) if bytes((n,)).lower()[0] in characters - {ord('"')}}
        # "=" and digits of a secret may look like an escape themselves: it is looked for with those left alone, too.
        others = tuple(escape for escape in _ESCAPES if escape[0] != b"=")
        self._escapes = (others, _ESCAPES) if "=" in secret else (_ESCAPES,)

    def clean(self, data: bytes, *, cut: bool = False) -> bytes:
        """`data` without the secret; with `cut`, where it broke off, without the secret's beginning at its end."""
        if len(data) < self._least and not cut:  # no piece fits, and escapes are longer
            return data
        data = self._cut_out(data, cut)
        if not any(begin in data for begin in _BEGINS):
            return data
        for escapes in self._escapes:
            plain = self._undo_escapes(data, escapes)
            if plain != data and (cleaned := self._cut_out(plain, cut)) != plain:
                data = cleaned
        return data

    def _undo_escapes(self, data: bytes, escapes: _Escapes) -> bytes:
        for _ in range(MAX_LAYERS):
            before = data
            for begin, pattern in escapes:
                if begin in data:
                    data = pattern.sub(self._undo, data)
            if data == before:
                break
        return data

    def _undo(self, match: re.Match[bytes]) -> bytes:
        if match[1] == b"/":
            return b"/"
        if match[1] == b"\n":
            return b""
        number = int(match[1], 16) if match[1] else int(match[2])
        return self._undone.get(number, match[0])

    def _cut_out(self, data: bytes, cut: bool) -> bytes:
        lower = data.lower()
        spans = []
        if self._may_show(lower):
            spans = sorted(span for one, at, chunk in self._chunks for span in _find_pieces(lower, one, at, chunk))
        parts, end = [], 0
        for start, stop in spans:
            if stop <= end:
                continue
            if start >= end:
                parts += [data[end:start], _REDACTED]
            end = stop
        rest = data[end:]
        tail = self._find_tail(rest.lower()) if cut else len(rest)
        if tail < len(rest):
            rest = rest[:tail] + _REDACTED
        return b"".join([*parts, rest])

    def _may_show(self, lower: bytes) -> bool:
        """Whether a piece may be there. Without one, which is nearly always, all else is spared.

        The words of `lower` are looked up, by a hash, among all that stand anywhere in a spelling.
        """
        return self._found in self._seen[_hash_words(lower)].tobytes()

    def _find_tail(self, lower: bytes) -> int:
        """Where a beginning of the secret starts that `lower` ends with; its length where it ends with none."""
        for end in {len(lower), len(_CUT_ESCAPE.sub(b"", lower[-64:])) + max(len(lower) - 64, 0)}:
            for one in self._spellings:
                for length in range(min(len(one.text), end), LEAST_TAIL - 1, -1):
                    if lower.endswith(one.text[:length], 0, end):
                        return end - length
        return len(lower)


def _hash_words(data: bytes) -> NDArray[np.uint32]:
    """A hash of each word of `data`, the first at its beginning; of less than a word at its end none."""
    return (np.frombuffer(data, np.uint32, len(data) // _WORD) * _MULTIPLIER) >> _SHIFT


def _list_spellings(secret: bytes) -> Iterator[_Spelling]:
    least = min(LEAST_PIECE, len(secret))
    for plain in (secret, json.dumps(secret.decode())[1:-1].encode()):
        yield _Spelling(plain.lower(), least)
        yield _Spelling(plain[::-1].lower(), least)
    yield _Spelling(secret.hex().encode(), 2 * least)
    for before in range(3):  # what stands before it decides how its bits are cut into sixes
        padded = bytes(before) + secret
        whole = padded[: len(padded) // 3 * 3]
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(whole)[-(-before * 8 // 6) :]
            yield _Spelling(text.lower(), min(len(text), 4 * least // 3))


def _find_pieces(lower: bytes, spelling: _Spelling, at: int, chunk: bytes) -> Iterator[tuple[int, int]]:
    """Where the pieces of a spelling lie that hold `chunk`, which is at `at` of it."""
    text, found = spelling.text, lower.find(chunk)
    while found >= 0:
        start, stop, first, last = found, found + len(chunk), at, at + len(chunk)
        while start and first and lower[start - 1] == text[first - 1]:
            start, first = start - 1, first - 1
        while stop < len(lower) and last < len(text) and lower[stop] == text[last]:
            stop, last = stop + 1, last + 1
        if stop - start >= spelling.least:
            yield start, stop
        found = lower.find(chunk, found + 1)
