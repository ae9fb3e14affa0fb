"""A comparison, from its cells to its report."""

from pathlib import Path
from typing import Any

import orjson

from distill.compare.disagreements import find_disagreements
from distill.compare.plan import Comparison
from distill.compare.report import write_report
from distill.compare.results import choose_runs, describe, judge_variants
from distill.compare.runner import run_cells
from shared.disk import replace_file
from shared.shards.manifest import choose_teacher, load_manifest

RESULT, REPORT = "comparison.json", "report.html"


def run_comparison(
    comparison: Comparison, out: Path, images: Path | None = None, overwrite: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Train what is missing of a comparison, then write out/<name>/comparison.json and report.html.

    `images` holds pictures of test rows, as `harvest show --images` writes them, for the report.
    """
    folder = out / comparison.name
    cells = run_cells(comparison, folder, overwrite)
    shards = choose_teacher(comparison.shards[0], comparison.teacher)
    manifest = load_manifest(shards)
    chosen = choose_runs(comparison, cells, folder)
    verdicts = judge_variants(chosen, manifest.metric)
    result = describe(comparison, chosen, verdicts, manifest, manifest.cost_usd)
    rows = find_disagreements(chosen, shards, manifest, images)
    replace_file(folder / RESULT, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    replace_file(folder / REPORT, write_report(result, rows).encode())
    return folder, result
