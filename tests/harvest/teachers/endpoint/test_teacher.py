import asyncio
import base64
import json
import math
import random
import socket
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from harvest.chat.prompts import Draw
from harvest.rendering import Layout, render
from harvest.teachers.base import Reply, Request
from harvest.teachers.endpoint import EndpointConfig, EndpointTeacher
from shared.errors import RecipeMismatchError, TeacherError, UsageError
from shared.example import Example
from shared.schema import Row, Status, row_schema, rows_to_batch, sum_costs
from tests.harvest.fault_server import ALL_FAULTS, ANSWERED, Asked, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import (
    CANARY,
    TASK,
    ask_all,
    make_examples,
    make_teacher,
    run_all,
    stream_requests,
)

# The status in which a row ends whose last attempt met this fault.
STATUSES = {
    "ok": Status.OK,
    "slow": Status.OK,
    "text/plain": Status.OK,
    "no usage": Status.OK,
    "absurd usage": Status.OK,
    "echoed key": Status.OK,
    "said key": Status.UNPARSABLE,  # it has thinking, and its log-probabilities are not of the answer
    "key in parts": Status.OK,
    "truncated key": Status.UNPARSABLE,
    "half a surrogate": Status.OK,
    "drip": Status.UNPARSABLE,
    "truncated": Status.UNPARSABLE,
    "truncated chunks": Status.UNPARSABLE,
    "invalid JSON": Status.UNPARSABLE,
    "HTML": Status.UNPARSABLE,
    "no log-probabilities": Status.UNPARSABLE,
    "null log-probabilities": Status.UNPARSABLE,
    "NaN log-probability": Status.UNPARSABLE,
    "no choices": Status.UNPARSABLE,
    "deep": Status.UNPARSABLE,
    "oversized": Status.UNPARSABLE,
    "refusal": Status.REFUSED,
    "refusal key": Status.REFUSED,
    "content filter": Status.REFUSED,
    "400 content": Status.REFUSED,
    "error in 200": Status.FAILED,
    "400": Status.FAILED,
    "400 key": Status.FAILED,
    "500 key": Status.FAILED,
    "header key": Status.FAILED,
    "500": Status.FAILED,
    "502": Status.FAILED,
    "503": Status.FAILED,
    "reset after": Status.FAILED,
    "closed after": Status.FAILED,
}


def check_fault_run(server: FaultServer, replies: list[Reply], rows: int) -> None:
    """Every row has the status that its last attempt decided, and nothing that was answered was asked again."""
    assert Counter(reply.request.key for reply in replies) == Counter({reply.request.key: 1 for reply in replies})
    assert len(replies) == rows
    assert server.count.again == []
    for reply in replies:
        key, answer = reply.request.key, reply.answer
        last = server.choose(key, server.count.attempts[key] - 1)
        assert answer.status is STATUSES[last], (last, answer)
        assert server.count.answered[key] == (last in ANSWERED or last == "ok")
        # A raw reply that spells the key in parts, which only parsing puts together, is not kept.
        assert (answer.raw is not None) == (last in ANSWERED or last == "ok") or last == "key in parts"
        assert (answer.error is None) == (answer.status is Status.OK)
        # A connection that was reset before anything was read is an attempt that the server has not seen.
        assert answer.attempts >= server.count.attempts[key]
    for start in range(0, rows, 1000):
        some = [Row(r.request.example, r.request.key, 0, r.answer) for r in replies[start : start + 1000]]
        assert CANARY not in rows_to_batch(some, row_schema()).serialize().to_pybytes().decode("latin-1")


def test_every_fault_becomes_the_row_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    with FaultServer(ALL_FAULTS, seed=3) as server:
        teacher = make_teacher(server, api_key_env="CANARY_KEY", price_in=1.0, price_out=2.0)
        replies = run_all(teacher, make_examples(1500))
        check_fault_run(server, replies, 1500)
        rare = {fault for fault, per_thousand in ALL_FAULTS.items() if per_thousand < 4}
        assert set(ALL_FAULTS) - set(server.count.outcomes) <= rare
        assert CANARY not in teacher.describe_progress()
        assert all(asked.headers["authorization"] == f"Bearer {CANARY}" for asked in server.requests)


