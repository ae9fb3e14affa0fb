"""Rows kept a second by a pool of replicas, what a row costs the one writer, and our rate on Ray against Ray Data's.

    python benchmarks/pool.py [--rows 40000] [--replicas 0 1 2 4]
    python benchmarks/pool.py --ray [--ray-rows 600] --replicas 1 2

The teacher answers at once, 64 rows together, with the text and a vector of 384 numbers: so all that is measured is
what stands around it, after the plan: requests, keys, messages, the journal, its fsync, the sealing. 0 replicas is the
teacher in this process. `writer_us` is the processor time of this process, all its threads, a row; of 0 replicas it
holds the teacher's own. Each is run twice, in turn, by a fresh process, and the better counts; replicas have started
before.

With --ray both have actors of the teacher `reader` on a Ray cluster of this machine, as many as --replicas says, with
two cores in Ray's books beside them, and the same rows, texts of one line: ours by `harvest run --on ray`, theirs by
`map_batches` of 64 rows that writes Parquet. The seconds are those of whole runs, the loading of models included, in
turn, twice; the better counts. `speedup` is our rate over that with the fewest replicas.

Prints one JSON line.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop

from tests.harvest.teachers.pool.installed import install_echo

ROUNDS = 2
GATHERED = 64
TEXT = "a film of such warmth and wit that one forgives its length, and most of its songs"


def write_texts(path: Path, rows: int, text: str = "") -> None:
    with path.open("w") as file:
        for i in range(rows):
            file.write(json.dumps({"text": f"review number {i}{text}", "label": ("bad", "good")[i % 2]}) + "\n")


# --- the writer ---


async def give_requests(count: int) -> AsyncIterator[Any]:
    from harvest.teachers.base import Request
    from shared.example import Example

    for number in range(count):
        yield Request(f"{number:064x}", Example(str(number), TEXT))


async def warm(pool: Any) -> None:
    """Have all replicas start and answer."""
    while " 0" in pool.progress.partition(":")[2] or not pool.progress.partition(":")[2]:
        async for _ in pool.answer_batches(give_requests(16 * GATHERED)):
            pass


def harvest(texts: Path, out: Path, replicas: int) -> dict[str, float]:
    """Rows a second of the engine, and the microseconds of this process's cores that a row takes."""
    from harvest.asking.engine import Engine
    from harvest.asking.manifest import make_manifest
    from harvest.asking.plan import Scope, make_plan
    from harvest.teachers.pool.config import PoolConfig
    from harvest.teachers.pool.make import make_pool
    from harvest.teachers.registry import TeacherChoice, prepare_teacher
    from shared.console import track
    from shared.shards import TeacherFolder
    from shared.tasks import find_task, load_task

    loaded = load_task(find_task(str(texts), text_column="text", label_column="label"))
    choice = TeacherChoice("echo", options={"gather": GATHERED})
    own = prepare_teacher(choice)(loaded.task)
    pool = make_pool(own, choice, loaded.task, PoolConfig(replicas or None))
    teacher = pool or own
    with TeacherFolder.open(out, make_manifest(loaded, teacher), worker="w0") as folder:
        plan = make_plan(loaded, teacher, Scope(tuple(loaded.splits), {}), {})
        folder.plan(plan.planned)
        rows = sum(plan.planned.values())
        if pool is not None:
            uvloop.run(warm(pool))
            pool.expect(rows)
        with track("harvest", rows) as tracker:
            engine = Engine(loaded, teacher, plan, folder, tracker, 0.5)
            started, used = time.perf_counter(), time.process_time()
            outcome = uvloop.run(engine.run())
            seconds, used = time.perf_counter() - started, time.process_time() - used
        uvloop.run(teacher.aclose())
    assert (outcome.asked, outcome.failed) == (rows, 0)
    return {"rows_a_second": rows / seconds, "writer_us": used / rows * 1e6}


