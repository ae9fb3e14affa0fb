"""The losses by name: those of the project, and those of other installed packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.losses.registry import ENTRIES, LOSSES, LossOptions, Semantics, find_loss, make_match
from shared.errors import UsageError
from tests.distill.losses.installed_loss import install


def distill(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where a package of somebody's own is installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), *sys.path]), "COLUMNS": "200"}
    command = [sys.executable, "-c", "from distill.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("semantics", ["paper", "code"])
def test_every_loss_of_the_project_can_be_made(semantics: Semantics) -> None:
    assert {entry.name for entry in ENTRIES} <= set(LOSSES.entries)
    for entry in ENTRIES:
        assert callable(make_match(entry.name, semantics, LossOptions()))


def test_an_unknown_loss_is_told_what_it_could_be() -> None:
    with pytest.raises(UsageError, match="loss is 'procrustus'; did you mean procrustes"):
        find_loss("procrustus")


def test_help_shows_a_loss_of_another_package_and_its_option(tmp_path: Path) -> None:
    done = distill(install(tmp_path), "run", "--help")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.replace("│", " ").split())
    for part in (
        "margin: rows no further than a slack",
        "--margin-slack",
        "Distance that costs nothing. [default: 0.25; at least 0]",
        "the loss bare of the package my-losses cannot be loaded: its option slack has no default",
        "the loss broken of the package my-losses cannot be loaded: No module named 'my_losses_that_are_gone'",
        "the loss cka of the package my-losses cannot be loaded: there is a loss cka already",
        "the loss wrong of the package my-losses cannot be loaded: my_losses:Margin is a type",
    ):
        assert part in shown


@pytest.mark.real
def test_a_loss_of_another_package_trains_with_its_option(tmp_path: Path, toy: Path, tiny_student: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    run = ["run", "--shards", str(toy), "--student", str(tiny_student), "--epochs", "1", "--device", "cpu"]
    run += ["--out", str(tmp_path / "runs")]
    more = ["--loss", "margin", "--loss", "cka=0.5", "--margin-slack", "0.5", "--json"]
    done = distill(install(packages), *run, *more)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["variant"] == "margin+cka-auto"
    assert metrics["config"]["margin_slack"] == 0.5
    terms = json.loads(Path(metrics["run"], "log.jsonl").read_text().splitlines()[0])["student"]
    assert terms["match"] == pytest.approx(terms["margin"] + 0.5 * terms["cka"], rel=1e-4)
    assert "the loss broken of the package my-losses cannot be loaded" in done.stderr, "it stops no other, and is named"
    refused = distill(packages, *run, "--loss", "broken")
    assert refused.returncode == 2
    assert "the loss broken of the package my-losses cannot be loaded: No module named" in refused.stderr
    refused = distill(packages, *run, "--loss", "margin", "--margin-slack", "-1")
    assert "--margin-slack is -1.0; it must be at least 0" in refused.stderr


@pytest.mark.real
def test_a_loss_of_another_package_is_compared(tmp_path: Path, toy: Path, tiny_student: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    plan = tmp_path / "mine.yaml"
    plan.write_text(
        f"common: {{student: {tiny_student}, epochs: 1, device: cpu}}\nseeds: [0, 1, 2]\nworkers: 1\n"
        "variants:\n  undistilled: {loss: none, alpha: 0, gamma: 0}\n  mine: {loss: margin, margin_slack: 0.5}\n"
    )
    done = distill(
        install(packages), "compare", str(plan), "--shards", str(toy), "--out", str(tmp_path / "runs"), "--json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [verdict["variant"] for verdict in result["verdicts"]] == ["mine"]
    variants = {variant["variant"]: variant["config"] for variant in result["groups"][0]["variants"]}
    assert (variants["mine"]["loss"], variants["mine"]["margin_slack"]) == (["margin"], 0.5)
