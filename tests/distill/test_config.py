"""What a config refuses, and what it calls a run."""

from pathlib import Path
from typing import Any

import pytest

from distill.config import DEFAULT_STUDENT, DistillConfig, make_distill_config
from distill.presets import PRESETS, Preset
from shared.errors import UsageError
from shared.options import flatten, list_options
from shared.sources import MINILM

SHARDS = Path("data/x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "kl"}, "loss is 'kl'; it can be .*euclid"),
        ({"loss": "cak"}, "loss is 'cak'; did you mean cka"),
        ({"learn": ("reply", "tail")}, "learn tail is about what the top K leave open: give learn topk beside it"),
        ({"loss": "cka,cka"}, "loss is cka, cka; each can be named once only"),
        ({"loss": "none,cka"}, "loss none leaves L_m out"),
        ({"loss": "cka=x"}, "loss cka=x: the weight is not a number"),
        ({"loss": "cka=0"}, "loss cka=0: the weight must be more than 0"),
        ({"soft": "mse"}, "it can be auto, head, kl, aligner"),
        ({"soft": "kl", "alpha": 0.0}, "soft kl is the soft targets' term: give alpha above 0"),
        ({"soft": "kl", "loss": "none", "control": "frozen-aligner"}, "frozen-aligner needs an aligner"),
        ({"vectors": ("embedding", "image")}, "vectors is 'image'; it can be embedding, label_logprobs, reply"),
        ({"vectors": ("reply", "reply")}, "reply, reply; each can be named once only"),
        ({"semantics": "both"}, "it can be paper, code"),
        ({"schedule": "mixed"}, "it can be two-pass, interleaved"),
        ({"control": "random"}, "it can be none, shuffled-teacher, random-vectors"),
        ({"precision": "float8"}, "it can be auto, float32, bfloat16, float16"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"contrastive_temperature": 0.0}, "contrastive_temperature is 0.0"),
        ({"teacher_decay": "step"}, "it can be none, linear, cosine"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"labels": 0}, "labels is 0"),
        ({"student_layers": 0}, "student_layers is 0"),
        ({"labelled_per_batch": 16}, "labelled_per_batch is 16"),
        ({"labelled_per_batch": 0}, "labelled_per_batch is 0"),
        ({"eval_steps": "few"}, "eval_steps few: give a number, auto or none"),
        ({"alpha": "some"}, "alpha some: give a number, or auto"),
        ({"soft": "head", "alpha": 0.0}, "soft head is the soft targets' term: give alpha above 0"),
        ({"control": "frozen-aligner"}, "frozen-aligner needs an aligner"),
        ({"eval_steps": 0}, "eval_steps is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"preset": "paper"}, "preset is 'paper'; it can be default, armada, armada-code"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"control": "shuffled-teacher", "loss": "none", "alpha": 0.0}, "needs a teacher"),
        (
            {"control": "self-training", "alpha": 0.0},
            "self-training replaces the soft targets only: give alpha above 0",
        ),
    ],
)
def test_a_bad_value_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_distill_config(shards=SHARDS, **options)


@pytest.mark.parametrize(
    ("options", "uses_teacher", "variant"),
    [
        ({}, True, "distilled"),
        ({"soft": "head"}, True, "head"),
        ({"soft": "kl", "control": "shuffled-teacher"}, True, "kl-shuffled-teacher"),
        ({"control": "random-vectors"}, True, "distilled-random-vectors"),
        ({"control": "self-training"}, True, "self-training"),
        ({"control": "linear-probe"}, True, "linear-probe"),
        ({"loss": "cka"}, True, "cka-auto"),
        ({"loss": "cka", "soft": "head"}, True, "cka-head"),
        ({"loss": "cka", "alpha": 0.0}, True, "cka"),
        ({"alpha": 0.0}, False, "undistilled"),
        ({"alpha": 0.0, "gamma": 1.0}, False, "heads-only"),
        ({"preset": "armada"}, True, "euclid"),
        ({"preset": "armada", "loss": "cosine", "control": "shuffled-teacher"}, True, "cosine-shuffled-teacher"),
        ({"preset": "armada", "loss": ["cka", "euclid=0.5"]}, True, "cka+euclid"),
        ({"preset": "armada", "control": "self-training"}, True, "self-training"),
        ({"preset": "armada", "control": "frozen-aligner"}, True, "euclid-frozen-aligner"),
        ({"preset": "armada", "loss": "none"}, True, "soft-only"),
        ({"preset": "armada", "beta": 0.0}, True, "soft-only"),
        ({"preset": "armada", "alpha": 0.0}, True, "euclid"),
        ({"preset": "armada", "soft": "kl"}, True, "euclid-kl"),
        ({"preset": "armada", "soft": "kl", "loss": "none"}, True, "kl"),
        ({"preset": "armada", "soft": "kl", "control": "self-training"}, True, "self-training-kl"),
        ({"preset": "armada", "loss": "none", "alpha": 0.0}, False, "heads-only"),
        ({"preset": "armada", "beta": 0.0, "alpha": 0.0, "gamma": 0.0}, False, "undistilled"),
        ({"preset": "armada", "undistilled": True}, False, "undistilled"),
    ],
)
def test_variants(options: dict[str, Any], uses_teacher: bool, variant: str) -> None:
    config = make_distill_config(shards=SHARDS, **options)
    assert config.method.uses_teacher is uses_teacher
    assert config.variant == variant


def test_the_default_student_is_the_one_that_packages_carry() -> None:
    assert DEFAULT_STUDENT == MINILM


@pytest.mark.parametrize("preset", ["armada", "armada-code"])
def test_a_preset_gives_what_is_not_given_beside_it(preset: Preset) -> None:
    options = flatten(make_distill_config(shards=SHARDS, preset=preset, tau=2.0, labelled_per_batch=4))
    wanted = {**PRESETS[preset], "loss": ["euclid"], "tau": 2.0, "labelled_per_batch": 4, "preset": preset}
    assert wanted.items() <= options.items()
    assert options["semantics"] == ("code" if preset == "armada-code" else "paper")


def test_armada_says_what_each_of_its_options_is() -> None:
    own = {one.name for one in list_options(DistillConfig) if one.path[0] in ("training", "method")}
    apart = {"seed", "device", "precision", "parallel", "micro_batch", "control", "teacher_decay"} | {
        one.name for one in list_options(DistillConfig) if one.path[:2] == ("method", "loss_options")
    }
    assert own - apart == PRESETS["armada"].keys(), "a default that changes must not change the paper's recipe"


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("none", None), ("3", 3)])
def test_a_count_is_a_number_auto_or_none(text: str, value: Any) -> None:
    assert make_distill_config(shards=SHARDS, eval_steps=text).training.eval_steps == value
