"""A run's card, its student as a folder for transformers alone, and the way to the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from typer.testing import CliRunner

from distill.cli import app
from distill.config import make_distill_config
from distill.models.pretrained import load_classifier
from distill.run import run_distillation
from distill.runs.export import export_run, push_run
from shared.errors import SourceError, UsageError
from shared.shards.manifest import hash_recipe, load_manifest
from shared.sources import resolve_model
from tests.distill.distill_rows import WriteFolder, make_rows
from tests.shared.loopback_hub import LoopbackHub
from tests.shared.loopback_hub import loopback_hub as loopback_hub

TEXTS = ["good film", "the plot and the actor so awful", "a"]


@pytest.fixture
def shards(write_folder: WriteFolder) -> Path:
    return write_folder({"train": [make_rows(48)], "validation": [make_rows(20, 1)], "test": [make_rows(20, 2)]})


def run(shards: Path, student: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    settings: dict[str, Any] = {"preset": "armada", "epochs": 1, "batch_size": 16, "student_lr": 2e-3, "device": "cpu"}
    settings |= options
    return run_distillation(
        make_distill_config(shards=shards, student=str(student), **settings), shards.parent / "runs"
    )


def read_card(folder: Path) -> tuple[Mapping[str, Any], str]:
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


@pytest.mark.parametrize("lora_rank", [None, 4])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_exported_it_gives_the_same_logits_through_transformers_alone(
    shards: Path, tiny_student: Path, tiny_causal: Path, tmp_path: Path, family: str, lora_rank: int | None
) -> None:
    folder, _ = run(shards, tiny_student if family == "bert" else tiny_causal, lora_rank=lora_rank, student_lr=2e-2)
    trained = load_classifier(resolve_model(str(folder / "student"))).eval()
    target = tmp_path / "out" / "model"
    export_run(folder, target)

    names = {path.name for path in target.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert not {name for name in names if "adapter" in name or name.endswith(".bin")}
    assert not [name for name in load_file(target / "model.safetensors") if "lora" in name]
    assert [path.name for path in target.parent.iterdir()] == ["model"], "nothing is left beside it"
    tokenizer = AutoTokenizer.from_pretrained(target)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    exported = AutoModelForSequenceClassification.from_pretrained(target).eval()
    torch.testing.assert_close(exported(**inputs).logits, trained(**inputs).logits, atol=1e-5, rtol=0)
    answers = pipeline("text-classification", model=str(target))(TEXTS)
    assert {answer["label"] for answer in answers} <= {"bad", "good"}
    header, text = read_card(target)
    assert header["library_name"] == "transformers"
    assert 'pipeline("text-classification", model="model")' in text


def test_the_card_has_the_runs_own_numbers(shards: Path, tiny_student: Path) -> None:
    folder, metrics = run(shards, tiny_student, loss="cosine")
    header, text = read_card(folder)
    assert "base_model" not in header, "a folder of this machine says nothing to others"
    (result,) = header["model-index"]
    scores = {r["dataset"]["split"]: r["metrics"][0]["value"] for r in result["results"]}
    assert scores == {"validation": pytest.approx(metrics["dev_best"]), "test": pytest.approx(metrics["test"])}
    assert f"| test | {metrics['test']:.4f} |" in text
    assert f"| validation, 20 rows, epoch 1 | {metrics['dev_best']:.4f} |" in text
    assert f"`{hash_recipe(load_manifest(shards / 'teacher=t'))}`" in text
    assert next(iter(metrics["manifest_sha256"].values())) in text
    assert "48 of 48 training rows" in text
    assert "Not run beside it: undistilled, heads-only, shuffled-teacher," in text
    assert "nothing here says that the teacher helped" in text
    assert str(shards.parent) not in text.replace("config", "")


def test_the_card_holds_the_runs_beside_it_against_it(shards: Path, tiny_student: Path, tmp_path: Path) -> None:
    _, alone = run(shards, tiny_student, loss="none", alpha=0.0, gamma=0.0)
    _, longer = run(shards, tiny_student, loss="none", alpha=0.0, gamma=0.0, epochs=2)
    folder, metrics = run(shards, tiny_student)
    _, text = read_card(folder)
    assert f"| undistilled | 1 | {alone['dev_best']:.4f} | {alone['test']:.4f} |" in text, (
        "not the mean with the longer"
    )
    assert f"| euclid | 1 | {metrics['dev_best']:.4f} | {metrics['test']:.4f} |" in text
    assert "Not run beside it: heads-only, shuffled-teacher," in text
    assert "may be that of regularisation" in text
    assert longer["student_steps"] == 2 * alone["student_steps"]

    run(shards, tiny_student, seed=1)
    _, shuffled = run(shards, tiny_student, control="shuffled-teacher")
    export_run(folder, tmp_path / "later")
    _, text = read_card(tmp_path / "later")
    assert f"| euclid-shuffled-teacher | 1 | {shuffled['dev_best']:.4f} |" in text, "what was run since is there, too"
    assert "| euclid | 2 |" in text
    assert "may be that of regularisation" not in text


def test_a_run_without_a_teacher_or_a_test_split_says_so(write_folder: WriteFolder, tiny_student: Path) -> None:
    shards = write_folder({"train": [make_rows(32)], "validation": [make_rows(20, 1)]})
    folder, _ = run(shards, tiny_student, loss="none", alpha=0.0, gamma=0.0)
    _, text = read_card(folder)
    assert "| test | not measured |" in text
    assert "There was none" in text


def test_export_refuses_what_it_cannot_do(shards: Path, tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    done = CliRunner().invoke(app, ["export", str(tmp_path / "none"), str(tmp_path / "new")])
    assert done.exit_code == 2
    assert "is not a finished run" in done.stderr
    done = CliRunner().invoke(app, ["export", str(shards), str(tmp_path / "new"), "--to", "trl", "--trust-remote-code"])
    assert done.exit_code == 2
    assert "--trust-remote-code is for the student" in done.stderr
    folder, _ = run(shards, tiny_student)
    done = CliRunner().invoke(app, ["export", str(folder), str(tmp_path / "full")])
    assert done.exit_code == 2
    assert "exists already and is not empty" in done.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's, of httpx
def test_push_to_a_hub(
    shards: Path, tiny_student: Path, loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, metrics = run(shards, tiny_student, lora_rank=2)
    done = CliRunner().invoke(app, ["push", str(folder), "mine"])
    assert done.exit_code == 0, done.output
    assert f"{loopback_hub.url}/me/mine, private: " in done.stderr
    repo = loopback_hub.repos["me/mine"]
    assert repo.private
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= repo.files.keys()
    card = ModelCard(repo.files["README.md"].decode())
    assert 'model="me/mine"' in card.text
    assert f"{metrics['dev_best']:.4f}" in card.text
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", loopback_hub.url)
        card.validate()
    assert loopback_hub.token not in done.output
    assert loopback_hub.token.encode() not in b"".join(repo.files.values())

    uploads = loopback_hub.uploads
    again = CliRunner().invoke(app, ["push", str(folder), "me/mine"])
    assert again.exit_code == 0, again.output
    assert (len(repo.commits), loopback_hub.uploads) == (2, uploads)
    repo.private = False
    public = CliRunner().invoke(app, ["push", str(folder), "me/mine"])
    assert public.exit_code == 2
    assert "is there already and public" in public.stderr

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = CliRunner().invoke(app, ["push", str(folder), "me/other"])
    assert refused.exit_code == 1
    assert "did not take me/other: the token in HF_TOKEN is none that it knows" in refused.stderr
    assert "401" in refused.stderr
    assert "hf_wrong" not in refused.output
    assert "me/other" not in loopback_hub.repos


def test_push_refuses_before_anything_is_sent(
    shards: Path, tmp_path: Path, loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match="not a finished run"):
        push_run(folder, "me/mine")
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"config": {"student": f"hf_{'a1' * 17}"}, "shards": "x"}))
    with pytest.raises(UsageError, match="student holds what is, or looks like, an API key"):
        push_run(folder, "me/mine")
    (folder / "metrics.json").write_text(json.dumps({"config": {}, "shards": "x"}))
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # a token that was kept on disk is not taken
    (tmp_path / "token").write_text(loopback_hub.token)
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        push_run(folder, "me/mine")
    with pytest.raises(UsageError, match="cannot be the name of a repository"):
        push_run(folder, "a/b/c")
    monkeypatch.setenv("HF_TOKEN", loopback_hub.token)
    with pytest.raises(SourceError, match="student"):  # a baseline's folder has none
        push_run(folder, "me/mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        push_run(folder, "me/mine")
    assert loopback_hub.asked == []
