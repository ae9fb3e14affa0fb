"""Which way losses, soft targets and controls move a student that has few labels; and a run against its equations.

The task: one word of three shows the label, out of 20 words a class, and 10 of 160 training rows show their label.
Labels alone teach a student a few of those words; the teacher's answers, which tell all rows apart, teach the rest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from distill.cli import app
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest
from tests.distill.distill_rows import without_label

Array = np.ndarray[Any, Any]
SHOWING = [[f"{name}{i}" for i in range(20)] for name in ("bad", "good")]  # the words that show a label
FILLER = [f"filler{i}" for i in range(8)]
WIDTH = 12  # of the teacher's vectors
SEEDS = (0, 1)
LOSSES = ("cosine", "euclid", "elementwise", "cka", "procrustes", "contrastive")
FEW = {"labels": 10, "epochs": 8, "batch_size": 16, "student_lr": 2e-3, "aligner_lr": 1e-3}
MATCHING = {"alpha": 0, "beta": 10, "labelled_per_batch": 4, "dropout": 0}  # little but L_m
SOFT = {"loss": "none", "alpha": 0.9, "tau": 2}  # soft targets alone
MARGIN = 0.2  # of accuracy
NEARER = 0.1  # of 1 - CKA


@dataclass(frozen=True, slots=True)
class Toy:
    """A shard folder, a student to train on it, a folder for runs, and the metrics of those so far."""

    shards: Path
    student: Path
    runs: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def train(self, **options: Any) -> dict[str, Any]:
        """Train with the command line and return the metrics; True is a flag's value. The same options train once."""
        arguments = ["run", "--json", "--shards", str(self.shards), "--student", str(self.student)]
        arguments += ["--out", str(self.runs), "--device", "cpu", "--precision", "float32", "--preset", "armada"]
        for name, value in sorted(options.items()):
            flag = f"--{name.replace('_', '-')}"
            arguments += [flag] if value is True else [flag, str(value)]
        key = " ".join(arguments)
        if key not in self.done:
            run = CliRunner().invoke(app, arguments)
            assert run.exit_code == 0, run.output
            self.done[key] = json.loads(run.stdout)
        return self.done[key]

    def score(self, **options: Any) -> float:
        """Mean accuracy on the dev split after the last epoch, over SEEDS."""
        return mean(float(self.train(seed=seed, **options)["dev_last"]) for seed in SEEDS)


def write_student(folder: Path) -> None:
    """Save a random BERT of one layer x 32, and a tokenizer that knows the words of the task."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: i for i, word in enumerate([*special.values(), *SHOWING[0], *SHOWING[1], *FILLER])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=16).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)


def make_rows(count: int, seed: int, asked: bool) -> list[Row]:
    """Rows of the task; where `asked`, with a teacher's vector and label distribution, both right and noisy."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(2, WIDTH))
    rows = []
    for i in range(count):
        label = int(rng.integers(2))
        words = [*rng.choice(FILLER, 2), rng.choice(SHOWING[label])]
        rng.shuffle(words)
        answer = Answer(Status.UNASKED)
        if asked:
            right = rng.uniform(0.7, 0.9)
            shares = [right, 0.95 - right] if label == 0 else [0.95 - right, right]
            answer = Answer(
                Status.OK,
                label_logprobs=np.log(shares).tolist(),
                residual_mass=0.05,
                embedding=2 * directions[label] + 0.5 * rng.normal(size=WIDTH),
                attempts=1,
            )
        rows.append(Row(Example(f"{seed}-{i}", " ".join(words), label=label), f"{seed:032x}{i:032x}", 0, answer))
    return rows


