"""Frozen layers: the same run as with the whole model, but for what they cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2Model

from distill.config import DistillConfig, make_distill_config
from distill.models.lower_layers import take_lower
from distill.run import Keep, run_distillation
from distill.runs.evaluate import evaluate_run
from shared.errors import SourceError, UsageError


def configure(shards: Path, student: Path, **options: Any) -> DistillConfig:
    defaults: dict[str, Any] = {
        "preset": "armada",
        "epochs": 2,
        "student_lr": 2e-3,
        "batch_size": 16,
        "frozen_layers": 1,
    }
    return make_distill_config(shards=shards, student=str(student), precision="float32", **{**defaults, **options})


@pytest.mark.parametrize("layers", [1, 2])
def test_frozen_layers_stay_and_the_saved_student_is_whole(toy: Path, tiny_student: Path, layers: int) -> None:
    folder, metrics = run_distillation(configure(toy, tiny_student, frozen_layers=layers), toy.parent / "runs")
    assert {path.name for path in folder.iterdir()} == {
        *(
            "metrics.json",
            "README.md",
            "row_scores.parquet",
            "predictions.npz",
            "student",
            "heads.safetensors",
            "aligner.safetensors",
            "log.jsonl",
            "run.log",
        )
    }
    before, after = load_file(tiny_student / "model.safetensors"), load_file(folder / "student" / "model.safetensors")
    for name, weight in before.items():
        frozen = name.startswith("embeddings") or any(name.startswith(f"encoder.layer.{i}.") for i in range(layers))
        assert torch.equal(weight, after[f"bert.{name}"]) == frozen, name
    with np.load(folder / "predictions.npz") as predictions:
        assert predictions["test"].shape == (30, 2)
    assert evaluate_run(folder, None, "test", "cpu", "float32")["score"] == pytest.approx(metrics["test"])


def test_kept_outputs_are_shared_and_change_nothing(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    config = configure(toy, tiny_student)
    scores = []
    for name in ("first", "second", "alone"):
        keep = Keep(student=False, frozen=None if name == "alone" else tmp_path / "kept")
        folder, metrics = run_distillation(config, tmp_path / "runs", name, keep=keep)
        assert not (folder / "student").exists()
        scores.append((metrics["dev_best"], metrics["test"]))
        with np.load(folder / "predictions.npz") as arrays:
            scores.append(arrays["test"].tobytes())
    assert scores[:2] == scores[2:4] == scores[4:]
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 1


def test_self_training_labels_with_a_frozen_student_too(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    _, metrics = run_distillation(configure(toy, tiny_student, control="self-training"), tmp_path / "runs")
    assert metrics["first_phase"]["student_steps"] == metrics["student_steps"]


def test_a_model_in_two_pieces_gives_the_same_logits(tiny_student: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_student).eval()
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 3, 0], [2, 8, 3, 0, 0]])}
    inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
    with torch.inference_mode():
        whole = model(**inputs).logits
        lower = take_lower(model, 1, "tiny")
        hidden = lower.compute(model, inputs)
        assert torch.allclose(model(inputs_embeds=hidden, attention_mask=inputs["attention_mask"]).logits, whole)
        lower.put_back(model)
        assert torch.equal(model(**inputs).logits, whole)


def test_what_cannot_be_frozen(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has 2 layers, and 3 of them were to be frozen"):
        run_distillation(configure(toy, tiny_student, frozen_layers=3), tmp_path / "runs")
    GPT2Model(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)).save_pretrained(tmp_path / "g")
    causal = AutoModelForSequenceClassification.from_pretrained(tmp_path / "g")
    with pytest.raises(SourceError, match="cannot have frozen layers"):
        take_lower(causal, 1, "gpt2")
    with pytest.raises(UsageError, match="frozen_layers is 0"):
        configure(toy, tiny_student, frozen_layers=0)
    with pytest.raises(UsageError, match="neither lora_rank"):
        configure(toy, tiny_student, lora_rank=2)
