"""The report in a real browser: light and dark, wide and narrow. Needs chromium: apt-get install chromium."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

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
@pytest.mark.parametrize(("scheme", "number"), [("dark", 0), ("light", 1)])
def test_the_report_fits_and_follows_the_theme(page: Path, width: int, scheme: str, number: int) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"),
            *(f"--blink-settings=preferredColorScheme={number}", f"--user-data-dir={page.parent / 'profile'}"),
            *("--virtual-time-budget=4000", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>\{(.*?)\}</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    measured = dict(re.findall(r'"(\w+)":("[^"]*"|\d+)', found[1]))
    assert int(measured["width"]) <= int(measured["window"]), "the page scrolls sideways"
    assert (measured["requests"], measured["small"], measured["charts"]) == ("0", "0", "8")
    lightness = {name: sum(map(int, re.findall(r"\d+", measured[name])[:3])) for name in ("background", "ink")}
    assert (lightness["background"] > lightness["ink"]) == (scheme == "light")
    assert abs(lightness["background"] - lightness["ink"]) > 400, "text and page are too alike"