def write_shards(folder: Path, train: list[Row], dev: list[Row]) -> None:
    """Write a shard folder of the task."""
    manifest = Manifest(
        task="toy",
        teacher="t",
        kind="classification",
        labels=("bad", "good"),
        metric="accuracy",
        recipe={"teacher": "t"},
        source="made by the test",
    )
    with TeacherFolder.open(folder, manifest) as shards:
        shards.append("train", train)
        shards.append("validation", dev)
        shards.seal()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The task."""
    folder = tmp_path_factory.mktemp("directions")
    write_student(folder / "bert")
    write_shards(folder / "data", make_rows(160, 0, asked=True), make_rows(200, 1, asked=False))
    return Toy(folder / "data", folder / "bert", folder / "runs")


# --- directions ---


def test_few_labels_alone_teach_little_and_all_of_them_enough(toy: Toy) -> None:
    assert toy.score(**FEW, undistilled=True) < 0.7
    assert toy.score(**{**FEW, "labels": 160}, undistilled=True) > 0.9


def require_more(toy: Toy, options: Mapping[str, Any], control: str) -> None:
    """Assert that the teacher brings more than the labels alone, and more than what a control puts in its place."""
    taught = toy.score(**FEW, **options)
    assert taught > toy.score(**FEW, undistilled=True) + MARGIN
    assert taught > toy.score(**FEW, **options, control=control) + MARGIN


@pytest.mark.parametrize(
    ("loss", "semantics"),
    [
        ("elementwise", "code"),
        ("contrastive", "paper"),
        pytest.param("elementwise", "paper", marks=pytest.mark.real),
        pytest.param("contrastive", "code", marks=pytest.mark.real),
    ],
)
def test_a_loss_of_rows_teaches_what_the_few_labels_do_not(toy: Toy, loss: str, semantics: str) -> None:
    require_more(toy, {**MATCHING, "loss": loss, "semantics": semantics}, "shuffled-teacher")


@pytest.mark.parametrize("control", ["random-vectors", "constant-target"])
def test_a_control_without_the_teachers_word_teaches_nothing(toy: Toy, control: str) -> None:
    require_more(toy, {**MATCHING, "loss": "elementwise", "semantics": "code"}, control)


@pytest.mark.parametrize(
    "options",
    [
        {"soft": "kl"},
        {"soft": "head"},
        pytest.param({"semantics": "code"}, marks=pytest.mark.real),
        pytest.param({"semantics": "paper"}, marks=pytest.mark.real),
    ],
)
def test_soft_targets_teach_what_the_few_labels_do_not(toy: Toy, options: dict[str, str]) -> None:
    require_more(toy, {**SOFT, **options}, "shuffled-teacher")


@pytest.mark.real
@pytest.mark.parametrize("control", ["label-smoothing", "self-training"])
def test_soft_targets_without_a_teacher_teach_nothing(toy: Toy, control: str) -> None:
    require_more(toy, {**SOFT, "soft": "kl"}, control)


# --- a run's terms against their equations, restated row by row in float64 ---


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def norm(x: Array) -> Array:
    return np.asarray(np.sqrt((x**2).sum(axis=-1)))


def restate_soft(semantics: str, teacher: Array, student: Array, tau: float) -> float:
    gaps = softmax(teacher / tau) - softmax(student / tau)
    return float(norm(gaps).mean() if semantics == "paper" else tau**2 * (gaps**2).mean())


def restate_kl(teacher: Array, student: Array, tau: float) -> float:
    q, p = softmax(teacher / tau), softmax(student / tau)
    return float(tau**2 * (np.exp(teacher).sum(axis=1) * (q * np.log(q / p)).sum(axis=1)).mean())


def restate_match(semantics: str, loss: str, t: Array, s: Array, temperature: float) -> float:
    """L_m of projections (n, d), as docs/method.md writes it."""
    n, t_mean, s_mean = len(t), t.mean(axis=0), s.mean(axis=0)
    t_centred, s_centred = t - t_mean, s - s_mean
    if loss == "cosine":
        dot = t_mean @ s_mean
        return float(1 - dot if semantics == "paper" else 1 - dot / (norm(t_mean) * norm(s_mean)))
    if loss == "euclid":
        return float(norm(t_mean - s_mean) if semantics == "paper" else ((t_mean - s_mean) ** 2).mean())
    if loss == "elementwise":
        return float(norm(t - s).mean() if semantics == "paper" else ((t - s) ** 2).mean())
    if loss == "procrustes":
        a, b = t_centred / np.sqrt((t_centred**2).sum()), s_centred / np.sqrt((s_centred**2).sum())
        return float(2 - 2 * np.linalg.svd(a.T @ b, compute_uv=False).sum())
    if loss == "contrastive":
        scores = (s / norm(s)[:, None]) @ (t / norm(t)[:, None]).T / temperature
        return float(-np.log(np.diag(softmax(scores))).mean())
    assert loss == "cka", f"{loss} has no restatement"
    grams = [x @ x.T - np.diag((x**2).sum(axis=1)) for x in (t, s)]

    def hsic(k: Array, m: Array) -> float:
        ends = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float((np.trace(k @ m) + ends) / (n * (n - 3)))

    return 1 - hsic(*grams) / float(np.sqrt(hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])))


@dataclass(frozen=True, slots=True)
class Computed:
    """What a model gives for n rows, in float64: logits of its two heads (n, 2), its projections (n, d)."""

    main: Array
    auxiliary: Array
    projected: Array


def linear(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Apply a saved layer."""
    return np.asarray(x @ weights[f"{name}.weight"].T.astype(np.float64) + weights.get(f"{name}.bias", 0.0))


