from datetime import date
from typing import Any

import pytest

from harvest.chat.prompts import Draw
from harvest.teachers.local_config import HiddenPosition
from harvest.teachers.vllm import VllmConfig
from harvest.teachers.vllm.config import parse_engine
from shared.errors import UsageError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": ""}, "--model"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"patience": -1.0}, "patience is -1.0; it must be more than 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_logprobs": 5}, "--keep-topk"),
        ({"score_given": "reference"}, "--score-given shows the row as text, and no picture: give --draw none"),
        ({"template": "alpaca"}, "--template shows the row as text, and no picture: give --draw none"),
        ({"score_given": "", "draw": Draw.NONE}, "--score-given is empty"),
        ({"score_given": "text", "draw": Draw.NONE, "keep_topk": True}, "--keep-topk is of no use with --score-given"),
        ({"score_given": "text", "draw": Draw.NONE, "max_tokens": 4}, "--max-tokens is of no use with --score-given"),
        ({"score_end": False}, "--no-score-end is of use with --score-given only"),
        ({"vector": HiddenPosition.LAST, "keep_topk": True}, "--vector gives no reply"),
        ({"vector": HiddenPosition.MEAN, "max_tokens": 5}, "--vector gives no reply"),
        ({"engine": {"runner": "pooling"}}, "--engine runner is not taken: use --vector"),
        ({"engine": {"seed": date(2026, 1, 1)}}, "--engine cannot be written as JSON"),
        ({"engine": {"revision": "main"}}, "--model NAME@REVISION"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        VllmConfig(**{"model": "org/model", **options})


def test_only_what_changes_answers_is_in_the_recipe() -> None:
    engine = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.8, "dtype": "bfloat16", "quantization": "fp8"}
    assert VllmConfig("m", engine=engine).describe_engine() == {"dtype": "bfloat16", "quantization": "fp8"}


def test_pages_and_kept_tokens() -> None:
    assert VllmConfig("m", draw=Draw.NONE).layout is None
    layout = VllmConfig("m", size=(336, 400)).layout
    assert layout is not None
    assert (layout.width, layout.height) == (336, 400)
    assert [VllmConfig("m", keep_topk=True).topk, VllmConfig("m", keep_topk=True, top_logprobs=5).topk] == [20, 5]
    assert VllmConfig("m").topk is None
    assert VllmConfig("m", draw=Draw.NONE, score_given="reference").topk == 20


def test_engine_options_are_read_as_what_they_look_like() -> None:
    texts = ["tensor-parallel-size=2", "enforce_eager=true", "dtype=float32", "limit_mm_per_prompt={image: 2}"]
    assert parse_engine(texts) == {
        "tensor_parallel_size": 2,
        "enforce_eager": True,
        "dtype": "float32",
        "limit_mm_per_prompt": {"image": 2},
    }
    with pytest.raises(ValueError, match="give NAME=VALUE: tensor_parallel_size=2"):
        parse_engine(["eager"])
