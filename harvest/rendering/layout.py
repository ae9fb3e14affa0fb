"""Where the text of a page goes: line breaking, and the largest font size at which all of it fits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harvest.rendering.fonts import get_advances, hash_fonts
from shared.errors import UsageError

LAYOUT_VERSION = 1  # counts up with every change here or in page.py that moves a pixel
_TAB_STOP = 4  # characters

# A break is allowed at spaces and beside an ideograph or kana, but not before closing punctuation and small kana or
# after opening punctuation (the common core of the Japanese and Chinese rules in JIS X 4051 and W3C's clreq).
# Korean breaks at its spaces.
_CJK = "\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef\U00020000-\U0003ffff"
_OPENING = re.escape("([{‘“〈《「『【〔〖〘〚（［｛｟")
_CLOSING = (
    re.escape(")]}!,.:;?%’”…‥、。〉》」』】〕〗〙〛！），．：；？］｝～｠・ー々〻ゝゞヽヾ")
    + "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿ\u0300-\u036f\u3099\u309a"
)
_PIECE = re.compile(f"( *)([{_OPENING}]*(?:[{_CJK}]|[^ {_CJK}]+)[{_CLOSING}]*)")


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a page. Sizes are pixels; `line_spacing` is the distance of two lines in ems.

    A text is drawn at the largest size from `min_font_size` to `max_font_size` at which it fits on one page, and
    goes on over further pages where it does not fit at the smallest. Raises UsageError where a page has no room.
    """

    width: int = 512
    height: int = 512
    margin: int = 16
    min_font_size: int = 16
    max_font_size: int = 32
    line_spacing: float = 1.4

    def __post_init__(self) -> None:
        if not 6 <= self.min_font_size <= self.max_font_size:
            raise UsageError(
                f"font sizes {self.min_font_size} to {self.max_font_size}: the smallest is 6 pixels, or nobody can "
                "read it, and the first must not be above the second"
            )
        if self.line_spacing < 1.2:
            raise UsageError(f"line spacing {self.line_spacing}: below 1.2 the lines touch")
        if self.margin < 0 or self.text_width < 2 * self.max_font_size or self.count_lines(self.max_font_size) < 1:
            raise UsageError(
                f"a page of {self.width}x{self.height} pixels with a margin of {self.margin} has no room for "
                f"letters of {self.max_font_size} pixels; make it larger, or the font or the margin smaller"
            )

    @property
    def text_width(self) -> int:
        """Pixels between the left and the right margin."""
        return self.width - 2 * self.margin

    def get_line_height(self, font_size: int) -> int:
        """Pixels from one line's top to the next one's."""
        return round(font_size * self.line_spacing)

    def count_lines(self, font_size: int) -> int:
        """How many lines of `font_size` a page holds."""
        return (self.height - 2 * self.margin) // self.get_line_height(font_size)

    def guess_pages(self, text: str) -> int:
        """About how many pages `text` takes, at the price of reading it once: no line is broken."""
        size = self.min_font_size
        room = self.count_lines(size)
        if len(text) * size / self.text_width + text.count("\n") + 1 <= room:  # letters are narrower than high
            return 1
        lines = sum(max(1, -(-len(line) * size // (2 * self.text_width))) for line in text.splitlines())
        return -(-lines // room)

    def fingerprint(self) -> dict[str, Any]:
        """All that decides how a text is drawn, as JSON, for a teacher's recipe."""
        return {"version": LAYOUT_VERSION, **asdict(self), "fonts": list(hash_fonts())}


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of wrapped text, and what stood between it and the next: spaces, a line end, or nothing inside a word.

    Over all lines of a text, `text + ends_with` joined is the text again.
    """

    text: str
    ends_with: str


@dataclass(frozen=True, slots=True)
class _Paragraph:
    pieces: Sequence[tuple[str, str]]  # (the spaces before it, what must not be broken)
    tail: str  # its last spaces and its line end


def _split_paragraphs(text: str) -> list[_Paragraph]:
    paragraphs = []
    for line in text.expandtabs(_TAB_STOP).splitlines(keepends=True):
        body = line.rstrip(" \n")
        pieces = _PIECE.findall(body)
        if pieces:
            pieces[0] = ("", "".join(pieces[0]))  # an indent is part of the first word
        paragraphs.append(_Paragraph(pieces, line[len(body) :]))
    return paragraphs


def _wrap(paragraphs: Sequence[_Paragraph], advances: Mapping[str, int], width: int) -> Iterator[TextLine]:
    """The lines of `paragraphs`, each at most `width` pixels; a piece wider than that is broken where it must be."""
    space_width = advances[" "]
    measure = advances.__getitem__
    for paragraph in paragraphs:
        line, used = "", 0
        for spaces, piece in paragraph.pieces:
            piece_width = sum(map(measure, piece))
            if used + len(spaces) * space_width + piece_width <= width:
                line += spaces + piece
                used += len(spaces) * space_width + piece_width
                continue
            if line:
                yield TextLine(line, spaces)
            line, used = piece, piece_width
            if used > width:
                line, used = "", 0
                for char in piece:
                    if used + advances[char] > width:
                        yield TextLine(line, "")
                        line, used = "", 0
                    line += char
                    used += advances[char]
        yield TextLine(line, paragraph.tail)


def fit_text(text: str, layout: Layout) -> tuple[int, list[list[TextLine]]]:
    """The font size in pixels for `text` (as from prepare_text), and its lines page by page. At least one page.

    Words are not broken for the sake of a larger size, except those that the smallest size breaks too.
    """
    paragraphs = _split_paragraphs(text)
    pieces = {piece for paragraph in paragraphs for _, piece in paragraph.pieces}
    smallest = get_advances(layout.min_font_size)
    unbroken = {piece for piece in pieces if sum(map(smallest.__getitem__, piece)) <= layout.text_width}
    # Only the longest few can be the widest; a bound on all of them costs more than it saves.
    longest = sorted(unbroken, key=len)[-8:]

    def try_size(size: int) -> list[TextLine] | None:
        advances = get_advances(size)
        if any(sum(map(advances.__getitem__, piece)) > layout.text_width for piece in longest):
            return None
        room = layout.count_lines(size)
        lines: list[TextLine] = []
        for line in _wrap(paragraphs, advances, layout.text_width):
            if len(lines) == room:
                return None
            lines.append(line)
        return lines

    low, high = layout.min_font_size, layout.max_font_size
    best = None
    while low <= high:
        middle = (low + high + 1) // 2 if best is None else (low + high) // 2
        lines = try_size(middle)
        if lines is None:
            high = middle - 1
        else:
            best, low = (middle, lines), middle + 1
    if best is not None:
        return best[0], [best[1]]
    size = layout.min_font_size
    lines = list(_wrap(paragraphs, get_advances(size), layout.text_width))
    room = layout.count_lines(size)
    return size, [lines[start : start + room] for start in range(0, len(lines), room)]
