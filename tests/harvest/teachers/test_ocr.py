"""What the recogniser reads of our pages: every script that is in its alphabet, letter by letter."""

import pytest

from harvest.rendering import Layout, render
from harvest.teachers.ocr import LineReader, describe_recogniser, find_recogniser


@pytest.fixture(scope="module")
def reader() -> LineReader:
    return LineReader()


def read(reader: LineReader, text: str, layout: Layout) -> str:
    """What is read of all pages of `text`, joined as the text's own lines were."""
    pages = render(text, layout)
    lines = [line for page in pages for line in page.lines]
    crops = [page.pixels[line.top : line.bottom, line.left : line.right] for page in pages for line in page.lines]
    return "".join(text + line.ends_with for text, line in zip(reader.read(crops), lines, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "A visually stunning rumination on love, memory, history and the war between art and commerce.",
        "Crème brûlée, façade naïve, Straße, piñata, Ångström: 1,234.50 (99%)",
        "这是一个关于爱情、记忆和历史的故事，非常好看。",
        "私は東京に住んでいます。",
    ],
)
@pytest.mark.parametrize("layout", [Layout(), Layout(336, 336)], ids=["512", "336"])
def test_what_is_drawn_is_read(reader: LineReader, text: str, layout: Layout) -> None:
    assert reader.alphabet >= set(text)
    assert read(reader, text, layout) == text


def test_a_text_of_several_pages_is_read_whole(reader: LineReader) -> None:
    text = " ".join(f"Sentence number {number} of this long text." for number in range(40))
    layout = Layout(336, 336)
    assert len(render(text, layout)) > 1
    assert read(reader, text, layout) == text


def test_lines_are_read_alike_in_any_company(reader: LineReader) -> None:
    """Batching must not mix lines up, and padding must not change what is read."""
    texts = ["Short.", "A line of middling length, no more", "Good", "The longest line of all those that are read here"]
    crops = []
    for text in texts:
        (page,) = render(text, Layout(900, 100))
        (line,) = page.lines
        crops.append(page.pixels[line.top : line.bottom, line.left : line.right])
    assert reader.read(crops) == texts
    assert reader.read(crops[::-1] * 12) == texts[::-1] * 12
    assert reader.read([]) == []


def test_the_last_letter_of_a_line_is_read(reader: LineReader) -> None:
    """A letter that touches the edge of its crop is easily lost, or read twice."""
    for text in (
        "you more than you think it will",
        "blarney take your pick. All",
        "a weird, arresting little ride.",
        "(so)",
    ):
        assert read(reader, text, Layout(900, 100)) == text


def test_what_is_not_in_the_alphabet_is_not_read(reader: LineReader) -> None:
    """Cyrillic is drawn but not read: a user has to know which texts this reader can teach."""
    assert not reader.alphabet & set("дёжзийлфцчшщъыьэюя")
    assert read(reader, "Съешь ещё этих булок", Layout()) != "Съешь ещё этих булок"


def test_the_recogniser_is_described_by_its_bytes() -> None:
    described = describe_recogniser()
    assert len(described["sha256"]) == 64
    assert find_recogniser().suffix == ".onnx"
