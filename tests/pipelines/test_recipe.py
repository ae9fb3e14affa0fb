"""Recipes: read, or refused with the offending key named, before anything is asked or trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.recipe import read_recipe
from pipelines.runner import make_harvest_config, make_run_configs
from shared.errors import UsageError

RECIPE = {
    "name": "trial",
    "harvest": {"task": "rte", "teacher": "reader", "limits": {"train": 10}, "ask": ["train"]},
    "distill": {
        "common": {"epochs": 2},
        "variants": {"plain": {"loss": "none", "alpha": 0, "gamma": 0}, "armada": {"loss": "cosine"}},
        "seeds": [0, 1],
    },
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def test_the_demo_is_a_recipe_whose_variants_have_equal_steps() -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "pipelines" / "demo.yaml")
    assert recipe.harvest.limits["train"] == 2000
    assert list(recipe.distill.variants) == ["undistilled", "armada", "shuffled-teacher"]
    configs = [make_run_configs(recipe, name, options, [0])[0] for name, options in recipe.distill.variants.items()]
    assert {config.data.labels for config in configs} == {100}
    assert len({(config.training.epochs, config.training.batch_size) for config in configs}) == 1


def test_a_recipe_becomes_configs(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path))
    harvest = make_harvest_config(recipe)
    assert (harvest.task.task, harvest.teacher.teacher, dict(harvest.limits)) == ("rte", "reader", {"train": 10})
    configs = make_run_configs(recipe, "armada", recipe.distill.variants["armada"], recipe.distill.seeds)
    assert [(c.training.seed, c.training.epochs, c.method.loss_name) for c in configs] == [
        (0, 2, "cosine"),
        (1, 2, "cosine"),
    ]
    assert {(c.data.shards, c.data.teacher) for c in configs} == {((Path("data/rte"),), "reader")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"harvst": {}}, "there is no key 'harvst'"),
        ({"harvest": {"task": "rte"}}, "the key 'harvest.teacher' is missing"),
        ({"harvest": {"task": "rte", "teacher": "reader", "limits": {"train": "many"}}}, "harvest.limits.train: "),
        ({"distill": {"variants": {}, "seeds": [0]}}, "distill.variants: "),
        ({"distill": {"variants": {"a": {}}, "seeds": [0, 0]}}, "a seed stands there twice"),
    ],
)
def test_the_offending_key_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(write(tmp_path, **changes))


def test_an_unknown_training_option_is_named_with_its_variant(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path))
    with pytest.raises(UsageError, match=r"distill\.variants\.armada has no option taau; did you mean tau"):
        make_run_configs(recipe, "armada", {"taau": 5}, [0])


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="it has no keys"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "torn.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="not a YAML file"):
        read_recipe(tmp_path / "torn.yaml")


def test_a_variant_can_name_columns_losses_and_further_teachers(tmp_path: Path) -> None:
    options = {"vectors": ["reply", "embedding"], "soft": "kl", "loss": "cka", "further_shards": ["data/rte/teacher=x"]}
    recipe = read_recipe(write(tmp_path, distill={"variants": {"a": options}, "seeds": [0]}))
    (config,) = make_run_configs(recipe, "a", recipe.distill.variants["a"], [0])
    assert (config.signal.vectors, config.method.soft, config.method.loss) == (("reply", "embedding"), "kl", ("cka",))
    assert config.data.shards[1:] == (Path("data/rte/teacher=x"),)
