"""The fonts of a page, what they cover, and how wide each character is.

Two fonts that packages carry, tried in order for each character: Noto Sans (Latin, Greek, Cyrillic) and Noto Sans CJK.
No font of the machine is used, so a page looks the same everywhere.
"""

import struct
import unicodedata
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import DataError, SourceError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_FONTS = (
    ("fontpkg_noto_sans", "files/NotoSans[wdth,wght].ttf"),
    ("cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf"),
)
# Blocks that the fonts hold glyphs for, but whose letters must be reordered or stacked: Devanagari with its
# extensions, and the Hangul jamo that NFC could not compose into a syllable.
_NEEDS_SHAPING = (
    (0x0900, 0x097F),
    (0x1100, 0x11FF),
    (0x1CD0, 0x1CFF),
    (0xA8E0, 0xA8FF),
    (0xA960, 0xA97F),
    (0xD7B0, 0xD7FF),
    (0x11B00, 0x11B5F),
)
_OTHER_SPACES = "\u00a0\u202f\u3000"  # no-break, narrow no-break, ideographic: they keep their own width or meaning


@cache
def find_fonts() -> tuple[Path, ...]:
    """Paths of the font files, in the order in which they are tried. Raises SourceError where one is not installed."""
    paths = []
    for module, file in _FONTS:
        spec = find_spec(module)  # finds a top-level package without running it
        path = Path(spec.submodule_search_locations[0], file) if spec and spec.submodule_search_locations else None
        if path is None or not path.is_file():
            raise SourceError(
                f"the font {file} of the Python package {module} is not installed, so no page can be drawn; "
                "run: pip install --force-reinstall fontpkg-noto-sans cvttf-notosanscjk-regular"
            )
        paths.append(path)
    return tuple(paths)


@cache
def hash_fonts() -> tuple[str, ...]:
    """The sha256 of each font file, in hexadecimal."""
    return tuple(sha256(path.read_bytes()).hexdigest() for path in find_fonts())


@cache
def load_font(index: int, size: int) -> "FreeTypeFont":
    """Font number `index` at `size` pixels an em."""
    from PIL import ImageFont

    # The basic engine, not raqm: raqm is missing from some builds of Pillow and places glyphs differently.
    return ImageFont.truetype(str(find_fonts()[index]), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def read_coverage(index: int) -> frozenset[int]:
    """The code points that font number `index` has glyphs for (OpenType's cmap table, subtable format 12)."""
    path = find_fonts()[index]
    with path.open("rb") as file:
        (table_count,) = struct.unpack(">4xH6x", file.read(12))
        tables = {
            tag: (offset, size) for tag, _, offset, size in struct.iter_unpack(">4sIII", file.read(16 * table_count))
        }
        offset, size = tables[b"cmap"]
        file.seek(offset)
        cmap = file.read(size)
    (subtable_count,) = struct.unpack_from(">2xH", cmap)
    for _, _, start in struct.iter_unpack(">HHI", cmap[4 : 4 + 8 * subtable_count]):
        if struct.unpack_from(">H", cmap, start) == (12,):
            (group_count,) = struct.unpack_from(">12xI", cmap, start)
            groups = struct.iter_unpack(">III", cmap[start + 16 : start + 16 + 12 * group_count])
            return frozenset(code for first, last, _ in groups for code in range(first, last + 1))
    raise SourceError(f"{path} has no Unicode character map of format 12, so it is not the font this needs")


def find_font(char: str) -> int | None:
    """Index of the first font that draws `char` rightly, or None."""
    code = ord(char)
    if any(first <= code <= last for first, last in _NEEDS_SHAPING):
        return None
    return next((index for index in range(len(_FONTS)) if code in read_coverage(index)), None)


class CharacterFonts(dict[str, int]):
    """Index of the font of each character, filled as they are met. Raises DataError for one that no font draws."""

    def __missing__(self, char: str) -> int:
        index = find_font(char)
        if index is None:
            raise DataError(
                f"no font here draws U+{ord(char):04X} {unicodedata.name(char, 'without a name')}, so this text has no "
                "picture. Latin, Greek, Cyrillic, Chinese, Japanese and Korean are drawn; emoji and scripts that need "
                "shaping are not. Replace the character, or ask a teacher that takes text"
            )
        self[char] = index
        return index


class Advances(dict[str, int]):
    """Width in pixels of each character at one size; filled as characters are met.

    Hinted advances of the basic layout engine are whole pixels and there is no kerning, so the width of a run is
    exactly the sum over its characters.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __missing__(self, char: str) -> int:
        width = self[char] = int(load_font(CHARACTER_FONTS[char], self._size).getlength(char))
        return width


CHARACTER_FONTS = CharacterFonts()
get_advances = cache(Advances)


class _Replacements(dict[int, str]):
    """For str.translate: what is drawn in the place of a character that has no picture of its own."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "\n\t":
            new = char
        elif char in "\r\v\f\x85" or category in ("Zl", "Zp"):
            new = "\n"
        elif category == "Zs" and char not in _OTHER_SPACES:
            new = " "
        elif category in ("Cc", "Cf") or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
            new = ""  # controls, joiners, direction marks, soft hyphens, variation selectors
        else:
            new = char
        self[code] = new
        return new


_REPLACEMENTS = _Replacements()
_drawable = {chr(code) for code in range(0x20, 0x7F)} | {"\n", "\t"}  # grows with each character found good


def prepare_text(text: str) -> str:
    """`text` as it is drawn: NFC, one kind of line end, plain spaces, invisible characters left out.

    Raises DataError for a character that no font draws. A few microseconds for a text whose characters were met before.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if set(text) - _drawable:
        text = text.replace("\r\n", "\n").translate(_REPLACEMENTS)
        for char in sorted(set(text) - _drawable):
            CHARACTER_FONTS[char]
            _drawable.add(char)
    return text
