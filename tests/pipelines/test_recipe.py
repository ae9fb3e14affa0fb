"""A recipe is checked as a whole, by the classes of the commands, before anything is asked or trained."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distill.compare.placing import Placing
from distill.compare.plan import Cell
from pipelines.cli import app
from pipelines.recipe import read_recipe, split_assignments
from pipelines.runner import Experiment, make_experiment, run_experiment
from shared.errors import ClusterError, UsageError
from shared.schema import Status

ROOT = Path(__file__).parents[2]
COMPARE: dict[str, Any] = {
    "seeds": [0, 1],
    "common": {"epochs": 2},
    "variants": {"undistilled": {"loss": "none", "alpha": 0, "gamma": 0}, "armada": {"loss": "cosine"}},
}
HARVEST: dict[str, Any] = {"task": "rte", "teacher": "reader", "limit": {"train": 10}, "ask": ["train"]}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"name": "trial", "harvest": HARVEST, "compare": COMPARE, **changes}, sort_keys=False)
    )
    return path


def make(path: Path, *assignments: str, **changes: Any) -> Experiment:
    return make_experiment(read_recipe(path), assignments, changes)


def list_cells(experiment: Experiment) -> list[Cell]:
    return experiment.comparison.list_cells()


def test_the_demo_is_a_recipe_whose_variants_have_equal_steps() -> None:
    experiment = make(ROOT / "pipelines" / "demo.yaml")
    cells = list_cells(experiment)
    assert {cell.config.method.role for cell in cells} == {"undistilled", "teacher", "control", "baseline"}
    assert experiment.harvest.limits["train"] > 2 * max(cell.config.data.labels or 0 for cell in cells)
    assert len({(cell.config.training.epochs, cell.config.training.batch_size) for cell in cells}) == 1


def test_cells_are_placed_by_the_recipe_and_a_cluster_that_is_not_there_is_said_before_the_harvest(
    tmp_path: Path,
) -> None:
    placed = {"cluster": "ray://127.0.0.1:1", "per_cell": "gpus=0.5", "workers": 3}
    experiment = make(write(tmp_path, compare={**COMPARE, **placed}), workers=2)
    assert experiment.comparison.placing == Placing(2, "ray://127.0.0.1:1", {"gpus": 0.5})
    with pytest.raises(ClusterError, match="no Ray cluster can be reached there"):
        run_experiment(experiment, tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_recipe_becomes_a_harvest_and_a_comparison(tmp_path: Path) -> None:
    experiment = make(write(tmp_path))
    harvest = experiment.harvest
    assert (harvest.task.task, harvest.teacher.teacher, dict(harvest.limits)) == ("rte", "reader", {"train": 10})
    assert harvest.asked == ("train",)
    cells = [cell for cell in list_cells(experiment) if cell.variant == "armada"]
    assert [(c.config.training.seed, c.config.training.epochs, c.config.method.loss) for c in cells] == [
        (0, 2, ("cosine",)),
        (1, 2, ("cosine",)),
    ]


def test_a_recipe_takes_every_option_of_both_commands(tmp_path: Path) -> None:
    harvest = {
        **{"task": "films.csv", "teacher": "endpoint", "name": "mine", "out": "answers", "onto": "answers/teacher=a"},
        **{"text_column": "review", "label_column": "stars", "labels": ["bad", "good"], "label_words": ["no", "yes"]},
        **{"question": "Is it good?", "retry": ["failed"], "limit": {"train": 5}, "failure_limit": 0.1},
        **{
            "endpoint": "http://localhost:1/v1",
            "model": "m",
            "draw": "fields",
            "size": "512x256",
            "body": {"top_p": 1},
        },
    }
    options = {"vectors": ["reply", "embedding"], "soft": "kl", "loss": "cka", "further_shards": ["answers/teacher=x"]}
    variants = {"plain": {"undistilled": True}, "both": options}
    compare = {"seeds": [3], "labels": [10, None], "choices": {"student_lr": [1e-4, 1e-3]}, "variants": variants}
    experiment = make(write(tmp_path, harvest=harvest, compare=compare))
    task = experiment.harvest.task
    assert (task.text_column, task.labels, task.label_words) == ("review", ("bad", "good"), ("no", "yes"))
    assert (experiment.harvest.retry, experiment.harvest.out) == ((Status.FAILED,), Path("answers"))
    assert experiment.harvest.teacher.options["model"] == "m"
    cells = list_cells(experiment)
    assert len(cells) == 2 * 2 * 2
    assert cells[0].config.variant == "undistilled"
    config = cells[-1].config
    assert (config.signal.vectors, config.method.soft, config.method.loss) == (("reply", "embedding"), "kl", ("cka",))
    assert config.data.shards[1:] == (Path("answers/teacher=x"),)
    assert config.data.teacher == "mine"


def test_options_of_the_command_stand_over_the_recipe(tmp_path: Path) -> None:
    experiment = make(write(tmp_path), "student-lr=1e-3", "loss=euclid", "harvest.limit={train: 3}", seeds=[7])
    assert dict(experiment.harvest.limits) == {"train": 3}
    assert {cell.config.training.seed for cell in list_cells(experiment)} == {7}
    assert {cell.config.training.student_lr for cell in list_cells(experiment)} == {1e-3}
    assert split_assignments(["harvest.api-key-env=KEY"]) == ([], {"api_key_env": "KEY"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"harvst": {}}, "has no key harvst; did you mean harvest?"),
        ({"distill": {"seeds": [0]}}, "the key distill, of an older version: it is compare now"),
        ({"harvest": [1]}, "harvest is .*; it must be a mapping"),
        ({"name": "a/b"}, "cannot name a folder"),
        ({"name": 3}, "name is 3; give a word"),
        ({"harvest": {"task": "rte"}}, "harvest needs teacher"),
        ({"harvest": {**HARVEST, "limit": {"train": "many"}}}, "harvest: limit: "),
        ({"harvest": {**HARVEST, "limit": {"train": 0}}}, "a limit is 1 or more rows"),
        ({"harvest": {**HARVEST, "teacher": "raeder"}}, "no teacher 'raeder'; did you mean reader"),
        ({"harvest": {**HARVEST, "encodr": "x"}}, r"teacher reader has no option encodr \(did you mean encoder"),
        ({"compare": {**COMPARE, "sedes": [0]}}, "compare has no option sedes; did you mean seeds?"),
        ({"compare": {**COMPARE, "seeds": [0, 0]}}, "the seed 0 is given twice"),
        ({"compare": {**COMPARE, "shards": "data/rte"}}, "compare has no option shards: it follows from the rest"),
        ({"compare": {**COMPARE, "common": {"epocs": 2}}}, "has no option epocs; did you mean epochs?"),
        ({"compare": {"variants": {"armada": {}}}}, "no variant is undistilled"),
        (
            {"compare": {"variants": {**COMPARE["variants"], "b": {"tau": -1}}}},
            r"variants\.b: tau is -1.*; it must be more than 0",
        ),
    ],
)
def test_the_file_and_the_offending_key_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as raised:
        make(path)
    assert str(raised.value).startswith(str(path))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: trial\nharvest: {task: rte, teacher: reader}\n")
    with pytest.raises(UsageError, match="needs the key compare"):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("text", ["epochs", "harvest.=1", "compare.seeds=[0]", "=3"])
def test_an_assignment_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--set {text}: give")):
        make(write(tmp_path), text)


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="it has no keys"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="not a YAML file"):
        read_recipe(tmp_path / "torn.yaml")


def test_the_command_refuses_a_wrong_student_before_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write(tmp_path, compare={**COMPARE, "common": {"epochs": 0}})
    done = CliRunner().invoke(app, ["run", str(recipe)])
    assert done.exit_code == 2
    assert "epochs is 0; it must be at least 1" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
