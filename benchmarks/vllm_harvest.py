"""Rows a second of a harvest with the vllm teacher, over those of the bare engine on the same prompts and pictures.

    python benchmarks/vllm_harvest.py --model llava-hf/llava-1.5-7b-hf --rows 2000 --engine gpu_memory_utilization=0.45
    VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python benchmarks/vllm_harvest.py    # a tiny LLaVA, on a CPU

Bare: `LLM.chat` on all rows at once; their pictures are drawn already, and nothing is kept. Ours draws, keys, asks,
journals, fsyncs and seals. Each has an engine with the same options, which is started before the clock is, and which is
stopped (SIGSTOP) while the other works. The rounds alternate, each with other texts; medians are compared.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
import yaml

from harvest.asking.engine import Engine
from harvest.asking.manifest import make_manifest
from harvest.asking.plan import Scope, make_plan
from harvest.chat.scoring import separate_first_tokens, spell_word
from harvest.rendering import Layout, render
from harvest.teachers.vllm import VllmConfig, VllmTeacher
from shared.console import track
from shared.shards import TeacherFolder
from shared.tasks import LoadedTask, Task, find_task, load_task

QUESTION = "Is this film review positive? Answer with one word, yes or no."
WORDS = ("no", "yes")
SPLIT = "train"
ROUNDS = 3
WARM_UP = 64
TINY_WIDTH = 128  # with pictures of 336 pixels a prompt is as long as LLaVA-1.5's: 576 tokens and the words
ON_A_CPU = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
CLAUSES = (
    "a gorgeous, witty, seductive movie",
    "the plot is dull and the acting worse",
    "i laughed from the first scene to the last",
    "two hours that nobody gives back to me",
    "an honest and moving film about growing old",
)


def make_texts(turn: int, rows: int) -> list[str]:
    """`rows` texts of 8 to 60 words, that no other turn has."""
    return [f"{', '.join(CLAUSES[(i + j) % 5] for j in range(1 + i % 7))} ({turn}.{i})" for i in range(rows)]


def chat_bare(connection: Connection, model: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """In a process of its own: ask about the texts that come, and answer with the seconds that it took."""
    os.setsid()
    from PIL import Image
    from vllm import LLM, SamplingParams

    llm = LLM(model, **options)
    tokenizer = llm.get_tokenizer()
    firsts = {t: tokenizer.encode(t, add_special_tokens=False)[0] for word in WORDS for t in spell_word(word)}
    tokens = [token for label in separate_first_tokens(WORDS, firsts) for token in label]
    parameters = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=tokens)
    connection.send("ready")
    while texts := connection.recv():
        conversations = []
        for text in texts:
            pictures = [Image.fromarray(page.pixels).convert("RGB") for page in render(text, Layout(*size))]
            parts: list[Any] = [{"type": "image_pil", "image_pil": picture} for picture in pictures]
            conversations.append([{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}])
        started = time.perf_counter()
        outputs = llm.chat(conversations, parameters, use_tqdm=False)
        connection.send(time.perf_counter() - started)
        assert len(outputs) == len(texts)
    llm.llm_engine.engine_core.shutdown()
    connection.send("ended")


def load_texts(folder: Path, texts: Sequence[str]) -> LoadedTask:
    """A task of `texts`, as a user's own file is one."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": WORDS[i % 2]}) + "\n" for i, text in enumerate(texts)))
    return load_task(
        find_task(str(path), text_column="text", label_column="label", label_words=WORDS, question=QUESTION)
    )


def harvest(runner: asyncio.Runner, teacher: VllmTeacher, loaded: LoadedTask, out: Path) -> float:
    """Seconds from the plan to sealed shards, over the training rows."""
    with TeacherFolder.open(out, make_manifest(loaded, teacher), worker="w0") as folder:
        started = time.perf_counter()
        plan = make_plan(loaded, teacher, Scope((SPLIT,), {}), {})
        folder.plan(plan.planned)
        with track("harvest", loaded.splits[SPLIT]) as tracker:
            outcome = runner.run(Engine(loaded, teacher, plan, folder, tracker, 0.5).run())
        seconds = time.perf_counter() - started
    assert (outcome.asked, outcome.failed) == (loaded.splits[SPLIT], 0)
    return seconds


def find_engine(other: int) -> int:
    """The process of our teacher's engine: the child, but for `other`, that leads a session."""
    own = os.getpid()
    children = map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())
    (leader,) = (child for child in children if child != other and os.getsid(child) == child)
    return leader


def measure(model: str, options: dict[str, Any], size: tuple[int, int], rows: int) -> dict[str, list[float]]:
    """Rows a second of both, by round."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    bare = context.Process(target=chat_bare, args=(theirs, model, options, size))
    bare.start()
    theirs.close()
    assert ours.recv() == "ready"
    assert bare.pid is not None
    task = Task("texts", "classification", (), labels=WORDS, label_words=WORDS, question=QUESTION)
    teacher = VllmTeacher(VllmConfig(model, size=size, engine=options), task)
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def run_bare(loaded: LoadedTask) -> float:
            ours.send([example.text for example in loaded.examples(SPLIT)])
            seconds: float = ours.recv()
            return seconds

        def prepare(turn: int, count: int) -> tuple[LoadedTask, Path]:
            folder = Path(name, str(turn))
            folder.mkdir()
            return load_texts(folder, make_texts(turn, count)), folder

        warm_up, folder = prepare(0, WARM_UP)
        run_bare(warm_up)
        harvest(runner, teacher, warm_up, folder)
        engine = find_engine(bare.pid)
        for turn in range(1, ROUNDS + 1):
            loaded, folder = prepare(turn, rows)
            count = loaded.splits[SPLIT]
            os.killpg(engine, signal.SIGSTOP)
            rates["bare"].append(count / run_bare(loaded))
            os.killpg(engine, signal.SIGCONT)
            os.killpg(bare.pid, signal.SIGSTOP)
            rates["ours"].append(count / harvest(runner, teacher, loaded, folder))
            os.killpg(bare.pid, signal.SIGCONT)
            print(f"round {turn}: { ({n: round(r[-1], 1) for n, r in rates.items()}) }", file=sys.stderr)
        ours.send([])
        runner.run(teacher.aclose())
        ours.recv()
        bare.kill()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="A hub id or a path. Unless given, a tiny LLaVA is made.")
    parser.add_argument("--size", type=int, default=336, help="Width and height of a page in pixels.")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--engine", action="append", default=[], help="NAME=VALUE, an argument of vllm.LLM.")
    arguments = parser.parse_args()
    options = {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in arguments.engine)}
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if model is None:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from tests.real.tiny_llava import make_tiny_llava

            tiny = make_tiny_llava(Path(folder), image_size=arguments.size, width=TINY_WIDTH)
            model, options = str(tiny), {**ON_A_CPU, **options}
        rates = measure(model, options, (arguments.size, arguments.size), arguments.rows)
    medians = {name: statistics.median(of_rounds) for name, of_rounds in rates.items()}
    result = {
        "benchmark": "vllm_harvest",
        "model": arguments.model or "tiny LLaVA",
        "device": name_device(),
        **{name: round(rate, 1) for name, rate in medians.items()},
        "ours/bare": round(medians["ours"] / medians["bare"], 3),
        "by_round": [round(ours / bare, 3) for ours, bare in zip(rates["ours"], rates["bare"], strict=True)],
    }
    print(json.dumps(result))


def name_device() -> str:
    """The card, or how many cores of a CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