def measure_writer(rows: int, counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """What `harvest` gives by number of replicas, the best of ROUNDS."""
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.jsonl")
        write_texts(texts, rows, f": {TEXT}")
        for turn in range(ROUNDS):
            for count in counts:
                out = Path(folder, f"{turn}-{count}")
                found = run_self(Path(folder, "site"), "--measure", str(texts), str(out), str(count))
                before = best.get(str(count))
                if before is None or found["rows_a_second"] > before["rows_a_second"]:
                    best[str(count)] = {name: round(value, 1) for name, value in found.items()}
    return best


def run_self(site: Path, *arguments: str) -> dict[str, float]:
    """Run this script in a fresh process, with the teacher installed; give the JSON that it prints."""
    path = install_echo(site) if not site.exists() else (str(site), str(Path(__file__).parents[1]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    printed: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return printed


# --- Ray ---


class TheirActor:
    """The teacher `reader` as Ray Data runs one: called with a batch of columns, it gives columns."""

    def __init__(self, texts: str) -> None:
        from harvest.teachers.registry import TeacherChoice, prepare_teacher
        from shared.cores import use_cores
        from shared.sources import MINILM
        from shared.tasks import find_task

        use_cores(1)
        task = find_task(texts, text_column="text", label_column="label")
        self._teacher = prepare_teacher(TeacherChoice("reader", options={"encoder": MINILM}))(task)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return uvloop.run(self._answer(batch["text"]))

    async def _answer(self, texts: Sequence[str]) -> dict[str, Any]:
        from harvest.teachers.base import Request
        from shared.example import Example

        async def give() -> AsyncIterator[Any]:
            for number, text in enumerate(texts):
                yield Request(f"{number:064x}", Example(str(number), str(text)))

        replies = [reply async for reply in self._teacher.answer(give())]
        replies.sort(key=lambda reply: reply.request.key)
        return {"reply": [one.answer.reply for one in replies], "vector": [one.answer.embedding for one in replies]}


def start_cluster(replicas: int) -> None:
    """Start a cluster of this machine alone, whichever else runs here."""
    import ray

    cores = replicas + 2
    ray.init("local", num_cpus=cores, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)


def run_theirs(texts: Path, out: Path, replicas: int) -> dict[str, float]:
    """Seconds that Ray Data takes from the file to Parquet, after it is connected."""
    import ray

    start_cluster(replicas)
    started = time.perf_counter()
    rows = ray.data.read_json(str(texts), lines=True).repartition(8 * replicas)
    pool = ray.data.ActorPoolStrategy(size=replicas)
    answered = rows.map_batches(TheirActor, fn_constructor_args=[str(texts)], compute=pool, batch_size=64, num_cpus=1)
    answered.write_parquet(str(out))
    return {"seconds": time.perf_counter() - started}


def run_ours(texts: Path, out: Path, replicas: int) -> dict[str, float]:
    """Seconds that `harvest run --on ray` takes from the file to sealed shards, after it is connected."""
    from harvest.config import HarvestConfig, PoolConfig, TaskChoice, TeacherChoice
    from harvest.job import run_harvest
    from shared.sources import MINILM

    start_cluster(replicas)
    task = TaskChoice(str(texts), text_column="text", label_column="label")
    pool = PoolConfig(replicas, "ray")
    config = HarvestConfig(task, TeacherChoice("reader", options={"encoder": MINILM}), pool, out=out)
    started = time.perf_counter()
    report = run_harvest(config)
    assert not report.failed
    return {"seconds": time.perf_counter() - started}


def measure_ray(rows: int, replicas: int) -> dict[str, float]:
    """Rows a second of both, the best of ROUNDS, and their ratio."""
    best = {"ours": 0.0, "ray_data": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.jsonl")
        write_texts(texts, rows)
        for turn in range(ROUNDS):
            for name in best:
                out = Path(folder, f"{turn}-{name}")
                found = run_self(
                    Path(folder, "site"), f"--{name.replace('_', '-')}", str(texts), str(out), str(replicas)
                )
                best[name] = max(best[name], rows / found["seconds"])
    return {**{name: round(rate, 1) for name, rate in best.items()}, "ratio": round(best["ours"] / best["ray_data"], 3)}


MEASURES = {"measure": harvest, "ours": run_ours, "ray_data": run_theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--replicas", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--ray", action="store_true", help="against Ray Data")
    parser.add_argument("--ray-rows", type=int, default=600)
    for name in MEASURES:
        parser.add_argument(f"--{name.replace('_', '-')}", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, measure in MEASURES.items():
        if (given := getattr(options, name)) is not None:
            print(json.dumps(measure(Path(given[0]), Path(given[1]), int(given[2]))))
            return
    result: dict[str, Any] = {"benchmark": "pool"}
    if options.ray:
        found = {str(count): measure_ray(options.ray_rows, count) for count in sorted(options.replicas) if count}
        slowest = next(iter(found.values()))["ours"]
        result["ray"] = {count: {**own, "speedup": round(own["ours"] / slowest, 2)} for count, own in found.items()}
    else:
        result["writer"] = measure_writer(options.rows, options.replicas)
        result["MiB"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
