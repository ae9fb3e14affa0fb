"""Frozen models: what of their files is read, and what is said where they cannot be loaded."""

from pathlib import Path

import pytest
from transformers import AutoModel

from shared.errors import SourceError
from shared.frozen_models import FrozenModel
from shared.sources import MINILM, fingerprint_model, resolve_model


def test_a_model_is_identified_by_its_bytes() -> None:
    assert FrozenModel(MINILM).fingerprint == fingerprint_model(resolve_model(MINILM))


def test_files_are_read_where_they_are_and_none_where_not() -> None:
    model = FrozenModel(MINILM)
    assert model.read_json("config.json")["model_type"] == "bert"
    assert model.read_json("preprocessor_config.json") is None


def test_a_model_that_is_not_there_is_named_when_it_is_needed() -> None:
    model = FrozenModel("./no/such/folder")
    with pytest.raises(SourceError, match="no/such/folder"):
        _ = model.fingerprint


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SourceError, match=rf"{tmp_path} cannot be loaded with AutoModel"):
        FrozenModel(str(tmp_path)).load(AutoModel)


def test_a_file_that_was_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "modules.json").write_text('[{"idx": 0, "na')
    with pytest.raises(SourceError, match=r"^modules.json of .* is not JSON .*fetch the model again"):
        FrozenModel(str(tmp_path)).read_json("modules.json")
