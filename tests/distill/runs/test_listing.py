"""Runs in a list and on a page: finished, stopped and going on; what is none is named, and nothing of it runs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.runs.list_page.page import make_list
from distill.runs.listing import list_runs, read_curves
from shared.disk import hold_folder
from tests.browser import is_dark, measure

HOSTILE = "</script><img src=x onerror=alert(2)>\u2028"
EPOCHS = 3


def write_run(folder: Path, number: int, **changes: Any) -> None:
    """A finished run as `distill run` leaves one, but for its student."""
    folder.mkdir(parents=True)
    metrics = {
        "config": {"loss": ["cosine"]},
        **{"task": "toy", "teacher": "t", "student": "tiny/bert", "variant": "distilled", "loss": "cosine"},
        **{"seed": number, "metric": "accuracy", "dev_best": 0.5 + number / 10, "test": 0.4, "seconds": 10.0 - number},
        "finished_at": f"2026-11-2{number}T10:00:00+00:00",
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    write_log(folder, number)


def write_log(folder: Path, seed: int) -> None:
    lines = []
    for epoch in range(EPOCHS):
        points = [
            {
                "step": 4 * epoch + step,
                "dev": 0.5 + epoch / 10 if step == 4 else None,
                "student/total": 1 / (step + seed),
            }
            for step in range(1, 5)
        ]
        lines.append({"epoch": epoch + 1, "dev": 0.5 + epoch / 10, "seconds": 2.0, "student_steps": 4, "curve": points})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three finished runs, one of them hostile, one stopped, and folders that are no runs."""
    out = tmp_path / "runs"
    for seed in (1, 2):
        write_run(out / f"run-{seed}", seed)
    wrong = {"seed": True, "dev_best": float("nan"), "test": 10**400, "seconds": "long", "student": ["x"]}
    write_run(out / f"a{HOSTILE.replace('/', ':')}", 3, task=HOSTILE, finished_at="yesterday", **wrong)
    stopped = out / ".stopped.partial"
    stopped.mkdir()
    write_log(stopped, 0)
    whole = (stopped / "log.jsonl").read_text()
    (stopped / "log.jsonl").write_text(whole + '{"epoch": 4, "dev"')
    started = {"task": "toy", "student": "s", "seed": 7, "config": {"loss": ["cka", "euclid"]}}
    (stopped / "started.json").write_text(json.dumps({**started, "started_at": "2026-11-20T09:00:00+00:00"}))
    for name, content in {"half": '{"config"', "list": "[]", "other": "{}", "deep": "[" * 100_000}.items():
        (out / name).mkdir()
        (out / name / "metrics.json").write_text(content)
    for name in ("empty", "helped/cells", ".hidden", "folder/metrics.json"):
        (out / name).mkdir(parents=True)
    (out / "notes.txt").touch()
    (out / "loop").symlink_to(out / "loop")
    return out


def test_runs_are_listed_and_what_is_none_is_named(runs: Path) -> None:
    with hold_folder(runs / ".stopped.partial", "it", "wait"):
        assert {run.name: run.state for run in list_runs(runs).runs}["stopped"] == "running"
    listing = list_runs(runs)
    described = {run["name"]: run for run in listing.describe()["runs"]}
    hostile = next(run for name, run in described.items() if name.startswith("a<"))
    assert [run.name for run in listing.runs] == ["run-2", "run-1", "stopped", hostile["name"]], "newest first"
    known = {"state": "finished", "task": "toy", "loss": "cosine", "seed": 1, "dev": 0.6, "test": 0.4, "seconds": 9.0}
    assert known.items() <= described["run-1"].items()
    known = {"state": "interrupted", "loss": "cka+euclid", "seed": 7, "dev": 0.7, "test": None, "seconds": 6.0}
    assert known.items() <= described["stopped"].items()
    assert [hostile[name] for name in ("seed", "dev", "test", "seconds", "student", "when")] == [None] * 6
    why = {Path(folder).name: said for folder, said in listing.others.items()}
    assert why.keys() == {"half", "list", "other", "deep", "empty", "helped", "folder"}
    assert "distill list" in why["helped"]
    assert "no metrics.json" in why["empty"]
    assert [run.name for run in list_runs(runs, "seconds").runs][:2] == ["stopped", "run-2"]
    assert [run.name for run in list_runs(runs, "dev").runs][:2] == ["run-2", "stopped"]
    assert [run.name for run in list_runs(runs / "run-1").runs] == ["run-1"]
    curves = read_curves(listing.runs[0])
    assert curves["dev"] == [(4.0, 0.5), (8.0, 0.6), (12.0, 0.7)]
    assert [step for step, _ in curves["loss"]] == list(range(1, 13))


