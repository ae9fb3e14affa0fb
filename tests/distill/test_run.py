"""Whole runs of a tiny student, on shard folders as the project writes them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distill.config import DistillConfig, make_distill_config
from distill.controls import CONTROLS
from distill.models.aligner import Aligner
from distill.models.classifier import Student
from distill.run import run_distillation
from distill.runs.evaluate import evaluate_run
from distill.training.loop import Training
from distill.training.step import derive_seed
from shared.errors import CorruptShardError, DataError, SchemaVersionError, ShardError, UsageError
from shared.schema import Row, Status
from tests.distill.distill_rows import WIDTH, WriteFolder, make_rows, with_answer, without_label


def configure(shards: Path, student: Path, **options: Any) -> DistillConfig:
    defaults: dict[str, Any] = {"preset": "armada", "epochs": 2, "student_lr": 2e-3, "batch_size": 16}
    return make_distill_config(shards=shards, student=str(student), **{**defaults, **options})


def run(shards: Path, student: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    return run_distillation(configure(shards, student, **options), shards.parent / "runs")


def test_mixed_batches_in_half_precision_go_the_whole_way(toy: Path, tiny_student: Path) -> None:
    options: dict[str, Any] = {"schedule": "interleaved", "warmup": 0.5, "buffer_bytes": 8000, "precision": "bfloat16"}
    folder, metrics = run(toy, tiny_student, labels=20, labelled_per_batch=6, epochs=3, **options)
    assert options.items() <= metrics["config"].items()
    assert metrics["rows"] == {"train": 96, "answered": 96, "labelled": 20, "dev": 40}
    assert metrics["student_steps"] == metrics["aligner_steps"] == 3 * 6
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    assert all(np.isfinite(list(entry["student"].values())).all() for entry in log)
    assert {weight.dtype for weight in weights(folder).values()} == {torch.float32}
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_the_run_folder(toy: Path, tiny_student: Path) -> None:
    folder, metrics = run(toy, tiny_student, loss="cosine", seed=3)
    assert folder == toy.parent / "runs" / "toy-cosine-s3"
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json",
        "README.md",
        "row_scores.parquet",
        "predictions.npz",
        "student",
        "heads.safetensors",
        "aligner.safetensors",
        "log.jsonl",
        "run.log",
    }
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing else is left beside it"
    wanted = {"task": "toy", "teacher": "t", "loss": "cosine", "semantics": "paper", "seed": 3, "metric": "accuracy"}
    assert wanted.items() <= metrics.items()
    assert metrics["student"] == str(tiny_student)
    assert metrics["rows"] == {"train": 96, "answered": 96, "labelled": 96, "dev": 40}
    assert len(next(iter(metrics["manifest_sha256"].values()))) == 64
    assert metrics["aligner_steps"] == metrics["student_steps"] == 12
    assert metrics["examples_per_second"] > 0
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert {"total", "task", "soft", "match"} == set(log[0]["student"])
    assert max(entry["dev"] for entry in log) == metrics["dev_best"]
    assert log[-1]["dev"] == metrics["dev_last"]

    aligner = Aligner(torch.zeros(WIDTH), torch.ones(WIDTH), 2, "paper")
    aligner.load_state_dict(load_file(folder / "aligner.safetensors"))
    student = Student(AutoModelForSequenceClassification.from_pretrained(folder / "student"), "paper", WIDTH)
    missing, unexpected = student.load_state_dict(load_file(folder / "heads.safetensors"), strict=False)
    assert not unexpected
    assert all(name.startswith("model.") for name in missing)


def test_the_saved_student_is_the_best_one_and_transformers_serves_it(toy: Path, tiny_student: Path) -> None:
    folder, metrics = run(toy, tiny_student, epochs=3)
    rows = make_rows(40, 1)
    texts = [row.example.text for row in rows]
    classify: Any = pipeline("text-classification", model=str(folder / "student"), top_k=None, function_to_apply="none")
    answers = classify(texts)
    logits = np.array(
        [[{a["label"]: a["score"] for a in answer}[name] for name in ("bad", "good")] for answer in answers]
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder / "student").eval()
    inputs = AutoTokenizer.from_pretrained(folder / "student")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(**inputs).logits.numpy(), atol=1e-5)
    accuracy = float(np.mean(logits.argmax(axis=1) == [row.example.label for row in rows]))
    assert accuracy == pytest.approx(metrics["dev_best"])
    assert evaluate_run(folder, None, "validation", "cpu", "auto")["score"] == metrics["dev_best"]
    test = evaluate_run(folder, None, "test", "cpu", "auto")
    assert (test["score"], test["rows"]) == (metrics["test"], 30)


@pytest.mark.parametrize(
    ("classes", "validation", "origin", "options"),
    [
        (3, 56, "train", {"labels": ("a", "b", "c"), "metric": "f1"}),
        (2, 120, "validation", {"kind": "regression", "labels": (), "metric": "pearson", "target_range": (0.0, 5.0)}),
    ],
    ids=["like CB", "like STS-B"],
)
def test_a_task_that_hides_its_test_labels_is_scored_on_rows_that_choose_nothing(
    write_folder: WriteFolder, tiny_student: Path, classes: int, validation: int, origin: str, options: dict[str, Any]
) -> None:
    made: dict[str, Any] = {"classes": classes, "regression": classes == 2}
    hidden = [without_label(row) for row in make_rows(30, 2, **made)]
    rows = {"train": [make_rows(150, **made)], "validation": [make_rows(validation, 1, **made)], "test": [hidden]}
    folder, metrics = run(write_folder(rows, **options), tiny_student, epochs=1)
    assert (metrics["test_from"], metrics["dev_from"]) == (origin, "validation")
    assert metrics["rows"]["answered"] < 150 if origin == "train" else metrics["rows"]["dev"] < validation
    scores = read_scores(folder)
    assert np.mean(scores["test"][1]) == pytest.approx(metrics["test"])
    assert np.mean(scores["validation"][1]) == pytest.approx(metrics["dev_best"])
    for split, score in (("test", metrics["test"]), ("validation", metrics["dev_best"])):
        assert evaluate_run(folder, None, split, "cpu", "auto")["score"] == pytest.approx(score, abs=1e-4)
    with np.load(folder / "predictions.npz") as said:
        assert len(said["test"]) == len(scores["test"][0])
        assert classes == 3 or (said["test"].min() >= 0 and said["test"].max() <= 5)
    assert f"| held out from {origin} |" in (folder / "README.md").read_text()


def read_scores(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The rows' numbers and their scores, by split."""
    table = pq.read_table(folder / "row_scores.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("split", "string"),
        ("row", "int64"),
        ("score", "double"),
    ]
    scores: dict[str, tuple[list[int], list[float]]] = {}
    for line in table.to_pylist():
        numbers, values = scores.setdefault(line["split"], ([], []))
        numbers.append(line["row"])
        values.append(line["score"])
    return scores


