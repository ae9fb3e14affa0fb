"""Several base URLs behind one budget, one log of what is in flight, and one writer."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from harvest.cli import app
from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest
from harvest.teachers.base import Probe, Reply
from harvest.teachers.endpoint import servers as servers_module
from harvest.teachers.endpoint.servers import FAILURES
from harvest.teachers.endpoint.teacher import EndpointTeacher
from shared.errors import RecipeMismatchError, TeacherError, UsageError
from shared.schema import Status
from shared.shards import load_manifest
from tests.harvest.fault_server import WORDS, Asked, ErrorReply, FaultServer, make_reply, spread_logprobs
from tests.harvest.teachers.endpoint.endpoint_runs import (
    CANARY,
    ask_all,
    check_no_file_shows,
    make_examples,
    make_teacher,
    run_all,
)

PRICES = {"price_in": 1.0, "price_out": 2.0}
MODELS = "/v1/models"
# As a paid endpoint goes wrong: refusals, errors that may be billed, and connections that hang up.
FAULTS = {"429": 20, "500": 30, "closed after": 20, "reset after": 20, "truncated": 10, "reset before": 20}


def list_models(*names: str, owner: str = "somebody") -> dict[str, Any]:
    return {MODELS: {"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]}}


@contextmanager
def serve(count: int, faults: dict[str, int] | None = None, **options: Any) -> Iterator[list[FaultServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FaultServer(faults, seed=seed, **options)) for seed in range(count)]


@contextmanager
def stopping(*servers: FaultServer, after: int) -> Iterator[None]:
    """Kill each server once it has been sent so many requests; all were killed when the block ends."""
    over = threading.Event()

    def wait(server: FaultServer) -> None:
        while sum(server.count.attempts.values()) < after and not over.is_set():
            sleep(0.002)
        server.stop()

    threads = [threading.Thread(target=wait, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
        assert [server for server in servers if sum(server.count.attempts.values()) < after] == []
    finally:
        over.set()
        for thread in threads:
            thread.join()


def count_asked(servers: Sequence[FaultServer]) -> list[int]:
    return [sum(server.count.attempts.values()) for server in servers]


def sum_answered(servers: Sequence[FaultServer]) -> Counter[str]:
    """How often each key was answered 200, by all servers."""
    return sum((server.count.answered for server in servers), Counter[str]())


# --- who is asked ---


def test_each_row_is_asked_once_of_one_of_the_servers() -> None:
    with serve(4, latency=0.01) as servers:
        teacher = make_teacher(servers, concurrency=8)
        replies = run_all(teacher, make_examples(400))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert len({reply.request.key for reply in replies}) == len(replies) == 400
        assert set(sum_answered(servers).values()) == {1}
        assert min(count_asked(servers)) > 60
        assert max(server.count.most_in_flight for server in servers) == 8, "--concurrency is that of each"
        assert "4 of 4 servers answer: " in teacher.describe_progress()


def test_a_slower_server_gets_fewer() -> None:
    with FaultServer(latency=0.005) as fast, FaultServer(latency=0.1) as slow:
        run_all(make_teacher([fast, slow], concurrency=8), make_examples(400))
        assert count_asked([fast])[0] > 3 * count_asked([slow])[0] > 0


def test_what_one_refuses_slows_no_other_down() -> None:
    with FaultServer(limit=1, burst=1, retry_after="30") as limited, FaultServer() as other:
        teacher = make_teacher([limited, other], concurrency=4, patience=1.0)
        replies = run_all(teacher, make_examples(200))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert count_asked([other])[0] >= 195
        assert len(limited.count.refused_at) <= 4


def test_what_waits_for_one_that_asks_for_hours_is_asked_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    refusing = iter([500, 500, *[429] * 1000])

    def refuse(asked: Asked) -> ErrorReply:
        status = next(refusing)
        return ErrorReply(status, {"error": {"message": "no"}}, {"Retry-After": "3600"} if status == 429 else {})

    async def ask(teacher: EndpointTeacher) -> list[Reply]:
        return await asyncio.wait_for(ask_all(teacher, make_examples(60)), 20)

    with FaultServer(answer=refuse, latency=0.01) as used_up, FaultServer(latency=0.01) as other:
        replies = asyncio.run(ask(make_teacher([used_up, other], concurrency=4, patience=5.0)))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert count_asked([used_up])[0] <= 8
    assert f"{used_up.url} is set aside until it is there again (HTTP 429" in " ".join(capsys.readouterr().err.split())


def test_where_all_refuse_for_too_long_the_run_ends() -> None:
    with (
        serve(2, limit=0.001, burst=0, retry_after="60") as servers,
        pytest.raises(TeacherError, match="the endpoint only refuses"),
    ):
        run_all(make_teacher(servers, patience=0.2), make_examples(20))


# --- one is down ---


def test_the_rows_of_a_killed_server_are_answered_by_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(3, latency=0.02) as servers:
        with stopping(servers[1], after=30):
            replies = run_all(make_teacher(servers, concurrency=16), make_examples(400))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert len({reply.request.key for reply in replies}) == len(replies) == 400
        assert {reply.request.key for reply in replies} == set(sum_answered(servers))
        # Only what was in flight there when it died was asked again.
        again = [key for key, times in sum((s.count.attempts for s in servers), Counter[str]()).items() if times > 1]
        assert len(again) <= 16
        assert set(again) <= set(servers[1].count.attempts)
        assert all(not server.count.again for server in servers)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{servers[1].url} is set aside until it is there again" in said
    assert "its requests go to the other 2" in said


def test_a_server_that_is_there_again_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_LOOK_SECONDS", 0.02)
    with FaultServer(latency=0.02, routes=list_models("m")) as one, ExitStack() as later:
        with FaultServer(latency=0.02) as gone:
            port = gone.port
        started: list[FaultServer] = []

        def start() -> None:
            while count_asked([one])[0] < 60:
                sleep(0.002)
            started.append(later.enter_context(FaultServer(port=port, latency=0.02, routes=list_models("m"))))

        starting = threading.Thread(target=start)
        starting.start()
        replies = run_all(make_teacher([one, gone], concurrency=4), make_examples(400))
        starting.join()
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert count_asked(started)[0] > 20
    said = " ".join(capsys.readouterr().err.split())
    assert f"{gone.url} is set aside" in said
    assert f"{gone.url} is there again" in said


def test_where_none_is_there_nothing_is_asked() -> None:
    with serve(2) as servers:
        pass
    with pytest.raises(TeacherError, match="no server is there") as refusal:
        run_all(make_teacher(servers), make_examples(5))
    assert all(server.url in str(refusal.value) for server in servers)
    assert "nobody listens there" in str(refusal.value)


def test_where_all_die_the_rows_end_as_with_one_server() -> None:
    with serve(2, latency=0.01) as servers, stopping(*servers, after=20):
        replies = run_all(make_teacher(servers, attempts=2, concurrency=4), make_examples(80))
    assert len(replies) == 80
    statuses = Counter(reply.answer.status for reply in replies)
    assert statuses.keys() == {Status.OK, Status.FAILED}
    assert statuses[Status.OK] >= 30


@pytest.mark.parametrize("fault", ["401 key", "402 key", "404 key"])
def test_a_server_that_can_answer_nothing_is_left_and_the_others_go_on(
    fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    with FaultServer({fault: 1000}, latency=0.01) as wrong, FaultServer(latency=0.01) as right:
        teacher = make_teacher([wrong, right], concurrency=4, api_key_env="CANARY_KEY")
        replies = run_all(teacher, make_examples(60))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert count_asked([wrong])[0] <= 4
        assert set(right.count.answered.values()) == {1}
    said = " ".join(capsys.readouterr().err.split())
    assert f"{wrong.url} is asked no more" in said
    assert CANARY not in said


def test_a_server_that_only_fails_is_set_aside(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer({"500": 1000}, latency=0.02) as broken, FaultServer(latency=0.02) as well:
        replies = run_all(make_teacher([broken, well], concurrency=4), make_examples(100))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        assert count_asked([broken])[0] <= FAILURES + 4
    assert f"{broken.url} is set aside" in " ".join(capsys.readouterr().err.split())


def test_what_may_have_been_accepted_is_asked_again_of_the_same_server_under_its_key() -> None:
    with serve(3, {"closed after": 60, "500": 60}, latency=0.005) as servers:
        replies = run_all(make_teacher(servers, concurrency=4, attempts=20), make_examples(200))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        repeated = [key for server in servers for key, times in server.count.attempts.items() if times > 1]
        assert len(repeated) > 10
        asked_at = Counter(key for server in servers for key in server.count.attempts)
        assert asked_at == Counter({reply.request.key: 1 for reply in replies})


def test_what_may_have_been_accepted_is_asked_of_no_other_server_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as 409, of a server that is still at a request of that Idempotency-Key."""
    monkeypatch.setattr(servers_module, "FAILURES", 1000)
    seen: Counter[str] = Counter()

    def answer(asked: Asked) -> dict[str, Any] | ErrorReply:
        seen[asked.key] += 1
        if seen[asked.key] < 3:
            return ErrorReply((500, 409)[seen[asked.key] - 1], {"error": {"message": "no"}})
        return make_reply("positive", spread_logprobs(0.5))

    with serve(3, answer=answer) as servers:
        replies = run_all(make_teacher(servers, concurrency=4), make_examples(30))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        asked_at = Counter(key for server in servers for key in server.count.attempts)
        assert asked_at == Counter({reply.request.key: 1 for reply in replies})


