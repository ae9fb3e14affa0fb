"""The report in a real browser: light and dark, wide and narrow. See tests/browser.py."""

from pathlib import Path

import pytest

from tests.browser import is_dark, measure
from tests.distill.compare.made_report import make_report

pytestmark = pytest.mark.real

# Measured by the page itself, since the browser's dump is all that comes back.
MEASURE = """<script>
addEventListener("load", () => {
  const style = getComputedStyle(document.body);
  const small = [...document.querySelectorAll("svg text")].filter(t => t.getBBox().width === 0).length;
  const requests = performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length;
  document.title = JSON.stringify({width: document.documentElement.scrollWidth, window: innerWidth,
    background: style.backgroundColor, ink: style.color, small, requests,
    charts: document.querySelectorAll("figure.chart").length});
});</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    _, html = make_report()
    path.write_text(html.replace("</body>", f"{MEASURE}</body>"))
    return path


@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("dark", [True, False])
def test_the_report_fits_and_follows_the_theme(page: Path, width: int, dark: bool) -> None:
    measured = measure(page, width, dark=dark)
    assert measured["width"] <= measured["window"], "the page scrolls sideways"
    assert (measured["requests"], measured["small"], measured["charts"]) == (0, 0, 8)
    assert is_dark(measured) == dark
