"""What the tests of the vLLM teacher share: a task of a few reviews, settings for a CPU, rows, processes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harvest.config import HarvestConfig, TaskChoice, TeacherChoice
from harvest.job import Report, run_harvest

QUESTION = "Is this film review positive? Answer with one word, yes or no."
WORDS = ("no", "yes")
SIZE = (336, 336)
ENGINE: Mapping[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}

_SUBJECTS = ("a gorgeous movie", "the plot", "an honest film about growing old", "one loud, long scene", "this story")
_VERDICTS = ("made me laugh.", "is dull, and the acting worse.", "takes two hours that nobody gives back to me.")


def write_reviews(path: Path, count: int) -> Path:
    """`count` different labelled texts, of one to many lines, as JSON lines."""
    with path.open("w") as file:
        for i in range(count):
            text = " ".join(
                [f"{_SUBJECTS[(i + j) % 5]} {_VERDICTS[(i + 2 * j) % 3]}" for j in range(1 + i % 7)] + [f"({i})"]
            )
            file.write(json.dumps({"text": text, "label": WORDS[i % 2]}) + "\n")
    return path


def choose_task(reviews: Path) -> TaskChoice:
    return TaskChoice(
        str(reviews), text_column="text", label_column="label", labels=WORDS, label_words=WORDS, question=QUESTION
    )


def harvest(reviews: Path, out: Path, teacher: str, /, name: str | None = None, **options: Any) -> Report:
    """Harvest all rows of `reviews`, drawn at SIZE."""
    choice = TeacherChoice(teacher, name or teacher, {"draw": "fields", "size": SIZE, **options})
    return run_harvest(HarvestConfig(choose_task(reviews), choice, out=out))


def read_rows(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(f"{out}/teacher={name}/**/*.parquet").sort("sample_id")


def list_group(leader: int) -> set[int]:
    """The living processes of a session, by its leader's id."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[3]) == leader and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def list_children(parent: int) -> set[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return {int(child) for child in path.read_text().split()} if path.exists() else set()


@contextmanager
def change_environment() -> Iterator[pytest.MonkeyPatch]:
    """Set what vLLM reads here, while the block lasts; its patch may set more."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield patch


def make_environment(threads: int = 1) -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
