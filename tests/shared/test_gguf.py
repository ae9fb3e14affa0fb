"""A file that is no model of llama.cpp is refused by name and leaves nothing behind; tests/real converts a real one."""

from pathlib import Path

import pytest

from shared.errors import SourceError
from shared.sources import locate_model, resolve_model


def test_a_broken_file_is_named_and_nothing_of_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    said: list[str] = []
    with pytest.raises(SourceError, match=r"broken\.gguf cannot be converted"):
        resolve_model(str(broken), said.append)
    assert len(said) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    locate_model(str(broken), "config.json", lambda: "nobody asks")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no model at .*missing\.gguf"):
        resolve_model(str(tmp_path / "missing.gguf"))
