"""The wheel, installed where the checkout is not, does the two lines on its own defaults and a file of one's own.

Here its dependencies are those of the environment that runs the tests. `make test-wheel` installs them anew, and names
that environment's commands in WHEEL_COMMANDS.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harvest.fault_server import Asked, FaultServer, make_reply, spread_logprobs

ROOT = Path(__file__).parents[2]
WORDS = ("negative", "positive")

pytestmark = pytest.mark.real


def run(program: Path | str, *arguments: str, folder: Path) -> str:
    """What a program prints on standard output, run where nothing of the checkout is found."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands that the wheel installed."""
    if given := os.environ.get("WHEEL_COMMANDS"):
        return Path(given).resolve()
    home = tmp_path_factory.mktemp("wheel")
    for name in ("shared", "harvest", "distill", "pipelines"):
        shutil.copytree(ROOT / name, home / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home / "source")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "./source", folder=home)
    run(sys.executable, "-m", "venv", "environment", folder=home)
    commands = home / "environment" / "bin"
    (wheel,) = (home / "dist").glob("*.whl")
    run(commands / "pip", "install", "--quiet", "--no-deps", str(wheel), folder=home)
    (packages,) = (home / "environment" / "lib").glob("*/site-packages")
    # The path alone: what is installed there in editable form is not found by it.
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    return commands


def answer(asked: Asked) -> dict[str, object]:
    word = WORDS["warm" in json.dumps(asked.body)]
    return make_reply(word, spread_logprobs(0.9 if word == "positive" else 0.1))


def test_the_wheel_does_the_two_lines(commands: Path, tmp_path: Path) -> None:
    found = run(commands / "python", "-c", "import shared; print(shared.__file__)", folder=tmp_path)
    assert Path(found).is_relative_to(commands.parent)
    for name in ("harvest", "distill", "pipeline"):
        assert run(commands / name, "--version", folder=tmp_path).startswith("harvest-distill ")

    rows = [f"a {('dull', 'warm')[i % 2]} film number {i},{WORDS[i % 2]}" for i in range(40)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    file = ("--task", "reviews.csv", "--text-column", "text", "--label-column", "label")
    with FaultServer(answer=answer) as server:
        asked = ("--teacher", "endpoint", "--endpoint", server.url, "--model", "m", *file)
        report = json.loads(run(commands / "harvest", "run", *asked, "--json", folder=tmp_path))
    assert (report["asked"], report["failed"]) == (40, 0)

    metrics = json.loads(run(commands / "distill", "run", "--shards", "data/reviews/", "--json", folder=tmp_path))
    student = str(Path(metrics["run"]) / "student")
    script = f"from transformers import pipeline; print(pipeline('text-classification', {student!r})('warm'))"
    assert "score" in run(commands / "python", "-c", script, folder=tmp_path)
