"""What is kept, by teacher and split; what was spent; what failed and why; what a crash may have left in flight."""

from pathlib import Path
from typing import Any

from harvest.asking.inflight import read_in_flight
from harvest.looking.agreement import describe_agreement, judge_folder
from harvest.looking.ceilings import describe_text_ceilings, find_text_ceilings
from harvest.teachers.batch.ledger import JobState, Step, read_jobs
from harvest.teachers.batch.stored import list_stored_jobs
from shared.console import print_result, say
from shared.errors import ShardError
from shared.printed_tables import print_rows
from shared.remote_shards import fetch_shards
from shared.schema import Status, sum_costs
from shared.shards import load_manifest, summarise_folder
from shared.shards.manifest import MANIFEST_NAME
from shared.shards.publish import count_waiting
from shared.stores.mirror import spell_place

NOTHING_KEPT = "nothing is kept there: a run ended before its first answer; the same command begins anew"
HEADINGS = ("split", "planned", "kept", "ok", "failed", "unasked", "not sealed", "dollars", "MB")
OPTIONAL = ("unasked", "not sealed")


def read_status(path: Path | str) -> dict[str, Any]:
    """The status of one teacher folder, of all of a task's, or of all below data/: the object that `--json` prints."""
    folders, empty = _find_folders(fetch_shards(path))
    if not folders:
        begun = "".join(f"\n{folder}: {NOTHING_KEPT}" for folder in empty)
        raise ShardError(f"{path} holds no teacher's answers; `harvest run --teacher T --task K` makes some{begun}")
    teachers = [_read_teacher(folder) for folder in folders]
    for folder in folders:
        if (waiting := count_waiting(folder)) is not None:
            rows, place = waiting
            say(f"{folder}: {rows:,} more rows wait on this disk, in {place}: the next harvest run uploads them")
    return {
        **{key: sum(teacher[key] for teacher in teachers) for key in ("rows", "kept", "asked", "failed", "seconds")},
        "cost_usd": sum_costs(teacher["cost_usd"] for teacher in teachers),
        "teachers": teachers,
        "empty": list(map(str, empty)),
    }


def print_status(status: dict[str, Any]) -> None:
    """Print what read_status gave as tables for a person."""
    for teacher in status["teachers"]:
        rows = [_describe_split(split, counts) for split, counts in teacher["splits"].items()]
        print_rows(HEADINGS, rows, title=teacher["folder"], optional=OPTIONAL)
        for split, counts in teacher["splits"].items():
            print_result(*(f"  {split}: {rows:,} x {cause}" for cause, rows in counts["failures"]))
        print_result(*(f"  {line}" for line in describe_agreement(teacher["agreement"] or {"splits": {}})))
        print_result(*(f"  {line}" for line in describe_text_ceilings(teacher["text_ceilings"])))
        print_result(*(f"  {_describe_job(job)}" for job in teacher["jobs"]))
        if teacher["in_flight"]:
            print_result(
                f"  {teacher['in_flight']:,} requests had left and were not answered when a run was killed: they will "
                "be asked again, and a paid endpoint may bill them twice"
            )
    print_result(*(f"{folder}: {NOTHING_KEPT}" for folder in status["empty"]))


def _describe_split(split: str, counts: dict[str, Any]) -> tuple[str, ...]:
    return (
        split,
        f"{counts['planned']:,}",
        f"{counts['kept']:,}",
        f"{counts['statuses'].get(Status.OK, 0):,}",
        f"{counts['failed']:,}",
        f"{counts['statuses'].get(Status.UNASKED, 0):,}",
        f"{counts['unsealed']:,}",
        _show_dollars(counts["known_cost_usd"], counts["unpriced"]),
        f"{counts['bytes'] / 1e6:.1f}",
    )


def _describe_job(job: dict[str, Any]) -> str:
    """A job of a batch route: where it is, and who takes it up."""
    where = {
        Step.WRITTEN: "is on this disk, and was not submitted yet",
        Step.CREATING: "may have been submitted just before a run was killed; the next one looks for it",
        Step.CREATED: f"is at the provider, as {job['provider']}",
        Step.ENDED: "has ended, and its results are on this disk",
    }
    began = job["asked_at"][:16].replace("T", " ")
    taken = "the next `harvest run --batch` takes it up"
    return f"a job of {job['requests']:,} requests, made {began} UTC, {where[Step(job['step'])]}: {taken}"


