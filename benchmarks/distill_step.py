"""Seconds an epoch of distillation, against plain fine-tuning and against the released ARMADA schedule.

    python benchmarks/distill_step.py [--rows 512] [--full-rows 128] [--epochs 4] [--clock cpu]

Film review sentences are written as shards, with teacher vectors that are noise around a direction of their label, and
MiniLM-L6 is trained three ways, from the same weights:

    ours    what `distill run` does: reads shards, tokenises, trains aligner and student
    plain   a bare loop that fine-tunes the model on the same batches, made and padded beforehand: sorted by length, in
            the same precision, fused AdamW, the same clipping
    armada  the released schedule: every text padded to 128 tokens, beforehand; a pass of the loader for the aligner,
            then one for the student; float32; AdamW as torch makes it. Nothing is kept orthogonal here, which is less
            work than the method asks for

`short` are the sentences as they are; `full` are sentences put together until they fill 128 tokens, `--full-rows` of
them. The three make an epoch in turn, `--epochs` times, and a ratio is the median of those of the turns. The dev scores
are those after the last epoch. `--clock cpu` counts the seconds that the threads of this process computed, in place of
those that went by: for a machine that others use as well. Prints one JSON line; `missed` names the ratios that fall
short of their limit.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from queue import Queue
from statistics import median
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from distill.compute.devices import Device, choose_device
from distill.compute.memory import keep_freed_memory
from distill.config import DistillConfig, make_distill_config
from distill.data.answers import open_teachers
from distill.data.batches import iterate_batches
from distill.data.columns import TARGET, TEXT, VECTORS
from distill.data.run_rows import read_rows
from distill.methods.armada import Armada
from distill.methods.controls import make_method
from distill.methods.materials import find_model, gather_materials
from distill.methods.students import StudentPhase
from distill.models.pretrained import load_tokenizer
from distill.training.checkpoint import Checkpoints
from distill.training.loop import Training
from distill.training.progress import EpochRecord
from distill.training.step import CLIP_NORM
from shared.console import say
from shared.example import Example
from shared.schema import Answer, Row, Status
from shared.shards.folder import TeacherFolder
from shared.shards.manifest import Manifest
from shared.sources import MINILM, resolve_model
from shared.tasks import find_task, load_task

LENGTH = 128  # tokens that armada pads to, and that a full text has
DEV_ROWS = 300
BATCH = 32
LIMITS = {"short": {"plain": 1.10, "armada": 10.0}, "full": {"plain": 1.10, "armada": 3.0}}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Turn = tuple[float, float]  # seconds of an epoch, without scoring; the dev score after it


@dataclass(frozen=True, slots=True)
class Begun:
    """A run of distill that has loaded everything and is about to train."""

    config: DistillConfig
    method: Armada
    phase: StudentPhase
    now: Callable[[], float]  # the clock

    @property
    def device(self) -> Device:
        """What all contenders compute on."""
        return self.method.materials.device

    def score(self, model: torch.nn.Module) -> float:
        """The dev score that distill would give this student, in place of its own."""
        student = self.phase.student
        own = deepcopy(student.state_dict())
        student.load_state_dict(model.state_dict())
        value = self.phase.score()["dev"]
        student.load_state_dict(own)
        return value

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.device.device.type == "cuda":
            torch.cuda.synchronize()


class Ours:
    """`distill run` without its files, in a thread of its own: held back before each epoch until its turn."""

    def __init__(self, config: DistillConfig, work: Path, now: Callable[[], float]) -> None:
        self._turns: Queue[None] = Queue()
        self._done: Queue[Any] = Queue()
        self._config, self._work, self._now = config, work, now
        self._started_at = self._trained_at = 0.0
        work.mkdir(exist_ok=True)
        self._thread = Thread(target=self._work_along, daemon=True)
        self._thread.start()
        self.begun: Begun = self._take()

    def turns(self) -> Iterator[Turn]:
        """An epoch each."""
        while True:
            self._turns.put(None)
            yield self._take()

    def close(self) -> None:
        """Let the run finish, after its last epoch."""
        self._turns.put(None)
        self._thread.join()

    def _work_along(self) -> None:
        try:
            self._train()
        except BaseException as error:
            self._done.put(error)

    def _train(self) -> None:
        config = self._config
        keep_freed_memory()
        device = choose_device(config.training.device, config.training.precision)
        rows = read_rows(config, open_teachers(config.data.shards, config.data.teacher))
        found = find_model(config.student.model)
        method = make_method(gather_materials(config, rows, found, device, self._work))
        assert isinstance(method, Armada)
        held_back = HeldBack(method, self._begin, self._stop_clock)
        checkpoints = Checkpoints(self._work / "checkpoint.pt", {})
        Training(held_back, "ours", checkpoints, on_epoch=self._end_turn).run()

    def _begin(self, method: Armada, phase: StudentPhase) -> None:
        self._done.put(Begun(self._config, method, phase, self._now))
        self._turns.get()
        self._started_at = self._now()

    def _stop_clock(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._trained_at = self._now()

    def _end_turn(self, record: EpochRecord) -> None:
        self._done.put((self._trained_at - self._started_at, record.dev))
        self._turns.get()
        self._started_at = self._now()

    def _take(self) -> Any:
        if isinstance(taken := self._done.get(), BaseException):
            raise taken
        return taken


@dataclass(slots=True)
class HeldBack:
    """A method that says when its phase begins, and when an epoch of it is trained and not yet scored."""

    method: Armada
    begin: Callable[[Armada, StudentPhase], None]
    trained: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def make_phase(self, name: str, results: Any) -> "HeldBackPhase":
        """The method's own phase, watched."""
        phase = self.method.make_phase(name, results)
        assert isinstance(phase, StudentPhase)
        self.begin(self.method, phase)
        return HeldBackPhase(phase, self.trained)


