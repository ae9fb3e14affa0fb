"""The collector of garbage is spared while a run lasts, and is afterwards as it was."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harvest.asking.garbage import NEW_OBJECTS, spare_collector
from harvest.config import make_harvest_config
from harvest.job import run_harvest
from tests.tiny_llama import make_tiny_llama


def test_the_collector_is_as_it_was_once_a_run_has_broken_off() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with spare_collector():
        assert gc.get_threshold()[0] == NEW_OBJECTS
        assert gc.get_freeze_count() > 0
        with spare_collector():  # a second run in the process
            pass
        assert gc.get_threshold()[0] == NEW_OBJECTS
    with pytest.raises(ValueError, match="broken off"), spare_collector():
        raise ValueError("broken off")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)


def test_a_collector_that_somebody_has_set_stays_so() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with spare_collector():
            assert gc.get_threshold()[0] == 0
            assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*before)


@pytest.mark.real
def test_a_model_that_computes_here_leaves_no_tensor_to_the_collector(tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "model")
    left: list[int] = []
    for rows in (10, 10, 300):  # the first one imports what is there once
        texts = tmp_path / f"{len(left)}.jsonl"
        texts.write_text("".join(json.dumps({"text": f"the sea, {number}"}) + "\n" for number in range(rows)))
        options: dict[str, Any] = {"teacher": "transformers", "model": str(model), "name": "tiny", "task": str(texts)}
        written = {"text_column": "text", "question": "Write.", "max_tokens": 4, "vector": "mean"}
        config = make_harvest_config({**options, **written, "out": str(tmp_path / f"out{len(left)}")}, "test")
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            run_harvest(config)
            gc.collect()
            left.append(len(gc.garbage))
            assert not any(isinstance(each, torch.Tensor) for each in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left[2] < left[1] + 300, left  # fewer than one a row
