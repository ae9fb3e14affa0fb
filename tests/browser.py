"""Pages in a real browser, without a window. Needs chromium: apt-get install chromium."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest


def browse(page: Path, *flags: str, state: str = "") -> str:
    """The elements of a page after its script has run; `state` is what stands behind # in its address."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    always = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom")
    command = [browser, *always, *flags, f"--user-data-dir={page.parent / 'profile'}", f"{page.as_uri()}#{state}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def measure(page: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """What a page that measures itself leaves as JSON in its title, in a window of a width, dark or light."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    shown = browse(page, f"--window-size={width},900", scheme, "--virtual-time-budget=4000")
    found = re.search(r"<title>(\{.*?\})</title>", shown)
    assert found is not None, shown[-2000:]
    measured: dict[str, Any] = json.loads(unescape(found[1]))
    return measured


def is_dark(measured: dict[str, Any]) -> bool:
    """Whether the ink is lighter than its background; the two, rgb(...), must be far from each other."""
    ink, background = (sum(map(int, re.findall(r"\d+", measured[name])[:3])) for name in ("ink", "background"))
    assert abs(background - ink) > 400, "text and page are too alike"
    return ink > background
