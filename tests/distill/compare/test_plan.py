"""Plans: from YAML and flags, and what is refused before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.compare.plan import Comparison, default_variants, make_comparison, read_plan
from distill.config import DistillConfig, make_distill_config
from shared.errors import UsageError
from tests.distill.distill_rows import WriteFolder, make_rows

VARIANTS: dict[str, dict[str, Any]] = {
    "undistilled": {"loss": "none", "alpha": 0, "gamma": 0},
    "armada": {"loss": "elementwise"},
}


def plan(**changes: Any) -> Comparison:
    return Comparison(**{"name": "p", "shards": (Path("x"),), "variants": VARIANTS, **changes})


def test_cells_are_every_combination_a_seed_at_a_time() -> None:
    cells = plan(seeds=(0, 1), labels=(50, None), choices={"student_lr": [1e-4, 1e-3]}).list_cells()
    assert len(cells) == len({cell.name for cell in cells}) == 2 * 2 * 2 * 2
    assert [cell.config.training.seed for cell in cells] == [0] * 8 + [1] * 8
    assert cells[0].name == "undistilled-n50-c0-s0"
    assert cells[-1].name == "armada-nall-c1-s1"
    last = cells[-1].config
    assert (last.training.student_lr, last.method.loss, last.data.labels) == (1e-3, ("elementwise",), None)


def test_variants_over_common_and_candidates_over_both() -> None:
    own = {**VARIANTS, "armada": {"loss": "cosine", "choices": {"beta": [1, 2]}}}
    cells = plan(common={"epochs": 3, "loss": "euclid"}, variants=own, choices={"student_lr": [1, 2]}).list_cells()
    assert {cell.config.training.epochs for cell in cells} == {3}
    assert {(c.config.method.loss_name, c.config.method.beta) for c in cells if c.variant == "armada"} == {
        ("cosine", 1.0),
        ("cosine", 2.0),
    }


def test_default_variants_hold_every_control_that_goes_with_the_teacher() -> None:
    names = set(default_variants({}))
    controls = {"label-smoothing", "self-training", "shuffled-teacher", "random-vectors", "constant-target"}
    baselines = {"linear-probe", "probe-distilled", "pseudo-labels"}
    assert names == {"undistilled", "distilled", *controls, *baselines}
    armada = set(default_variants({"preset": "armada"}))
    assert armada == {"undistilled", "heads-only", "euclid", "frozen-aligner", *controls, *baselines}
    assert "frozen-aligner" not in default_variants({"preset": "armada", "soft": "kl", "loss": "none"})
    assert "label-smoothing" not in default_variants({"loss": "euclid", "alpha": 0})
    assert "heads-only" not in default_variants({"preset": "armada", "gamma": 0})
    assert plan(variants={}, common={"soft": "kl"}).list_cells()[0].config.variant == "undistilled"
    assert len(plan(variants={}).list_cells()) == 5 * len(names)


def test_default_variants_go_with_the_kind_of_the_task(write_folder: WriteFolder) -> None:
    regression = default_variants({}, "regression")
    assert {"undistilled", "distilled", "self-training", "linear-probe"} <= regression.keys()
    assert not {"label-smoothing", "pseudo-labels"} & regression.keys()
    written = default_variants({"learn": ["topk", "reference"]}, "generation")
    assert list(written) == ["undistilled", "topk+reference", "shuffled-teacher", "untrained"]
    roles = [make_distill_config(**{"learn": ["topk"], **v}, shards="d").role for v in written.values()]
    assert roles == ["undistilled", "teacher", "control", "control"]
    shards = write_folder({"train": [make_rows(8, regression=True)]}, kind="regression", labels=(), metric="pearson")
    assert "label-smoothing" not in plan(variants={}, shards=(shards,)).list_variants()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "give at least one seed"),
        ({"seeds": (-1,)}, "seeds is -1; it must be at least 0"),
        ({"seeds": (0, 0)}, "the seed 0 is given twice"),
        ({"labels": (50, 50)}, "the number of labels 50 is given twice"),
        ({"labels": ()}, "at least one number of labels"),
        ({"name": "a/b"}, "the comparison's name"),
        ({"variants": {"armada": {}}}, "no variant is undistilled"),
        ({"variants": {"undistilled": VARIANTS["undistilled"]}}, "no variant is teacher"),
        ({"variants": {**VARIANTS, "armada": {"choices": {"beta": [1, 2]}}}}, "as many candidates"),
        ({"variants": {**VARIANTS, "armada": {"seed": 3}}}, "seed stands beside the variants"),
        ({"variants": {**VARIANTS, "armada": {"alhpa": 1}}}, "variants.armada has no option alhpa"),
        ({"common": {"epochs": 0}}, "epochs is 0"),
        ({"choices": {"beta": ()}}, "choices: beta is .*; give a list"),
        ({"variants": {**VARIANTS, "armada": {"choices": {"beta": 1}}}}, "choices: beta is 1; give a list"),
        ({"variants": {**VARIANTS, "armada": {"choices": [1]}}}, r"choices of armada is \[1\]; give a list"),
        ({"variants": {**VARIANTS, "armada": {"further_shards": 3}}}, "further_shards is 3; give a folder"),
        ({"variants": {**VARIANTS, "undistilled": {"undistilled": "maybe"}}}, "undistilled is 'maybe'; it can be"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**changes).list_cells()


def test_a_plan_from_yaml_and_options_over_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "shards: data/x\nlabels: [50, 100]\ncommon: {epochs: 3}\nchoices: {student_lr: [1e-4]}\n"
        "variants:\n  undistilled: {loss: none, alpha: 0, gamma: 0}\n  armada: {}\n"
    )
    changes = {"common": ["batch-size=8", "epochs=2", "loss=cka,euclid=0.5"], "choices": ["student-lr=1e-3,2e-3"]}
    made = make_comparison(read_plan(path), str(path), **changes, seeds=[3, 4])
    assert (made.name, made.shards, made.labels, made.seeds) == ("mine", (Path("data/x"),), (50, 100), (3, 4))
    config = made.list_cells()[-1].config
    assert (config.training.epochs, config.training.batch_size, config.training.student_lr) == (2, 8, 2e-3)
    assert config.method.loss == ("cka", "euclid=0.5")


def test_a_plan_from_options_alone() -> None:
    made = make_comparison({}, "it", common=["loss=cosine"], shards=Path("data/x"), name="n")
    assert made.list_variants()["cosine-auto"] == {}
    assert isinstance(made.list_cells()[0].config, DistillConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("shards: x\nseedz: [1, 2]", "has no option seedz"),
        ("name: x", "needs shards"),
        ("- 1", "is not a plan"),
        ("a: [", "is not a YAML file"),
        ("shards: x\nvariants: [1]", "variants is not a mapping"),
        ("shards: x\nlabels: many", "labels"),
        ("shards: x\n1: 2", "has no option 1"),
    ],
)
def test_a_plan_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        make_comparison(read_plan(path), str(path))


def test_what_is_no_plan_and_no_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no plan"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="epochs: give NAME=VALUE"):
        make_comparison({}, "it", common=["epochs"], shards=Path("x"))
    with pytest.raises(UsageError, match="has no option epohcs; did you mean epochs"):
        make_comparison({}, "it", common=["epohcs=2"], shards=Path("x"))


def test_a_mapping_of_a_recipe_becomes_a_comparison_with_further_teachers() -> None:
    both = {"further_shards": ["data/x/teacher=b"]}
    content = {"variants": {"undistilled": VARIANTS["undistilled"], "one": {}, "both": both}, "seeds": [0]}
    made = make_comparison(content, "compare", shards=Path("data/x/teacher=a"), name="n")
    assert [len(cell.config.data.shards) for cell in made.list_cells()] == [1, 1, 2]


@pytest.mark.parametrize("name", ["rotten_tomatoes", "products"])
def test_the_plans_of_the_documented_comparisons_are_fair_ones(name: str) -> None:
    path = Path(__file__).parents[3] / "docs" / "compare" / f"{name}.yaml"
    comparison = make_comparison(read_plan(path), str(path))
    assert comparison.name == name
    cells = comparison.list_cells()
    assert {cell.config.role for cell in cells} == {"undistilled", "teacher", "control", "baseline"}
    assert len({(cell.config.training.epochs, cell.config.training.batch_size) for cell in cells}) == 1
    published = json.loads(path.with_suffix(".json").read_text())
    assert published["seeds"] == list(comparison.seeds)
    assert {one["variant"] for one in published["groups"][0]["variants"]} == {cell.variant for cell in cells}
