"""docs/extending.md as it stands: its code blocks, made installed packages, are found and run."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


MODULES, PROJECTS = read_blocks("python"), [tomllib.loads(block) for block in read_blocks("toml")]


def install(site: Path, module: str, project: dict[str, dict], code: str | None) -> None:  # type: ignore[type-arg]
    """Put a package where pip would: its module, and the metadata that its pyproject.toml makes."""
    name, version = project["project"]["name"], project["project"]["version"]
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {value}" for point, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    if code is not None:
        (site / f"{module}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages: those of the page, and one of each kind that cannot be loaded."""
    site = tmp_path / "site"
    for code, project in zip(MODULES, PROJECTS, strict=True):
        (module,) = project["tool"]["setuptools"]["py-modules"]
        install(site, module, project, code)
    points = {f"harvest_distill.{kind}": {f"torn-{kind}": "no_such_module:IT"} for kind in ("teachers", "losses")}
    install(site, "torn", {"project": {"name": "torn", "version": "1", "entry-points": points}}, None)
    rows = [f"film number {i},{('bad', 'good')[i % 2]}" for i in range(40)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return site


def run(site: Path, stage: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(map(str, (site, ROOT)))
    return subprocess.run(
        [sys.executable, "-P", "-m", f"{stage}.cli", *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def run_json(site: Path, stage: str, *arguments: str) -> dict:  # type: ignore[type-arg]
    done = run(site, stage, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    printed: dict = json.loads(done.stdout)  # type: ignore[type-arg]
    return printed


PLAN = """
shards: data/reviews
seeds: [0]
common: {student_layers: 1, epochs: 1, aligner_pretraining: 1, vectors: [reply]}
variants:
  undistilled: {undistilled: true}
  huber: {loss: [huber], huber_delta: 0.5}
"""
REVIEWS = ("--task", "reviews.csv", "--text-column", "text", "--label-column", "label")


def test_each_takes_less_than_forty_lines() -> None:
    assert len(MODULES) == len(PROJECTS) == 2
    for code in MODULES:
        assert len([line for line in code.splitlines() if line.strip()]) < 40


@pytest.mark.real
def test_the_teacher_is_listed_explained_harvested_and_verified(site: Path) -> None:
    assert run_json(site, "harvest", "teachers")["shout"]["gives"] == ["reply"]
    listed = run(site, "harvest", "teachers").stdout
    assert "shouts" in listed
    assert "the teacher torn-teachers of the package torn cannot be loaded: No module named 'no_such_module'" in listed
    help_text = run(site, "harvest", "run", "--teacher", "shout", "--help").stdout
    assert "--marks" in help_text
    assert "Exclamation marks behind each answer. [default: 1; at least 0]" in help_text
    report = run_json(site, "harvest", "run", "--teacher", "shout", "--marks", "2", *REVIEWS)
    assert (report["asked"], report["failed"]) == (40, 0)
    assert run_json(site, "harvest", "run", "--teacher", "shout", "--marks", "2", *REVIEWS)["asked"] == 0
    assert run_json(site, "harvest", "verify", "data/reviews")["ok"]
    shown = run(site, "harvest", "show", "data/reviews", "--rows", "1").stdout
    assert re.search(r"reply: FILM NUMBER \d+!!\s", shown)
    other = run(site, "harvest", "run", "--teacher", "shout", *REVIEWS)
    assert other.returncode == 1
    assert "marks" in other.stderr  # another recipe is another folder


def test_its_options_are_checked_as_those_of_any_teacher(site: Path) -> None:
    refused = run(site, "harvest", "run", "--teacher", "shout", "--marks", "-1", *REVIEWS)
    assert (refused.returncode, "--marks is -1; it must be at least 0" in refused.stderr) == (2, True)
    refused = run(site, "harvest", "run", "--teacher", "reader", "--marks", "1", *REVIEWS)
    assert (refused.returncode, "shout has one" in refused.stderr) == (2, True)
    refused = run(site, "harvest", "run", "--teacher", "torn-teachers", *REVIEWS)
    assert (refused.returncode, "cannot be loaded" in refused.stderr) == (2, True)


@pytest.mark.real
def test_the_loss_is_explained_and_is_compared_on_the_replies_of_the_teacher(site: Path) -> None:
    help_text = run(site, "distill", "run", "--help").stdout
    assert "huber: the distance of each number" in " ".join(help_text.replace("│", "").split())
    assert "--huber-delta" in help_text
    run_json(site, "harvest", "run", "--teacher", "shout", *REVIEWS)
    signal = ("--vectors", "reply", "--loss", "huber", "--huber-delta")
    refused = run(site, "distill", "run", "--shards", "data/reviews", *signal, "0")
    assert (refused.returncode, "--huber-delta is 0.0; it must be more than 0" in refused.stderr) == (2, True)
    (site.parent / "plan.yaml").write_text(PLAN)
    result = run_json(site, "distill", "compare", "plan.yaml")
    scores = {one["variant"]: one["scores"] for one in result["groups"][0]["variants"]}
    assert {variant: len(of_seeds) for variant, of_seeds in scores.items()} == {"undistilled": 1, "huber": 1}
    (huber,) = (one["config"] for one in result["groups"][0]["variants"] if one["variant"] == "huber")
    assert (huber["loss"], huber["huber_delta"]) == (["huber"], 0.5)