def test_the_command_prints_json_a_table_and_a_page(runs: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["list", str(runs), "--json", "--sort", "name"])
    assert [run["seed"] for run in json.loads(done.stdout)["runs"]] == [None, 1, 2, 7]
    page = tmp_path / "runs.html"
    done = CliRunner().invoke(app, ["list", str(runs), "--page", str(page)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert re.search(r"run-2 +finished +toy +t +tiny/bert +cosine +2 +0\.7000 +0\.4000 +8 ", done.stdout)
    assert "half cannot be read" in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert page.stat().st_size < 60_000
    for arguments, said in (
        ([str(tmp_path / "no")], "distill run makes runs"),
        ([str(runs), "--page", "a.txt"], "ends in .html"),
    ):
        refused = CliRunner().invoke(app, ["list", *arguments])
        assert (refused.exit_code, said in refused.stderr) == (2, True)


class Elements(HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_holds_what_is_hostile_as_data_and_asks_for_nothing(runs: Path) -> None:
    page = make_list(list_runs(runs), Path(HOSTILE)).decode()
    elements = Elements(page).found
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert not [tag for tag, kind in elements if tag == "img" or "src" in kind or "onerror" in kind]
    assert {kind["href"] for _, kind in elements if "href" in kind} == {"data:,"}
    assert "\u2028" not in page.split("<script", 1)[1]
    (policy,) = [kind["content"] for _, kind in elements if kind.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


# Measured by the page itself, since the browser's dump is all that comes back.
MEASURE = """addEventListener("load", () => setTimeout(() => {
  const style = getComputedStyle(document.body);
  const rows = () => [...document.querySelectorAll("tbody th")].map(cell => cell.firstChild.textContent);
  const first = rows();
  document.querySelector("[data-sort=seconds]").click();
  const sorted = rows();
  const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
  const lines = () => document.querySelectorAll("#loss polyline").length;
  const before = lines();
  key("j");
  const focused = document.activeElement.getAttribute("aria-label");
  document.activeElement.click();
  const chosen = lines();
  key("Escape");
  const none = lines();
  const field = document.querySelector("[name=find]");
  field.value = "RUN-1"; field.dispatchEvent(new Event("input", {bubbles: true}));
  const isNamed = (e) => e.textContent || e.getAttribute("aria-label") || e.closest("label")?.textContent.trim();
  const unnamed = [...document.querySelectorAll("button,input")].filter(e => !isNamed(e)).length;
  const requests = performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length;
  document.title = JSON.stringify({first, sorted, before, focused, chosen, none, found: rows(), unnamed, requests,
    wide: document.documentElement.scrollWidth > innerWidth, hostile: document.querySelectorAll("main img").length,
    background: style.backgroundColor, ink: style.color});
}, 300));"""


@pytest.mark.real
@pytest.mark.parametrize(("width", "dark"), [(500, True), (1280, False)])
def test_in_a_browser_it_sorts_finds_draws_and_fits(runs: Path, tmp_path: Path, width: int, dark: bool) -> None:
    page = tmp_path / "runs.html"
    html = make_list(list_runs(runs), Path("runs")).decode()
    page.write_text(
        re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", html).replace(
            "</body>", f"<script>{MEASURE}</script></body>"
        )
    )
    measured = measure(page, width, dark=dark)
    assert measured["first"][:3] == ["run-2", "run-1", "stopped"]
    assert measured["sorted"][:3] == ["stopped", "run-2", "run-1"]
    assert (measured["before"], measured["chosen"], measured["none"]) == (4, 3, 0)
    assert measured["focused"] == "curve of stopped"
    assert measured["found"] == ["run-1"]
    assert (measured["unnamed"], measured["requests"], measured["hostile"], measured["wide"]) == (0, 0, 0, False)
    assert is_dark(measured) == dark