def test_each_scored_row_has_its_score_by_its_number(write_folder: WriteFolder, tiny_student: Path) -> None:
    dev = [row if i % 3 else without_label(row) for i, row in enumerate(make_rows(30, 1))]
    test = make_rows(30, 2)
    folder = write_folder({"train": [make_rows(48)], "validation": [dev[:11], dev[11:]], "test": [test]})
    out, metrics = run(folder, tiny_student)
    scores = read_scores(out)
    assert list(scores) == ["validation", "test", "test_aligner"]
    assert scores["validation"][0] == [i for i in range(30) if i % 3]
    assert scores["test"][0] == scores["test_aligner"][0] == list(range(30))
    assert np.mean(scores["validation"][1]) == pytest.approx(metrics["dev_best"])
    assert np.mean(scores["test"][1]) == pytest.approx(metrics["test"])
    classify = pipeline("text-classification", model=str(out / "student"))
    said = [answer["label"] for answer in classify([row.example.text for row in test])]
    right = [float(("bad", "good")[row.example.label or 0] == label) for row, label in zip(test, said, strict=True)]
    assert scores["test"][1] == pytest.approx(right)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_repeats_bit_for_bit_and_a_seed_changes_it(toy: Path, tiny_student: Path) -> None:
    first, again, other = (run(toy, tiny_student, seed=seed, schedule="interleaved")[0] for seed in (0, 0, 1))
    assert (first.name, again.name, other.name) == ("toy-euclid-s0", "toy-euclid-s0-2", "toy-euclid-s1")
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_a_hidden_label_changes_nothing(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = make_rows(40)
    dev = [make_rows(10, 1)]
    shown = write_folder({"train": [rows], "validation": dev}, task="shown")
    first, metrics = run(shown, tiny_student, labels=8)
    assert metrics["rows"]["labelled"] == 8
    from distill.data.split import keep_labels, read_split
    from shared.shards.manifest import choose_teacher, load_manifest

    folder = choose_teacher(shown)
    kept = keep_labels(read_split(folder, load_manifest(folder), "train"), 8, 0)
    hidden = [row if keep else without_label(row) for row, keep in zip(rows, kept, strict=True)]
    second, metrics = run(write_folder({"train": [hidden], "validation": dev}, task="hidden"), tiny_student)
    assert metrics["rows"]["labelled"] == 8
    assert same(weights(first), weights(second))


TRAINED = [name for name, traits in CONTROLS.items() if traits.for_labels and traits.trains_student and name != "none"]


@pytest.mark.real
def test_every_control_trains_as_long_as_any_variant(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = [row if i % 4 == 0 else without_label(row) for i, row in enumerate(make_rows(80))]
    folder = write_folder({"train": [rows], "validation": [make_rows(10, 1)]})
    variants: dict[str, dict[str, Any]] = {
        "undistilled": {"loss": "none", "alpha": 0.0, "gamma": 0.0},
        "heads-only": {"loss": "none", "alpha": 0.0},
        "teacher": {},
        **{control: {"control": control} for control in TRAINED},
    }
    runs = {name: run(folder, tiny_student, aligner_lr=1e-3, **options) for name, options in variants.items()}
    assert {name: metrics["student_steps"] for name, (_, metrics) in runs.items()} == dict.fromkeys(variants, 10)
    terms = {
        name: set(json.loads((path / "log.jsonl").read_text().splitlines()[0])["student"])
        for name, (path, _) in runs.items()
    }
    soft_only = ("label-smoothing", "self-training", "pseudo-labels")
    assert all(terms[name] == {"total", "task", "soft"} for name in soft_only)
    assert all("match" in terms[name] for name in TRAINED if name not in soft_only)
    smoothing = runs["label-smoothing"][1]["first_phase"]
    assert smoothing["aligner_steps"] == 2 * 2, "as many passes over the 20 labels as the teacher's own run makes"
    assert 0 < smoothing["entropy"] <= np.log(2)
    assert 0 < smoothing["smoothing"] <= 1
    assert runs["self-training"][1]["first_phase"]["student_steps"] == 10
    assert runs["teacher"][1]["first_phase"] is None


def test_a_frozen_aligner_is_the_random_one_that_the_seed_makes(toy: Path, tiny_student: Path) -> None:
    states = [
        load_file(run(toy, tiny_student, control="frozen-aligner", epochs=epochs)[0] / "aligner.safetensors")
        for epochs in (1, 2)
    ]
    trained = load_file(run(toy, tiny_student, epochs=1)[0] / "aligner.safetensors")
    assert same(*states)
    assert not same(states[0], trained)
    torch.manual_seed(derive_seed(0, "aligner"))
    fresh = Aligner(states[0]["mean"], states[0]["std"], 2, "paper").state_dict()
    assert same({name: weight.detach() for name, weight in fresh.items()}, states[0])
    assert run(toy, tiny_student, control="frozen-aligner", epochs=1)[1]["aligner_steps"] == 0


def test_self_training_reads_no_teacher_and_all_texts(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = [row if i % 4 == 0 else without_label(row) for i, row in enumerate(make_rows(40))]
    dev = [make_rows(10, 1)]
    blind = [with_answer(row, embedding=None) for row in rows]
    other = [
        row if row.example.label is not None else replace(row, example=replace(row.example, text="a")) for row in rows
    ]
    a, b, c = (
        run(write_folder({"train": [train], "validation": dev}, task=task), tiny_student, control="self-training")[0]
        for task, train in (("a", rows), ("b", blind), ("c", other))
    )
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


def test_smoothing_needs_labels(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = {"train": [make_rows(16, regression=True)], "validation": [make_rows(8, 1, regression=True)]}
    folder = write_folder(rows, kind="regression", labels=(), metric="pearson")
    with pytest.raises(UsageError, match="toy is a regression: control label-smoothing needs labels"):
        run(folder, tiny_student, control="label-smoothing")


def test_cut_texts_are_counted(toy: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = sum(len(row.example.text.split()) > 4 for row in make_rows(96))
    folder, metrics = run(toy, tiny_student, max_length=6)
    assert metrics["truncated_texts"] == expected
    assert f"{expected} training texts were cut to 6 tokens" in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(folder / "student").model_max_length == 6


def test_undistilled_sees_labelled_rows_only_for_as_many_steps(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = [row if i % 4 == 0 else without_label(row) for i, row in enumerate(make_rows(80))]
    options: dict[str, Any] = {"loss": "none", "alpha": 0.0, "gamma": 0.0}
    dev = [make_rows(10, 1)]
    first, metrics = run(write_folder({"train": [rows], "validation": dev}, task="a"), tiny_student, **options)
    assert metrics["variant"] == "undistilled"
    assert metrics["student_steps"] == 10
    assert metrics["aligner_steps"] == 0
    assert not (first / "aligner.safetensors").exists()
    replaced = [
        row if row.example.label is not None else replace(row, example=replace(row.example, text="a")) for row in rows
    ]
    second, _ = run(write_folder({"train": [replaced], "validation": dev}, task="b"), tiny_student, **options)
    assert same(weights(first), weights(second))


def test_undistilled_needs_no_vectors(write_folder: WriteFolder, tiny_student: Path) -> None:
    folder = write_folder({"train": [make_rows(32, vectors=False)], "validation": [make_rows(10, 1)]})
    assert run(folder, tiny_student, loss="none", alpha=0.0)[1]["variant"] == "heads-only"
    with pytest.raises(DataError, match="neither an embedding nor label_logprobs"):
        run(folder, tiny_student)


def test_rows_without_a_whole_answer_are_left_out_and_counted(
    write_folder: WriteFolder, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(40)
    bad = [with_answer(row, status=Status.TRUNCATED) for row in rows[:7]]
    _, metrics = run(write_folder({"train": [[*bad, *rows[7:]]], "validation": [make_rows(10, 1)]}), tiny_student)
    assert metrics["rows"]["answered"] == 33
    assert "33 training rows, 33 with a label; 7 left out" in capsys.readouterr().err


def test_the_aligner_is_scored_where_the_teacher_answered_dev_rows(
    write_folder: WriteFolder, toy: Path, tiny_student: Path
) -> None:
    folder = write_folder({"train": [make_rows(64)], "validation": [make_rows(40, 1)]}, task="asked")
    assert run(folder, tiny_student)[1]["aligner_dev"] > 0.9
    assert run(toy, tiny_student)[1]["aligner_dev"] is None


def judge(rows: list[Row]) -> list[Row]:
    """A teacher of text alone: it is right, unsure, and spends a tenth on no label."""
    judged = []
    for i, row in enumerate(rows):
        p = 0.85 - 0.3 * (i % 5) / 5
        own = [0.9 - p, p] if row.example.label else [p, 0.9 - p]
        judged.append(with_answer(row, embedding=None, label_logprobs=np.log(own).tolist(), residual_mass=0.1))
    return judged


def test_log_probabilities_of_labels_are_the_vectors_where_there_are_no_others(
    write_folder: WriteFolder, tiny_student: Path
) -> None:
    folder = write_folder({"train": [judge(make_rows(32))], "validation": [make_rows(10, 1)]})
    out, metrics = run(folder, tiny_student)
    assert metrics["config"]["vectors"] == []
    # One a label, and one for what the teacher put on none.
    assert load_file(out / "aligner.safetensors")["mean"].shape == (3,)
    assert metrics["aligner_steps"] == 2 * 2


def test_the_teachers_own_distribution_needs_no_aligner(
    write_folder: WriteFolder, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = judge(make_rows(96))
    hidden = [row if i % 12 == 0 else without_label(row) for i, row in enumerate(rows)]
    folder = write_folder({"train": [hidden], "validation": [make_rows(40, 1)]})
    out, metrics = run(folder, tiny_student, soft="kl", loss="none", tau=2.0)
    assert metrics["variant"] == "kl"
    assert "the teacher put 10.0% on no label" in capsys.readouterr().err
    assert not (out / "aligner.safetensors").exists()
    terms = json.loads((out / "log.jsonl").read_text().splitlines()[0])["student"]
    assert set(terms) == {"total", "task", "soft"}


def test_every_control_of_the_teachers_own_distribution(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = judge(make_rows(48))
    folder = write_folder({"train": [rows], "validation": [make_rows(10, 1)]})
    controls = ["none", *(control for control in TRAINED if control != "frozen-aligner")]
    runs = {
        control: run(folder, tiny_student, soft="kl", loss="none", tau=2.0, control=control) for control in controls
    }
    assert {metrics["student_steps"] for _, metrics in runs.values()} == {6}
    assert runs["label-smoothing"][1]["first_phase"].keys() == {"entropy", "smoothing"}
    _, metrics = run(folder, tiny_student, soft="kl", loss="elementwise", control="frozen-aligner")
    assert metrics["variant"] == "elementwise-kl-frozen-aligner"
    assert metrics["aligner_steps"] == 0


def test_a_distribution_of_its_own_needs_labels(write_folder: WriteFolder, tiny_student: Path) -> None:
    rows = {"train": [make_rows(16, regression=True)], "validation": [make_rows(8, 1, regression=True)]}
    folder = write_folder(rows, kind="regression", labels=(), metric="pearson")
    with pytest.raises(UsageError, match="soft kl needs a distribution over labels"):
        run(folder, tiny_student, soft="kl")


@pytest.mark.parametrize("control", ["none", "shuffled-teacher", "random-vectors", "constant-target"])
def test_vectors_of_several_columns(write_folder: WriteFolder, tiny_student: Path, control: str) -> None:
    def ask(rows: list[Row]) -> list[Row]:
        words = {0: "awful film", 1: "great film"}
        return [
            with_answer(row, embedding=vector.answer.embedding, reply=words[row.example.label or 0])
            for row, vector in zip(judge(rows), rows, strict=True)
        ]

    folder = write_folder({"train": [ask(make_rows(30)), ask(make_rows(34, 3))], "validation": [ask(make_rows(20, 1))]})
    options: dict[str, Any] = {"vectors": ("embedding", "label_logprobs", "reply"), "control": control}
    out, metrics = run(folder, tiny_student, reply_encoder=str(tiny_student), semantics="code", **options)
    aligner = load_file(out / "aligner.safetensors")
    assert aligner["mean"].shape == (WIDTH + 3 + 32,)
    assert metrics["aligner_dev"] is not None
    if control == "none":
        assert metrics["aligner_dev"] > 0.9
    assert metrics["config"]["vectors"] == ["embedding", "label_logprobs", "reply"]


def test_only_training_rows_standardise_the_vectors(write_folder: WriteFolder, tiny_student: Path) -> None:
    train = make_rows(32)
    far = [with_answer(row, embedding=np.full(WIDTH, 1e3) + i) for i, row in enumerate(make_rows(16, 1))]
    kept = []
    for task, dev in (("a", make_rows(16, 1)), ("b", far)):
        folder = write_folder({"train": [train], "validation": [dev], "test": [dev]}, task=task)
        kept.append(load_file(run(folder, tiny_student, epochs=1)[0] / "aligner.safetensors"))
    assert same(*kept)


@pytest.mark.parametrize("semantics", ["paper", "code"])
def test_regression(write_folder: WriteFolder, tiny_student: Path, semantics: str) -> None:
    folder = write_folder(
        {
            "train": [make_rows(96, regression=True, pairs=True)],
            "validation": [make_rows(40, 1, regression=True, pairs=True)],
        },
        kind="regression",
        labels=(),
        metric="pearson",
        target_range=(0.0, 5.0),
    )
    out, metrics = run(folder, tiny_student, epochs=8, semantics=semantics)
    assert metrics["dev_best"] > 0.8
    config = AutoModelForSequenceClassification.from_pretrained(out / "student").config
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_several_classes(write_folder: WriteFolder, tiny_student: Path) -> None:
    folder = write_folder(
        {"train": [make_rows(64, classes=3)], "validation": [make_rows(20, 1, classes=3)]},
        labels=("a", "b", "c"),
        metric="matthews",
    )
    out, _ = run(folder, tiny_student)
    config = AutoModelForSequenceClassification.from_pretrained(out / "student").config
    assert config.id2label == {0: "a", 1: "b", 2: "c"}


# --- what is refused before training ---


def test_a_changed_shard_is_refused(toy: Path, tiny_student: Path) -> None:
    shard = next(toy.glob("teacher=t/split=train/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptShardError, match=shard.name):
        run(toy, tiny_student)


def test_a_missing_shard_is_refused(toy: Path, tiny_student: Path) -> None:
    shard = next(toy.glob("teacher=t/split=validation/*.parquet"))
    shard.unlink()
    with pytest.raises(CorruptShardError, match=shard.name):
        run(toy, tiny_student)


def test_a_truncated_journal_is_refused(write_folder: WriteFolder, tiny_student: Path) -> None:
    write_folder({"train": [make_rows(32)], "validation": [make_rows(8, 1)]})
    folder = write_folder({"train": [make_rows(5, 7)]}, seal=False)
    (journal,) = folder.glob("teacher=t/journal/split=train/*.arrows")
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - 3)
    with pytest.raises(CorruptShardError, match=journal.name):
        run(folder, tiny_student)


def test_a_manifest_of_a_newer_schema_is_refused(toy: Path, tiny_student: Path) -> None:
    manifest = toy / "teacher=t" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["schema_version"] += 1
    manifest.write_text(json.dumps(content))
    with pytest.raises(SchemaVersionError, match="newer"):
        run(toy, tiny_student)


def test_a_folder_without_dev_labels_is_refused(write_folder: WriteFolder, tiny_student: Path) -> None:
    with pytest.raises(ShardError, match="no sealed rows of the split 'validation'"):
        run(write_folder({"train": [make_rows(8)]}, task="a"), tiny_student)
    dev = [[without_label(row) for row in make_rows(8, 1)]]
    with pytest.raises(DataError, match="no labelled rows in the split 'validation'"):
        run(write_folder({"train": [make_rows(8)], "validation": dev}, task="b"), tiny_student)


def test_a_folder_without_training_labels_is_refused(write_folder: WriteFolder, tiny_student: Path) -> None:
    train = [[without_label(row) for row in make_rows(8)]]
    with pytest.raises(DataError, match="no row that has both a label and an answer"):
        run(write_folder({"train": train, "validation": [make_rows(8, 1)]}), tiny_student)


@pytest.mark.parametrize("options", [{}, {"aligner_pretraining": 1}, {"control": "self-training"}])
def test_a_mix_without_unlabelled_rows_is_refused_before_any_phase(
    toy: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(Training, "run", lambda _: pytest.fail("training started"))
    with pytest.raises(UsageError, match="every row has a label"):
        run(toy, tiny_student, labelled_per_batch=4, **options)


def test_unsealed_rows_are_counted(
    write_folder: WriteFolder, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder({"train": [make_rows(32)], "validation": [make_rows(8, 1)]})
    folder = write_folder({"train": [make_rows(5, 7)]}, seal=False)
    _, metrics = run(folder, tiny_student)
    assert metrics["rows"]["train"] == 32
    assert "5 rows are not sealed yet" in capsys.readouterr().err


def test_a_loss_that_runs_away_stops_the_run_and_leaves_nothing(toy: Path, tiny_student: Path) -> None:
    from shared.errors import Error

    with pytest.raises(Error, match=r"not finite any more in epoch 1.*lower --student-lr"):
        run(toy, tiny_student, student_lr=1e38)
    assert list((toy.parent / "runs").iterdir()) == []


def test_a_named_run_is_replaced_only_on_demand(toy: Path, tiny_student: Path) -> None:
    out = toy.parent / "runs"
    config = configure(toy, tiny_student, epochs=1)
    folder, _ = run_distillation(config, out, "mine")
    (folder / "note").write_text("keep me")
    with pytest.raises(UsageError, match="mine exists already"):
        run_distillation(config, out, "mine")
    assert (folder / "note").exists()
    run_distillation(config, out, "mine", overwrite=True)
    assert not (folder / "note").exists()
    with pytest.raises(UsageError, match="cannot name a folder"):
        run_distillation(config, out, "../mine")


def test_a_folder_that_is_no_run_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a finished run"):
        evaluate_run(tmp_path, None, "validation", "cpu", "auto")