# --- before anything is asked ---


def probe(teacher: EndpointTeacher) -> Probe:
    noted: list[str] = []
    return asyncio.run(teacher.probe(make_examples(1)[0], noted.append))


def ask_some(teacher: EndpointTeacher) -> None:
    run_all(teacher, make_examples(3))


@pytest.mark.parametrize("ask", [probe, ask_some])
def test_a_server_of_another_model_is_refused_before_anything_is_asked(ask: Callable[[EndpointTeacher], Any]) -> None:
    with FaultServer(routes=list_models("m")) as right, FaultServer(routes=list_models("other", "more")) as wrong:
        with pytest.raises(UsageError, match="the model m is not in its list, which has other, more") as refusal:
            ask(make_teacher([right, wrong]))
        assert wrong.url in str(refusal.value)
        assert right.url not in str(refusal.value)
        assert count_asked([right, wrong]) == [0, 0]


@pytest.mark.parametrize(
    "routes",
    [
        list_models("m"),
        list_models("m:latest"),
        {MODELS: {"models": [{"name": "/models/x.gguf", "aliases": ["m"]}]}},
        {MODELS: {"data": []}},
        {MODELS: [1]},
        {},
    ],
)
def test_a_server_that_lists_the_model_or_lists_nothing_is_asked(routes: dict[str, Any]) -> None:
    with FaultServer(routes=list_models("m")) as one, FaultServer(routes=routes) as other:
        ask_some(make_teacher([one, other]))
        assert sum(count_asked([one, other])) == 3


