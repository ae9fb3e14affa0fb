"""Whatever teacher made a row, its kept `raw` is read again from its recipe alone, without asking."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harvest.chat.elicitation import READ_COLUMNS
from harvest.chat.written import SaidToken, write_chat_completion
from harvest.looking.reparse import reparse
from harvest.teachers.base import Reply, Request, Teacher
from harvest.teachers.registry import ENTRIES, TeacherEntry
from harvest.teachers.rereading import find_reread
from shared.example import Example
from shared.keys import RequestKeys
from shared.schema import SCHEMA_VERSION, Answer, Status, read_version
from shared.shards import Manifest, load_manifest, verify_shards
from tests.harvest.fault_server import WORDS, FaultServer
from tests.harvest.teachers.endpoint.endpoint_runs import TASK, make_teacher, run_all
from tests.shared.shards.schema1 import write_folder

VLLM_RECIPE = {
    "teacher": "vllm",
    "prompt": {"question": "?", "label_words": list(WORDS), "draw": "fields"},
    "scoring": {"mode": "token_ids"},
    "parameters": {"max_tokens": 2, "temperature": 0.0, "topk": 2},
}


# Of write_vllm_reply, where its two most probable tokens a position are kept.
TAIL = [math.log(1 - math.exp(-0.5) - math.exp(-2.0)), math.log(1 - 2 * math.exp(-1.0))]


def write_vllm_reply(first_tokens: object = ((5,), (7,))) -> bytes:
    """A reply as the process of the engine writes it: the second token that was said is none of the most probable."""
    scores = [
        {"token": f"token_id:{token}", "logprob": logprob} for token, logprob in ((9, -0.5), (5, -2.0), (7, -3.0))
    ]
    positions = [
        {"token": "token_id:9", "logprob": -0.5, "top_logprobs": scores},
        {
            "token": "token_id:4",
            "logprob": -4.0,
            "top_logprobs": [{"token": f"token_id:{token}", "logprob": -1.0} for token in (5, 6)]
            + [{"token": "token_id:4", "logprob": -4.0}],
        },
    ]
    choice = {
        "message": {"role": "assistant", "content": "so it is"},
        "finish_reason": "stop",
        "logprobs": {"content": positions},
    }
    body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    return json.dumps(body if first_tokens is None else {**body, "first_tokens": first_tokens}).encode()


def make_endpoint_row() -> tuple[Mapping[str, Any], Answer]:
    with FaultServer() as server:
        teacher = make_teacher(server)
        (reply,) = run_all(teacher, [Example("1", "a review")])
    return teacher.recipe(), reply.answer


def make_vllm_row() -> tuple[Mapping[str, Any], Answer]:
    raw = write_vllm_reply()
    answer = Answer(
        Status.OK,
        reply="so it is",
        finish_reason="stop",
        label_logprobs=(-2.0, -3.0),
        residual_mass=1 - 0.1353352832 - 0.0497870684,
        reply_ids=[9, 4],
        reply_logprobs=[-0.5, -4.0],
        topk_ids=[[9, 5], [6, 5]],
        topk_logprobs=[[-0.5, -2.0], [-1.0, -1.0]],
        topk_tail=TAIL,
        raw=raw,
    )
    return VLLM_RECIPE, answer


def make_transformers_row() -> tuple[Mapping[str, Any], Answer]:
    """Whole label words, whose scores stand in a field of their own."""
    recipe = {**VLLM_RECIPE, "teacher": "transformers", "scoring": {"mode": "words"}}
    raw = write_chat_completion("yes", "length", [SaidToken(9, -0.5, {9: -0.5, 5: -2.0})], 9, word_scores=(-2.0, -3.0))
    answer = Answer(
        Status.OK,
        reply="yes",
        finish_reason="length",
        label_logprobs=(-2.0, -3.0),
        residual_mass=1 - 0.1353352832 - 0.0497870684,
        reply_ids=[9],
        reply_logprobs=[-0.5],
        topk_ids=[[9, 5]],
        topk_logprobs=[[-0.5, -2.0]],
        topk_tail=TAIL[:1],
        raw=raw,
    )
    return recipe, answer


def make_reader_row() -> tuple[Mapping[str, Any], Answer]:
    pytest.importorskip("rapidocr")
    from harvest.teachers.reader import ReaderConfig, ReaderTeacher
    from shared.sources import MPNET

    teacher = ReaderTeacher(ReaderConfig(MPNET), TASK, name="reader")
    reply = asyncio.run(ask_one(teacher, Example("1", "two lines of text:\nthis is the second")))
    assert reply.answer.reply
    return teacher.recipe(), reply.answer


async def ask_one(teacher: Teacher, example: Example) -> Reply:
    async def requests() -> AsyncIterator[Request]:
        yield Request(RequestKeys(teacher.recipe()).key(teacher.content(example)), example)

    async with aclosing(teacher.answer(requests())) as replies:
        found = [reply async for reply in replies]
    await teacher.aclose()
    return found[0]


ROWS: Mapping[str, Callable[[], tuple[Mapping[str, Any], Answer]]] = {
    "harvest.teachers.endpoint:EndpointTeacher": make_endpoint_row,
    "harvest.teachers.vllm:VllmTeacher": make_vllm_row,
    "harvest.teachers.transformers:TransformersTeacher": make_transformers_row,
    "harvest.teachers.reader:ReaderTeacher": make_reader_row,
}
BY_CLASS = {entry.teacher: entry for entry in reversed(ENTRIES)}


@pytest.mark.parametrize("entry", BY_CLASS.values(), ids=lambda entry: entry.name)
def test_the_raw_of_every_teacher_says_what_its_row_says(entry: TeacherEntry) -> None:
    assert find_reread({"teacher": "scorer"}) is None  # a text that was given is no reply
    if "reply" not in entry.gives:
        assert find_reread({"teacher": entry.name}) is None  # nor is a vector
        return
    recipe, answer = ROWS[str(entry.teacher)]()
    reread = find_reread(json.loads(json.dumps(recipe)))
    assert reread is not None
    assert answer.raw is not None
    said = reread(answer.raw)
    assert {"status", "reply"} <= set(said)
    for name, value in said.items():
        if name.startswith("topk") and getattr(answer, name) is None:
            continue  # was not wished for
        if isinstance(value, list) and value and isinstance(value[0], list):
            assert [list(one) for one in getattr(answer, name)] == value
        else:
            assert getattr(answer, name) == (pytest.approx(value, abs=1e-4) if is_number(value) else value), name


def is_number(value: object) -> bool:
    one = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(one, float)


@dataclass(frozen=True)
class OldFolder:
    """A folder of schema 1: its recipe and rows, and the columns that reading them again fills."""

    recipe: Mapping[str, Any]
    rows: list[dict[str, Any]]
    filled: Mapping[str, Any]
    reread: int


def make_old_rows(**columns: Any) -> list[dict[str, Any]]:
    return [
        {
            "sample_id": f"row-{i}",
            "text": f"text {i}",
            "label": i % 2,
            "request_key": f"{i:064x}",
            "status": "ok",
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "cost_usd": 0.25,
            **columns,
        }
        for i in range(5)
    ]


def make_old_endpoint() -> OldFolder:
    recipe, answer = make_endpoint_row()
    columns = {"reply": answer.reply, "finish_reason": "stop", "label_logprobs": answer.label_logprobs}
    rows = make_old_rows(**columns, residual_mass=answer.residual_mass, raw=answer.raw)
    return OldFolder(recipe, rows, {}, len(rows))


def make_old_vllm() -> OldFolder:
    """Its replies do not say which tokens begin the label words."""
    columns = {"reply": "so it is", "finish_reason": "stop", "label_logprobs": [-2.0, -3.0], "residual_mass": 0.8125}
    topk = {"topk_ids": [[9, 5], [6, 5]], "topk_logprobs": [[-0.5, -2.0], [-1.0, -1.0]]}
    rows = make_old_rows(**columns, **topk, raw=write_vllm_reply(None))
    return OldFolder(VLLM_RECIPE, rows, {"reply_ids": [9, 4], "reply_logprobs": [-0.5, -4.0]}, len(rows))


def make_old_vectors(teacher: str) -> OldFolder:
    return OldFolder({"teacher": teacher}, make_old_rows(embedding=[0.5, -1.25]), {}, 0)


def make_old_reader() -> OldFolder:
    return OldFolder({"teacher": "reader"}, make_old_rows(embedding=[0.5, -1.25], reply="what it read"), {}, 0)


def make_old_vllm_vectors() -> OldFolder:
    recipe = {**VLLM_RECIPE, "vector": {"pooling": "last"}}
    return OldFolder(recipe, make_old_rows(embedding=[0.5, -1.25]), {}, 0)


def make_old_join() -> OldFolder:
    """The vectors of one pass beside the answers of another (--onto)."""
    old = make_old_vllm()
    recipe = {**VLLM_RECIPE, "vector": {"pooling": "last"}, "onto": {"teacher": "vllm", "recipe": VLLM_RECIPE}}
    rows = [{**row, "embedding": [0.5, -1.25]} for row in old.rows[:-1]]
    failed = {**old.rows[-1], "status": "failed", "error": "the vector cannot be computed"}
    return OldFolder(recipe, [*rows, failed], old.filled, len(rows))


OLD: Mapping[str, Callable[[], OldFolder]] = {
    "endpoint": make_old_endpoint,
    "vllm": make_old_vllm,
    "vllm vectors": make_old_vllm_vectors,
    "vllm onto": make_old_join,
    "reader": make_old_reader,
    **{name: partial(make_old_vectors, name) for name in ("encoder", "diffusion", "video", "speech")},
}


@pytest.mark.parametrize("kind", OLD)
@pytest.mark.parametrize("waits", [False, True])
def test_a_folder_of_schema_1_is_brought_over_as_it_was(kind: str, waits: bool, tmp_path: Path) -> None:
    old = OLD[kind]()
    manifest = Manifest("reviews", "old", "classification", WORDS, "accuracy", json.loads(json.dumps(old.recipe)), "s")
    groups = {"train": [old.rows[:3]]} if waits else {"train": [old.rows[:3], old.rows[3:]]}
    folder = write_folder(tmp_path, manifest, groups, {"train": old.rows[3:]} if waits else None)
    result = reparse(folder)
    assert (result.rows, result.reread, result.statuses) == (5, old.reread, {})
    manifest = load_manifest(folder)
    assert manifest.schema_version == SCHEMA_VERSION
    assert sum(shard.cost_usd or 0 for shard in manifest.shards) == 5 * 0.25
    rows = []
    for shard in manifest.shards:
        table = pq.read_table(folder / shard.path, partitioning=None)
        assert read_version(table.schema) == SCHEMA_VERSION
        assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"] == list(WORDS)
        rows += table.to_pylist()
    for before, after in zip(old.rows, sorted(rows, key=lambda row: row["sample_id"]), strict=True):
        for name, value in before.items():
            assert after[name] == (pytest.approx(value) if is_number(value) else value), name
        for name, value in old.filled.items():
            assert after[name] == (value if before["status"] == "ok" else None)
        for name in set(READ_COLUMNS) - {"reply_ids", "reply_logprobs", "topk_tail"} - set(before):
            assert after[name] is None, name
        if "topk_ids" in before and before["status"] == "ok":
            assert after["topk_tail"] == pytest.approx(TAIL, rel=2**-8)
    assert verify_shards(folder).problems == ()
    again = reparse(folder)
    assert (again.rows, again.changed) == (5, 0)
    assert load_manifest(folder) == manifest