def compute_student(run: Path, rows: list[Row]) -> Computed:
    """Apply the student and the heads that a run saved."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    inputs = tokenizer([row.example.text for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        main, features = model(**inputs).logits, model.bert(**inputs).pooler_output
    heads = load_file(run / "heads.safetensors")
    projected = linear(features.double().numpy(), heads, "projection")
    last = "auxiliary.0" if "auxiliary.0.weight" in heads else "auxiliary.1"  # the code has a dropout before it
    return Computed(main.double().numpy(), linear(projected, heads, last), projected)


def compute_aligner(run: Path, rows: list[Row], semantics: str) -> Computed:
    """Apply the aligner that a run saved."""
    weights = load_file(run / "aligner.safetensors")
    vectors = np.array([np.float16(row.answer.embedding) for row in rows], np.float64)
    standardised = (vectors - weights["mean"]) / weights["std"]
    hidden = np.maximum(linear(standardised, weights, "body.0"), 0)
    if semantics == "paper":
        projected = linear(hidden, weights, "projection")
        return Computed(linear(hidden, weights, "head.0"), linear(projected, weights, "auxiliary.0"), projected)
    hidden = np.maximum(linear(hidden, weights, "body.3"), 0)
    projected = linear(standardised, weights, "projection")
    return Computed(linear(hidden, weights, "head.1"), linear(projected, weights, "auxiliary.2"), projected)


def restate_terms(run: Path, rows: list[Row], options: Mapping[str, Any]) -> dict[str, float]:
    """Restate the terms of a batch of `rows`, and their sum, from what a run saved."""
    student, aligner = compute_student(run, rows), compute_aligner(run, rows, options["semantics"])
    labels = {i: row.example.label for i, row in enumerate(rows) if row.example.label is not None}
    shown = list(labels), list(labels.values())
    wanted = [aligner.main, aligner.auxiliary]
    restate: Callable[[Array, Array, float], float] = partial(restate_soft, options["semantics"])
    if options["soft"] == "kl":
        wanted, restate = [np.array([row.answer.label_logprobs for row in rows], np.float64)] * 2, restate_kl
    task, soft = 0.0, 0.0
    for weight, said, own in zip((1.0, options["gamma"]), (student.main, student.auxiliary), wanted, strict=True):
        task -= weight * float(np.log(softmax(said)[shown]).mean())
        soft += weight * restate(own, said, options["tau"])
    projections = aligner.projected, student.projected
    match = restate_match(options["semantics"], options["loss"], *projections, options["contrastive_temperature"])
    total = (1 - options["alpha"]) * task + options["alpha"] * soft + options["beta"] * match
    return {"total": total, "task": task, "soft": soft, "match": match}


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory: pytest.TempPathFactory, toy: Toy) -> Toy:
    """The task with 8 rows that show their label and 16 that do not: one batch, where the former are drawn twice."""
    folder = tmp_path_factory.mktemp("one-batch")
    write_shards(folder / "data", one_batch_rows(), make_rows(20, 1, asked=False))
    return Toy(folder / "data", toy.student, folder / "runs")


def one_batch_rows() -> list[Row]:
    """The training rows of `one_batch`."""
    return [row if i % 3 == 0 else without_label(row) for i, row in enumerate(make_rows(24, 0, asked=True))]


@pytest.mark.parametrize("soft", ["aligner", "kl"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("semantics", ["paper", "code"])
def test_a_run_minimises_the_equations_that_its_options_name(
    one_batch: Toy, semantics: str, loss: str, soft: str
) -> None:
    # One step with a rate that moves no weight: what is saved is what the step saw. No dropout, and in the code's
    # semantics no auxiliary heads either, whose own dropout cannot be left out. Labelled rows are drawn twice, since
    # over all rows once the standardised vectors have a mean of 0, which has no direction.
    options = {"loss": loss, "semantics": semantics, "soft": soft, "alpha": 0.3, "beta": 0.7, "tau": 2.5}
    options |= {"gamma": 0.6 if semantics == "paper" else 0.0, "contrastive_temperature": 0.3}
    once = {"epochs": 1, "batch_size": 32, "labelled_per_batch": 16, "student_lr": 1e-12, "dropout": 0}
    run = Path(one_batch.train(**options, **once, aligner_lr=1e-2)["run"])
    (line,) = (run / "log.jsonl").read_text().splitlines()
    rows = one_batch_rows()
    rows += [row for row in rows if row.example.label is not None]
    assert json.loads(line)["student"] == pytest.approx(restate_terms(run, rows, options), rel=1e-4, abs=1e-6)


# --- losses that say little of one row, or leave open where its vector lies: how alike the two spaces become ---


@pytest.mark.real
@pytest.mark.parametrize("loss", ["cka", "procrustes"])
def test_a_loss_of_shapes_brings_the_student_to_the_teacher(toy: Toy, loss: str) -> None:
    small = {"epochs": 10, "beta": 0.1, "labelled_per_batch": 4}
    require_nearer(toy, {**FEW, "alpha": 0, "semantics": "code", **small}, {"loss": loss})


@pytest.mark.real
@pytest.mark.parametrize("loss", ["cosine", "euclid"])
def test_a_loss_of_means_brings_the_student_to_the_teacher_in_batches_of_one_row(toy: Toy, loss: str) -> None:
    small = {"batch_size": 1, "epochs": 1, "student_lr": 1e-3, "beta": 10, "dropout": 0}
    require_nearer(toy, {**FEW, "alpha": 0, "semantics": "code", **small}, {"loss": loss})


def require_nearer(toy: Toy, options: Mapping[str, Any], match: Mapping[str, Any]) -> None:
    """Assert that L_m brings the student nearer to the teacher than no L_m does, or one of a shuffled teacher."""
    taught = measure_distance(toy, {**options, **match})
    assert taught < measure_distance(toy, {**options, "loss": "none"}) - NEARER
    assert taught < measure_distance(toy, {**options, **match, "control": "shuffled-teacher"}) - NEARER


def measure_distance(toy: Toy, options: Mapping[str, Any]) -> float:
    """Mean over SEEDS of 1 - CKA of the teacher's vectors and the student's projections, on texts of its own."""
    rows = make_rows(64, 2, asked=True)
    vectors = np.array([row.answer.embedding for row in rows])
    runs = [Path(toy.train(seed=seed, **options)["run"]) for seed in SEEDS]
    return mean(restate_match("code", "cka", vectors, compute_student(run, rows).projected, 1.0) for run in runs)