def test_servers_that_are_asked_otherwise_are_refused() -> None:
    with (
        FaultServer(routes=list_models("m", owner="vllm")) as one,
        FaultServer(routes=list_models("m", owner="llamacpp")) as other,
    ):
        with pytest.raises(UsageError, match=f"{other.url} is llamacpp"):
            probe(make_teacher([one, other], dialect="auto", scoring="auto"))
        assert count_asked([one, other]) == [0, 0]
        ask_some(make_teacher([one, other], dialect="compatible"))


def test_a_probe_asks_one_server_and_goes_on_without_one_that_is_down() -> None:
    with FaultServer() as gone:
        pass
    with FaultServer() as one, FaultServer() as other:
        teacher = make_teacher([gone, one, other], dialect="auto", scoring="auto")
        assert probe(teacher).answer.status is Status.OK
        assert sum(count_asked([one, other])) == 1


def test_one_server_is_not_looked_at_beside_what_is_asked() -> None:
    """A list of models that lacks the name is no matter with one server: it was none before there could be several."""
    with FaultServer(routes=list_models("other")) as server:
        ask_some(make_teacher(server))


@pytest.mark.parametrize(
    "given",
    [
        ["--endpoint", "{0}", "--endpoint", "{1}"],
        ["--config", "options.yaml"],
        [],
    ],
    ids=["flags", "file", "environment"],
)
def test_several_are_given_as_flags_in_a_file_and_in_the_environment(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path, 30)
    with serve(2, latency=0.02) as servers:
        urls = [server.url for server in servers]
        Path("options.yaml").write_text(f"endpoint: {json.dumps(urls)}\n")
        monkeypatch.setenv("HARVEST_ENDPOINT", "" if given else " ".join(urls))
        if given:
            monkeypatch.delenv("HARVEST_ENDPOINT")
        command = [
            *("run", "--teacher", "endpoint", "--model", "m", "--dialect", "openai", "--scoring", "top_logprobs"),
            *("--task", "texts.jsonl", "--label-words", ",".join(WORDS)),
        ]
        result = CliRunner().invoke(app, [*command, *(each.format(*urls) for each in given)])
        assert result.exit_code == 0, result.output
        assert sum(count_asked(servers)) == 30
        assert min(count_asked(servers)) > 5


