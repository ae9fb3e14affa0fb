"""Plans: from YAML and flags, and what is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from distill.compare.plan import Plan, default_variants, make_plan
from distill.config import DistillConfig
from shared.errors import UsageError

VARIANTS: dict[str, dict[str, Any]] = {
    "undistilled": {"loss": "none", "alpha": 0, "gamma": 0},
    "armada": {"loss": "elementwise"},
}


def plan(**changes: Any) -> Plan:
    return Plan(**{"name": "p", "shards": Path("x"), "variants": VARIANTS, **changes})


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
    assert names == {"undistilled", "heads-only", "euclid", "frozen-aligner", *controls}
    assert "frozen-aligner" not in default_variants({"soft": "kl", "loss": "none"})
    assert "label-smoothing" not in default_variants({"alpha": 0})
    assert "heads-only" not in default_variants({"gamma": 0})
    assert len(plan(variants={}).list_cells()) == 5 * len(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0,)}, "with one seed nothing tells luck from effect"),
        ({"seeds": (0, 0)}, "a seed stands there twice"),
        ({"labels": (50, 50)}, "a number of labels stands there twice"),
        ({"labels": ()}, "at least one number of labels"),
        ({"name": "a/b"}, "the comparison's name"),
        ({"workers": 0}, "workers is 0"),
        ({"variants": {"armada": {}}}, "no variant is undistilled"),
        ({"variants": {"undistilled": VARIANTS["undistilled"]}}, "no variant is teacher"),
        ({"variants": {**VARIANTS, "armada": {"choices": {"beta": [1, 2]}}}}, "as many candidates"),
        ({"variants": {**VARIANTS, "armada": {"seed": 3}}}, "seed stands beside the variants"),
        ({"variants": {**VARIANTS, "armada": {"alhpa": 1}}}, "variants.armada has no option alhpa"),
        ({"common": {"epochs": 0}}, "epochs is 0"),
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
    made = make_plan(path, ["batch-size=8", "epochs=2"], ["student-lr=1e-3,2e-3"], {"seeds": [3, 4]})
    assert (made.name, made.shards, list(made.labels), list(made.seeds)) == ("mine", Path("data/x"), [50, 100], [3, 4])
    config = made.list_cells()[-1].config
    assert (config.training.epochs, config.training.batch_size, config.training.student_lr) == (2, 8, 2e-3)


def test_a_plan_from_options_alone() -> None:
    made = make_plan(None, ["loss=cosine"], [], {"shards": Path("data/x"), "name": "n"})
    assert made.list_variants()["cosine"] == {}
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
    ],
)
def test_a_plan_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        make_plan(path, [], [], {})
    with pytest.raises(UsageError, match="there is no plan"):
        make_plan(tmp_path / "none.yaml", [], [], {})
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        make_plan(None, ["epochs"], [], {"shards": Path("x")})
