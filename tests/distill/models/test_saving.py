"""A generative student as a folder: what transformers opens is what was trained, with its template and end tokens."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.models.saving import save_generator

IDS = [[5, 6, 7, 8, 9, 11], [12, 13, 14]]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft still asks under an old name
def test_a_saved_student_opens_as_a_full_folder(tiny_generator: Path, tmp_path: Path, lora: bool) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    model = AutoModelForCausalLM.from_pretrained(tiny_generator).eval()
    model.config.use_cache = False
    model.generation_config.temperature = 0.6  # not valid without sampling
    if lora:
        torch.manual_seed(1)
        options = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, target_modules="all-linear")
        model = get_peft_model(model, options).eval()
    with torch.inference_mode():
        trained = [model(input_ids=torch.tensor([row])).logits for row in IDS]
    drift = save_generator(model, tokenizer, tmp_path, IDS, ends=[7])

    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "student").eval()
    with torch.inference_mode():
        found = [opened(input_ids=torch.tensor([row])).logits for row in IDS]
    for ours, theirs in zip(trained, found, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-3 if lora else 0, rtol=0)
    again = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert again.chat_template == tokenizer.chat_template
    assert again.encode("The film") == tokenizer.encode("The film")
    assert opened.config.use_cache
    assert opened.dtype == torch.float32
    assert opened.generation_config.eos_token_id == [0, 7]
    if not lora:
        assert drift is None
        assert not (tmp_path / "adapter").exists()
        return
    assert drift is not None
    assert drift.tokens == 9
    assert drift.logit == pytest.approx(
        max(float((ours - theirs).abs().max()) for ours, theirs in zip(trained, found, strict=True)), abs=1e-5
    )
    assert 0 < drift.logit < 1e-3
    assert "no logit of 9 tokens moved by more than" in str(drift)
    assert not list((tmp_path / "student").glob("adapter*"))
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_generator), tmp_path / "adapter")
    with torch.inference_mode():
        logits = adapted.eval()(input_ids=torch.tensor(IDS[:1])).logits
    torch.testing.assert_close(logits, trained[0], atol=1e-5, rtol=0)
