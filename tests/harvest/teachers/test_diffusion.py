"""The diffusion teacher where no picture is painted: options, prompts, and what is refused before anything is asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harvest.asking.pictures import find_picture, keep_pictures
from harvest.teachers.chunks import split_into_chunks
from harvest.teachers.diffusion import DiffusionConfig, DiffusionTeacher, DiffusionVector
from harvest.teachers.diffusion.painter import Painting
from harvest.teachers.painting.pipeline import watch_memory
from harvest.teachers.painting.prompts import build_prompt
from harvest.teachers.painting.teacher import classify_painting
from shared.errors import SourceError, TeacherError, UsageError
from shared.example import Example
from shared.schema import Status
from shared.tasks import TASKS


def count_letters(text: str) -> int:
    return len(text.replace(" ", ""))


def test_the_prompt_is_the_fields_in_lower_case() -> None:
    assert build_prompt(Example("1", "A  Film\nof note")) == "a film of note"
    assert build_prompt(Example("1", "It RAINS.", "It is wet.")) == "it rains. it is wet."


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("", [""]),
        ("ab cd ef", ["ab cd ef"]),
        ("abc def gh ijk", ["abc def", "gh ijk"]),
        ("abcdef g h", ["abcdef", "g h"]),
        ("a bcdefghij k", ["a bcde", "fghij k"]),
    ],
)
def test_a_long_prompt_is_split_between_words(text: str, chunks: list[str]) -> None:
    assert split_into_chunks(text, 6, count_letters) == chunks


def test_nothing_is_lost_of_a_long_prompt() -> None:
    text = " ".join("x" * (i % 11 + 1) for i in range(200))
    chunks = split_into_chunks(text, 9, count_letters)
    assert "".join(chunks).replace(" ", "") == text.replace(" ", "")
    assert max(map(count_letters, chunks)) <= 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch": 0}, "batch is 0; it must be at least 1"),
        ({"size": (500, 512)}, "--size 500x512: width and height must be multiples of 8"),
        ({"steps": 1}, "--vector armada paints over"),
        ({"vector": DiffusionVector.ENCODER}, "--vector encoder and --encoder NAME"),
        ({"encoder": "org/clip"}, "--vector encoder and --encoder NAME"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DiffusionConfig(**options)


@pytest.mark.parametrize(
    ("index", "channels", "message"),
    [
        ({"_class_name": "AudioLDMPipeline"}, 4, "is a AudioLDMPipeline; the pipelines that can be used here are"),
        ({"_class_name": "KandinskyV22Pipeline"}, 4, "prompts go through a prior"),
        ({"_class_name": "PixArtSigmaPipeline"}, 4, "--vector armada .*: give --vector latent"),
        ({"_class_name": "StableDiffusionPipeline"}, 9, "its unet takes 9 channels"),
        ({"_class_name": "WanPipeline"}, 4, "which makes clips: give --teacher video"),
        ({}, 4, "is no pipeline of diffusers"),
    ],
)
def test_another_kind_of_pipeline_is_refused_by_its_files(
    tmp_path: Path, index: dict[str, str], channels: int, message: str
) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet/config.json").write_text(json.dumps({"in_channels": channels}))
    with pytest.raises((SourceError, UsageError), match=message):
        DiffusionTeacher(DiffusionConfig(str(tmp_path)), TASKS["rte"], "diffusion").recipe()


def paint(value: float = 0.5, level: int = 99, flagged: bool = False) -> Painting:
    return Painting(np.full((4, 2, 2), value, np.float32), np.full((8, 8, 3), level, np.uint8), flagged)


@pytest.mark.parametrize(
    ("painting", "status", "reason"),
    [
        (paint(), Status.OK, None),
        (paint(flagged=True, level=0), Status.REFUSED, "safety_checker"),
        (paint(level=0), Status.UNPARSABLE, "black"),
        (paint(value=np.nan, level=0), Status.FAILED, None),
        (paint(value=1e9), Status.FAILED, None),  # no float16 holds it
    ],
)
def test_a_picture_that_shows_nothing_is_never_ok(painting: Painting, status: Status, reason: str | None) -> None:
    judged = classify_painting(painting, painting.latent.reshape(-1), "picture")
    assert judged[:2] == (status, reason)
    assert (judged[2] is None) == (status is Status.OK)


def test_too_little_memory_is_answered_with_what_to_lower() -> None:
    with (
        pytest.raises(TeacherError, match=r"--batch 4 or a smaller --size or --dtype float16.*is kept"),
        watch_memory(DiffusionConfig(batch=8), "picture", "float32"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with (
        pytest.raises(RuntimeError, match="shapes"),
        watch_memory(DiffusionConfig(), "picture", "float32"),
    ):
        raise RuntimeError("shapes do not fit")


def test_pictures_are_kept_by_hash(tmp_path: Path) -> None:
    keep_pictures(tmp_path, {"ab12": b"one", "cd34": b"two"})
    keep_pictures(tmp_path, {"ab12": b"one"})
    assert find_picture(tmp_path, "ab12").read_bytes() == b"one"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["ab12.png", "cd34.png"]
