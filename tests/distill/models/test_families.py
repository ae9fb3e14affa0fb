"""Every family of students, as tiny random models: what the losses see, in full training and with LoRA."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from distill.compute.weights import read_trained, write_trained
from distill.models.adapters import unwrap
from distill.models.classifier import Student
from distill.models.pretrained import load_classifier, load_student
from shared.errors import SourceError
from shared.sources import resolve_model

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 16}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "mpnet": ("mpnet", {}),
    "deberta-v2": ("deberta-v2", {}),
    "deberta-v3": (
        "deberta-v2",
        {
            "relative_attention": True,
            "position_biased_input": False,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
    ),
    "modernbert": (
        "modernbert",
        {"local_attention": 4, "cls_token_id": 1, "sep_token_id": 2, "classifier_dropout": 0.1},
    ),
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "opt-350m": ("opt", {"word_embed_proj_dim": 16, "ffn_dim": 48, "do_layer_norm_before": False}),
    "llama": ("llama", GROUPED),
    "smollm2": ("llama", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", GROUPED),
}
FAMILIES = {**ENCODERS, **CAUSAL}

# Three texts of 6, 3 and 1 tokens.
IDS = [[5, 6, 7, 8, 9, 11], [12, 13, 14], [15]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A random encoder of each family, saved as transformers saves one: without a head."""
    made = {}
    for name, (architecture, options) in FAMILIES.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **{**SIZES, **options})
        made[name] = tmp_path_factory.mktemp("families") / name
        AutoModel.from_config(config).save_pretrained(made[name])
    return made


def make(folder: Path, lora: bool = False, **options: Any) -> Student:
    torch.manual_seed(1)
    adapter: dict[str, Any] = {"lora_rank": 2, "lora_targets": "all-linear"} if lora else {}
    model = load_student(resolve_model(str(folder)), 3, ("a", "b", "c"), **adapter, **options)
    student = Student(model, "code", 12).eval()
    if lora:  # an update starts at zero, and a test of zeros would show nothing
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.2)
    return student


def pad(side: str = "right", width: int = 6) -> dict[str, Tensor]:
    ids, mask = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.int64)
    for row, tokens in enumerate(IDS):
        where = slice(0, len(tokens)) if side == "right" else slice(width - len(tokens), width)
        ids[row, where], mask[row, where] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask}


def watch_features(student: Student) -> list[Tensor]:
    """What enters P_s: h'_s."""
    kept: list[Tensor] = []
    student.projection.register_forward_pre_hook(lambda _, args: kept.append(args[0].detach()))
    return kept


def find_head(student: Student) -> nn.Linear:
    return [m for m in unwrap(student.model).modules() if isinstance(m, nn.Linear) and m.out_features == 3][-1]


def train_once(student: Student) -> dict[str, Tensor]:
    """One step on all of the student's outputs; the gradients."""
    student.train()
    torch.manual_seed(2)
    out = student(pad())
    (out.main.square().sum() + out.projected.square().sum() + out.auxiliary.square().sum()).backward()
    gradients = {name: w.grad.clone() for name, w in student.named_parameters() if w.grad is not None}
    torch.optim.SGD([w for w in student.parameters() if w.requires_grad], lr=0.1).step()
    student.zero_grad()
    student.eval()
    return gradients


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_losses_see_what_enters_the_head(folders: Mapping[str, Path], family: str, lora: bool) -> None:
    student = make(folders[family], lora)
    kept = watch_features(student)
    out = student(pad())
    (features,) = kept
    torch.testing.assert_close(find_head(student)(features), out.main, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.main, student.model(**pad()).logits)

    if family in CAUSAL:
        return
    # In training, too: what enters the last dropout, and not what leaves it for the head.
    ran: list[tuple[Tensor, Tensor]] = []
    for module in student.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
            module.register_forward_hook(lambda _, args, output: ran.append((args[0], output)))
    noisy = student.train()(pad())
    assert torch.equal(kept[-1], ran[-1][0])
    torch.testing.assert_close(noisy.main, find_head(student)(ran[-1][1]))
    assert not torch.equal(*ran[-1])


