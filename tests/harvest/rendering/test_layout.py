"""Line breaking and the choice of the font size."""

import random
from itertools import pairwise

import pytest

from harvest.rendering import Layout, prepare_text
from harvest.rendering.fonts import get_advances
from harvest.rendering.layout import TextLine, fit_text
from shared.errors import UsageError

SENTENCE = "A visually stunning rumination on love, memory, history and the war between art and commerce."


def fit(text: str, layout: Layout) -> tuple[int, list[TextLine]]:
    """The font size and all lines of a text, whatever the page."""
    size, pages = fit_text(prepare_text(text), layout)
    return size, [line for page in pages for line in page]


def join(lines: list[TextLine]) -> str:
    return "".join(line.text + line.ends_with for line in lines)


def measure(line: str, size: int) -> int:
    return sum(map(get_advances(size).__getitem__, line))


def make_texts() -> list[str]:
    """Texts of all kinds of characters, lengths and spaces, the same in every run."""
    rng = random.Random(7)
    alphabet = ["a", "bc", "word", "internationalisation", "漢", "字", "。", "「", "」", "(", ")", "é", "x\u0304", "ー"]
    gaps = ["", " ", " ", "  ", "\n", "\n\n", " \n", "\t"]
    return ["".join(rng.choice(alphabet) + rng.choice(gaps) for _ in range(rng.randrange(120))) for _ in range(150)]


@pytest.mark.parametrize("layout", [Layout(), Layout(336, 336), Layout(120, 90, 4, 8, 12)])
def test_nothing_is_lost_and_every_line_and_page_fits(layout: Layout) -> None:
    for text in make_texts():
        text = prepare_text(text)
        size, pages = fit_text(text, layout)
        lines = [line for page in pages for line in page]
        assert join(lines) == text.expandtabs(4)
        assert layout.min_font_size <= size <= layout.max_font_size
        assert max((measure(line.text, size) for line in lines), default=0) <= layout.text_width
        assert max(map(len, pages), default=0) <= layout.count_lines(size)


def test_lines_are_filled_greedily_and_break_at_spaces() -> None:
    size, lines = fit(SENTENCE, Layout())
    assert " ".join(line.text for line in lines) == SENTENCE
    for line, following in pairwise(lines):
        assert line.ends_with == " "
        first_word = following.text.split()[0]
        assert measure(f"{line.text} {first_word}", size) > Layout().text_width


def test_a_short_text_is_large_and_a_long_one_as_large_as_fits() -> None:
    layout = Layout()
    assert fit("Good.", layout)[0] == layout.max_font_size
    sizes = [fit(SENTENCE * count, layout)[0] for count in range(1, 25)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 5
    for count, size in zip(range(1, 25), sizes, strict=True):
        if layout.min_font_size <= size < layout.max_font_size:
            larger = Layout(min_font_size=size + 1, max_font_size=size + 1)
            assert len(fit_text(SENTENCE * count, larger)[1]) > 1, "it would have fitted in a larger size"


def test_what_does_not_fit_at_the_smallest_size_goes_over_pages() -> None:
    size, pages = fit_text(SENTENCE * 60, Layout())
    assert size == Layout().min_font_size
    assert len(pages) > 2
    assert {len(page) for page in pages[:-1]} == {Layout().count_lines(size)}


def test_a_word_is_broken_only_where_the_smallest_size_breaks_it_too() -> None:
    layout = Layout(200, 200, 8, 10, 32)
    word = "internationalisation"
    size, lines = fit(word, layout)
    assert [line.text for line in lines] == [word]
    assert layout.min_font_size < size < layout.max_font_size
    assert measure(word, size + 1) > layout.text_width
    url = "https://example.com/" + "long-path/" * 12
    size, lines = fit(url, layout)
    assert len(lines) > 1
    assert [line.ends_with for line in lines] == [""] * len(lines)


def test_blank_lines_indents_and_tabs_are_kept() -> None:
    assert fit("one\n\n  two\n\tthree\na\tb", Layout())[1] == [
        TextLine("one", "\n"),
        TextLine("", "\n"),
        TextLine("  two", "\n"),
        TextLine("    three", "\n"),
        TextLine("a   b", ""),
    ]


@pytest.mark.parametrize("text", ["", "\n", " \n "])
def test_a_text_without_ink_is_one_page(text: str) -> None:
    size, pages = fit_text(text, Layout())
    assert (size, len(pages)) == (Layout().max_font_size, 1)
    assert join(pages[0]) == text


def test_ideographs_break_anywhere_but_around_punctuation() -> None:
    text = "日本語の文章は、「禁則処理」を行います。ちょっと待ってください。" * 20
    for width in range(200, 520, 16):
        _, lines = fit(text, Layout(width, 512, 8, 12, 20))
        assert len(lines) > 5
        assert [line.text for line in lines if line.text[0] in "、。」っょ" or line.text[-1] == "「"] == []


def test_a_mark_stays_with_its_letter() -> None:
    text = "x\u0304" * 300
    _, lines = fit(text, Layout(120, 400, 4, 12, 12))
    assert len(lines) > 5
    assert [line.text for line in lines if not line.text.startswith("x") or not line.text.endswith("\u0304")] == []


def test_korean_breaks_at_its_spaces() -> None:
    text = "동해물과 백두산이 마르고 닳도록 하느님이 보우하사 우리나라 만세"
    _, lines = fit(text, Layout(200, 400, 8, 24, 24))
    assert len(lines) > 3
    assert " ".join(line.text for line in lines) == text


@pytest.mark.parametrize(
    "options",
    [
        {"width": 60},
        {"height": 40},
        {"margin": 240},
        {"margin": -1},
        {"min_font_size": 5},
        {"min_font_size": 40},
        {"line_spacing": 1.0},
    ],
)
def test_a_page_without_room_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Layout(**options)  # type: ignore[arg-type]


def test_the_fingerprint_tells_layouts_apart() -> None:
    first = Layout().fingerprint()
    assert first == Layout(512, 512).fingerprint()
    assert set(first) >= {"version", "width", "height", "fonts"}
    assert [len(digest) for digest in first["fonts"]] == [64, 64]
    others = [Layout(margin=20), Layout(336, 336), Layout(line_spacing=1.5), Layout(max_font_size=31)]
    assert all(other.fingerprint() != first for other in others)
