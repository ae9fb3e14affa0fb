"""vLLM for real, on the CPU: the teacher in this machine's own engine, vLLM's server, and transformers, with one model.

The model is a LLaVA with few, random parameters, in float32. Run by `make test-vllm`.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from harvest.chat.label_trie import LabelScoring
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import run_harvest
from harvest.looking.reparse import reparse
from harvest.rendering import Layout, render
from harvest.teachers.base import Reply, Request, Teacher
from harvest.teachers.local_config import HiddenPosition
from harvest.teachers.transformers import TransformersConfig, TransformersTeacher
from harvest.teachers.vllm import VllmConfig, VllmTeacher
from shared.errors import TeacherError, UsageError
from shared.example import Example
from shared.schema import Status
from shared.shards import load_manifest, read_kept, verify_shards
from shared.tasks import Task
from tests.real.said_tokens import check_said_tokens
from tests.real.vllm_runs import (
    ENGINE,
    QUESTION,
    SIZE,
    WORDS,
    change_environment,
    harvest,
    list_children,
    list_group,
    make_environment,
    read_rows,
    write_reviews,
)

pytestmark = pytest.mark.vllm

ROWS = 60
REPLY_TOKENS, TOP = 6, 5
TASK = Task("reviews", "classification", (), labels=WORDS, label_words=WORDS, question=QUESTION)
START_SECONDS = 240
PATIENCE = 8


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with change_environment() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("logs")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    from tests.real.tiny_llava import make_tiny_llava

    return make_tiny_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.jsonl", ROWS)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model), "--served-model-name", "tiny"]
    command += ["--max-model-len", "1024", "--dtype", "float32", "--enforce-eager"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=make_environment(),
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for left in list_group(process.pid):
            os.kill(left, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def reference(model: Path) -> Any:
    """The same files in transformers: the processor, and the model in float32."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    return (
        AutoProcessor.from_pretrained(model),
        LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval(),
    )


