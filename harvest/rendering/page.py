"""Drawing of pages, and their encoding as PNG."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from harvest.rendering.fonts import CHARACTER_FONTS, get_advances, load_font, prepare_text
from harvest.rendering.layout import Layout, TextLine, fit_text

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_ASCENT = 1.069  # of Noto Sans, in ems: with the descent, .293, a line box takes any letter with its accents
_LINE_EXTENT = 1.362
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


@dataclass(frozen=True, slots=True)
class Drawing:
    """A page before encoding. `pixels` is uint8 of shape (height, width), black (0) on white (255)."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    lines: Sequence[Line]
    font_size: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page as a PNG file: 8-bit greyscale. `sha256` is that of the file, in hexadecimal."""

    png: bytes
    sha256: str
    lines: Sequence[Line]


def draw(text: str, layout: Layout) -> list[Drawing]:
    """The pages of `text`: one or more, and nothing of the text is left out.

    A pure function of the text, the layout and the fonts. Raises DataError for a character that no font draws.
    """
    size, pages = fit_text(prepare_text(text), layout)
    return [_draw_page(lines, size, layout) for lines in pages]


def encode(drawing: Drawing) -> Page:
    """`drawing` as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    # Level 1 is four times as fast as the default, for a third more bytes.
    Image.fromarray(drawing.pixels).save(file, "PNG", compress_level=1)
    png = file.getvalue()
    return Page(png, sha256(png).hexdigest(), drawing.lines)


def render(text: str, layout: Layout) -> list[Page]:
    """The pages of `text` as PNG files: draw, then encode."""
    return [encode(drawing) for drawing in draw(text, layout)]


def _draw_page(lines: Sequence[TextLine], size: int, layout: Layout) -> Drawing:
    from PIL import Image, ImageDraw

    image = Image.new("L", (layout.width, layout.height), 255)
    canvas = ImageDraw.Draw(image)
    height = layout.get_line_height(size)
    baseline = round(size * (_ASCENT + (layout.line_spacing - _LINE_EXTENT) / 2))
    drawn = []
    for number, line in enumerate(lines):
        top = layout.margin + number * height
        right = _draw_line(canvas, line.text, layout.margin, top + baseline, size)
        if line.text:
            drawn.append(Line(layout.margin, top, right, top + height, line.text, line.ends_with))
    return Drawing(np.asarray(image), drawn, size)


def _draw_line(canvas: "ImageDraw", text: str, left: int, baseline: int, size: int) -> int:
    """Draw `text` from `left` on `baseline`; returns where it ends."""
    advances = get_advances(size)
    base = " "  # the letter that a combining mark goes onto
    for (font_index, is_mark), run in groupby(text, _find_run):
        chars = "".join(run)
        if is_mark:
            _draw_marks(canvas, chars, base, left - advances[base] / 2, baseline, size)
        else:
            canvas.text((left, baseline), chars, fill=0, font=load_font(font_index, size), anchor="ls")
            left += sum(map(advances.__getitem__, chars))
            base = chars[-1]
    return left


def _find_run(char: str) -> tuple[int, bool]:
    font_index = CHARACTER_FONTS[char]
    # The CJK font's marks (of kana) are drawn to stand behind their letter as they are.
    return font_index, font_index == 0 and unicodedata.category(char) in ("Mn", "Me")


def _draw_marks(canvas: "ImageDraw", marks: str, base: str, centre: float, baseline: int, size: int) -> None:
    """Draw combining `marks` centred on `base`, those above it stacked.

    The basic layout engine knows no anchors: it would set a mark behind its letter, at the height of a small one.
    """
    (_, _), (_, normal_top) = _find_ink("x", size)
    (_, _), (_, base_top) = _find_ink(base, size)
    top = min(base_top, normal_top)
    for mark in marks:
        (width, _), (left, mark_top) = _find_ink(mark, size)
        lift = 0
        if unicodedata.combining(mark) == _ABOVE:
            lift = top - normal_top
            top = mark_top + lift
        place = (round(centre - width / 2) - left, baseline + lift)
        canvas.text(place, mark, fill=0, font=load_font(CHARACTER_FONTS[mark], size), anchor="ls")


def _find_ink(char: str, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of what `char` blackens, and its (left, top) as seen from the pen; y runs down."""
    mask, offset = load_font(CHARACTER_FONTS[char], size).getmask2(char, "L", anchor="ls")
    return mask.size, offset