def _show_dollars(known: float, unpriced: int) -> str:
    """Dollars of a split, of which `unpriced` rows have a price that nobody knows."""
    if not unpriced:
        return f"{known:.4f}"
    return f"at least {known:.4f}" if known else "unknown"


def _find_folders(path: Path) -> tuple[list[Path], list[Path]]:
    """The teacher folders at `path` or below it: those that hold something, if only requests in flight, and others."""
    empty: list[Path] = []
    for folders in ([path], path.glob("teacher=*/"), path.glob("*/teacher=*/")):
        found = [folder for folder in sorted(folders) if folder.is_dir()]
        full = [folder for folder in found if _holds_something(folder)]
        empty += [folder for folder in found if folder not in full and folder.name.startswith("teacher=")]
        if full:
            return full, empty
    return [], empty


def _holds_something(folder: Path) -> bool:
    files = (MANIFEST_NAME, "split=*/*.parquet", "journal/split=*/*.arrows")
    return any(next(folder.glob(file), None) for file in files) or bool(read_in_flight(folder))


def _read_teacher(folder: Path) -> dict[str, Any]:
    in_flight = read_in_flight(folder)
    if in_flight and not (folder / MANIFEST_NAME).exists():  # killed while it found out what the endpoint gives
        task, teacher = folder.parent.name, folder.name.removeprefix("teacher=")
        nothing: dict[str, Any] = dict.fromkeys(("rows", "kept", "asked", "failed", "cost_usd", "seconds"), 0)
        about = {"folder": str(folder), "task": task, "teacher": teacher, "source": ""}
        return {
            **about,
            **nothing,
            "in_flight": len(in_flight),
            "jobs": [],
            "splits": {},
            "agreement": None,
            "text_ceilings": {},
        }
    summary = summarise_folder(folder)
    splits = {}
    for name, split in summary.splits.items():
        statuses = {status: rows for status, rows in split.statuses.items() if rows}
        failed = split.rows - statuses.get(Status.OK, 0) - statuses.get(Status.UNASKED, 0)
        splits[name] = {
            "planned": split.rows if split.planned is None else split.planned,
            "kept": split.rows,
            "failed": failed,
            "statuses": statuses,
            "failures": split.failures,
            "unsealed": split.unsealed,
            "cost_usd": None if split.unpriced else split.cost_usd,
            "known_cost_usd": split.cost_usd,
            "unpriced": split.unpriced,
            "prompt_tokens": split.prompt_tokens,
            "completion_tokens": split.completion_tokens,
            "bytes": split.bytes,
        }
    agreement = judge_folder(folder, summary.manifest)
    return {
        "folder": spell_place(folder),
        "task": summary.manifest.task,
        "teacher": summary.manifest.teacher,
        "source": summary.manifest.source,
        "rows": sum(split["planned"] for split in splits.values()),
        "kept": sum(split["kept"] for split in splits.values()),
        "asked": 0,
        "failed": sum(split["failed"] for split in splits.values()),
        "cost_usd": summary.cost_usd,
        "seconds": 0.0,
        "in_flight": _count_in_flight(folder),
        "jobs": [_read_job(state) for state in (*(job.state for job in read_jobs(folder)), *list_stored_jobs(folder))],
        "splits": splits,
        "agreement": None if agreement is None else agreement.describe(),
        "text_ceilings": find_text_ceilings(folder, summary.manifest),
    }


def _read_job(state: JobState) -> dict[str, Any]:
    return {"provider": state.remote, "step": str(state.step), "asked_at": state.asked_at, "requests": state.keys}


def _count_in_flight(folder: Path) -> int:
    """Requests that left and that no row answers."""
    import numpy as np

    from shared.shards import read_kept

    keys = read_in_flight(folder)
    if not keys:
        return 0
    manifest = load_manifest(folder)
    left = np.array([bytes.fromhex(key) for key in sorted(keys)], "S32")
    for split in manifest.planned:
        left = left[~np.isin(left, read_kept(folder, manifest, split).request_keys)]
    return len(left)
