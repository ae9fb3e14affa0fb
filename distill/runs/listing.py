"""The runs of a folder: those that are finished, that go on, and that were stopped. Reads only, and loads no torch."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from distill.runs.names import CELLS, COMPARISON, EPOCHS, METRICS, STARTED
from shared.disk import is_locked
from shared.errors import UsageError

MOST_POINTS = 200  # of a curve that is shown
LONGEST_TEXT = 200  # characters of a name that is shown
LARGEST_FILE = 16 << 20  # bytes that are read of one

State: TypeAlias = Literal["finished", "interrupted", "running"]
Sort: TypeAlias = Literal[
    "when", "name", "state", "task", "teacher", "student", "variant", "loss", "seed", "dev", "test", "seconds"
]
COLUMNS: tuple[str, ...] = get_args(Sort)
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run and what is known of it: of one that is not finished `dev` is the last score, and there is no `test`.

    `when` is when it was finished, or begun. What its folder does not say is None.
    """

    name: str
    folder: str
    state: State
    task: str | None
    teacher: str | None
    student: str | None
    variant: str | None
    loss: str | None
    seed: int | None
    metric: str | None
    dev: float | None
    test: float | None
    seconds: float | None
    when: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The `runs` of a folder, and its `others`: folders that are none or cannot be read, each with why."""

    runs: tuple[ListedRun, ...]
    others: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """Give the object that --json prints."""
        return {"runs": [asdict(run) for run in self.runs], "others": dict(self.others)}


def list_runs(folder: Path, sort: Sort = "when") -> Listing:
    """List the runs of a folder, or the one that it is itself. Raises UsageError where there is no such folder.

    They are in the order of one column: newest, largest or fastest first, names from A on; what has no value is last.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; distill run makes runs, in runs/ unless --out says another")
    runs, others = [], {}
    for path in [folder] if (folder / METRICS).exists() else sorted(folder.iterdir()):
        try:
            found = _look(path)
        except OSError as error:
            found = f"cannot be read ({error.strerror or error})"
        if isinstance(found, ListedRun):
            runs.append(found)
        elif found is not None:
            others[str(path)] = found
    return Listing(tuple(_sort(runs, sort)), others)


def read_curves(run: ListedRun) -> dict[str, list[Point]]:
    """Read the loss and the dev score of a run by step, as its log has them; empty where that cannot be read."""
    curves: dict[str, list[Point]] = {"loss": [], "dev": []}
    done = 0.0
    for epoch in _read_epochs(Path(run.folder)):
        points = [point for point in epoch.get("curve") or () if isinstance(point, dict)]
        steps = _find_number(epoch, "student_steps") or 0.0
        if not points:  # of an older version: one point an epoch
            points = [{"step": done + steps, "dev": epoch.get("dev"), **_name_terms(epoch.get("student"))}]
        done += steps
        for point in points:
            step, dev = _find_number(point, "step"), _find_number(point, "dev")
            loss = _find_number(point, "student/total")
            curves["loss"] += [] if step is None or loss is None else [(step, loss)]
            curves["dev"] += [] if step is None or dev is None else [(step, dev)]
    return {name: _thin(points) for name, points in curves.items()}


def _look(path: Path) -> ListedRun | str | None:
    """Give a run, or why a folder is none; None for what is not worth a word: files, and what is hidden."""
    name = path.name
    if not path.is_dir():
        return None
    if name.startswith(".") and not (name.endswith(".partial") and len(name) > len("..partial")):
        return None
    if name.startswith("."):
        return _describe_unfinished(path, name[1:].removesuffix(".partial"))
    if (path / COMPARISON).exists() or (path / CELLS).is_dir():
        return f"is a comparison; its runs: distill list {path / CELLS}"
    try:
        metrics = _read_object(path / METRICS)
    except OSError as error:
        reason = "it has no metrics.json" if isinstance(error, FileNotFoundError) else error.strerror or error
        return f"is no run ({reason})"
    except ValueError as error:
        return f"cannot be read ({METRICS}: {error})"
    if not isinstance(metrics.get("config"), dict):
        return f"is no run ({METRICS} is another file's, or of another version)"
    return _describe(path, name, "finished", metrics, "dev_best", "finished_at")


def _describe_unfinished(path: Path, name: str) -> ListedRun:
    try:
        started = _read_object(path / STARTED)
    except (OSError, ValueError):
        started = {}  # it was stopped before it wrote that, or an older version made it
    epochs = list(_read_epochs(path))
    config = started.get("config")
    known = {"loss": _join(config.get("loss") if isinstance(config, dict) else None), **started}
    known["dev_last"] = epochs[-1].get("dev") if epochs else None
    known["seconds"] = sum(_find_number(epoch, "seconds") or 0.0 for epoch in epochs) if epochs else None
    state: State = "running" if is_locked(path) else "interrupted"
    return _describe(path, name, state, known, "dev_last", "started_at")


def _describe(path: Path, name: str, state: State, known: Mapping[str, Any], dev: str, when: str) -> ListedRun:
    seed = known.get("seed")
    texts = {key: _find_text(known, key) for key in ("task", "teacher", "student", "variant", "loss", "metric")}
    return ListedRun(
        name=name,
        folder=str(path),
        state=state,
        seed=seed if type(seed) is int else None,
        dev=_find_number(known, dev),
        test=_find_number(known, "test"),
        seconds=_find_number(known, "seconds"),
        when=_find_moment(known, when),
        **texts,
    )


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError that says why it is none."""
    if not path.is_file() and path.exists():
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError("it is too large")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _read_epochs(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the epochs of a run's log, up to a line that is not whole."""
    try:
        if not (folder / EPOCHS).is_file():
            return
        with (folder / EPOCHS).open("rb") as file:
            lines = file.read(LARGEST_FILE).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            epoch = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(epoch, dict):
            yield epoch


def _sort(runs: list[ListedRun], column: Sort) -> list[ListedRun]:
    by_name = sorted(runs, key=lambda run: run.name)
    known = [run for run in by_name if getattr(run, column) is not None]
    rest = [run for run in by_name if getattr(run, column) is None]
    largest_first = column in ("when", "dev", "test")
    return [*sorted(known, key=lambda run: getattr(run, column), reverse=largest_first), *rest]


def _name_terms(terms: Any) -> dict[str, Any]:
    return {f"student/{name}": value for name, value in terms.items()} if isinstance(terms, dict) else {}


def _join(value: Any) -> str | None:
    return "+".join(map(str, value)) if isinstance(value, list) else None


def _find_text(known: Mapping[str, Any], key: str) -> str | None:
    value = known.get(key)
    if not isinstance(value, str):
        return None
    return value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…"


def _find_number(known: Mapping[str, Any], key: str) -> float | None:
    value = known.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _find_moment(known: Mapping[str, Any], key: str) -> str | None:
    try:
        return datetime.fromisoformat(known[key]).isoformat(timespec="seconds")
    except (KeyError, TypeError, ValueError):
        return None


def _thin(points: list[Point]) -> list[Point]:
    """Give so many points as are shown, evenly spread, the last one among them."""
    every = -(-len(points) // MOST_POINTS) or 1
    return points[len(points) - 1 :: -every][::-1] if points else []
