import asyncio
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LabelWords
from harvest.teachers.vllm.engine import EngineProcess, find_memory_advice
from harvest.teachers.vllm.messages import Settings
from harvest.teachers.vllm.process import write_reply
from shared.errors import TeacherError


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "max_num_seqs=32"),
        ("ValueError: No available memory for the cache blocks. Try increasing", "Raise --engine gpu_memory_util"),
        ("(3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9)", "something else uses"),
        ("KeyError: 'llava'", None),
    ],
)
def test_a_log_that_tells_of_memory_is_answered_with_what_to_change(line: str, advice: str | None) -> None:
    found = find_memory_advice(f"INFO loading\n{line}\n")
    assert found is None if advice is None else advice in (found or "")


def make_output(tokens: list[int], logprobs: list[dict[int, float]] | None, text: str = "said") -> Any:
    """An output of the engine, as far as it is looked at: log-probabilities by token id, the one said among them."""
    tops = None if logprobs is None else [{t: SimpleNamespace(logprob=p) for t, p in top.items()} for top in logprobs]
    completion = SimpleNamespace(token_ids=tokens, logprobs=tops, text=text, finish_reason="length")
    return SimpleNamespace(outputs=[completion], prompt_token_ids=[1, 2, 3])


def test_one_pass_gives_the_scores_of_the_labels() -> None:
    scores = [{9: -0.1, 4: -3.0, 5: -4.0}, {8: -0.2, 4: -7.0, 5: -7.0}]
    output = make_output([9, 8], scores)
    raw = write_reply(output, output, [[4], [5]], topk=None)
    content = orjson.loads(raw)["choices"][0]["logprobs"]["content"]
    assert [[top["token"] for top in position["top_logprobs"]] for position in content] == [
        ["token_id:4", "token_id:5"],
        [],
    ]
    answer = parse(raw, Form(DIALECTS["vllm"], Scoring.TOKEN_IDS, LabelWords(["yes", "no"]), ((4,), (5,)))).answer
    assert answer.label_logprobs == pytest.approx((-3.0, -4.0))
    assert (answer.reply, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == (
        "said",
        "length",
        3,
        2,
    )


def test_two_passes_give_scores_and_the_most_probable_tokens() -> None:
    scored = make_output([9], [{9: -0.1, 4: -3.0, 5: -math.inf}])
    said = make_output([9, 8], [{9: -0.1, 4: -3.0}, {8: -0.2, 6: -2.0}])
    form = Form(DIALECTS["vllm"], Scoring.TOKEN_IDS, LabelWords(["yes", "no"]), ((4,), (5,)), keep_topk=True)
    answer = parse(write_reply(scored, said, [[4], [5]], topk=2), form).answer
    assert answer.label_logprobs == pytest.approx((-3.0, -100.0))
    assert answer.topk_ids == [[9, 4, 5], [8, 6]]
    assert answer.topk_logprobs == [[-0.1, -3.0, -9999.0], [-0.2, -2.0]]


def test_a_reply_without_log_probabilities_is_text() -> None:
    output = make_output([9], None, text="3.5")
    raw = write_reply(output, output, [], topk=None)
    answer = parse(raw, Form(DIALECTS["vllm"], Scoring.TEXT, numeric=True)).answer
    assert answer.reply == "3.5"


def test_a_process_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vLLM is not installed, or the model cannot be loaded: either way the process ends, and its log is shown."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def start() -> None:
        process = EngineProcess(Settings("/no/such/model", None, {}), patience=600)
        try:
            await process.wait_until_ready()
        finally:
            process.close()

    with pytest.raises(TeacherError, match=r"vLLM with /no/such/model failed: .*(\n.*)*the end of it") as caught:
        asyncio.run(start())
    assert len(list(tmp_path.iterdir())) == 1
    assert "everything that was answered is kept" in str(caught.value).lower()
