"""Students that cannot be trained are refused by name, and what was trained is not lost where it cannot be written."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BartConfig, BertConfig, RobertaConfig
from typer.testing import CliRunner

from distill.cli import app
from distill.config import make_distill_config
from distill.methods import armada, students
from distill.run import run_distillation
from distill.runs.card import make_card
from distill.training.loop import Training
from shared.errors import DiskError, SourceError
from shared.signals import catch_signals, interrupt
from tests.shared.full_disk import limit_file_size


def train(shards: Path, student: Path, out: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    config = make_distill_config(shards=shards, student=str(student), epochs=1, batch_size=16, **options)
    return run_distillation(config, out)


def copy_student(student: Path, target: Path, **changes: Any) -> Path:
    """A copy of a student whose config says something else."""
    shutil.copytree(student, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def resize_student(student: Path, target: Path, **changes: Any) -> Path:
    """A student of other sizes, with the tokenizer of `student`."""
    config = BertConfig.from_pretrained(student, **changes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(target)
    AutoTokenizer.from_pretrained(student).save_pretrained(target)
    return target


def test_a_student_of_fewer_embeddings_than_tokens_is_refused(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    student = resize_student(tiny_student, tmp_path / "student", vocab_size=7)
    with pytest.raises(SourceError, match="embeddings of 7 tokens, and its tokenizer has"):
        train(toy, student, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_texts_are_cut_to_the_positions_that_a_student_has(
    toy: Path, tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy, resize_student(tiny_student, tmp_path / "student", max_position_embeddings=4), tmp_path / "runs")
    assert "training texts were cut to 4 tokens" in capsys.readouterr().err


def test_positions_that_the_config_does_not_tell_are_counted(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    """RoBERTa's first position is behind its padding token."""
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=1000, max_position_embeddings=40, pad_token_id=1, **sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "student")
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(tmp_path / "student")
    with pytest.raises(SourceError, match="has 38 positions, and texts may have 40 tokens: give --max-length 38"):
        train(toy, tmp_path / "student", tmp_path / "runs")


def test_an_encoder_decoder_is_refused(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_student, tmp_path / "student")
    BartConfig(d_model=8).save_pretrained(tmp_path / "student")
    with pytest.raises(SourceError, match=r"\(bart\) is an encoder-decoder, and is not trained here"):
        train(toy, tmp_path / "student", tmp_path / "runs")


def test_code_that_comes_with_a_student_runs_only_where_it_is_trusted(
    toy: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked at the terminal"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = {"AutoConfig": "theirs.Theirs", "AutoModelForSequenceClassification": "theirs.Model"}
    student = copy_student(tiny_student, tmp_path / "student", auto_map=code, model_type="theirs")
    (student / "theirs.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nraise ValueError('theirs ran')\n"
    )
    with pytest.raises(SourceError, match=r"Python code of its own.*give --trust-remote-code"):
        train(toy, student, tmp_path / "runs")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SourceError, match="theirs ran"):
        train(toy, student, tmp_path / "runs", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


THEIRS = """
from transformers import BertConfig, BertForSequenceClassification

class Theirs(BertConfig):
    model_type = "theirs"

class Model(BertForSequenceClassification):
    config_class = Theirs
"""


def test_an_adapter_of_a_student_with_code_is_opened_only_where_that_is_trusted(
    toy: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run's own folder says: it may be somebody else's."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = {"AutoConfig": "own.Theirs", "AutoModelForSequenceClassification": "own.Model"}
    student = copy_student(tiny_student, tmp_path / "coded", auto_map=code, model_type="theirs")
    (student / "own.py").write_text(THEIRS)
    options: dict[str, Any] = {"lora_rank": 2, "lora_targets": "all-linear", "trust_remote_code": True}
    folder, metrics = train(toy, student, tmp_path / "runs", **options)
    assert metrics["config"]["trust_remote_code"]
    for arguments in (["eval", str(folder), "--json"], ["export", str(folder), str(tmp_path / "out")]):
        refused = CliRunner().invoke(app, arguments)
        assert refused.exit_code == 1
        assert "Python code of its own" in refused.stderr
        assert "--trust-remote-code" in refused.stderr
        trusted = CliRunner().invoke(app, [*arguments, "--trust-remote-code"])
        assert trusted.exit_code == 0, trusted.stderr
        if "--json" in arguments:
            assert json.loads(trusted.stdout)["score"] == pytest.approx(metrics["dev_best"])


def fill_disk(save: Callable[..., None], *arguments: Any) -> None:
    """Save where the disk is full after the first 4,000 bytes of a file."""
    with limit_file_size(4000):
        save(*arguments)


def send_signals(*_arguments: Any) -> None:
    """As a terminal that is closed does: the kernel sends SIGHUP, and the shell another one."""
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)


def fail_to_read(*_: Any) -> None:
    raise OSError(5, "Input/output error")


def test_what_ends_a_run_behind_its_last_step_loses_no_training(
    toy: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = train(toy, tiny_student, tmp_path / "whole")
    faults: list[tuple[Any, str, Callable[..., None], type[BaseException], str]] = [
        (
            students,
            "save_student",
            fill_disk,
            DiskError,
            "was trained and cannot be written .*large.*in its checkpoint",
        ),
        (students, "save_student", send_signals, KeyboardInterrupt, "SIGHUP"),
        (armada, "predict", fail_to_read, OSError, "Input/output error"),
    ]
    for place, (owner, step, fault, kind, said) in enumerate(faults):
        out = tmp_path / str(place)
        with monkeypatch.context() as faulty:
            faulty.setattr(owner, step, partial(fault, getattr(owner, step)))
            with pytest.raises(kind, match=said), catch_signals(interrupt, [signal.SIGHUP]):
                train(toy, tiny_student, out)
        (work,) = out.iterdir()
        if kind is DiskError:
            assert {path.name for path in work.iterdir()} == {"checkpoint.pt", "run.log"}, (
                "what was half written gave its room back"
            )
        with monkeypatch.context() as watched:
            watched.setattr(Training, "_train_epoch", lambda *_: pytest.fail("it trained again"))
            folder, metrics = train(toy, tiny_student, out)
        assert {name: metrics[name] for name in ("dev_best", "test")} == {n: whole[n] for n in ("dev_best", "test")}
        student = AutoModelForSequenceClassification.from_pretrained(folder / "student")
        assert torch.is_tensor(student.classifier.weight)


def test_a_disk_too_full_for_a_checkpoint_is_not_said_to_keep_one(
    toy: Path, tiny_student: Path, tmp_path: Path
) -> None:
    with limit_file_size(4000), pytest.raises(DiskError, match="no checkpoint could be kept either"):
        train(toy, tiny_student, tmp_path / "runs", loss="none", alpha=0.0, gamma=0.0)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_card_holds_names_as_text_and_no_path(toy: Path, tiny_student: Path, tmp_path: Path) -> None:
    _, metrics = train(toy, tiny_student, tmp_path / "runs")
    hostile = {
        "task": "a: [b\n---\n# c",
        "labels": ["<script>alert(1)</script>", "x | y\n\n# z"],
        "teacher": "t` **b** \x1b[2J",
        "texts": "/home/somebody/secret/reviews.csv",
        "metric": "acc",
        "student": "/home/somebody/models/bert",
    }
    card = make_card("na|me: {x", {**metrics, **hostile}, [])
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["model-index"][0]["name"] == "na|me: {x"
    assert "<script>" not in text
    assert "\n# z" not in text
    assert "\x1b" not in card
    assert "somebody" not in card
