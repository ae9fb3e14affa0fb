"""Runs that train an adapter, from the shards to a scored student; and what their checkpoints hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.config import make_distill_config
from distill.data.tokens import TextEncoder
from distill.models.adapters import halve_frozen
from distill.models.pretrained import load_student, load_tokenizer
from distill.run import run_distillation
from distill.runs.evaluate import evaluate_run
from distill.runs.names import CHECKPOINT
from distill.training.checkpoint import Checkpoints
from shared.errors import UsageError
from shared.sources import resolve_model
from tests.distill.distill_rows import WriteFolder, make_rows


@pytest.fixture
def shards(write_folder: WriteFolder) -> Path:
    return write_folder({"train": [make_rows(64, pairs=True)], "validation": [make_rows(40, 1, pairs=True)]})


@pytest.fixture
def causal_checkpoint(tiny_causal: Path, tmp_path: Path) -> Path:
    """The tiny LLaMA with a head of its own for the next token, as most checkpoints of decoders are published."""
    folder = tmp_path / "causal"
    AutoModelForCausalLM.from_pretrained(tiny_causal).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_causal).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "control"),
    [
        ("bert", "self-training"),
        ("llama", "none"),
        pytest.param("llama", "frozen-aligner", marks=pytest.mark.real),
        pytest.param("causal checkpoint", "none", marks=pytest.mark.real),
    ],
)
def test_an_adapter_is_trained_kept_and_scored(
    shards: Path,
    tiny_student: Path,
    tiny_causal: Path,
    causal_checkpoint: Path,
    tmp_path: Path,
    family: str,
    control: Any,
) -> None:
    bases = {"bert": tiny_student, "llama": tiny_causal, "causal checkpoint": causal_checkpoint}
    config = make_distill_config(
        preset="armada",
        shards=shards,
        student=str(bases[family]),
        lora_rank=4,
        lora_targets="all-linear",
        control=control,
        loss="none",
        epochs=8,
        batch_size=8,
        student_lr=1e-2,
        device="cpu",
    )
    folder, metrics = run_distillation(config, tmp_path / "runs", "mine")
    assert metrics["dev_best"] > 0.7
    assert not list(folder.glob("student/model*"))
    kept = load_file(folder / "student/adapter_model.safetensors")
    assert any("lora_A" in name for name in kept)
    adapter = json.loads((folder / "student/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["task_type"]) == (4, 8, "SEQ_CLS")
    assert adapter["base_model_name_or_path"] == config.student.model
    (architecture,) = json.loads((folder / "student/config.json").read_text())["architectures"]
    assert architecture.endswith("ForSequenceClassification"), "and not the base's"
    again = evaluate_run(folder, None, "validation", "cpu", "float32")
    assert again["score"] == pytest.approx(metrics["dev_best"])


def test_interrupted_it_goes_on_to_the_same_adapter(
    shards: Path, tiny_causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_distill_config(
        preset="armada",
        shards=shards,
        student=str(tiny_causal),
        lora_rank=2,
        epochs=3,
        batch_size=16,
        control="frozen-aligner",
        gradient_checkpointing=True,
        device="cpu",
    )
    run_distillation(config, tmp_path, "whole")
    is_due, steps = Checkpoints.is_due, 0

    def interrupt(self: Checkpoints, step: int) -> bool:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise KeyboardInterrupt
        return is_due(self, step)

    monkeypatch.setattr(Checkpoints, "is_due", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_distillation(config, tmp_path, "stopped", checkpoint_steps=2)
    assert (tmp_path / ".stopped.partial" / CHECKPOINT).exists()
    run_distillation(config, tmp_path, "stopped", checkpoint_steps=2)
    assert steps == 7 + 6, "the second went on from the sixth step of twelve"
    for name in ("student/adapter_model.safetensors", "heads.safetensors", "aligner.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


def test_a_checkpoint_of_an_adapter_holds_no_frozen_weight(
    shards: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[dict[str, Any]] = []
    monkeypatch.setattr(Checkpoints, "save", lambda _, state: saved.append(state))
    config = make_distill_config(
        preset="armada", shards=shards, student=str(tiny_student), lora_rank=2, epochs=2, device="cpu"
    )
    run_distillation(config, tmp_path / "runs", "mine", checkpoint_steps=1)
    state = saved[-1]
    encoder = [name for name in state["learners"]["student"] if ".encoder." in name]
    assert encoder
    assert all("lora_" in name for name in encoder)
    assert state["progress"]["best"]["weights"].keys() == {
        name.removeprefix("model.") for name in state["learners"]["student"] if name.startswith("model.")
    }


def test_targets_without_an_adapter_are_refused(shards: Path) -> None:
    with pytest.raises(UsageError, match="give lora_rank"):
        make_distill_config(shards=shards, lora_targets="all-linear")
    with pytest.raises(UsageError, match="lora_rank is 0"):
        make_distill_config(shards=shards, lora_rank=0)


def test_a_causal_tokenizer_pads_and_sets_a_pair_apart(tiny_causal: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resolve_model(str(tiny_causal)))
    assert tokenizer.pad_token == "</s>"
    tokens, _ = TextEncoder(tokenizer, 64).encode(["good film", "a plot"], ["bad", None])
    end = tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(tokens.ids.tolist()) == ["good", "film", "</s>", "bad", "a", "plot"]
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    again = load_tokenizer(resolve_model(str(tmp_path)))  # and not twice
    assert again("good film", "bad").input_ids == [*tokens.ids[:2], end, tokens.ids[3]]


def test_an_encoders_tokenizer_stays_as_it_is(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(resolve_model(str(tiny_student)))
    assert tokenizer("good", "bad").tokens() == ["[CLS]", "good", "[SEP]", "bad", "[SEP]"]


def test_dropout_leaves_no_layer_out(tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTModel

    from distill.models.pretrained import load_student

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_attention_heads": 1}
    OPTModel(OPTConfig(vocab_size=20, num_hidden_layers=1, **sizes)).save_pretrained(tmp_path)
    config = load_student(resolve_model(str(tmp_path)), 2, dropout=0.3).config
    assert (config.dropout, config.layerdrop) == (0.3, 0.0)


def test_frozen_weights_in_bfloat16_change_no_output_and_take_half_the_memory(tiny_causal: Path) -> None:
    torch.manual_seed(0)
    model = load_student(resolve_model(str(tiny_causal)), 2, ("no", "yes"), lora_rank=4, lora_targets="all-linear")
    model.eval()
    tokens = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    sizes, logits, gradients = [], [], []
    for halve in (False, True):
        if halve:
            halve_frozen(model, torch.bfloat16)
        sizes.append(sum(weight.nbytes for weight in model.parameters() if not weight.requires_grad))
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            found = model(**tokens).logits
        found.float().sum().backward()
        logits.append(found.detach())
        gradients.append([weight.grad for weight in model.parameters() if weight.requires_grad])
    assert torch.equal(*logits)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad)
    assert sizes[0] - sizes[1] == 2 * linear
