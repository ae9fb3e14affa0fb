"""What the tests of the pool ask, and of whom."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvest.config import TaskChoice
from harvest.teachers.registry import find_teachers
from tests.harvest.teachers.pool.installed import install_echo


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = install_echo(tmp_path / "site")
    monkeypatch.syspath_prepend(path[0])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
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
