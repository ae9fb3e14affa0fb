"""Rendering of pages, and their encoding as PNG.

FreeType draws each character once a size; a word is put together from its characters, and a page from its words, both
by copying. Hinted advances are whole pixels and there is no kerning, so the pixels are those of a line drawn at once.
"""

import struct
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np

from harvest.rendering.fonts import CHARACTER_FONTS, get_advances, load_font, prepare_text
from harvest.rendering.layout import Layout, TextLine, fit_text

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_ASCENT = 1.069  # of Noto Sans, in ems: with the descent, .293, a line box takes any letter with its accents
_LINE_EXTENT = 1.362
_WORDS = 16384  # kept drawn: some 20 MB
_ABOVE = 230  # the canonical combining class of marks that stand above their letter


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text on a page: its box in pixels (right and bottom are exclusive), and what it says.

    `ends_with` is what stands between it and the next line in the text: spaces, a line end, or "" inside a word.
    """

    left: int
    top: int
    right: int
    bottom: int
    text: str
    ends_with: str


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A page: its pixels, the same as a PNG file, and the lines that stand on it.

    `pixels` is uint8 of shape (height, width), black (0) on white (255); `png` is an 8-bit greyscale file, and `sha256`
    that of its bytes, in hexadecimal.
    """

    pixels: Pixels
    png: bytes
    sha256: str
    lines: Sequence[Line]


def render(text: str, layout: Layout) -> list[Page]:
    """Render `text` as pages: one or more, and nothing of the text is left out.

    A pure function of the text, the layout and the fonts. Raises DataError for a character that no font draws.
    """
    size, pages = fit_text(prepare_text(text), layout)
    return [_render_page(lines, size, layout) for lines in pages]


def _encode_png(pixels: Pixels) -> bytes:
    height, width = pixels.shape
    # Rows unfiltered, and level 1: Pillow tries five filters on each row, which takes longer than the rest.
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = pixels
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),  # 8-bit greyscale
        (b"IDAT", zlib.compress(rows.data, 1)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@dataclass(frozen=True, slots=True)
class _Ink:
    """What a character or a word blackens: its box's pixels, and its left and top as seen from the pen; y runs down."""

    pixels: Pixels
    left: int
    top: int


def _render_page(lines: Sequence[TextLine], size: int, layout: Layout) -> Page:
    pixels = np.full((layout.height, layout.width), 255, np.uint8)
    height = layout.get_line_height(size)
    baseline = round(size * (_ASCENT + (layout.line_spacing - _LINE_EXTENT) / 2))
    drawn = []
    for number, line in enumerate(lines):
        top = layout.margin + number * height
        right = _draw_line(pixels, line.text, layout.margin, top + baseline, size)
        if line.text:
            drawn.append(Line(layout.margin, top, right, top + height, line.text, line.ends_with))
    png = _encode_png(pixels)
    return Page(pixels, png, sha256(png).hexdigest(), drawn)


def _draw_line(page: Pixels, text: str, left: int, baseline: int, size: int) -> int:
    """Draw `text` from `left` on `baseline`; returns where it ends."""
    space = get_advances(size)[" "]
    for number, word in enumerate(text.split(" ")):
        if number:
            left += space
        if word:
            ink, width = _draw_word(word, size, 0 if word.isascii() else left % 2)
            _put(page, ink, left, baseline)
            left += width
    return left


@lru_cache(_WORDS)
def _draw_word(word: str, size: int, odd: int) -> tuple[_Ink, int]:
    """The ink of a word, and its width from pen to pen.

    A mark that cannot be centred to the pixel goes to an even column of the page: `odd` says where the word starts.
    """
    advances = get_advances(size)
    placed: list[tuple[_Ink, int, int]] = []
    left = 0
    base = " "  # the letter that a combining mark goes onto
    for is_mark, run in groupby(word, _is_mark):
        chars = list(run)
        if is_mark:
            marks = _place_marks(chars, base, odd + left - advances[base] / 2, size)
            placed += [(ink, x - odd, y) for ink, x, y in marks]
        else:
            for char in chars:
                placed.append((_find_ink(char, size), left, 0))
                left += advances[char]
            base = chars[-1]
    x0 = min(x + ink.left for ink, x, _ in placed)
    y0 = min(y + ink.top for ink, _, y in placed)
    x1 = max(x + ink.left + ink.pixels.shape[1] for ink, x, _ in placed)
    y1 = max(y + ink.top + ink.pixels.shape[0] for ink, _, y in placed)
    box = np.full((y1 - y0, x1 - x0), 255, np.uint8)
    for ink, x, y in placed:
        _put(box, ink, x - x0, y - y0)
    return _Ink(box, x0, y0), left


def _put(page: Pixels, ink: _Ink, x: int, y: int) -> None:
    """Blacken `page` by `ink` with the pen at (x, y); what lies outside is left out."""
    left, top = x + ink.left, y + ink.top
    height, width = ink.pixels.shape
    pixels = ink.pixels
    if left < 0 or top < 0:
        pixels = pixels[max(0, -top) :, max(0, -left) :]
        height, width = height + min(0, top), width + min(0, left)
        left, top = max(0, left), max(0, top)
        if height <= 0 or width <= 0:
            return
    below = page[top : top + height, left : left + width]
    pixels = pixels[: below.shape[0], : below.shape[1]]
    if below.min(initial=255) == 255:
        below[:] = pixels
    else:  # letters that touch: FreeType's pages blend them so
        product = (255 - pixels).astype(np.uint16) * below + 128
        below -= ((product + (product >> 8)) >> 8).astype(np.uint8)


def _is_mark(char: str) -> bool:
    # The CJK font's marks (of kana) are drawn to stand behind their letter as they are.
    return CHARACTER_FONTS[char] == 0 and unicodedata.category(char) in ("Mn", "Me")


def _place_marks(marks: Sequence[str], base: str, centre: float, size: int) -> list[tuple[_Ink, int, int]]:
    """Combining `marks` centred on `base`, those above it stacked: the ink of each, and where its pen is.

    The basic layout engine knows no anchors: it would set a mark behind its letter, at the height of a small one.
    """
    normal_top = _find_ink("x", size).top
    top = min(_find_ink(base, size).top, normal_top)
    placed = []
    for mark in marks:
        ink = _find_ink(mark, size)
        lift = 0
        if unicodedata.combining(mark) == _ABOVE:
            lift = top - normal_top
            top = ink.top + lift
        placed.append((ink, round(centre - ink.pixels.shape[1] / 2) - ink.left, lift))
    return placed


@cache
def _find_ink(char: str, size: int) -> _Ink:
    """What `char` blackens."""
    from PIL import Image, ImageDraw

    font = load_font(CHARACTER_FONTS[char], size)
    mask, (left, top) = font.getmask2(char, "L", anchor="ls")
    image = Image.new("L", mask.size, 255)
    if mask.size[0] and mask.size[1]:
        ImageDraw.Draw(image).text((-left, -top), char, fill=0, font=font, anchor="ls")
    return _Ink(np.asarray(image), left, top)
