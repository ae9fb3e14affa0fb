"""Finished cells: which of them a comparison keeps."""

import json
from pathlib import Path

from distill.compare.plan import Cell
from distill.compare.runner import find_difference
from distill.config import make_distill_config
from distill.runs.record import ROW_SCORES
from shared.options import flatten

FIRST, FURTHER = (Path("a"), "t"), (Path("b"), None)


def test_a_cell_is_trained_again_where_any_of_its_teachers_has_other_shards(tmp_path: Path) -> None:
    config = make_distill_config(shards="a", teacher="t", further_shards="b")
    cell = Cell("both", None, 0, config)
    metrics = {"config": flatten(config), "shards": "a", "manifest_sha256": {"a/teacher=t": "1", "b/teacher=u": "2"}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / ROW_SCORES).touch()
    assert find_difference(tmp_path, cell, {FIRST: "1", FURTHER: "2"}, False) is None
    for hashes in ({FIRST: "1", FURTHER: "3"}, {FIRST: "3", FURTHER: "2"}):
        assert find_difference(tmp_path, cell, hashes, False) == "the shards have changed since"
    assert find_difference(tmp_path, cell, {FIRST: "1", FURTHER: "2"}, True) == "its student was not kept"
