"""The teacher `echo` as a package that is installed: here, and in what this process starts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvest.config import TaskChoice
from harvest.teachers.registry import find_teachers

ROOT = Path(__file__).parents[4]
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: echo\nVersion: 1\n",
    "entry_points.txt": "[harvest_distill.teachers]\necho = tests.harvest.teachers.pool.echo_teacher:ECHO\n",
}


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    folder = site / "echo-1.dist-info"
    folder.mkdir(parents=True)
    for name, text in METADATA.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (site, ROOT))))
    find_teachers.cache_clear()
    yield
    monkeypatch.undo()
    find_teachers.cache_clear()


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A folder in which the teachers note what they are asked."""
    folder = tmp_path / "asked"
    folder.mkdir()
    return folder


def choose_task(folder: Path, texts: list[str]) -> TaskChoice:
    """A task of these texts, in a file."""
    path = folder / "films.csv"
    path.write_text("text,label\n" + "".join(f"{text},{('bad', 'good')[i % 2]}\n" for i, text in enumerate(texts)))
    return TaskChoice(str(path), text_column="text", label_column="label")
