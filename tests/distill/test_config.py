"""What a config refuses, and what it calls a run."""

from pathlib import Path
from typing import Any

import pytest

from distill.config import DEFAULT_STUDENT, make_distill_config
from shared.errors import UsageError
from shared.sources import MINILM

SHARDS = Path("data/x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "kl"}, "loss is 'kl'; it can be: .*euclid"),
        ({"loss": "cak"}, "loss is 'cak'; did you mean cka"),
        ({"loss": "cka,cka"}, "loss is cka, cka; each can be named once only"),
        ({"loss": "none,cka"}, "loss none leaves L_m out"),
        ({"loss": "cka=x"}, "loss cka=x: the weight is not a number"),
        ({"loss": "cka=0"}, "loss cka=0: the weight must be more than 0"),
        ({"soft": "mse"}, "it can be aligner, kl"),
        ({"soft": "kl", "alpha": 0.0}, "soft kl is the soft targets' term: give alpha above 0"),
        ({"soft": "kl", "loss": "none", "control": "frozen-aligner"}, "frozen-aligner needs an aligner"),
        ({"vectors": ("embedding", "image")}, "vectors is 'image'; it can be embedding, label_logprobs, reply"),
        ({"vectors": ("reply", "reply")}, "reply, reply; each can be named once only"),
        ({"semantics": "both"}, "it can be paper, code"),
        ({"schedule": "mixed"}, "it can be two-pass, interleaved"),
        ({"control": "random"}, "it can be none, shuffled-teacher, random-vectors"),
        ({"precision": "float16"}, "it can be auto, float32, bfloat16"),
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
        ({"labelled_per_batch": 32}, "labelled_per_batch is 32"),
        ({"labelled_per_batch": 0}, "labelled_per_batch is 0"),
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
        ({}, True, "euclid"),
        ({"loss": "cosine", "control": "shuffled-teacher"}, True, "cosine-shuffled-teacher"),
        ({"loss": ["cka", "euclid=0.5"]}, True, "cka+euclid"),
        ({"control": "self-training"}, True, "self-training"),
        ({"control": "frozen-aligner"}, True, "euclid-frozen-aligner"),
        ({"loss": "none"}, True, "soft-only"),
        ({"beta": 0.0}, True, "soft-only"),
        ({"alpha": 0.0}, True, "euclid"),
        ({"soft": "kl"}, True, "euclid-kl"),
        ({"soft": "kl", "loss": "none"}, True, "kl"),
        ({"soft": "kl", "beta": 0.0, "control": "shuffled-teacher"}, True, "kl-shuffled-teacher"),
        ({"soft": "kl", "control": "self-training"}, True, "self-training-kl"),
        ({"loss": "none", "alpha": 0.0}, False, "heads-only"),
        ({"loss": "none", "alpha": 0.0, "gamma": 0.0}, False, "undistilled"),
        ({"beta": 0.0, "alpha": 0.0, "gamma": 0.0}, False, "undistilled"),
    ],
)
def test_variants(options: dict[str, Any], uses_teacher: bool, variant: str) -> None:
    config = make_distill_config(shards=SHARDS, **options)
    assert config.method.uses_teacher is uses_teacher
    assert config.variant == variant


def test_the_default_student_is_the_one_that_packages_carry() -> None:
    assert DEFAULT_STUDENT == MINILM
