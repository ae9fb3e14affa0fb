"""A table recipe: an ordinary recipe for each task and student, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.compare.plan import Cell
from pipelines.recipe import read_recipe
from pipelines.table import Table, make_table
from pipelines.table_run import make_experiments
from pipelines.work import make_work
from shared.errors import UsageError
from shared.tasks import TASKS

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "pipelines" / "armada-understanding.yaml"
TWELVE = ["cola", "mrpc", "rte", "stsb", "cb", "copa", "boolq", "wic", "mnli", "qnli", "qqp", "sst2"]
CONTENT: dict[str, Any] = {
    "name": "small",
    "harvest": {"teacher": "reader", "ask": ["train"]},
    "compare": {
        "seeds": [0],
        "common": {"epochs": 2, "batch_size": 64},
        "variants": {"undistilled": {"undistilled": True}, "armada": {"loss": "cosine"}},
    },
    "table": {
        "tasks": {
            "cola": {"compare": {"common": {"batch_size": 4}}},
            "mine": {"harvest": {"task": "films.csv", "text_column": "review"}, "compare": {"seeds": [1, 2]}},
        },
        "students": {"small": {"student_layers": 1}, "large": None},
        "published": {"source": "a paper", "scores": {"large": {"armada": {"cola": 47.6}}}},
    },
}


def write(folder: Path, **changes: Any) -> Path:
    """Write CONTENT with changes of its table, or of the keys beside it."""
    own = {key: changes.pop(key) for key in list(changes) if key in CONTENT["table"]}
    table = {**CONTENT["table"], **({"published": None} if own else {}), **own}
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "table": table, **changes}, sort_keys=False))
    return path


def list_cells(table: Table, *assignments: str) -> list[list[Cell]]:
    return [made.comparison.list_cells() for made in make_experiments(table, assignments)]


def test_each_task_and_student_is_an_ordinary_recipe(tmp_path: Path) -> None:
    table = make_table(read_recipe(write(tmp_path)))
    named = [(entry.task, entry.student) for entry in table.entries]
    assert named == [("cola", "small"), ("cola", "large"), ("mine", "small"), ("mine", "large")]
    experiments = make_experiments(table)
    assert [made.comparison.name for made in experiments] == ["cola-small", "cola-large", "mine-small", "mine-large"]
    assert [made.harvest.task.task for made in experiments] == ["cola", "cola", "films.csv", "films.csv"]
    assert experiments[0].harvest == experiments[1].harvest
    assert {made.harvest.asked for made in experiments} == {("train",)}
    (first, *_), (second, *_), (third, *_), _ = list_cells(table)
    assert (first.config.training.batch_size, first.config.training.epochs) == (4, 2)
    assert (first.config.student.layers, second.config.student.layers) == (1, None)
    assert (third.config.training.batch_size, third.config.training.seed) == (64, 1)


def test_a_task_changes_variants_by_name_and_takes_one_out(tmp_path: Path) -> None:
    variants = {"more": {"loss": "euclid"}, "armada": None}
    table = make_table(read_recipe(write(tmp_path, tasks={"cola": {"compare": {"variants": variants}}, "rte": None})))
    cola, _, rte, _ = list_cells(table)
    assert [cell.variant for cell in cola] == ["undistilled", "more"]
    assert [cell.variant for cell in rte] == ["undistilled", "armada"]


def test_tasks_and_students_can_be_chosen_and_options_stand_over_all(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path))
    table = make_table(recipe, ["mine"], ["large"])
    assert [(entry.task, entry.student) for entry in table.entries] == [("mine", "large")]
    (cells,) = list_cells(table, "epochs=7", "harvest.limit={train: 3}")
    assert {cell.config.training.epochs for cell in cells} == {7}
    for chosen, message in ((["rte"], "tasks has no rte"), (["colla"], "has no colla; did you mean cola")):
        with pytest.raises(UsageError, match=message):
            make_table(recipe, chosen)
    with pytest.raises(UsageError, match=r"students has no huge; it has: small, large"):
        make_table(recipe, [], ["huge"])


def test_the_published_scores_are_found_by_student_variant_and_task(tmp_path: Path) -> None:
    published = make_table(read_recipe(write(tmp_path))).published
    assert published is not None
    assert (published.source, dict(published.scores)) == ("a paper", {("large", "armada", "cola"): 47.6})
    assert make_table(read_recipe(write(tmp_path, published=None))).published is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {}}, "table.tasks is empty"),
        ({"tasks": [1]}, "table.tasks is .*; it must be a mapping"),
        ({"tasks": {"cola": {"harvst": {}}}}, "table.tasks.cola has no key harvst; did you mean harvest"),
        ({"tasks": {"cola": {"harvest": [1]}}}, "table.tasks.cola.harvest is .*; it must be a mapping"),
        ({"tasks": {"cola": {"compare": {"sedes": [1]}}}}, "cola, small: compare has no option sedes; did you mean"),
        ({"tasks": {"cola": {"compare": {"common": [1]}}}}, "cola, small: compare: common is not a mapping"),
        ({"tasks": {"cola": {"harvest": {"limt": 3}}}}, "cola, small: .*no option limt"),
        ({"tasks": {1: {}}}, "table.tasks: the name 1 is no text"),
        ({"tasks": {"a/b": {}}}, "a/b, small: .*cannot name a folder"),
        ({"students": {"small": {"studnt": "x"}}}, "no option studnt; did you mean student"),
        ({"published": {"scores": {}}}, "table.published needs the key source"),
        ({"published": {"source": "x", "scores": {"larg": {}}}}, "scores has no key larg; did you mean large"),
        ({"published": {"source": "x", "scores": {"large": {"armda": {}}}}}, "has no key armda; did you mean armada"),
        ({"published": {"source": "x", "scores": {"large": {"armada": {"coal": 1}}}}}, "has no key coal"),
        ({"published": {"source": "x", "scores": {"large": {"armada": {"cola": "x"}}}}}, "armada.cola is 'x'"),
        ({"harvest": {"teacher": "reader", "task": "rte"}}, "harvest has no option task beside a table"),
        ({"harvest": {"teacher": "reader", "out": "data"}}, "harvest has no option out beside a table"),
        ({"name": "a/b"}, "the table's name 'a/b' cannot name a folder"),
    ],
)
def test_the_file_and_the_offending_key_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as raised:
        make_work(read_recipe(path))
    assert str(raised.value).startswith(str(path))


def test_an_ordinary_recipe_has_no_tasks_to_choose(tmp_path: Path) -> None:
    content = {key: value for key, value in CONTENT.items() if key != "table"}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({**content, "harvest": {"task": "rte", "teacher": "reader"}}))
    with pytest.raises(UsageError, match="has no table, whose tasks and students"):
        make_work(read_recipe(path), tasks=["rte"])


def test_the_papers_recipe_has_its_tasks_students_and_rates() -> None:
    table = make_table(read_recipe(PAPER))
    assert list(dict.fromkeys(entry.task for entry in table.entries)) == TWELVE
    assert len(table.entries) == 12 * 2
    for entry, cells in zip(table.entries, list_cells(table), strict=True):
        armada = next(cell.config for cell in cells if cell.variant == "euclid")
        super_glue = entry.task in ("cb", "copa", "boolq", "wic")
        assert (armada.training.batch_size, armada.method.aligner_lr) == ((8, 1e-3) if super_glue else (32, 3e-3))
        assert (armada.training.epochs, armada.training.student_lr, armada.data.max_length) == (10, 2e-5, 128)
        assert armada.student.layers == (6 if entry.student == "BERT-6L" else None)
        assert {cell.config.training.seed for cell in cells} == {0, 1, 2}
        assert len({cell.config.training.epochs for cell in cells}) == 1
        if TASKS[entry.task].kind == "regression":
            assert not any(cell.config.method.traits.needs_classes for cell in cells)
    assert table.published is not None
    assert len(table.published.scores) == 2 * 12 + 2 * 8
