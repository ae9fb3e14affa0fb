"""A student that writes: trained from shards to a folder that transformers opens, on each kind of task and term."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.config import make_distill_config
from distill.run import run_distillation
from shared.errors import UsageError
from shared.schema import Answer, Row, Status
from tests.distill.writing import make_choices, make_sums, make_writer, write_sums


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_writer(tmp_path_factory.mktemp("tiny") / "writer")


def train(shards: Path, writer: Path, out: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    template = out / "plain.yaml"
    template.write_text('prompt: "{{ text }}"\n')
    given = {"epochs": 2, "batch_size": 8, "student_lr": 1e-2, "device": "cpu", "template": str(template), **options}
    given.setdefault("precision", "float32")  # a CPU that has bfloat16 would take that
    return run_distillation(make_distill_config(shards=shards, student=str(writer), **given), out)


def test_a_student_learns_what_the_teacher_wrote_and_stops_where_it_stops(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(50))
    folder, metrics = train(shards, writer, tmp_path, epochs=12, learn=["reply", "topk=0.5"])
    assert folder.name == "sums-reply+topk-s0"
    assert metrics["test"] > 0.5
    assert metrics["agreement"] > 0.7
    assert metrics["student_steps"] == 12 * 7
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    assert model.generation_config.eos_token_id in (2, [2])
    assert tokenizer.chat_template
    replies = pl.read_parquet(folder / "replies" / "test.parquet")
    assert len(replies) == 20
    assert replies["ended"].all()
    assert all(" " not in reply for reply in replies["reply"])
    scores = pl.read_parquet(folder / "row_scores.parquet")
    own = scores.filter(pl.col("split") == "test")["score"].to_list()
    assert sum(own) / len(own) == pytest.approx(metrics["test"])
    assert {"test", "test_nll", "test_agreement", "validation"} <= set(scores["split"])
    nll = [measure_nll(model, tokenizer, row) for row in make_sums(20, 2)]
    assert scores.filter(pl.col("split") == "test_nll")["score"].to_list() == pytest.approx(nll, abs=1e-5)
    assert metrics["nll"] == pytest.approx(sum(nll) / len(nll), abs=1e-5)
    log = [json.loads(line)["student"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[-1]["reply"] < log[0]["reply"]
    assert log[-1]["topk"] < log[0]["topk"]


def measure_reply(model: Any, tokenizer: Any, row: Row) -> tuple[float, float]:
    """The mean negative log-likelihood of a row's reply, its end token included, and the share of its likeliest tokens.

    From the logits of the whole text; the teacher's likeliest tokens are those of the reply.
    """
    ids = [*tokenizer(row.example.text)["input_ids"], *(row.answer.reply_ids or ())]
    replied = len(row.answer.reply_ids or ())
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(1)[-replied - 1 : -1]
    said = ids[-replied:]
    return -float(logprobs[range(replied), said].mean()), float(
        (logprobs.argmax(1) == torch.tensor(said)).float().mean()
    )


def measure_nll(model: Any, tokenizer: Any, row: Row) -> float:
    return measure_reply(model, tokenizer, row)[0]


def test_each_split_is_measured_where_the_teacher_said_the_references_of_both(writer: Path, tmp_path: Path) -> None:
    """Then replies and references are one, and measured once."""
    splits = {"validation": make_sums(20, 1), "test": make_sums(20, 2)}
    shards = write_sums(tmp_path, writer, make_sums(20), validation=splits["validation"])
    folder, _ = train(shards, writer, tmp_path, epochs=1, learn="reply", control="untrained", score_by="nll")
    scores = pl.read_parquet(folder / "row_scores.parquet")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(writer), AutoTokenizer.from_pretrained(writer)
    for split, rows in splits.items():
        wanted = [measure_reply(model, tokenizer, row) for row in rows]
        for name, values in zip(("nll", "agreement"), zip(*wanted, strict=True), strict=True):
            found = scores.filter(pl.col("split") == f"{split}_{name}")["score"].to_list()
            assert found == pytest.approx(list(values), abs=1e-5)


@pytest.mark.parametrize("options", [{"learn": ["reference"]}, {"undistilled": True}])
def test_undistilled_learns_the_reference(writer: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20))
    folder, metrics = train(shards, writer, tmp_path, epochs=1, **options)
    assert (metrics["variant"], metrics["role"]) == ("undistilled", "undistilled")
    assert json.loads((folder / "log.jsonl").read_text())["student"].keys() == {"total", "reference"}


def test_top_k_of_another_tokenizer_is_refused_by_name_and_the_text_is_not(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20))
    other = make_writer(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"zero"', '"nought"'))
    with pytest.raises(UsageError, match=r"are of the tokenizer tiny, and the student .*other has another"):
        train(shards, other, tmp_path, learn="topk")
    _, metrics = train(shards, other, tmp_path, epochs=1, learn="reply")
    assert metrics["same_tokenizer"] is False
    assert metrics["agreement"] is None


def test_top_k_of_an_unnamed_tokenizer_is_refused(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20), tokenizer=False)
    with pytest.raises(UsageError, match="do not say which tokenizer"):
        train(shards, writer, tmp_path, learn="topk")


def test_verified_replies_are_learnt_alone(writer: Path, tmp_path: Path) -> None:
    """Of four draws the first and the third are right."""
    shards = write_sums(tmp_path, writer, make_sums(6, draws=4))
    for pick, learnt in (("all", 12), ("first", 6), ("shortest", 6)):
        _, metrics = train(shards, writer, tmp_path, epochs=1, only="correct", pick=pick, learn="reply")
        assert metrics["replies"]["asked"] == 24
        assert metrics["replies"]["right"] == 12
        assert metrics["replies"]["learnt"] == learnt
        assert metrics["student_steps"] == 3


@pytest.mark.parametrize("score_by", ["task", "acc-norm", "nll"])
def test_choices_are_learnt_as_text_and_scored_by_likelihood(writer: Path, tmp_path: Path, score_by: str) -> None:
    shards = write_sums(tmp_path, writer, make_choices(make_sums(50)), choices=True)
    recipe = {"warmup": 0.0, "decay": "none", "weight_decay_on": "all", "eval_steps": None}
    options: dict[str, Any] = {"learn": "reference", "template": "lm-eval", "score_by": score_by, **recipe}
    _, metrics = train(shards, writer, tmp_path, epochs=12, **options)
    if score_by == "nll":
        assert metrics["metric"] == "minus_nll"
        assert metrics["test"] == pytest.approx(-metrics["nll"])
    else:
        assert metrics["metric"] == {"task": "accuracy", "acc-norm": "acc_norm"}[score_by]
        assert metrics["test"] > 0.6


def test_vectors_are_learnt_beside_the_reply(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(40, width=6))
    options: dict[str, Any] = {"learn": ["reply", "vectors=0.1"], "loss": ["elementwise"], "gamma": 1.0}
    folder, metrics = train(shards, writer, tmp_path, epochs=6, **options)
    assert metrics["variant"] == "reply+vectors"
    assert metrics["aligner_steps"] == 10 * 5
    assert metrics["first_phase"]["aligner_loss"] < 1
    log = [json.loads(line)["student"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[0].keys() == {"total", "reply", "vectors", "target", "soft", "match"}
    assert "heads" not in "".join(AutoModelForCausalLM.from_pretrained(folder / "student").state_dict())


def test_vectors_of_a_teacher_that_writes_nothing_are_learnt_beside_the_reference(writer: Path, tmp_path: Path) -> None:
    rows = make_sums(20, width=6)
    silent = [replace(row, answer=Answer(Status.OK, embedding=row.answer.embedding, attempts=1)) for row in rows]
    options: dict[str, Any] = {"learn": ["reference", "vectors"], "gamma": 1.0, "epochs": 1}
    folder, metrics = train(write_sums(tmp_path, writer, silent), writer, tmp_path, **options)
    assert (metrics["variant"], metrics["replies"]["learnt"]) == ("reference+vectors", 20)
    assert json.loads((folder / "log.jsonl").read_text())["student"].keys() >= {"reference", "vectors"}


def test_an_adapter_is_merged_into_a_whole_student(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20))
    folder, _ = train(shards, writer, tmp_path, epochs=1, lora_rank=4, student_layers=1, learn=["reply", "topk"])
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    assert model.config.num_hidden_layers == 1
    assert (folder / "adapter" / "adapter_config.json").exists()


def test_parts_of_a_batch_come_to_the_same_student(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(30))
    logs = []
    for micro_batch in (None, 3):
        folder, _ = train(
            shards, writer, tmp_path, learn=["reply", "reference", "topk", "tail"], micro_batch=micro_batch
        )
        logs.append([json.loads(line)["student"] for line in (folder / "log.jsonl").read_text().splitlines()])
    for whole, parts in zip(*logs, strict=True):
        assert parts == pytest.approx(whole, abs=1e-5)


def test_an_untrained_student_is_scored_as_it_was_loaded(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20))
    folder, metrics = train(shards, writer, tmp_path, epochs=3, learn=["topk", "tail"], control="untrained")
    assert (metrics["variant"], metrics["role"], metrics["student_steps"]) == ("topk+tail-untrained", "control", 0)
    before, after = (AutoModelForCausalLM.from_pretrained(each) for each in (writer, folder / "student"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(writer)
    nll = [measure_nll(before, tokenizer, row) for row in make_sums(20, 2)]
    assert metrics["nll"] == pytest.approx(sum(nll) / len(nll), abs=1e-5)


def test_no_aligner_is_trained_for_a_student_that_is_not(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20, width=6))
    options: dict[str, Any] = {"learn": ["reply", "vectors"], "gamma": 1.0, "control": "untrained"}
    _, metrics = train(shards, writer, tmp_path, **options)
    assert (metrics["aligner_steps"], metrics["first_phase"], metrics["student_steps"]) == (0, None, 0)


def test_a_shuffled_teacher_is_a_control(writer: Path, tmp_path: Path) -> None:
    shards = write_sums(tmp_path, writer, make_sums(20))
    _, metrics = train(shards, writer, tmp_path, epochs=1, learn="reply", control="shuffled-teacher")
    assert (metrics["variant"], metrics["role"]) == ("reply-shuffled-teacher", "control")
