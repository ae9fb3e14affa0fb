"""Rows kept a second by the endpoint teacher against bare HTTP loops that keep nothing, and its memory by rows.

    python benchmarks/endpoint.py [--rows 6000] [--concurrency 32 256 1024] [--memory]

One loopback server process: 50 ms latency, 20 log-probabilities a reply. Ours is what `harvest run` does after its
plan: requests under an API key, replies searched for it, parsed and scored, journalled, fsynced and sealed. The bare
loops, aiohttp's and httpx's, post the same bodies under the same key with as many workers, parse the JSON and keep
nothing. All run in one process under uvloop, in turn, twice; the best of each counts. Prints one JSON line: rows a
second, and microseconds of a core a row (all threads of the process), which the machine's neighbours change less.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
import httpx
import uvloop

from tests.harvest.fault_server import WORDS, FaultServer, make_reply, spread_logprobs

QUESTION = "Is the review positive or negative? Answer with one word."
TEXT = "a film of such warmth and wit that one forgives its length, and most of its songs"
KEY_VARIABLE, KEY = "BENCHMARK_API_KEY", f"sk-benchmark-{'aB3dE5gH7jK9mN1pQ' * 3}"
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
ROUNDS = 2
MEMORY_ROWS = (10_000, 200_000)


class Spent(NamedTuple):
    """Seconds on the clock, and of a core by all threads of the process."""

    seconds: float
    cpu: float

    def __truediv__(self, rows: int) -> "Spent":
        return Spent(self.seconds / rows, self.cpu / rows)

    def keep_least(self, other: "Spent") -> "Spent":
        """The lesser of each."""
        return Spent(min(self.seconds, other.seconds), min(self.cpu, other.cpu))


def serve(latency: float, address: Any) -> None:
    """The server's process: says its URL, and serves until it is ended."""
    uvloop.install()
    body = json.dumps(make_reply("positive", spread_logprobs(0.6))).encode()
    with FaultServer(latency=latency, answer=lambda asked: body) as server:
        address.send(server.url)
        threading.Event().wait()


def write_texts(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for i in range(rows):
            file.write(json.dumps({"text": f"review number {i}: {TEXT}", "label": WORDS[i % 2]}) + "\n")


def make_body(i: int) -> bytes:
    content = f"{QUESTION}\n\nreview number {i}: {TEXT}"
    asked = {"model": "m", "max_tokens": 8, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    return json.dumps({**asked, "messages": [{"role": "user", "content": content}]}).encode()


async def ask_all(rows: int, concurrency: int, ask: Callable[[bytes], Coroutine[Any, Any, bytes]]) -> None:
    numbers = iter(range(rows))

    async def work() -> None:
        for i in numbers:
            json.loads(await ask(make_body(i)))

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def ask_with_aiohttp(url: str, rows: int, concurrency: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(body: bytes) -> bytes:
            async with session.post(url, data=body, headers=HEADERS) as response:
                return await response.read()

        await ask_all(rows, concurrency, ask)


async def ask_with_httpx(url: str, rows: int, concurrency: int) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=300) as client:

        async def ask(body: bytes) -> bytes:
            return (await client.post(url, content=body, headers=HEADERS)).content

        await ask_all(rows, concurrency, ask)


def harvest(url: str, texts: Path, out: Path, concurrency: int) -> Spent:
    """What the engine takes to ask about all texts and seal the answers."""
    from harvest.asking.engine import Engine
    from harvest.asking.manifest import make_manifest
    from harvest.asking.plan import Scope, make_plan
    from harvest.teachers.endpoint import EndpointConfig, EndpointTeacher
    from shared.console import track
    from shared.shards import TeacherFolder
    from shared.tasks import find_task, load_task

    loaded = load_task(
        find_task(str(texts), text_column="text", label_column="label", label_words=WORDS, question=QUESTION)
    )
    os.environ[KEY_VARIABLE] = KEY
    options: dict[str, Any] = {"dialect": "compatible", "scoring": "top_logprobs", "api_key_env": KEY_VARIABLE}
    config = EndpointConfig((url,), "m", concurrency=concurrency, **options)
    teacher = EndpointTeacher(config, loaded.task)
    with TeacherFolder.open(out, make_manifest(loaded, teacher), worker="w0") as folder:
        plan = make_plan(loaded, teacher, Scope(tuple(loaded.splits), {}), {})
        folder.plan(plan.planned)
        rows = sum(plan.planned.values())
        with track("harvest", rows) as tracker:
            engine = Engine(loaded, teacher, plan, folder, tracker, 0.5)
            spent = measure(engine.run())
    assert engine.outcome.asked == rows
    assert engine.outcome.failed == 0
    return spent


def measure(run: Coroutine[Any, Any, object]) -> Spent:
    """What `run` takes."""
    started, cpu = time.perf_counter(), time.process_time()
    uvloop.run(run)
    return Spent(time.perf_counter() - started, time.process_time() - cpu)


def measure_speed(url: str, concurrency: int, rows: int) -> dict[str, Spent]:
    """What a row takes of each, the best of ROUNDS."""
    chat = f"{url}/chat/completions"
    few = rows if concurrency <= 32 else max(rows // 8, 2 * concurrency)  # httpx is slow there
    best: dict[str, Spent] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.jsonl")
        write_texts(texts, rows)
        for turn in range(ROUNDS):
            out = Path(folder, str(turn))
            spent = {"ours": harvest(url, texts, out, concurrency) / rows}
            spent["aiohttp"] = measure(ask_with_aiohttp(chat, rows, concurrency)) / rows
            spent["httpx"] = measure(ask_with_httpx(chat, few, concurrency)) / few
            best = {name: one if turn == 0 else one.keep_least(best[name]) for name, one in spent.items()}
    return best


def measure_memory(url: str, rows: int) -> float:
    """The most memory, in MiB, of a process that harvests `rows`."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.jsonl")
        write_texts(texts, rows)
        harvest(url, texts, Path(folder, "out"), 256)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_in_process(context: Any, function: Callable[..., Any], *args: Any) -> Any:
    with context.Pool(1) as pool:
        return pool.apply(function, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[32, 256, 1024])
    parser.add_argument("--memory", action="store_true", help="measure memory too: 210,000 requests")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    result: dict[str, Any] = {"benchmark": "endpoint"}
    for concurrency in options.concurrency:
        with Server(context, 0.05) as url:
            spent = run_in_process(context, measure_speed, url, concurrency, options.rows)
        ours, aiohttp_loop, httpx_loop = (spent[name] for name in ("ours", "aiohttp", "httpx"))
        result[str(concurrency)] = {
            **{name: round(1 / one.seconds) for name, one in spent.items()},
            "ours/aiohttp": round(aiohttp_loop.seconds / ours.seconds, 3),
            "ours/httpx": round(httpx_loop.seconds / ours.seconds, 2),
            "cpu_us": {name: round(one.cpu * 1e6) for name, one in spent.items()},
            "ours/aiohttp by cpu": round(aiohttp_loop.cpu / ours.cpu, 3),
        }
    if options.memory:
        with Server(context, 0.0) as url:
            small, large = (run_in_process(context, measure_memory, url, rows) for rows in MEMORY_ROWS)
        result["memory"] = {"MiB": [round(small), round(large)], "ratio": round(large / small, 3)}
    print(json.dumps(result))


class Server:
    """The server in a process of its own; a context manager that gives its URL."""

    def __init__(self, context: Any, latency: float) -> None:
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(latency, theirs), daemon=True)

    def __enter__(self) -> str:
        self._process.start()
        url: str = self._ours.recv()
        return url

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


if __name__ == "__main__":
    main()
