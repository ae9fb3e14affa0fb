"""A comparison, from its cells to its report."""

from pathlib import Path
from typing import Any

import orjson

from distill.compare.disagreements import find_disagreements
from distill.compare.plan import Comparison
from distill.compare.report import write_report
from distill.compare.results import choose_runs, describe, judge_variants
from distill.compare.runner import run_cells
from distill.data.run_rows import FEWEST, SMALL, read_splits
from distill.runs.names import COMPARISON
from shared.console import say
from shared.disk import replace_file
from shared.errors import DataError
from shared.remote_shards import refuse_stored
from shared.shards.manifest import Manifest, choose_teacher, load_manifest

REPORT = "report.html"


def run_comparison(
    comparison: Comparison, out: Path = Path("runs"), images: Path | None = None, overwrite: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Train what is missing of a comparison, then write out/<name>/comparison.json and report.html.

    `images` holds pictures of test rows, as `harvest show --images` writes them, for the report.
    """
    refuse_stored(out, "distill compare --out")
    comparison.placing.check_cluster()
    folder = out / comparison.name
    shards = choose_teacher(comparison.shards[0], comparison.teacher)
    manifest = load_manifest(shards)
    check_reported(shards, manifest)
    cells = run_cells(comparison, folder, overwrite)
    chosen = choose_runs(comparison, cells, folder)
    verdicts = judge_variants(chosen)
    result = describe(comparison, chosen, verdicts, manifest, manifest.cost_usd)
    rows = find_disagreements(chosen, shards, manifest, images)
    replace_file(folder / COMPARISON, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    replace_file(folder / REPORT, write_report(result, rows).encode())
    return folder, result


def check_reported(shards: Path, manifest: Manifest) -> None:
    """Say which rows are reported where the test split has no labels; raise DataError where there are none."""
    splits = read_splits(shards, manifest)
    if splits.by_teacher:
        raise DataError(
            f"{shards} has no row with a label, so a comparison would only say who copies the teacher best: it needs a "
            "label column, in which some hundred rows have one. distill run does without. Nothing was trained"
        )
    if splits.test is None:
        raise DataError(
            f"{shards} has no rows to report on: its test split has no labels, and there are too few labelled rows to "
            f"hold some out (validation {SMALL}, or in train {FEWEST} in the fifth that would be held out). The "
            "validation rows choose, so they cannot be reported. Harvest more labelled rows; nothing was trained"
        )
    if said := splits.describe():
        say(f"{manifest.task}: {said}")
