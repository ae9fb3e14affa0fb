"""What somebody has already becomes a teacher folder as any other, or is refused by name and leaves nothing."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from harvest.config import TaskChoice
from harvest.importing.config import ImportConfig, parse_files
from harvest.importing.run import ImportReport, import_answers
from harvest.looking.reparse import reparse
from shared.errors import Error, RecipeMismatchError, ShardError, UsageError
from shared.shards import load_manifest, verify_shards

ROWS = 60
LABELS = ("negative", "positive")
IDS = [f"r{i}" for i in range(ROWS)]
TEXTS = [f"film number {i}" for i in range(ROWS)]
GOLD = [LABELS[i % 2] for i in range(ROWS)]


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskChoice:
    monkeypatch.chdir(tmp_path)
    write_csv("films.csv", {"id": IDS, "text": TEXTS, "gold": [str(i % 2) for i in range(ROWS)]})
    return TaskChoice(
        "films.csv",
        text_column="text",
        label_column="gold",
        id_column="id",
        labels=("0", "1"),
        label_words=LABELS,
    )


def write_csv(path: str, columns: Mapping[str, Sequence[Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_lines(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_completion(content: str, logprobs: Mapping[str, float] | None = None) -> dict[str, Any]:
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in (logprobs or {}).items()]
    said = {"token": content, "logprob": (logprobs or {}).get(content, 0.0), "bytes": None, "top_logprobs": top}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
        "logprobs": None if logprobs is None else {"content": [said]},
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    return {"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def take(films: TaskChoice, **options: Any) -> ImportReport:
    for name in ("vectors", "answers"):
        if isinstance(options.get(name), str):
            options[name] = parse_files([options[name]])
    return import_answers(ImportConfig(task=films, **options))


def read(folder: str) -> pl.DataFrame:
    assert verify_shards(Path(folder)).ok
    return pl.read_parquet(f"{folder}/split=*/*.parquet").sort(pl.col("sample_id").str.slice(1).cast(pl.Int64))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_vectors_by_order_and_by_id_are_kept_as_they_are(films: TaskChoice, dtype: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(dtype)
    np.save("ordered.npy", vectors)
    turned = vectors[::-1].copy()
    save_file({"h": turned, "bias": np.zeros(5, dtype)}, "turned.safetensors")
    Path("ids.txt").write_text("\n".join(IDS[::-1]))
    pl.DataFrame({"name": IDS[::-1], "h": turned.tolist()}, schema_overrides={"h": pl.List(pl.Float32)}).write_parquet(
        "listed.parquet"
    )
    reports = [
        take(films, vectors="ordered.npy"),
        take(films, vectors="turned.safetensors", ids="ids.txt"),
        take(films, vectors="listed.parquet", ids="name"),
    ]
    for report in reports:
        rows = read(report.folder)
        assert (report.imported, report.missing, report.strangers, report.cost_usd) == (ROWS, 0, 0, None)
        assert np.array_equal(np.stack(rows["embedding"].to_list()).astype(dtype), vectors), report.folder
        assert rows["cost_usd"].null_count() == ROWS  # nobody knows what they cost
        assert [str(label) for label in rows["label"]] == ["0", "1"] * (ROWS // 2)
    assert str(read(reports[0].folder)["embedding"].dtype) == f"List(Float{np.dtype(dtype).itemsize * 8})"
    assert reports[0].matched_by["train"] == "their order (train, validation, test)"


def test_a_second_import_changes_nothing_and_another_is_refused(films: TaskChoice) -> None:
    np.save("v.npy", np.ones((ROWS, 2), np.float32) * np.arange(ROWS)[:, None].astype(np.float32))
    folder = take(films, vectors="v.npy").folder
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).rglob("*") if path.is_file()}
    again = take(films, vectors="v.npy")
    assert (again.kept, again.imported, again.seconds >= 0) == (ROWS, 0, True)
    np.save("v.npy", np.ones((ROWS, 2), np.float32))
    with pytest.raises(RecipeMismatchError, match=r"sha256.*\n.*Give this run its own folder with --name"):
        take(films, vectors="v.npy")
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).rglob("*") if path.is_file()}
    assert after == before
    assert not list(Path("data/films").glob(".import*"))
    write_csv("films.csv", {"id": IDS, "text": TEXTS, "gold": ["1"] * (ROWS - 1) + ["0"]})
    np.save("v.npy", np.ones((ROWS, 2), np.float32) * np.arange(ROWS)[:, None].astype(np.float32))
    with pytest.raises(
        ShardError,
        match=r"\(the file changed: .* another label, target or reference .*\); nothing was changed\. Import",
    ):
        take(films, vectors="v.npy")


def test_files_of_splits_and_splits_without(films: TaskChoice) -> None:
    np.save("v.npy", np.ones((ROWS, 2), np.float32))
    counts = {path.name: rows for path in Path(take(films, vectors="v.npy").folder).glob("split=*") for rows in [path]}
    train = len(pl.read_parquet(f"{counts['split=train']}/*.parquet"))
    np.save("train.npy", np.full((train, 3), 0.5, np.float16))
    report = take(films, vectors={"train": "train.npy"}, name="own")
    assert (report.imported, report.missing, report.matched_by["train"]) == (train, ROWS - train, "their order (train)")
    rows = read(report.folder)
    assert set(rows["status"]) == {"ok", "unasked"}
    assert rows.filter(pl.col("status") == "unasked")["cost_usd"].sum() == 0


def test_replies_are_read_as_harvested_ones_are(films: TaskChoice) -> None:
    said = [
        f"I think the answer is {word}." if i % 5 else ("no idea", f"{i % 2}")[i % 2] for i, word in enumerate(GOLD)
    ]
    write_csv("by_text.csv", {"text": TEXTS[::-1], "reply": said[::-1]})
    trl = [
        {
            "prompt": [{"role": "user", "content": f"Good or bad?\n\n{text}"}],
            "completion": [{"role": "assistant", "content": reply}],
        }
        for text, reply in zip(TEXTS, said, strict=True)
    ]
    write_lines("trl.jsonl", trl)
    pl.DataFrame(trl).write_parquet("trl.parquet")
    curator = [
        {
            "response_message": reply if i else None,
            "response_errors": None if i else ["timed out"],
            "generic_request": {"messages": one["prompt"], "original_row": {}, "original_row_idx": i},
            "finish_reason": "stop",
        }
        for i, (one, reply) in enumerate(zip(trl, said, strict=True))
    ]
    write_lines("curator.jsonl", curator)
    wanted = ["unparsable" if reply == "no idea" else "ok" for reply in said]
    for file in ("by_text.csv", "trl.jsonl", "trl.parquet", "curator.jsonl"):
        report = take(films, answers=file, name=file.replace(".", "_"))
        rows = read(report.folder)
        own = ["failed", *wanted[1:]] if file == "curator.jsonl" else wanted
        assert rows["status"].to_list() == own, file
        whole = rows.filter(pl.col("status") == "ok")
        assert (whole["label_logprobs"].list.arg_max() == whole["label"]).all()  # "1", the label's name, too
        assert rows["reply"].to_list()[1:] == said[1:]
        assert report.failed == own.count("unparsable") + own.count("failed")
        assert (reparse(Path(report.folder)).changed, report.agreement is None) == (0, False)


def test_an_openai_batch_with_log_probabilities(films: TaskChoice) -> None:
    logprobs = [{"positive": -0.1, "negative": -2.4}, {"negative": -0.1, "positive": -2.4}]
    lines: list[dict[str, Any]] = [
        {"custom_id": f"q{i}", "response": {"status_code": 200, "body": make_completion(word, logprobs[1 - i % 2])}}
        for i, word in enumerate(GOLD)
    ]
    lines[0] = {"custom_id": "q0", "response": {"status_code": 500, "body": {"error": {"message": "overloaded"}}}}
    lines[1] = {"custom_id": "q1", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    lines[2] = {"custom_id": "q2", "response": {"status_code": 200, "body": make_completion("I cannot say")}}
    write_lines("out.jsonl", lines)
    asked = [
        {"custom_id": f"q{i}", "body": {"messages": [{"role": "user", "content": f"Q: {t}"}]}}
        for i, t in enumerate(TEXTS)
    ]
    write_lines("in.jsonl", asked)
    report = take(films, answers="out.jsonl", batch_input=Path("in.jsonl"))
    rows = read(report.folder)
    assert {"failed: HTTP 500: overloaded", "failed: the batch says: too late"} < report.causes.keys()
    assert rows["status"].to_list()[2:] == ["unparsable", *["ok"] * (ROWS - 3)]
    assert np.allclose(np.exp(rows["label_logprobs"][3].to_list()), [np.exp(-2.4), np.exp(-0.1)])
    assert (rows["prompt_tokens"][3], rows["cost_usd"][3]) == (10, None)
    assert load_manifest(Path(report.folder)).recipe["reading"]["scoring"] == "top_logprobs"


def test_distributions_and_what_is_counted(films: TaskChoice) -> None:
    low = [0.1, 0.2] * (ROWS // 2)
    write_csv("p.csv", {"id": IDS, "prob_negative": low, "prob_positive": [1 - p for p in low]})
    logs = {"p(positive)": np.log([0.7 - p for p in low]), "p(negative)": np.log(low), "sample_id": IDS}
    pl.DataFrame(logs).filter(pl.int_range(pl.len()) < 20).vstack(
        pl.DataFrame({"p(positive)": [-1.0], "p(negative)": [-1.0], "sample_id": ["nobody"]})
    ).write_parquet("logs.parquet")
    both = read(take(films, answers="p.csv").folder)
    assert np.allclose(np.exp(both["label_logprobs"].to_list()), np.stack([low, [1 - p for p in low]], axis=1))
    report = take(films, answers="logs.parquet")
    assert (report.imported, report.missing, report.strangers) == (20, ROWS - 20, 1)
    assert np.allclose(read(report.folder)["residual_mass"].drop_nulls(), 0.3)


def write_vectors(array: Any) -> Callable[[], dict[str, Any]]:
    def write() -> dict[str, Any]:
        np.save("x.npy", array, allow_pickle=True)
        return {"vectors": "x.npy"}

    return write


def write_answers(columns: Mapping[str, Sequence[Any]], **options: Any) -> Callable[[], dict[str, Any]]:
    def write() -> dict[str, Any]:
        write_csv("x.csv", columns)
        return {"answers": "x.csv", **options}

    return write


def write_scores(positive: float, negative: float) -> Callable[[], dict[str, Any]]:
    numbers = [[0.5] * (ROWS - 1) + [last] for last in (positive, negative)]
    return write_answers({"id": IDS, "positive": numbers[0], "negative": numbers[1]})


def cut(suffix: str) -> dict[str, Any]:
    vectors = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
    whole = Path(f"x{suffix}")
    if suffix == ".npy":
        np.save(whole, vectors)
    elif suffix == ".safetensors":
        save_file({"h": vectors}, str(whole))
    else:
        pl.DataFrame({"h": vectors.tolist()}).write_parquet(whole)
    whole.write_bytes(whole.read_bytes()[:-1000])
    return {"vectors": str(whole)}


def write_ragged() -> dict[str, Any]:
    pl.DataFrame({"h": [[1.0, 2.0]] * (ROWS - 1) + [[1.0]]}).write_parquet("x.parquet")
    return {"vectors": "x.parquet"}


def write_archive() -> dict[str, Any]:
    np.savez("x.npz", a=np.ones((ROWS, 2)))
    return {"vectors": "x.npz"}


def write_embeddings() -> dict[str, Any]:
    body = {"data": [{"embedding": [0.1]}]}
    write_lines("x.jsonl", [{"custom_id": name, "response": {"status_code": 200, "body": body}} for name in IDS])
    return {"answers": "x.jsonl"}


def write_lying_header() -> dict[str, Any]:
    header = json.dumps({"h": {"dtype": "F32", "shape": [ROWS, 1 << 40], "data_offsets": [0, 8]}}).encode()
    Path("x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12345678")
    return {"vectors": "x.safetensors"}


ONES = np.ones((ROWS, 3), np.float32)
HOSTILE: Mapping[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "more than 1": (
        write_scores(0.9, 0.9),
        r"row 59: the probabilities of the labels sum to 1.8, more than 1.*--multilabel",
    ),
    "logits": (write_scores(4.0, -2.0), "neither probabilities, from 0 to 1, nor their natural logs"),
    "NaN in scores": (write_scores(float("nan"), 0.5), "row 59: it has NaN or infinity"),
    "a gap in scores": (write_answers({"id": IDS, "positive": [""] * ROWS, "negative": [1] * ROWS}), "row 0: it has a"),
    "a word in scores": (write_answers({"id": IDS, "positive": ["much"] * ROWS, "negative": [0] * ROWS}), "no number"),
    "NaN in vectors": (write_vectors(np.where(np.eye(ROWS, 3), np.nan, ONES)), "row 0: the vector holds NaN or inf"),
    "too large for float32": (write_vectors(np.full((ROWS, 2), 1e300)), "row 0: the vector holds NaN or infinity"),
    "several widths": (write_ragged, "row 59: a vector of 1 numbers, where others have 2"),
    "one dimension": (write_vectors(np.ones(ROWS)), "vectors are rows x width"),
    "integers": (write_vectors(np.ones((ROWS, 3), np.int64)), "not vectors of floats"),
    "no rows": (write_vectors(np.ones((0, 3))), "is empty"),
    "fewer rows": (write_vectors(ONES[1:]), r"has 59 rows, and films has train \d+"),
    "a pickle": (write_vectors(np.array([{}] * ROWS)), "it is pickled"),
    "an archive": (write_archive, "of a .npz file save one array"),
    "a cut .npy": (lambda: cut(".npy"), "it is truncated, or no .npy file"),
    "a cut .safetensors": (lambda: cut(".safetensors"), "is truncated, or no .safetensors file"),
    "a cut Parquet file": (lambda: cut(".parquet"), "is truncated, broken, or no Parquet file"),
    "a header that lies": (write_lying_header, "is truncated, or no .safetensors file"),
    "an id twice": (
        write_answers({"id": [IDS[1], *IDS[1:]], "reply": GOLD}),
        r"the id 'r1' \(the column id\) stands in the rows 0 and 1",
    ),
    "ids of nobody": (write_answers({"id": TEXTS, "reply": GOLD}), "no id .* is that of a row of films.*'r0'|'r1'"),
    "texts of nobody": (write_answers({"text": IDS, "reply": GOLD}), "no text .* is, or ends with, that of a row"),
    "other labels": (write_answers({"id": IDS, "reply": ["neutral"] * ROWS}), "no row has a whole answer.*60 x unpars"),
    "no answers": (write_answers({"id": IDS, "reply": [""] * ROWS}), "no row has an answer"),
    "no column": (write_answers({"id": IDS, "verdict": GOLD}), r"no column of answers: name .* it has: id, verdict"),
    "two columns": (
        write_answers({"id": IDS, "reply": GOLD, "label": GOLD}),
        "several columns that may be the answers",
    ),
    "embeddings": (write_embeddings, "these are embeddings, not replies"),
    "no file": (lambda: {"answers": "nothing.csv"}, "there is no file nothing.csv"),
    "no split": (lambda: {"answers": {"trian": "films.csv"}}, "is for the split 'trian'"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_cannot_be_used_is_refused_by_name(films: TaskChoice, what: str) -> None:
    write, said = HOSTILE[what]
    with pytest.raises(Error, match=said):
        take(films, **write())
    assert not Path("data").exists()


def claim_harvested(folder: Path, recipe: Mapping[str, Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "recipe": recipe}))


def test_a_harvest_is_not_imported_over(films: TaskChoice) -> None:
    with pytest.raises(UsageError, match="takes one of --vectors FILE, --answers FILE and --folder FOLDER"):
        ImportConfig(task=films)
    write_csv("x.csv", {"id": IDS, "reply": GOLD})
    folder = Path(take(films, answers="x.csv").folder)
    claim_harvested(folder, {"teacher": "endpoint"})
    with pytest.raises(RecipeMismatchError, match="holds answers that were harvested; nothing was changed"):
        take(films, answers="x.csv")


def test_a_cascade_takes_the_first_whole_answer(films: TaskChoice) -> None:
    write_csv("dear.csv", {"id": IDS[:10], "positive": [0.9] * 10, "negative": [0.1] * 10})
    write_csv("cheap.csv", {"id": IDS, "positive": [0.4] * ROWS, "negative": [0.6] * ROWS})
    folders = tuple(Path(take(films, answers=f"{name}.csv").folder) for name in ("dear", "cheap"))
    report = take(films, folders=folders, name="cascade")
    rows = read(report.folder)
    assert rows["label_logprobs"].list.arg_max().to_list() == [1] * 10 + [0] * (ROWS - 10)
    assert rows["status"].unique().to_list() == ["ok"]
    assert take(films, folders=folders, name="cascade").kept == ROWS
    np.save("v.npy", np.ones((ROWS, 4), np.float16))
    folders = tuple(Path(take(films, vectors="v.npy", name=name).folder) for name in ("clip", "mpnet"))
    assert read(take(films, folders=folders, name="given").folder)["embedding"].null_count() == 0
    for folder in folders:
        claim_harvested(folder, {"teacher": "vllm", "model": folder.name})
    mixed = read(take(films, folders=folders, name="mixed").folder)
    assert mixed["embedding"].null_count() == ROWS, "another model's numbers are of another space, if there are as many"
