"""vLLM for real, on the CPU: what it says of each token of a reply, and of a given text, is what transformers says.

The model is a small LLaMA with random parameters, in float32. Run by `make test-vllm`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harvest.config import make_harvest_config
from harvest.job import run_harvest
from harvest.looking.reparse import reparse
from shared.errors import UsageError
from shared.shards import load_manifest, verify_shards
from shared.topk import decode_topk
from tests.real.said_tokens import strip_broken
from tests.real.vllm_runs import ENGINE, change_environment

pytestmark = pytest.mark.vllm

ROWS, TOP, CONTEXT = 24, 5, 512
LONG_ROW = 7  # longer than the model takes
KEPT: dict[str, Any] = {"rtol": 1 / 256, "atol": 1e-3}  # as log-probabilities are kept: see shared.topk.KEPT_BITS


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with change_environment():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    from tests.tiny_llama import make_tiny_llama

    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = []
    for i in range(ROWS):
        repeated = 199 if i == LONG_ROW else i % 4
        lines.append(
            {"ask": f"Write one sentence about the sea, {i}.", "say": f"the old {'by the house ' * repeated}{i}"}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def reference(model: Path) -> Any:
    """The same files in transformers: the tokenizer, and the model in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def harvest(model: Path, rows: Path, out: Path, teacher: str, /, **more: Any) -> Path:
    """Harvest `rows`; give the teacher's folder."""
    own = (
        {"engine": {**ENGINE, "max_model_len": CONTEXT}, "draw": "none"} if teacher == "vllm" else {"dtype": "float32"}
    )
    columns = {"text_column": "ask", "target_text_column": "say", "question": "Answer."}
    options: dict[str, Any] = {"task": str(rows), "out": str(out), "teacher": teacher, "name": teacher}
    options |= {"model": str(model), "top_logprobs": TOP}
    report = run_harvest(make_harvest_config({**options, **columns, **own, **more}))
    assert report.asked == ROWS
    folder = out / f"teacher={more.get('name', teacher)}"
    assert verify_shards(out).ok
    return folder


def read_table(folder: Path) -> pa.Table:
    paths = sorted(folder.glob("split=*/*.parquet"))
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in paths).sort_by("sample_id")


def compute(reference: Any, prompt: list[int], reply: list[int]) -> np.ndarray[Any, Any]:
    """The log-probabilities of all tokens at each position of `reply`, (n, V)."""
    import torch

    with torch.inference_mode():
        logits = reference[1](torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
    found: np.ndarray[Any, Any] = logits.double().log_softmax(-1).numpy()
    return found


def check_positions(row: dict[str, Any], top: Any, exact: np.ndarray[Any, Any]) -> None:
    """Hold all that a row says of its reply's tokens against the log-probabilities of the model itself."""
    np.testing.assert_allclose(row["reply_logprobs"], exact[np.arange(len(exact)), row["reply_ids"]], atol=1e-3)
    np.testing.assert_allclose(top.logprobs, np.take_along_axis(exact, top.ids, 1), **KEPT)
    np.testing.assert_allclose(top.logprobs, np.sort(exact, axis=1)[:, : -TOP - 1 : -1], **KEPT)
    tail = np.log(1 - np.exp(np.take_along_axis(exact, top.ids, 1)).sum(1))
    np.testing.assert_allclose(top.tail, tail, **KEPT)


@pytest.fixture(scope="module")
def said(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sampled replies to prompts in Alpaca's words, some of which end by themselves."""
    sampled = {"keep_topk": True, "temperature": 1.0, "max_tokens": 80, "template": "alpaca"}
    return harvest(model, rows, tmp_path_factory.mktemp("said"), "vllm", name="said", **sampled)


def test_each_token_of_a_reply_is_scored_as_the_model_itself_scores_it(said: Path, reference: Any) -> None:
    """The token that ends a reply included."""
    table, tokenizer = read_table(said), reference[0]
    ended = 0
    for number, top in enumerate(decode_topk(table, range(ROWS))):
        row = table.slice(number, 1).to_pylist()[0]
        assert top is not None
        prompt = tokenizer(make_alpaca("Answer.", row["text"]), add_special_tokens=False).input_ids
        assert row["prompt_tokens"] == len(prompt)
        check_positions(row, top, compute(reference, prompt, row["reply_ids"]))
        decoded = tokenizer.decode(row["reply_ids"], skip_special_tokens=True)
        assert strip_broken(decoded) == strip_broken(row["reply"])
        assert (row["reply_ids"][-1] in (0, 1)) == (row["finish_reason"] == "stop")
        ended += row["finish_reason"] == "stop"
    assert 0 < ended < ROWS
    assert reparse(said).changed == 0


def make_alpaca(instruction: str, given: str) -> str:
    return (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        f"response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{given}"
        "\n\n### Response:\n"
    )


@pytest.mark.parametrize("given", ["reference", "text", "folder"])
def test_a_given_text_is_scored_as_the_scorer_scores_it(
    model: Path, rows: Path, said: Path, tmp_path: Path, given: str
) -> None:
    """References after a chat's prompt, one of them too long; texts without an end; another folder's replies."""
    options: dict[str, Any] = {"score_given": given, "failure_limit": 1}
    if given == "text":
        options["score_end"] = False
    elif given == "folder":
        options |= {"score_given": str(said), "template": "alpaca"}
    ours = harvest(model, rows, tmp_path, "vllm", **options)
    theirs = harvest(model, rows, tmp_path, "scorer", **options)
    one, other = read_table(ours), read_table(theirs)
    same = ("sample_id", "text", "status", "reply", "finish_reason", "reply_ids", "prompt_tokens", "completion_tokens")
    for name in same:
        assert one[name].to_pylist() == other[name].to_pylist(), name
    scored = [number for number, status in enumerate(one["status"].to_pylist()) if status == "ok"]
    assert len(scored) > ROWS / 2
    if given == "reference":
        (problem,) = filter(None, one["error"].to_pylist())
        assert str(CONTEXT) in problem
    assert set(one["finish_reason"].take(pa.array(scored)).to_pylist()) == {"given"}
    for number, a, b in zip(scored, decode_topk(one, scored), decode_topk(other, scored), strict=True):
        assert a is not None
        assert b is not None
        found, wanted = (table["reply_logprobs"][number].as_py() for table in (one, other))
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        np.testing.assert_allclose(a.logprobs, b.logprobs, **KEPT)
        np.testing.assert_allclose(a.tail, b.tail, **KEPT)
    recipes = [load_manifest(folder).recipe for folder in (ours, theirs)]
    for name in ("score_given", "prompt", "parameters", "tokenizer"):
        assert recipes[0][name] == recipes[1][name], name
    assert reparse(ours).reread == 0


def test_what_says_nothing_takes_no_option_of_what_is_said(model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--keep-topk is of no use with --score-given"):
        harvest(model, rows, tmp_path, "vllm", score_given="reference", keep_topk=True)
    assert not list(tmp_path.iterdir())