@pytest.mark.real
def test_twenty_thousand_requests_with_every_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    with FaultServer(ALL_FAULTS, seed=4) as server:
        teacher = make_teacher(server, api_key_env="CANARY_KEY", concurrency=128)
        check_fault_run(server, run_all(teacher, make_examples(20_000)), 20_000)
        assert set(server.count.outcomes) == {"ok", *ALL_FAULTS}


def test_a_good_run_asks_each_request_once_and_bills_it() -> None:
    with FaultServer(price_in=1e-6, price_out=2e-6) as server:
        teacher = make_teacher(server, price_in=1.0, price_out=2.0)
        replies = run_all(teacher, make_examples(200))
        assert set(server.count.attempts.values()) == {1}
        assert {reply.answer.status for reply in replies} == {Status.OK}
        for reply in replies:
            answer = reply.answer
            assert (answer.prompt_tokens, answer.completion_tokens, answer.attempts) == (40, 1, 1)
            assert sum(math.exp(v) for v in answer.label_logprobs or ()) + (answer.residual_mass or 0) == pytest.approx(
                1
            )
            assert answer.latency_ms is not None
            assert answer.asked_at is not None
        assert sum_costs(reply.answer.cost_usd for reply in replies) == pytest.approx(server.count.billed_usd)


def test_attempts_of_a_request_carry_one_idempotency_key() -> None:
    with FaultServer({"500": 200, "closed after": 100}, seed=1) as server:
        replies = run_all(make_teacher(server, attempts=20), make_examples(40))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert {asked.key for asked in server.requests} == {reply.request.key for reply in replies}
        assert len(server.requests) > 45
        assert all(reply.answer.attempts == server.count.attempts[reply.request.key] for reply in replies)


def test_attempts_end() -> None:
    with FaultServer({"500": 1000}) as server:
        (reply,) = run_all(make_teacher(server, attempts=2), make_examples(1))
        assert (reply.answer.status, reply.answer.attempts) == (Status.FAILED, 2)
        assert "HTTP 500: fault 500" in (reply.answer.error or "")


