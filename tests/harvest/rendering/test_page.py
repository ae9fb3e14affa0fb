"""Pages: what is on them, and that they are the same everywhere."""

import io
import os
import subprocess
import sys
import unicodedata
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image, ImageDraw

from harvest.rendering import Layout, Page, render
from harvest.rendering.fonts import load_font
from shared.errors import DataError

TEXTS = {
    "latin": "Crème brûlée, naïve façade, Straße, Łódź, İstanbul: “quoted” — done.",
    "greek": "Η γρήγορη καφετιά αλεπού",
    "cyrillic": "Съешь ещё этих мягких булок",
    "chinese": "这是一个关于爱情、记忆和历史的故事。",
    "japanese": "これは日本語の文章です。カタカナも。",
    "korean": "동해물과 백두산이 마르고 닳도록",
    "mixed": "The word 漢字 (kanji) is Привет, x\u0304q\u0303.",
}


def find_ink(page: Page) -> np.ndarray:
    return page.pixels < 128


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("layout", [Layout(), Layout(224, 224, 8, 10, 20)])
def test_all_ink_lies_in_the_boxes_of_lines_and_every_box_has_some(text: str, layout: Layout) -> None:
    for page in render(text * 3, layout):
        ink = find_ink(page)
        outside = ink.copy()
        for line in page.lines:
            box = np.s_[line.top : line.bottom, line.left : line.right]
            assert ink[box].any()
            outside[box] = False
        # A letter may lean over the end of its line by a pixel or two.
        for line in page.lines:
            outside[line.top : line.bottom, line.left - 2 : line.right + 2] = False
        assert not outside.any()
        assert page.pixels.shape == (layout.height, layout.width)


def test_every_character_leaves_its_own_ink() -> None:
    """Different letters look different: none is drawn as the box that stands for a missing glyph."""
    for letters in (
        "αβγδεζηθικλμνξπρστυφχψω",
        "абвгдежзийклмнопрстуфхцчшщъыьэюя",
        "漢字仮名交文章一二三",
        "가나다라마바사",
    ):
        pictures = {letter: render(letter, Layout())[0].pixels.tobytes() for letter in letters}
        assert len(set(pictures.values())) == len(letters)


def test_the_lines_say_the_text() -> None:
    text = "First line.\n\nAfter a blank one, a longer line that has to be wrapped somewhere."
    (page,) = render(text, Layout())
    assert "".join(line.text + line.ends_with for line in page.lines) == text.replace("\n\n", "\n")
    tops = [line.top for line in page.lines]
    assert tops[1] - tops[0] == 2 * (tops[2] - tops[1]), "the blank line takes its room"


@pytest.mark.parametrize(("letter", "mark"), [("x", "\u0304"), ("q", "\u0303"), ("X", "\u0301"), ("b", "\u0303")])
def test_a_mark_without_a_composed_form_stands_on_its_letter(letter: str, mark: str) -> None:
    assert unicodedata.normalize("NFC", letter + mark) == letter + mark
    layout = Layout()
    bare, marked = (find_ink(render(text, layout)[0]) for text in (letter, letter + mark))
    added = marked & ~bare
    assert added.sum() > 10
    rows, columns = np.nonzero(added)
    letter_rows, letter_columns = np.nonzero(bare)
    assert rows.max() <= letter_rows.min(), "above the letter"
    assert abs(columns.mean() - letter_columns.mean()) < 3, "and in its middle"
    assert np.array_equal(marked & bare, bare)


def test_marks_stack() -> None:
    one, two = (find_ink(render(text, Layout())[0]) for text in ("b\u0303", "b\u0303\u0301"))
    assert np.nonzero(two)[0].min() < np.nonzero(one)[0].min()


def test_the_png_holds_the_pixels_of_the_page() -> None:
    for page in render("Some text. " * 200, Layout()):
        image = Image.open(io.BytesIO(page.png))
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), page.pixels)
        assert page.sha256 == sha256(page.png).hexdigest()


def test_the_same_text_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "import sys; from harvest.rendering import Layout, render\n"
        "for text in sys.stdin.read().split('|'):\n"
        "    print(*(page.sha256 for page in render(text, Layout(336, 336))))"
    )
    outs = []
    for seed in ("0", "1", "4242"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            input="|".join(TEXTS.values()),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
        )
        outs.append(run.stdout.split())
    # In another order here, so that caches are filled differently.
    here = {text: render(text, Layout(336, 336))[0].sha256 for text in reversed(TEXTS.values())}
    assert outs[0] == outs[1] == outs[2] == [here[text] for text in TEXTS.values()]
    assert len(set(outs[0])) == len(TEXTS)


def test_equal_texts_in_two_forms_give_one_picture() -> None:
    composed, decomposed = (unicodedata.normalize(form, TEXTS["latin"]) for form in ("NFC", "NFD"))
    assert composed != decomposed
    (one,), (other,) = render(composed, Layout()), render(decomposed, Layout())
    assert one.png == other.png


def test_an_empty_text_is_a_white_page() -> None:
    (page,) = render("", Layout())
    assert (page.pixels == 255).all()
    assert page.lines == []


def test_a_character_that_no_font_draws_stops_the_whole_text() -> None:
    with pytest.raises(DataError, match=r"U\+1F600 GRINNING FACE"):
        render("almost all of this can be drawn 😀", Layout())


@pytest.mark.parametrize("size", [16, 23, 32])
def test_a_page_put_together_from_letters_is_the_one_that_pillow_draws_at_once(size: int) -> None:
    text = 'Tj fffi "Vaast" — Crème brûlée: naïve, jollity of Ťažký (f) Ωμέγα Съешь'
    layout = Layout(1400, 80, min_font_size=size, max_font_size=size)
    (page,) = render(text, layout)
    (line,) = page.lines
    image = Image.new("L", (layout.width, layout.height), 255)
    font = load_font(0, size)
    baseline = round(size * (1.069 + (layout.line_spacing - 1.362) / 2))
    ImageDraw.Draw(image).text((16, 16 + baseline), text, fill=0, font=font, anchor="ls")
    assert line.text == text
    assert np.array_equal(page.pixels, np.asarray(image))


def test_ink_beyond_the_page_is_left_out() -> None:
    layout = Layout(100, 100, margin=0, min_font_size=24, max_font_size=24)
    (page,) = render("jÅj", layout)
    (wide,) = render("jÅj", Layout(140, 140, margin=20, min_font_size=24, max_font_size=24))
    assert np.array_equal(page.pixels[:40, :80], wide.pixels[20:60, 20:100])
    assert (wide.pixels[:, :20] < 255).any(), "j reaches beyond its left margin"
