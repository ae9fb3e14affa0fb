"""Where a run is written: out/<name>/ when it is done, a hidden folder beside it until then."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.compute.processes import Processes
from shared.disk import explain_disk_errors, hold_folder
from shared.errors import UsageError
from shared.shards.manifest import check_name

CHECKPOINT = "checkpoint.pt"


def choose_run_folder(out: Path, name: str | None, default: str, overwrite: bool) -> Path:
    """Choose where the run goes. Raises UsageError for a name that is taken, unless `overwrite`."""
    target = out / check_name("the run's name", name or default)
    if overwrite or not target.exists():
        return target
    if name is not None:
        raise UsageError(f"{target} exists already: give another --name, or --overwrite to replace it")
    number = 2
    while (numbered := out / f"{default}-{number}").exists():
        number += 1
    return numbered


def read_metrics(run_folder: Path) -> dict[str, Any]:
    """Read the metrics.json of a finished run. Raises UsageError where there is none."""
    try:
        metrics: dict[str, Any] = json.loads((run_folder / "metrics.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run_folder} is not a finished run ({error}); distill run makes them") from None
    if not isinstance(metrics, dict) or not {"config", "shards"} <= metrics.keys():
        raise UsageError(f"{run_folder} is not a finished run (metrics.json is another file's); distill run makes them")
    return metrics


def name_working_folder(target: Path) -> Path:
    """Name the folder that a run works in until it is done."""
    return target.parent / f".{target.name}.partial"


@contextmanager
def working_folder(target: Path, overwrite: bool, processes: Processes) -> Iterator[Path]:
    """Hold a folder beside `target` that becomes it when the block ends well.

    When the block does not, the folder stays if it holds a CHECKPOINT, for the next run of that name to go on from;
    that is all that the next run finds in it. Raises LockedError while another process works in it.
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
            for path in work.iterdir():
                if path.name != CHECKPOINT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            processes.agree(None)  # the others may look into it now
            yield work
            if overwrite and target.exists():
                shutil.rmtree(target)
            os.rename(work, target)
            (target / CHECKPOINT).unlink(missing_ok=True)
        finally:
            if not (work / CHECKPOINT).exists():
                shutil.rmtree(work, ignore_errors=True)