class FaultyOnce(FaultServer):
    """Answers the first attempt of each request with a fault, and the others well."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def choose(self, key: str, attempt: int) -> str:
        return "ok" if attempt else self._fault


def test_a_retry_is_billed_as_possible_only_where_the_first_may_have_been_accepted() -> None:
    for fault, billed in (("500", True), ("reset after", True), ("503", False), ("429", False)):
        with FaultyOnce(fault) as server:
            teacher = make_teacher(server, price_in=1.0, price_out=1.0)
            run_all(teacher, make_examples(5))
            assert sorted(server.count.attempts.values()) == [2] * 5, fault
            assert ("may be billed" in teacher._describe_progress()) == billed, fault


def test_nobody_listening_is_an_attempt_that_cost_nothing() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        teacher = make_teacher(url, attempts=2, price_in=1.0, price_out=1.0)
        (reply,) = run_all(teacher, make_examples(1))
    assert reply.answer.status is Status.FAILED
    assert "no connection" in (reply.answer.error or "")
    assert "may be billed" not in teacher._describe_progress()


def test_a_server_that_is_slower_than_the_timeout_gets_more_time() -> None:
    with FaultServer(latency=0.6) as server:
        (reply,) = run_all(make_teacher(server, read_timeout=0.2), make_examples(1))
        assert reply.answer.status is Status.OK
        assert reply.answer.attempts == 3  # .2, .4, .8 seconds


def test_a_limited_server_is_not_stormed() -> None:
    with FaultServer(limit=100, burst=20, retry_after="1") as server:
        run_all(make_teacher(server, concurrency=64), make_examples(400))
        count = server.count
        assert len(count.accepted_at) == 400
        assert len(count.refused_at) < 0.1 * 400
        # After a refusal with Retry-After: 1 nobody sends for a second, but for what was on its way.
        first = count.refused_at[0]
        assert not [at for at in (*count.accepted_at, *count.refused_at) if first + 0.15 < at < first + 1.0]


def test_an_endpoint_that_only_refuses_ends_the_run_and_says_so() -> None:
    with FaultServer(limit=1e-9, burst=0) as server, pytest.raises(TeacherError, match="slow down"):
        run_all(make_teacher(server, patience=1.0), make_examples(5))


def test_a_wait_beyond_all_patience_ends_the_run_at_once() -> None:
    server = FaultServer(limit=1e-9, burst=0, retry_after="86400")
    with server, pytest.raises(TeacherError, match="run the same command again later"):
        run_all(make_teacher(server), make_examples(5))


def test_a_wrong_key_ends_the_run_and_what_was_in_flight_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)

    class Revoking(FaultServer):
        def choose(self, key: str, attempt: int) -> str:
            return "401 key" if sum(self.count.attempts.values()) >= 30 else "slow"

    got: list[Reply] = []

    async def run(teacher: EndpointTeacher) -> None:
        async with aclosing(teacher.answer(stream_requests(teacher, make_examples(1000)))) as replies:
            async for reply in replies:
                got.append(reply)  # noqa: PERF401 - kept also where the end is an exception

    with Revoking() as server:
        with pytest.raises(TeacherError, match="API key") as refusal:
            asyncio.run(run(make_teacher(server, api_key_env="CANARY_KEY")))
        assert len(got) == sum(server.count.answered.values()) == 30
        text = "".join(traceback.format_exception(refusal.value))
        assert CANARY not in text
        assert sum(server.count.attempts.values()) < 100


def test_requests_are_pulled_only_as_they_can_be_sent_and_replies_taken() -> None:
    async def run(server: FaultServer) -> int:
        teacher = make_teacher(server, concurrency=8)
        pulled = 0

        async def requests() -> AsyncIterator[Request]:
            nonlocal pulled
            async for request in stream_requests(teacher, make_examples(500)):
                pulled += 1
                yield request

        most, taken = 0, 0
        async with aclosing(teacher.answer(requests())) as replies:
            async for _ in replies:
                taken += 1
                most = max(most, pulled - taken)
                if taken % 50 == 0:
                    await asyncio.sleep(0.05)  # a slow disk
        assert taken == 500
        return most

    with FaultServer() as server:
        assert asyncio.run(run(server)) <= 16
        assert server.count.most_in_flight <= 8


def test_what_is_refused_after_the_end_waits_for_nothing() -> None:
    async def run(server: FaultServer) -> list[Reply]:
        teacher = make_teacher(server, concurrency=4)
        asking = asyncio.create_task(ask_all(teacher, make_examples(8)))
        while server.count.in_flight < 4:
            await asyncio.sleep(0.01)
        teacher.end()
        return await asyncio.wait_for(asking, 30)

    with FaultServer(limit=1e-9, burst=0, retry_after="300", latency=0.1) as server:
        assert asyncio.run(run(server)) == []
        assert sum(server.count.attempts.values()) == 4


def test_a_run_that_is_left_early_sends_nothing_more() -> None:
    async def run(server: FaultServer) -> None:
        teacher = make_teacher(server)
        async with aclosing(teacher.answer(stream_requests(teacher, make_examples(1000)))) as replies:
            async for _ in replies:
                break
        seen = sum(server.count.attempts.values())
        await asyncio.sleep(0.1)
        assert sum(server.count.attempts.values()) <= seen + 32

    with FaultServer(latency=0.01) as server:
        asyncio.run(run(server))
        assert sum(server.count.attempts.values()) < 200


def test_what_breaks_the_source_of_requests_is_raised_as_it_is() -> None:
    async def requests(teacher: EndpointTeacher) -> AsyncIterator[Request]:
        async for request in stream_requests(teacher, make_examples(3)):
            yield request
        raise OSError("disk full")

    async def run(server: FaultServer) -> None:
        teacher = make_teacher(server)
        async with aclosing(teacher.answer(requests(teacher))) as replies:
            async for _ in replies:
                pass

    with FaultServer() as server, pytest.raises(OSError, match="disk full"):
        asyncio.run(run(server))


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 200), marks=pytest.mark.real)])
def test_max_cost_is_never_passed(seeds: range) -> None:
    """Random usage, faults that may be billed, and a cap that ends every run."""
    kept = 0
    for seed in seeds:
        source = random.Random(seed)

        def answer(asked: Asked, source: random.Random = source) -> dict[str, Any]:
            prompt = len(json.dumps(asked.body["messages"]))
            limit = asked.body["max_completion_tokens"]
            return make_reply("positive", spread_logprobs(0.5), source.randint(1, prompt), source.randint(1, limit))

        faults = {"500": 50, "reset after": 50, "truncated": 50, "no usage": 50}
        cap = source.uniform(0.005, 0.02)
        with FaultServer(faults, seed, answer=answer, price_in=10e-6, price_out=100e-6) as server:
            teacher = make_teacher(
                server, price_in=10.0, price_out=100.0, max_cost=cap, concurrency=source.choice([1, 4, 32])
            )
            replies = run_all(teacher, make_examples(100))
            assert server.count.billed_usd <= cap
            cost = sum_costs(reply.answer.cost_usd for reply in replies)
            assert cost is not None
            assert cost <= cap + 1e-12
            assert teacher.stopped is not None
            assert "--max-cost" in teacher.stopped
            assert len(replies) < 100  # none, where faults that may be billed took a small cap whole
            kept += len(replies)
    assert kept > 0


def test_max_requests_counts_every_attempt() -> None:
    with FaultServer({"500": 300}, seed=2) as server:
        teacher = make_teacher(server, max_requests=25)
        replies = run_all(teacher, make_examples(100))
        assert sum(server.count.attempts.values()) == 25
        assert 0 < len(replies) < 25
        assert "--max-requests 25" in (teacher.stopped or "")


def test_a_cap_without_a_price_is_refused() -> None:
    with pytest.raises(UsageError, match="--price-in"):
        make_teacher("http://localhost:1/v1", max_cost=1.0)


def test_a_picture_is_sent_as_it_was_drawn() -> None:
    with FaultServer() as server:
        teacher = make_teacher(server, draw=Draw.FIELDS, size=(256, 256))
        (reply,) = run_all(teacher, [Example("1", "Ein schöner Film.", "漢字")])
        (asked,) = server.requests
        *pictures, question = asked.body["messages"][0]["content"]
        assert question == {"type": "text", "text": TASK.question}
        pngs = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in pictures]
        assert [png[:8] for png in pngs] == [b"\x89PNG\r\n\x1a\n"]
        assert reply.answer.image_sha256 == [sha256(png).hexdigest() for png in pngs]


def test_a_long_text_is_sent_as_several_pictures_and_the_question_with_it_where_all_is_drawn() -> None:
    example = Example("1", "It goes on and on. " * 60)
    with FaultServer() as server:
        replies = [
            run_all(make_teacher(server, draw=draw, size=(256, 256)), [example])[0]
            for draw in (Draw.FIELDS, Draw.ALL, Draw.NONE)
        ]
        sent = [asked.body["messages"][0]["content"] for asked in server.requests]
    drawn = [render(text, Layout(256, 256)) for text in (example.text, f"{TASK.question}\n\n{example.text}")]
    for reply, parts, pages in zip(replies, sent, drawn, strict=False):
        assert len(pages) > 1
        assert reply.answer.image_sha256 == [page.sha256 for page in pages]
        assert [part["type"] for part in parts[: len(pages)]] == ["image_url"] * len(pages)
    assert sent[0][-1] == {"type": "text", "text": TASK.question}
    assert len(sent[1]) == len(drawn[1])
    assert sent[2] == f"{TASK.question}\n\n{example.text}"
    assert replies[2].answer.image_sha256 is None


def test_a_text_that_cannot_be_drawn_is_a_failed_row_and_costs_nothing() -> None:
    with FaultServer() as server:
        teacher = make_teacher(server, draw=Draw.FIELDS)

        async def requests() -> AsyncIterator[Request]:
            for i, text in enumerate(["fine", "\U0001f600", "fine too"]):
                yield Request(str(i), Example(str(i), text))

        async def run() -> dict[str, Reply]:
            async with aclosing(teacher.answer(requests())) as replies:
                return {reply.request.key: reply async for reply in replies}

        replies = asyncio.run(run())
        assert [replies[key].answer.status for key in "012"] == [Status.OK, Status.FAILED, Status.OK]
        assert "1F600" in (replies["1"].answer.error or "")
        assert replies["1"].answer.attempts == 0
        assert len(server.requests) == 2


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_votes_are_asked_for_at_once_or_one_by_one(dialect: str) -> None:
    words = iter(["positive", "negative", "positive", "no idea", "positive"] * 100)

    def answer(asked: Asked) -> dict[str, Any]:
        reply = make_reply("", {}, 10, 2)
        template = reply["choices"][0]
        reply["choices"] = []
        for _ in range(asked.body.get("n", 1)):
            reply["choices"].append({**template, "message": {"content": next(words)}})
        return reply

    with FaultServer(answer=answer) as server:
        teacher = make_teacher(server, dialect=dialect, scoring="votes", votes=5, price_in=1.0, price_out=1.0)
        (reply,) = run_all(teacher, make_examples(1))
        answered = reply.answer
        assert [math.exp(v) for v in answered.label_logprobs or ()] == pytest.approx([0.2, 0.6])
        assert answered.residual_mass == pytest.approx(0.2)
        requests = 1 if dialect == "openai" else 5
        assert len(server.requests) == requests == len({asked.key for asked in server.requests})
        assert answered.attempts == requests
        assert answered.prompt_tokens == 10 * requests
        assert answered.cost_usd == pytest.approx(12e-6 * requests)


@pytest.mark.parametrize("says_cost", [False, True])
def test_where_no_price_is_known_a_row_has_none_unless_the_endpoint_bills_it(says_cost: bool) -> None:
    reply = make_reply("positive", spread_logprobs(0.9))
    if says_cost:
        reply["usage"]["cost"] = 0.25
    with FaultServer(answer=lambda asked: reply) as server:
        (answered,) = run_all(make_teacher(server), make_examples(1))
    assert answered.answer.cost_usd == (0.25 if says_cost else None)


def test_what_never_was_answered_costs_nothing() -> None:
    with FaultServer({"400": 1000}) as server:
        (answered,) = run_all(make_teacher(server), make_examples(1))
    assert (answered.answer.status, answered.answer.cost_usd) == (Status.FAILED, 0.0)


def test_a_server_that_ignores_n_is_asked_for_the_missing_votes() -> None:
    with FaultServer(answer=lambda asked: make_reply("positive", {})) as server:
        (reply,) = run_all(make_teacher(server, scoring="votes", votes=3), make_examples(1))
        assert [asked.body.get("n") for asked in server.requests] == [3, 2, None]
        assert reply.answer.label_logprobs == (-100.0, 0.0)


def test_a_regression_task_is_answered_with_a_number() -> None:
    task = replace(TASK, kind="regression", labels=(), label_words=(), question="How similar, from 0 to 5?")
    with FaultServer(answer=lambda asked: make_reply("3.5", {})) as server:
        (reply,) = run_all(make_teacher(server, task, scoring="auto"), make_examples(1))
        assert (reply.answer.status, reply.answer.reply) == (Status.OK, "3.5")
        assert reply.answer.label_logprobs is None


def test_the_recipe_holds_what_changes_an_answer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)

    def recipe(**options: Any) -> str:
        return json.dumps(make_teacher("http://h/v1", **options).recipe(), sort_keys=True)

    plain = recipe()
    same = {
        "api_key_env": "CANARY_KEY",
        "concurrency": 5,
        "rpm": 60.0,
        "tpm": 1000.0,
        "attempts": 2,
        "read_timeout": 9.0,
        "price_in": 1.0,
        "price_out": 1.0,
        "max_requests": 3,
        "patience": 5.0,
    }
    assert recipe(**same) == plain
    different: list[dict[str, Any]] = [
        {"scoring": "choice"},
        {"scoring": "votes"},
        {"top_logprobs": 5},
        {"max_tokens": 3},
        {"temperature": 0.5},
        {"draw": Draw.FIELDS},
        {"draw": Draw.ALL},
        {"draw": Draw.FIELDS, "size": (336, 336)},
        {"body": {"seed": 1}},
        {"keep_topk": True, "scoring": "votes"},
        {"task": replace(TASK, question="Good?")},
        {"task": replace(TASK, label_words=("bad", "good"))},
    ]
    elsewhere = make_teacher("http://other/v1").recipe()
    another = EndpointTeacher(EndpointConfig(("http://h/v1",), "m2", dialect="openai", scoring="top_logprobs"), TASK)
    others = [json.dumps(one, sort_keys=True) for one in (elsewhere, another.recipe())]
    assert len({plain, *others, *(recipe(**options) for options in different)}) == len(different) + 3
    assert CANARY not in plain


def test_adopting_a_recipe_leaves_nothing_open() -> None:
    known = make_teacher("http://h/v1", dialect="llamacpp", scoring="choice")
    auto = make_teacher("http://h/v1", dialect="auto", scoring="auto")
    assert not auto.resolved
    assert auto.recipe()["scoring"] == {"mode": "auto"}
    auto.adopt(json.loads(json.dumps(known.recipe())))
    assert auto.resolved
    assert auto.recipe() == known.recipe()
    other = make_teacher("http://h/v1", dialect="auto", scoring="votes")
    other.adopt(known.recipe())
    assert other.recipe() != known.recipe()
    with pytest.raises(RecipeMismatchError, match="'reader'"):
        auto.adopt({"teacher": "reader"})


def test_a_scoring_that_does_not_fit_the_task_is_refused() -> None:
    with pytest.raises(UsageError, match="--scoring text"):
        make_teacher("http://h/v1", scoring="text")


def test_estimates_grow_with_the_text_and_know_the_price() -> None:
    teacher = make_teacher("http://h/v1", price_in=1.0, price_out=1.0)
    short, long = (teacher.estimate(Example("1", "word " * count)) for count in (10, 1000))
    assert long.input_tokens - short.input_tokens == pytest.approx(990 * 5 / 4, rel=0.01)
    assert short.cost_usd is not None
    assert long.cost_usd is not None
    assert long.cost_usd > short.cost_usd
    pictured = make_teacher("http://h/v1", draw=Draw.FIELDS).estimate(Example("1", "word " * 1000))
    assert pictured.input_tokens < 80
    assert pictured.image_tokens > 1000
    assert pictured.cost_usd is None


def test_asking_twice_in_two_event_loops_works() -> None:
    with FaultServer() as server:
        teacher = make_teacher(server)
        assert len(run_all(teacher, make_examples(5))) == 5
        assert len(asyncio.run(ask_all(teacher, make_examples(5)))) == 5


def test_a_well_known_host_has_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    teacher = EndpointTeacher(EndpointConfig(("https://api.openai.com/v1",), "gpt-4o-mini"), TASK)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        teacher.check_access()
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    teacher.check_access()
    teacher = EndpointTeacher(EndpointConfig(("https://api.openai.com/v1",), "gpt-4o-mini", max_cost=1.0), TASK)
    assert teacher.price is not None