@dataclass(slots=True)
class HeldBackPhase:
    """A phase that says when an epoch of it is trained. The aligner is not scored."""

    phase: StudentPhase
    trained: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.phase, name)

    def score(self) -> dict[str, float]:
        """The student's dev score."""
        self.trained()
        return {"dev": replace(self.phase, answered_dev=None).score()["dev"]}


def train_plain(begun: Begun) -> Iterator[Turn]:
    """Fine-tune the bare model, an epoch a turn."""
    student, device, plan, config = copy_plain(begun.phase.student), begun.device, begun.phase.plan, begun.config
    model = student.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.training.student_lr, fused=True)
    for epoch in range(1, config.training.epochs + 1):
        made = iterate_batches(plan.parts, plan.steps, config.training.seed, epoch)
        batches = [batch.to(device.device) for batch in made]
        model.train()
        begun.wait()
        started = begun.now()
        for batch in batches:
            with device.autocast():
                logits = model(**batch.inputs()).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), batch.tensor(TARGET))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        begun.wait()
        yield begun.now() - started, begun.score(student)


def train_armada(begun: Begun) -> Iterator[Turn]:
    """The released schedule, an epoch a turn."""
    assert begun.phase.aligner is not None
    student, aligner = copy_plain(begun.phase.student), deepcopy(begun.phase.aligner.aligner)
    config, objective, device = begun.config, begun.phase.objective, begun.device.device
    loader = DataLoader(pad_everything(begun), BATCH, shuffle=True)
    student_optimizer = torch.optim.AdamW(student.parameters(), lr=config.training.student_lr)
    aligner_optimizer = torch.optim.AdamW(aligner.parameters(), lr=config.method.aligner_lr)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    for _ in range(config.training.epochs):
        begun.wait()
        started = begun.now()
        aligner.train()
        for tensors in loader:
            *_, vectors, target = (tensor.to(device) for tensor in tensors)
            step(aligner, aligner_optimizer, objective.aligner_loss(aligner(vectors), target, target >= 0))
        aligner.eval()
        student.train()
        for tensors in loader:
            ids, mask, types, vectors, target = (tensor.to(device) for tensor in tensors)
            with torch.no_grad():
                targets = aligner(vectors)
            outputs = student({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
            step(student, student_optimizer, objective.student_terms(outputs, targets, target, target >= 0)["total"])
        begun.wait()
        yield begun.now() - started, begun.score(student)


def copy_plain(student: Any) -> Any:
    """The student with its model as transformers loads it: distill changes how it computes on a CPU."""
    copied = deepcopy(student)
    for part in copied.modules():
        part.__dict__.pop("forward", None)
    copied.model.set_attn_implementation("sdpa")
    return copied


def pad_everything(begun: Begun) -> TensorDataset:
    """Ids, mask, types, vectors and labels of all training rows, each text LENGTH tokens long."""
    (part,) = begun.phase.plan.parts
    columns = []
    for rows in (block.read().join() for block in part.source.blocks()):
        padded = [torch.nn.functional.pad(t, (0, LENGTH - t.shape[1])) for t in rows.values[TEXT].pad(0)]
        batch = rows.collate()
        columns.append((*padded, batch.tensor(VECTORS), batch.tensor(TARGET)))
    return TensorDataset(*(torch.cat(column) for column in zip(*columns, strict=True)))


def write_shards(out: Path, examples: list[Example], dev: list[Example], width: int) -> None:
    """A shard folder as harvest leaves one."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, width)) / 4

    def make_row(example: Example, asked: bool) -> Row:
        vector = (directions[example.label] + rng.normal(size=width)).astype(np.float16) if asked else None
        answer = Answer(Status.OK if asked else Status.UNASKED, embedding=vector, attempts=int(asked))
        return Row(example, sha256(example.sample_id.encode()).hexdigest(), 0, answer)

    manifest = Manifest(
        "reviews", "noise", "classification", ("negative", "positive"), "accuracy", {"teacher": "noise"}, "benchmark"
    )
    with TeacherFolder.open(out, manifest) as folder:
        folder.append("train", [make_row(example, True) for example in examples])
        folder.append("validation", [make_row(example, False) for example in dev])
        folder.seal()


def fill_texts(examples: list[Example], count: int, tokenizer: Any) -> list[Example]:
    """`count` texts of LENGTH tokens and more, each put together from sentences of one label."""
    filled = []
    waiting: dict[int, list[str]] = {0: [], 1: []}
    for example in examples:
        assert example.label is not None
        texts = waiting[example.label]
        texts.append(example.text)
        if len(tokenizer(" ".join(texts)).input_ids) >= LENGTH:
            filled.append(Example(example.sample_id, " ".join(texts), label=example.label))
            texts.clear()
    if len(filled) < count:
        raise SystemExit(f"the reviews make {len(filled)} full texts, and {count} were asked for")
    return filled[:count]


def compare(name: str, config: DistillConfig, out: Path, now: Callable[[], float]) -> dict[str, Any]:
    """All contenders on the rows of one folder."""
    turns: dict[str, list[Turn]] = {"ours": [], "plain": [], "armada": []}
    with closing(Ours(config, out, now)) as ours:
        begun = ours.begun
        texts = [block.read().join().values[TEXT] for block in begun.phase.plan.parts[0].source.blocks()]
        tokens = np.concatenate([each.lengths for each in texts])
        runs = {"ours": ours.turns(), "plain": train_plain(begun), "armada": train_armada(begun)}
        for epoch in range(config.training.epochs):
            for contender in list(runs)[epoch % 3 :] + list(runs)[: epoch % 3]:
                turns[contender].append(next(runs[contender]))
                seconds, dev = turns[contender][-1]
                say(f"{name}, epoch {epoch + 1}/{config.training.epochs}, {contender}: {seconds:.2f} s, dev {dev:.3f}")
        bfloat16 = begun.device.half == torch.bfloat16
    ratios = {
        "plain": median(o[0] / p[0] for o, p in zip(turns["ours"], turns["plain"], strict=True)),
        "armada": median(a[0] / o[0] for o, a in zip(turns["ours"], turns["armada"], strict=True)),
    }
    return {
        "rows": len(tokens),
        "tokens_mean": round(float(tokens.mean()), 1),
        "bfloat16": bfloat16,
        "ours_over_plain": round(ratios["plain"], 3),
        "armada_over_ours": round(ratios["armada"], 2),
        "seconds_per_epoch": {who: round(median(s for s, _ in made), 3) for who, made in turns.items()},
        "seconds": {who: [round(s, 3) for s, _ in made] for who, made in turns.items()},
        "dev_last": {who: round(made[-1][1], 4) for who, made in turns.items()},
    }


def name_device(device: torch.device) -> str:
    """The card, or the processor and what it can do."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--full-rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=768, help="of the teacher's vectors")
    parser.add_argument("--semantics", choices=("paper", "code"), default="paper")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(resolve_model(MINILM))
    task = load_task(find_task("rotten_tomatoes"))
    reviews = list(task.examples("train"))
    dev = list(islice(task.examples("validation"), DEV_ROWS))
    makers: dict[str, Callable[[], list[Example]]] = {
        "short": lambda: reviews[: arguments.rows],
        "full": lambda: fill_texts(reviews, arguments.full_rows, tokenizer),
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, make in makers.items():
            folder = Path(temporary, name)
            write_shards(folder, make(), dev, arguments.width)
            config = make_distill_config(
                shards=folder,
                preset="armada",
                semantics=arguments.semantics,
                epochs=arguments.epochs,
                batch_size=BATCH,
                max_length=LENGTH,
                student_lr=1e-4,
                aligner_lr=1e-3,
                device=arguments.device,
                precision=arguments.precision,
            )
            results[name] = compare(name, config, Path(temporary, f"runs-{name}"), CLOCKS[arguments.clock])
    missed = [
        f"{name}: ours_over_plain {result['ours_over_plain']} is above {LIMITS[name]['plain']}"
        for name, result in results.items()
        if result["ours_over_plain"] > LIMITS[name]["plain"]
    ] + [
        f"{name}: armada_over_ours {result['armada_over_ours']} is below {LIMITS[name]['armada']}"
        for name, result in results.items()
        if result["armada_over_ours"] < LIMITS[name]["armada"]
    ]
    device = torch.device("cuda" if arguments.device == "auto" and torch.cuda.is_available() else "cpu")
    if arguments.device != "auto":
        device = torch.device(arguments.device)
    print(
        json.dumps(
            {
                "benchmark": "distill_step",
                "device": name_device(device),
                "torch": torch.__version__,
                "student": MINILM,
                "batch_size": BATCH,
                "semantics": arguments.semantics,
                "clock": arguments.clock,
                "vector_width": arguments.width,
                **results,
                "missed": missed,
            }
        )
    )


if __name__ == "__main__":
    main()
