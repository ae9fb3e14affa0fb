"""Charts are well-formed, stand where their numbers say, and the page asks for nothing and escapes what it is given."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from distill.compare.charts import (
    Bin,
    Point,
    Series,
    choose_ticks,
    draw_confusion,
    draw_forest,
    draw_lines,
    draw_reliability,
)
from distill.compare.page import Markup, Section, fold, join, make_page, make_table


def parse(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(chart.html)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (-1.3, 4.2, [-2, 0, 2, 4, 6]),
        (0.71, 0.74, [0.71, 0.72, 0.73, 0.74]),
        (3.0, 3.0, [2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert choose_ticks(low, high) == pytest.approx(ticks)


def test_forest_places_a_mean_between_its_bounds_and_a_better_one_to_the_right() -> None:
    svg = parse(draw_forest([Point("a", 1.0, -1.0, 3.0), Point("b", 2.0, 1.0, 3.0, "control")], "t"))
    first, second = svg.find(".//g[@class='teacher']"), svg.find(".//g[@class='control']")
    assert first is not None
    assert second is not None
    places = []
    for group in (first, second):
        line, mark = group.find("line"), group.find("rect")
        assert line is not None
        assert mark is not None
        middle = float(mark.attrib["x"]) + float(mark.attrib["width"]) / 2
        places.append(middle)
        assert middle == pytest.approx((float(line.attrib["x1"]) + float(line.attrib["x2"])) / 2, abs=0.2)
    assert places[0] < places[1]
    assert "+1.0 [-1.0, +3.0]" in "".join(svg.itertext())


def test_lines_rise_where_numbers_rise_and_skip_what_is_not_a_number() -> None:
    chart = parse(draw_lines([Series("up", [1, 2, 3], [0.1, float("nan"), 0.3])], "t", "epoch", "accuracy"))
    line = chart.find(".//polyline")
    assert line is not None
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    assert len(places) == 2
    assert places[0][0] < places[1][0]
    assert places[0][1] > places[1][1]


def test_a_logarithmic_axis_gives_equal_ratios_equal_widths() -> None:
    chart = parse(draw_lines([Series("a", [50, 100, 200], [1, 2, 3])], "t", "labels", "accuracy", logarithmic=True))
    line = chart.find(".//polyline")
    assert line is not None
    x = [float(place.split(",")[0]) for place in line.attrib["points"].split()]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)


def test_lines_without_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw: t"):
        draw_lines([Series("a", [1.0], [float("nan")])], "t", "x", "y")


def test_a_perfectly_calibrated_dot_is_on_the_diagonal_and_an_empty_bin_is_not_drawn() -> None:
    chart = parse(draw_reliability([("a", [Bin(0.5, 0.5, 10), Bin(0.9, 0.0, 0)])], "t"))
    dots = chart.findall(".//circle")
    diagonal = next(line for line in chart.iter("line") if line.attrib["class"] == "zero")
    assert len(dots) == 1
    assert float(dots[0].attrib["cx"]) == (float(diagonal.attrib["x1"]) + float(diagonal.attrib["x2"])) / 2
    assert float(dots[0].attrib["cy"]) == (float(diagonal.attrib["y1"]) + float(diagonal.attrib["y2"])) / 2


def test_a_confusion_is_darker_where_more_of_a_label_goes() -> None:
    chart = parse(draw_confusion([[9, 1], [0, 0]], ["yes", "no"], "t"))
    shades = [float(rect.attrib["fill-opacity"]) for rect in chart.iter("rect")]
    assert shades == sorted(shades, reverse=True)
    assert shades[0] > shades[1] > shades[2] == shades[3]


def test_a_page_escapes_what_it_is_given_and_asks_for_nothing() -> None:
    evil = "<script src='https://example.org/x.js'></script>"
    table = make_table(["name", "n", "score"], [[evil, 1200, 0.5], ["b", 7, 0.25]])
    page = make_page(evil, evil, [Section(evil, evil, join(evil, table, fold(evil, Markup("<b>kept</b>"))))])
    seen = Seen()
    seen.feed(page)
    assert page.count("&lt;script") == 8
    assert "<b>kept</b>" in page
    assert '<td class="number">1,200</td><td class="number">0.500</td>' in page
    assert "default-src 'none'" in page
    assert not seen.tags & {"script", "link", "iframe", "object"}
    assert not seen.attributes & {"src", "href", "srcset", "action"}
    assert "url(" not in page
    assert "@import" not in page


class Seen(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
