"""Which characters are drawn, by which font, and what a text becomes before it is drawn."""

import subprocess
import sys
import unicodedata

import pytest

from harvest.rendering import prepare_text
from harvest.rendering.fonts import find_font, find_fonts, get_advances, hash_fonts, load_font, read_coverage
from shared.errors import DataError


@pytest.mark.parametrize(
    ("chars", "font"),
    [
        ("aÅçßœŵĳ", 0),
        ("Ελλάδα", 0),
        ("ПриветЁѓ", 0),
        ("ếỡđ", 0),
        ("“”—…€№½", 0),
        ("漢字かなカナ", 1),
        ("한국어", 1),
        ("、。（「", 1),
    ],
)
def test_each_character_has_the_first_font_that_draws_it(chars: str, font: int) -> None:
    assert [find_font(char) for char in chars] == [font] * len(chars)


@pytest.mark.parametrize("index", [0, 1])
def test_coverage_is_what_freetype_draws(index: int) -> None:
    """Pillow draws a font's .notdef box for a character without a glyph: no covered letter may look like it."""
    font = load_font(index, 20)
    notdef = bytes(font.getmask("\U0010fffe"))
    covered = sorted(read_coverage(index))
    sample = [chr(code) for code in covered[:: len(covered) // 300] if unicodedata.category(chr(code))[0] == "L"]
    assert len(sample) > 50
    assert [char for char in sample if bytes(font.getmask(char)) == notdef] == []
    missing = [chr(code) for code in (0x0627, 0x05D0, 0x0E01, 0x1F600, 0xE000) if code not in read_coverage(index)]
    assert len(missing) >= 4
    assert all(bytes(font.getmask(char)) == notdef for char in missing)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("مرحبا", "U+0627 ARABIC LETTER ALEF"),
        ("שלום", "U+05D5 HEBREW LETTER VAV"),
        ("हिन्दी", "U+0926 DEVANAGARI LETTER DA"),
        ("ไทย", "U+0E17 THAI CHARACTER THO THAHAN"),
        ("good 😀", "U+1F600 GRINNING FACE"),
        ("\u1112\u1161\u11ab\u1100\u119e", "U+1100 HANGUL CHOSEONG KIYEOK"),
        ("\ue000", "U+E000 without a name"),
        ("half \ud83d", "U+D83D without a name"),
    ],
)
def test_what_cannot_be_drawn_rightly_is_refused_by_name(text: str, named: str) -> None:
    for _ in range(2):  # the second time too: a refused character must not count as met
        with pytest.raises(DataError) as caught:
            prepare_text(text)
        assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("plain ASCII, as it is\n\tand two lines", "plain ASCII, as it is\n\tand two lines"),
        ("Cafe\u0301 A\u030angstro\u0308m", "Café Ångström"),
        ("\u1112\u1161\u11ab", "한"),
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\x00b\x07c\x1bd\x7fe\x9ff", "abcdef"),
        ("soft\u00adhyphen zero\u200bwidth \u202aleft\u202c \ufeffmark", "softhyphen zerowidth left mark"),
        ("thin\u2009em\u2003space", "thin em space"),
        ("no\u00a0break ideographic\u3000space", "no\u00a0break ideographic\u3000space"),
        ("葛\U000e0100 ❤\ufe0f"[:3], "葛 "),
        ("", ""),
    ],
)
def test_text_as_it_is_drawn(text: str, drawn: str) -> None:
    assert prepare_text(text) == drawn
    assert prepare_text(drawn) == drawn


def test_the_width_of_a_run_is_the_sum_of_its_advances() -> None:
    for text, index in (("AVATAR Tokyo, fill “Wave” Ti 1.000", 0), ("漢字かな交じり文、「テスト」", 1)):
        for size in (10, 16, 21, 32, 48):
            assert load_font(index, size).getlength(text) == sum(map(get_advances(size).__getitem__, text))


def test_fonts_are_found_and_checked_without_torch_and_without_pillow() -> None:
    code = (
        "import sys; from harvest.rendering import Layout, prepare_text\n"
        "prepare_text('Ångström 漢字'); Layout().fingerprint()\n"
        "print([m for m in ('PIL', 'torch', 'transformers', 'onnxruntime') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert len({*find_fonts(), *hash_fonts()}) == 4
