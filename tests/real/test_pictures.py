"""A tiny random LLaVA that is shown the rows' own pictures: its vectors are those of the model itself for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from harvest.config import make_harvest_config
from harvest.job import run_harvest
from tests.real.tiny_llava import make_tiny_llava

pytestmark = pytest.mark.real

QUESTION, TEXT, WORDS = "Which?", "the same words", ("a", "b")


def test_the_vectors_are_those_of_the_model_for_the_rows_own_pictures(tmp_path: Path) -> None:
    model = make_tiny_llava(tmp_path / "llava")
    random = np.random.default_rng(1)
    for number, size in enumerate(((40, 30), (28, 90), (64, 64))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    images: list[list[str]] = [["0.png"], ["1.png"], ["2.png"], ["0.png", "1.png"], [], ["cut.png"]]
    rows = [{"id": str(n), "image": own, "text": TEXT, "label": WORDS[n % 2]} for n, own in enumerate(images)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    options: dict[str, Any] = {
        "teacher": "transformers",
        "model": str(model),
        "dtype": "float32",
        "device": "cpu",
        "name": "llava",
    }
    options |= {"vector": "last", "layer": 1}
    task = {"task": str(tmp_path / "rows.jsonl"), "id_column": "id", "question": QUESTION, "labels": list(WORDS)}
    config = make_harvest_config({**options, **task, "image_column": "image", "out": str(tmp_path / "out")})
    report = run_harvest(config)
    assert (report.asked, report.failed) == (6, 1)
    assert run_harvest(config).asked == 0
    kept = pl.read_parquet(tmp_path / "out/teacher=llava/split=*/*.parquet").sort("sample_id").to_dicts()
    assert [row["status"] for row in kept] == ["ok"] * 5 + ["failed"]
    assert "cut.png" in kept[5]["error"]
    assert [len(row["image_sha256"] or ()) for row in kept] == [1, 1, 1, 2, 0, 0]
    network, processor = LlavaForConditionalGeneration.from_pretrained(model), AutoProcessor.from_pretrained(model)
    for row, own in zip(kept, images[:5], strict=False):
        parts = [*({"type": "image"} for _ in own), {"type": "text", "text": f"{QUESTION}\n\n{TEXT}"}]
        prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        opened = [Image.open(tmp_path / name) for name in own] or None
        inputs = processor(images=opened, text=prompt, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            state = network(**inputs, output_hidden_states=True).hidden_states[1][0, -1]
        np.testing.assert_allclose(row["embedding"], state, rtol=2e-3, atol=2e-3)
    assert len({tuple(row["label_logprobs"]) for row in kept[:5]}) == 5  # the text is the same