@pytest.mark.parametrize("family", CAUSAL)
def test_padding_on_either_side_does_not_count(folders: Mapping[str, Path], family: str) -> None:
    student = make(folders[family])
    kept = watch_features(student)
    out = student(pad("right"))
    for inputs in (pad("left"), pad("right", 11), pad("left", 11)):
        other = student(inputs)
        torch.testing.assert_close(other.main, out.main, atol=1e-5, rtol=0)
        torch.testing.assert_close(kept[-1], kept[0], atol=1e-5, rtol=0)
    for row, tokens in enumerate(IDS):  # and each text alone, where there is none
        alone = student({"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens)).long()})
        torch.testing.assert_close(alone.main[0], out.main[row], atol=1e-5, rtol=0)
    hidden = unwrap(student.model).model(**pad("right")).last_hidden_state
    torch.testing.assert_close(kept[0], torch.stack([hidden[0, 5], hidden[1, 2], hidden[2, 0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_in_full_it_is_transformers_own(folders: Mapping[str, Path], family: str, tmp_path: Path) -> None:
    student = make(folders[family])
    train_once(student)
    student.model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**pad()).logits, student(pad()).main, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own, when it loads
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_trains_alone_and_peft_loads_it(folders: Mapping[str, Path], family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    from distill.models.pretrained import save_student

    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None: ...

    student = make(folders[family], lora=True)
    before = {name: weight.clone() for name, weight in student.model.state_dict().items()}
    train_once(student)
    changed = {name for name, w in student.model.state_dict().items() if not torch.equal(w, before[name])}
    kept = set(read_trained(student.model))
    assert changed == {name for name in kept if not name.endswith("position_ids")}
    assert any("lora_A" in name for name in kept)
    assert any("lora_B" in name for name in kept)
    assert all("lora_" in name or "modules_to_save" in name for name in changed)

    save_student(tmp_path, student.model, Tokenizer())
    expected = student(pad()).main
    config = AutoConfig.from_pretrained(tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(folders[family], config=config)
    torch.testing.assert_close(
        PeftModel.from_pretrained(base, tmp_path).eval()(**pad()).logits, expected, atol=1e-6, rtol=0
    )
    loaded = load_classifier(resolve_model(str(tmp_path))).eval()
    torch.testing.assert_close(loaded(**pad()).logits, expected, atol=1e-6, rtol=0)
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"mpnet"}))
def test_checkpointed_gradients_are_the_same(folders: Mapping[str, Path], family: str, lora: bool) -> None:
    plain, checkpointed = make(folders[family], lora), make(folders[family], lora, gradient_checkpointing=True)
    passes: Counter[Student] = Counter()
    for student in (plain, checkpointed):
        attention = next(m for m in student.model.modules() if "Attention" in type(m).__name__)
        attention.register_forward_hook(lambda *_, student=student: passes.update([student]))
    expected, got = train_once(plain), train_once(checkpointed)
    assert passes == {plain: 1, checkpointed: 2}
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_layers_of_every_family(folders: Mapping[str, Path], family: str) -> None:
    student, full = make(folders[family], layers=1), make(folders[family])
    weights, all_weights = student.model.state_dict(), full.model.state_dict()
    assert weights.keys() < all_weights.keys()
    first = [name for name in weights if ".0." in name and "classifier" not in name]
    assert first
    assert all(torch.equal(weights[name], all_weights[name]) for name in first)
    assert torch.isfinite(student(pad()).main).all()


@pytest.mark.parametrize("family", ["bert", "deberta-v3", "opt", "qwen3"])
def test_the_layers_that_peft_knows(folders: Mapping[str, Path], family: str) -> None:
    model = load_student(resolve_model(str(folders[family])), 2, lora_rank=2)
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_" in name}
    assert {name[0] for name in adapted} == {"q", "v"}
    assert len(adapted) == 2


def test_an_architecture_that_peft_does_not_know_is_named(folders: Mapping[str, Path]) -> None:
    with pytest.raises(SourceError, match=r"peft cannot adapt the student .*modernbert.*all-linear"):
        load_student(resolve_model(str(folders["modernbert"])), 2, lora_rank=2)


def test_a_student_that_cannot_recompute_is_named(folders: Mapping[str, Path]) -> None:
    with pytest.raises(SourceError, match=r"mpnet has no gradient checkpointing"):
        make(folders["mpnet"], gradient_checkpointing=True)


def test_the_weights_of_another_model_are_refused(folders: Mapping[str, Path]) -> None:
    adapter, full = make(folders["bert"], lora=True).model, make(folders["bert"]).model
    write_trained(adapter, read_trained(adapter))
    write_trained(full, full.state_dict())
    for model, weights in ((adapter, read_trained(full)), (full, read_trained(adapter))):
        with pytest.raises(RuntimeError, match="another model"):
            write_trained(model, weights)
