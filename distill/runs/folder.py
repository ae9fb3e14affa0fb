"""Where a run is written: out/<name>/ when it is done, a hidden folder beside it until then."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.compute.processes import Processes
from distill.runs.names import CHECKPOINT, LOG, METRICS, SHARDS, STARTED
from shared.console import say
from shared.disk import explain_disk_errors, hold_folder
from shared.errors import DiskError, UsageError
from shared.remote_shards import refuse_stored
from shared.shards.manifest import check_name
from shared.sources import ResolvedModel, resolve_model

_READ = {"config": dict, "shards": str}  # what every reader of a metrics.json needs of it


def choose_run_folder(out: Path, name: str | None, default: str, overwrite: bool) -> Path:
    """Choose where the run goes.

    Raises UsageError for a name that is taken, unless `overwrite`, and for an address of an object store.
    """
    refuse_stored(out, "distill run --out")
    target = out / check_name("the run's name", name or default)
    if overwrite or not target.exists():
        return target
    if name is not None:
        raise UsageError(f"{target} exists already: give another --name, or --overwrite to replace it")
    number = 2
    while (numbered := out / f"{default}-{number}").exists():
        number += 1
    return numbered


def say_kept(taken: Path, target: Path) -> None:
    """Say that a run goes to `target`, because there is one of its name; nothing where they are the same."""
    if target != taken:
        what = "is a finished run" if (taken / METRICS).exists() else "exists"
        say(f"{taken} {what}, and is kept; this one is {target}. --overwrite would replace it")


def read_metrics(run_folder: Path) -> dict[str, Any]:
    """Read the metrics.json of a finished run. Raises UsageError where there is none."""
    try:
        metrics: dict[str, Any] = json.loads((run_folder / METRICS).read_text())
    except OSError as error:
        reason = "it has no metrics.json" if run_folder.is_dir() else error.strerror or error
        raise UsageError(f"{run_folder} is not a finished run ({reason}); {_list_runs(run_folder.parent)}") from None
    except ValueError as error:
        raise UsageError(f"{run_folder} is not a finished run (its metrics.json cannot be read: {error})") from None
    if not isinstance(metrics, dict) or not all(isinstance(metrics.get(name), kind) for name, kind in _READ.items()):
        raise UsageError(f"{run_folder} is not a finished run (metrics.json is another file's); distill run makes them")
    return metrics


def _list_runs(folder: Path) -> str:
    names = sorted(path.parent.name for path in folder.glob("*/metrics.json"))
    return f"in {folder} there are: {', '.join(names)}" if names else "distill run makes them"


def find_run_student(run_folder: Path, trusts_code: bool = False) -> ResolvedModel:
    """Find the student of a finished run; `trusts_code` lets code that comes with it run, whatever the run let."""
    return replace(resolve_model(str((run_folder / "student").resolve())), trusts_code=trusts_code)


def clear_folder(work: Path) -> None:
    """Remove all that a run's working folder holds but for its checkpoint, in two parts perhaps, and its log."""
    for path in work.iterdir():
        if path.name not in (CHECKPOINT, SHARDS, LOG):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def explain_unwritten(target: Path, error: Exception, checkpoint: Path, *, of_end: bool) -> DiskError:
    """Say that a run was trained and could not be written, and what is left: a checkpoint, perhaps that of the end."""
    left = "the training is kept in its checkpoint: the same command goes on from there"
    if not of_end and checkpoint.exists():
        left = "its end could not be kept either: the same command goes on from its last checkpoint"
    elif not of_end:
        left = "no checkpoint could be kept either: the same command trains it again"
    return DiskError(
        f"{target} was trained and cannot be written ({error}). Free disk space or mend the folder; {left}"
    )


def name_working_folder(target: Path) -> Path:
    """Name the folder that a run works in until it is done."""
    return target.parent / f".{target.name}.partial"


@contextmanager
def working_folder(target: Path, overwrite: bool, processes: Processes) -> Iterator[Path]:
    """Hold a folder beside `target` that becomes it when the block ends well.

    When the block does not, the folder stays if it holds a CHECKPOINT, for the next run of that name to go on from;
    that and its log are all that the next run finds in it. Raises LockedError while another process works in it.
    """
    work = name_working_folder(target)
    if not processes.is_first:
        processes.agree(None)
        yield work
        return
    with explain_disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    with hold_folder(work, f"{target} is being trained", "give this run another --name"):
        try:
            clear_folder(work)
            processes.agree(None)  # the others may look into it now
            yield work
            if overwrite and target.exists():
                shutil.rmtree(target)
            os.rename(work, target)
            for name in (CHECKPOINT, STARTED):
                (target / name).unlink(missing_ok=True)
            shutil.rmtree(target / SHARDS, ignore_errors=True)
        finally:
            if not (work / CHECKPOINT).exists():
                shutil.rmtree(work, ignore_errors=True)