# --- money ---


def answer_dearly(asked: Asked) -> dict[str, Any] | ErrorReply:
    """Bill as many tokens as a request can have."""
    size = len(json.dumps(asked.body["messages"]))
    return make_reply("positive", spread_logprobs(0.5), size // 2, asked.body["max_completion_tokens"])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.real), pytest.param(2, marks=pytest.mark.real)])
def test_a_cap_over_eight_servers_is_passed_by_nothing_and_every_row_ends_once(seed: int, tmp_path: Path) -> None:
    rows, cap = 300, 0.25
    billed: dict[str, Any] = {"answer": answer_dearly, "price_in": 10e-6, "price_out": 100e-6, "latency": 0.01}
    options = {"price_in": 10.0, "price_out": 100.0, "concurrency": 8, "read_timeout": 5.0, "attempts": 20}
    with ExitStack() as stack:
        servers = [stack.enter_context(FaultServer(FAULTS, seed=8 * seed + one, **billed)) for one in range(8)]
        with stopping(servers[3], after=8):
            first = harvest(tmp_path, servers, rows, max_cost=cap, **options)
        assert first.stopped is not None
        assert "--max-cost" in first.stopped
        spent = sum(server.count.billed_usd for server in servers)
        assert 0 < spent <= cap
        assert 0 < first.asked < rows
        second = harvest(tmp_path, servers, rows, **options)
        assert (second.kept, second.left, second.asked) == (first.asked, 0, rows - first.asked)
        kept = pl.read_parquet(tmp_path / "out/teacher=m/**/*.parquet")
        assert kept["request_key"].n_unique() == kept.height == rows
        assert [server.count.again for server in servers] == [[]] * 8, "what a server answered it is not asked again"


# --- a folder ---


def write_texts(folder: Path, rows: int) -> Path:
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"film {n}", "label": WORDS[n % 2]}) + "\n" for n in range(rows)))
    return texts


def harvest(folder: Path, servers: Sequence[FaultServer | str], rows: int, **options: Any) -> Report:
    """Harvest so many texts from the servers into a folder."""
    texts = write_texts(folder, rows)
    task = TaskChoice(str(texts), text_column="text", label_column="label", labels=WORDS, label_words=WORDS)
    urls = [one if isinstance(one, str) else one.url for one in servers]
    known = {"endpoint": urls, "model": "m", "dialect": "openai", "scoring": "top_logprobs"}
    choice = TeacherChoice("endpoint", options={**known, **options})
    return run_harvest(HarvestConfig(task, choice, out=folder / "out", failure_limit=1.0))