@pytest.fixture(scope="module")
def in_process(model: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvest in process: label scores, replies of several tokens, and the most probable tokens of each."""
    out = tmp_path_factory.mktemp("in_process")
    options: dict[str, Any] = {"model": str(model), "engine": ENGINE, "max_tokens": REPLY_TOKENS}
    report = harvest(reviews, out, "vllm", keep_topk=True, top_logprobs=TOP, **options)
    assert (report.asked, report.failed) == (ROWS, 0)
    result = reparse(out / "teacher=vllm")
    assert (result.reread, result.changed) == (ROWS, 0)
    return out


def compute(reference: Any, text: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Log-probabilities of the first token of the answer (V,), and the last hidden states of the prompt (T, d)."""
    import torch
    from PIL import Image

    processor, model = reference
    pictures = [Image.fromarray(page.pixels).convert("RGB") for page in render(text, Layout(*SIZE))]
    parts = [*({"type": "image"} for _ in pictures), {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=pictures, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return output.logits[0, -1].double().log_softmax(-1).numpy(), output.hidden_states[-1][0].numpy()


def gather(column: pl.Series) -> np.ndarray[Any, Any]:
    return np.array(column.to_list(), np.float64)


def test_the_server_gives_the_same_scores_and_replies(
    in_process: Path, server: str, reviews: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"endpoint": server, "model": "tiny", "max_tokens": REPLY_TOKENS, "concurrency": 8}
    report = harvest(reviews, tmp_path, "endpoint", **options)
    assert (report.asked, report.failed) == (ROWS, 0)
    manifest = load_manifest(tmp_path / "teacher=endpoint")
    assert (manifest.recipe["dialect"], manifest.recipe["scoring"]["mode"]) == ("vllm", "token_ids")
    asked, ours = read_rows(tmp_path, "endpoint"), read_rows(in_process, "vllm")
    for column in ("sample_id", "text", "status", "reply", "finish_reason", "image_sha256", "prompt_tokens"):
        assert ours[column].to_list() == asked[column].to_list(), column
    assert np.abs(gather(ours["label_logprobs"]) - gather(asked["label_logprobs"])).max() < 1e-4
    assert len(set(ours["reply"])) > 1, "every row has the same reply: nothing was compared"


def test_the_scores_are_those_of_the_model_itself(
    in_process: Path, server: str, reviews: Path, reference: Any, tmp_path: Path
) -> None:
    """Over the endpoint, and in process; pictures and log-probabilities."""
    harvest(reviews, tmp_path, "endpoint", endpoint=server, model="tiny")
    first_tokens = load_manifest(tmp_path / "teacher=endpoint").recipe["scoring"]["first_tokens"]
    rows, ours = read_rows(tmp_path, "endpoint"), read_rows(in_process, "vllm")
    directly = [compute(reference, text)[0] for text in rows["text"]]
    expected = np.array([[np.exp(row[tokens]).sum() for tokens in first_tokens] for row in directly])
    for found in (rows, ours):
        probabilities = np.exp(gather(found["label_logprobs"]))
        assert np.abs(probabilities - expected).max() < 1e-3
        assert np.abs(gather(found["label_logprobs"]) - np.log(expected)).max() < 1e-3
        assert np.abs(1 - probabilities.sum(1) - found["residual_mass"].to_numpy()).max() < 1e-5
    spread = np.log(expected).std(0).min()
    assert spread > 1e-2, f"the labels' scores vary by {spread} only: a mixed-up picture would not be seen"


def test_the_most_probable_tokens_are_those_of_the_model_itself(in_process: Path, reference: Any) -> None:
    rows = read_rows(in_process, "vllm")
    for text, ids, logprobs in rows.select("text", "topk_ids", "topk_logprobs").iter_rows():
        assert {len(position) for position in ids} == {TOP}
        directly, _ = compute(reference, text)
        np.testing.assert_allclose(logprobs[0], directly[ids[0]], rtol=1 / 256, atol=1e-3)  # as they are kept
        assert abs(min(directly[ids[0]]) - np.sort(directly)[-TOP]) < 1e-4
    assert verify_shards(in_process).ok


@pytest.mark.parametrize("served", [False, True])
def test_the_ids_of_a_reply_decode_to_it(
    served: bool, model: Path, request: pytest.FixtureRequest, reference: Any, tmp_path: Path
) -> None:
    """Free text, sampled, of which few of the most probable tokens are kept: others are said too."""
    topics = tmp_path / "topics.jsonl"
    topics.write_text("".join(json.dumps({"topic": f"the sea, {i}"}) + "\n" for i in range(12)))
    options: dict[str, Any] = {"draw": "none", "keep_topk": True, "top_logprobs": 2, "max_tokens": 8}
    if served:
        teacher, own = "endpoint", {"endpoint": request.getfixturevalue("server"), "model": "tiny"}
    else:
        teacher, own = "vllm", {"model": str(model), "engine": ENGINE}
    choice = TaskChoice(str(topics), text_column="topic", question="Write one sentence about it.")
    report = run_harvest(
        HarvestConfig(choice, TeacherChoice(teacher, teacher, {**options, "temperature": 1.5, **own}), out=tmp_path)
    )
    assert report.asked == 12
    rows = read_rows(tmp_path, teacher)
    # A sampled reply may end with its first token: it holds no text then.
    silent = rows.filter(pl.col("status") == "unparsable")
    assert set(silent["error"]) <= {"the reply holds no text"}
    spoken = rows.filter(pl.col("status").is_in(["ok", "truncated"]))
    assert len(silent) + len(spoken) == 12
    assert len(spoken) >= 8
    outside = check_said_tokens(spoken, reference[0].tokenizer)
    # The server shows the said token in the place of the last of the K.
    assert served or outside > 0
    result = reparse(tmp_path / f"teacher={teacher}")
    assert (result.reread, result.changed) == (12, 0)


def test_transformers_gives_the_same_rows_without_vllm(
    in_process: Path, model: Path, reviews: Path, tmp_path: Path
) -> None:
    """Label scores, replies and the most probable tokens; with words that begin alike to their end."""
    options: dict[str, Any] = {"model": str(model), "max_tokens": REPLY_TOKENS, "keep_topk": True, "top_logprobs": TOP}
    local = {**options, "dtype": "float32"}
    assert harvest(reviews, tmp_path, "transformers", **local).failed == 0
    compare_engines(read_rows(in_process, "vllm"), read_rows(tmp_path, "transformers"))
    folders = []
    for teacher, own in (("vllm", {**options, "engine": ENGINE}), ("transformers", local)):
        folders.append(tmp_path / "words" / f"teacher={teacher}")
        harvest(reviews, tmp_path / "words", teacher, **own, scoring="words")
        result = reparse(folders[-1])
        assert (result.reread, result.changed) == (ROWS, 0)
    compare_engines(*(read_rows(tmp_path / "words", name) for name in ("vllm", "transformers")))
    whole, first = (read_rows(out, "vllm") for out in (tmp_path / "words", in_process))
    assert np.abs(gather(whole["label_logprobs"]) - gather(first["label_logprobs"])).max() > 1e-2


def test_the_rows_own_pictures_are_seen_as_transformers_sees_them(model: Path, tmp_path: Path) -> None:
    """Rows of one text, of which one, two or no pictures of their own make the answers differ."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(256, size=(60 + 9 * number, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    shown = [["0.png"], ["1.png"], ["2.png", "3.png"], [], ["4.png"], ["0.png"]]
    rows = [{"text": "one long scene", "label": WORDS[i % 2], "image": own} for i, own in enumerate(shown)]
    memes = tmp_path / "memes.jsonl"
    memes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskChoice(str(memes), text_column="text", label_column="label", image_column="image", question=QUESTION)
    options: dict[str, Any] = {"model": str(model), "max_tokens": REPLY_TOKENS, "keep_topk": True, "top_logprobs": TOP}
    for teacher, own in (("vllm", {"engine": ENGINE}), ("transformers", {"dtype": "float32"})):
        choice = TeacherChoice(teacher, teacher, {**options, **own})
        assert run_harvest(HarvestConfig(task, choice, out=tmp_path)).failed == 0
    ours, theirs = (read_rows(tmp_path, teacher) for teacher in ("vllm", "transformers"))
    compare_engines(ours, theirs)
    seen = ours["image_sha256"].list.len().fill_null(0).to_list()
    assert seen == [len(shown[int(name.rpartition("-")[2])]) for name in ours["sample_id"]]
    scores = gather(ours["label_logprobs"])
    apart = np.abs(scores[:, None] - scores[None]).max(-1)[np.triu_indices(5, 1)]
    assert apart.min() > 1e-3, "what is seen tells rows of one text apart"
    assert np.abs(scores[0] - scores[5]).max() < 1e-4


def compare_engines(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    for column in (
        "sample_id",
        "text",
        "status",
        "reply",
        "finish_reason",
        "image_sha256",
        "prompt_tokens",
        "reply_ids",
    ):
        assert ours[column].to_list() == theirs[column].to_list(), column
    assert np.abs(gather(ours["label_logprobs"]) - gather(theirs["label_logprobs"])).max() < 1e-3
    for column in ("reply_logprobs", "topk_logprobs", "topk_tail"):
        for one, other in zip(ours[column], theirs[column], strict=True):
            np.testing.assert_allclose(one.to_list(), other.to_list(), rtol=1 / 128, atol=1e-3)


async def make_requests(texts: Sequence[str]) -> AsyncIterator[Request]:
    for i, text in enumerate(texts):
        yield Request(f"{i:064}", Example(str(i), text))


async def ask(teacher: Teacher, texts: Sequence[str]) -> list[Reply]:
    """The replies to `texts`, in their order."""
    replies = [reply async for reply in teacher.answer(make_requests(texts))]
    return sorted(replies, key=lambda reply: int(reply.request.example.sample_id))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=HiddenPosition)
def teacher(model: Path, runner: asyncio.Runner, request: pytest.FixtureRequest) -> Iterator[VllmTeacher]:
    """A teacher that gives vectors, which may be broken by the last test that uses it."""
    config = VllmConfig(str(model), size=SIZE, vector=request.param, engine=ENGINE, patience=PATIENCE)
    teacher = VllmTeacher(config, TASK)
    yield teacher
    runner.run(teacher.aclose())


def test_the_vector_is_the_hidden_state_of_the_model_itself(
    teacher: VllmTeacher, model: Path, runner: asyncio.Runner, reviews: Path, reference: Any
) -> None:
    texts = pl.read_ndjson(reviews)["text"].to_list()[:20]
    replies = runner.run(ask(teacher, texts))
    assert [reply.answer.error for reply in replies] == [None] * len(texts)
    pooling = teacher.recipe()["vector"]["pooling"]
    local = TransformersTeacher(
        TransformersConfig(str(model), size=SIZE, vector=HiddenPosition(pooling), dtype="float32"), TASK
    )
    for text, reply, other in zip(texts, replies, runner.run(ask(local, texts)), strict=True):
        _, states = compute(reference, text)
        expected = states[-1] if pooling == "last" else states.mean(0)
        assert reply.answer.embedding is not None
        assert other.answer.embedding is not None
        assert np.abs(reply.answer.embedding - expected).max() < 1e-4
        assert np.abs(reply.answer.embedding - other.answer.embedding).max() < 1e-3
    runner.run(local.aclose())
    assert teacher.recipe()["vector"]["layer"] == "last, after the final norm"


def test_a_text_that_the_model_cannot_take_is_a_failed_row(teacher: VllmTeacher, runner: asyncio.Runner) -> None:
    too_long = "a gorgeous movie made me laugh. " * 2500
    short, long = runner.run(ask(teacher, ["short", too_long]))
    assert short.answer.status is Status.OK
    assert long.answer.status is Status.FAILED
    assert "1024" in (long.answer.error or "")


def test_an_engine_that_dies_or_hangs_is_reported(teacher: VllmTeacher, runner: asyncio.Runner) -> None:
    runner.run(ask(teacher, ["it runs"]))
    command = b"harvest.teachers.vllm"
    (leader,) = (pid for pid in list_children(os.getpid()) if command in Path(f"/proc/{pid}/cmdline").read_bytes())
    (core,) = (pid for pid in list_children(leader) if "Engine" in Path(f"/proc/{pid}/comm").read_text())
    pooling = teacher.recipe()["vector"]["pooling"]
    os.kill(core, signal.SIGKILL if pooling == "last" else signal.SIGSTOP)
    hangs = f"hangs: nothing was heard of it for {PATIENCE} s with 3 rows in it"
    said = "EngineDeadError" if pooling == "last" else hangs
    with pytest.raises(TeacherError, match=said) as caught:
        runner.run(ask(teacher, ["one", "two", "three"]))
    assert "the same command goes on from there" in str(caught.value)
    wait_until(lambda: not list_group(leader), 10)


def test_too_little_memory_is_answered_with_what_to_change(
    model: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # longer than the cache of 1 GiB
    config = VllmConfig(str(model), size=SIZE, engine={**ENGINE, "max_model_len": 4_000_000})
    teacher = VllmTeacher(config, TASK)
    try:
        with pytest.raises(TeacherError, match="--engine max_model_len") as caught:
            runner.run(ask(teacher, ["a text"]))
    finally:
        runner.run(teacher.aclose())
    assert "too little memory is left for the engine's cache" in str(caught.value)


def test_label_words_that_begin_alike_are_refused_before_the_model_is_loaded(
    model: Path, runner: asyncio.Runner
) -> None:
    task = Task("reviews", "classification", (), labels=("a", "b"), label_words=("zqa", "zqb"), question=QUESTION)
    config = VllmConfig(str(model), size=SIZE, engine=ENGINE, scoring=LabelScoring.TOKEN_IDS)
    teacher = VllmTeacher(config, task)
    try:
        with pytest.raises(UsageError, match="'zqa' and 'zqb' begin with the same token"):
            runner.run(ask(teacher, ["a text"]))
    finally:
        runner.run(teacher.aclose())


def make_command(model: Path, reviews: Path, out: Path) -> list[str]:
    """As `in_process` harvests, but for few rows at a time in the engine."""
    command = [sys.executable, "-m", "harvest.cli", "run", "--teacher", "vllm", "--name", "vllm", "--model", str(model)]
    command += [
        "--json",
        "--task",
        str(reviews),
        "--text-column",
        "text",
        "--label-column",
        "label",
        "--question",
        QUESTION,
    ]
    command += ["--label-words", ",".join(WORDS), "--size", "x".join(map(str, SIZE)), "--out", str(out)]
    command += [
        "--max-tokens",
        str(REPLY_TOKENS),
        "--keep-topk",
        "--top-logprobs",
        str(TOP),
        "--engine",
        "max_num_seqs=2",
    ]
    for name, value in ENGINE.items():
        command += ["--engine", f"{name}={str(value).lower()}"]
    return command


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause)


def test_a_killed_run_leaves_no_process_and_goes_on_to_the_same_rows(
    in_process: Path, model: Path, reviews: Path, tmp_path: Path
) -> None:
    command = make_command(model, reviews, tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=make_environment())
    journal = tmp_path / "teacher=vllm/journal/split=train/w0.arrows"
    wait_until(lambda: process.poll() is not None or (journal.exists() and count_rows(tmp_path) > 0), START_SECONDS)
    children = list_children(process.pid)
    process.kill()
    process.communicate()
    kept = count_rows(tmp_path)
    assert 0 < kept < ROWS
    assert children
    wait_until(lambda: not any(list_group(child) or Path(f"/proc/{child}").exists() for child in children), 40)

    done = subprocess.run(command, capture_output=True, text=True, env=make_environment(), check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["kept"], report["asked"], report["failed"]) == (ROWS, kept, ROWS - kept, 0)
    assert verify_shards(tmp_path).problems == ()
    resumed, whole = read_rows(tmp_path, "vllm"), read_rows(in_process, "vllm")
    for column in ("sample_id", "request_key", "text", "label", "status", "reply", "image_sha256", "topk_ids"):
        assert resumed[column].to_list() == whole[column].to_list(), column
    assert np.abs(gather(resumed["label_logprobs"]) - gather(whole["label_logprobs"])).max() < 1e-4


def count_rows(out: Path) -> int:
    """Rows that are kept, sealed or not."""
    folder = out / "teacher=vllm"
    manifest = load_manifest(folder)
    return sum(len(read_kept(folder, manifest, split).statuses) for split in ("train", "validation", "test"))