def test_a_harvest_goes_on_with_another_number_of_servers_and_with_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(4) as servers:
        assert harvest(tmp_path, servers[:3], 30).asked == 30
        recipe = load_manifest(tmp_path / "out/teacher=m").recipe
        # With one of them, which is not the first; with one that was not there; with all.
        for some, rows, asked in (([servers[2]], 34, 4), ([servers[3]], 37, 3), (servers, 40, 3)):
            report = harvest(tmp_path, some, rows)
            assert (report.kept, report.asked) == (rows - asked, asked)
            assert load_manifest(tmp_path / "out/teacher=m").recipe == recipe
        assert set(sum_answered(servers).values()) == {1}
        assert sum(count_asked(servers)) == 40
    said = " ".join(capsys.readouterr().err.split())
    assert f"begun at {servers[0].url}, and are gone on with at {servers[3].url}" in said


def test_a_folder_of_one_server_is_gone_on_with_by_others(tmp_path: Path) -> None:
    with serve(3) as servers:
        harvest(tmp_path, servers[:1], 10)
        report = harvest(tmp_path, servers[1:], 20)
        assert (report.kept, report.asked) == (10, 10)
        assert sum(count_asked(servers)) == 20


def test_another_server_in_the_place_of_the_first_must_serve_the_model(tmp_path: Path) -> None:
    with FaultServer() as first, FaultServer(routes=list_models("other")) as other:
        harvest(tmp_path, [first], 10)
        with pytest.raises(UsageError, match="the model m is not in its list"):
            harvest(tmp_path, [other], 20)
        assert count_asked([other]) == [0]


def test_a_provider_does_not_take_the_place_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with FaultServer() as server:
        harvest(tmp_path, [server], 10)
        with pytest.raises(RecipeMismatchError, match=r"recipe\.endpoint"):
            harvest(tmp_path, ["https://api.openai.com/v1"], 10)


def test_several_servers_are_sent_the_key_and_no_file_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    faults = {"500 key": 50, "header key": 50, "echoed key": 100, "closed after": 20, "refusal key": 50}
    with serve(3, faults) as servers:
        with stopping(servers[0], after=10):
            harvest(tmp_path, servers, 100, api_key_env="CANARY_KEY")
        for server in servers:
            assert server.requests
            assert all(CANARY in asked.headers["authorization"] for asked in server.requests)
    printed = capsys.readouterr()
    assert CANARY not in printed.out + printed.err
    check_no_file_shows(CANARY, tmp_path)


# --- what a user says ---


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (("http://a/v1", "http://A:80/v1/"), "http://a/v1 was given twice"),
        (("http://a/v1", "https://api.openai.com/v1"), "is your own and https://api.openai.com/v1 is openai"),
        (("http://a/v1,http://b/v1",), "give --endpoint once for each"),
        (("http://a/v1 http://b/v1",), "give --endpoint once for each"),
        (("http://a/v1", "b"), "'b' is no http or https URL"),
        ((), "no base URL"),
    ],
)
def test_urls_that_cannot_be_asked_together_are_refused(urls: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_teacher(urls)


def test_a_batch_route_is_asked_at_one_url() -> None:
    urls = ("https://one.openai.azure.com/openai/v1", "https://two.openai.azure.com/openai/v1")
    make_teacher(urls)
    with pytest.raises(UsageError, match="--batch goes by one provider's jobs"):
        make_teacher(urls, batch=True)


def test_pace_is_that_of_each_server() -> None:
    one, three = (make_teacher([f"http://{name}/v1" for name in names], rpm=60.0) for names in ("a", "abc"))
    assert one.bound_seconds(600, 0, None) == 600
    assert three.bound_seconds(600, 0, None) == 200
    assert three.describe_progress().startswith("0/s, 0 in flight, 3 of 3 servers answer: 0, 0, 0")


def test_servers_with_a_limit_each_answer_half_of_the_rows_each() -> None:
    """What that is in rows a second, of two and of eight, test_limiter says by a simulated clock."""
    with serve(2, limit=100.0, burst=10.0) as servers:
        replies = run_all(make_teacher(servers), make_examples(300))
        assert {reply.answer.status for reply in replies} == {Status.OK}
        accepted = [len(server.count.accepted_at) for server in servers]
        assert sum(accepted) == 300
        assert min(accepted) > 120
