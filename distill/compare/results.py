"""From finished cells to what a comparison says: the chosen candidates, the tests, and all that the report draws."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from distill.compare.calibration import Calibration, measure_calibration
from distill.compare.classifier import SeedPredictions, count_confusion, read_predictions
from distill.compare.plan import Cell, Comparison
from distill.compare.runner import CELLS
from distill.compare.statistics import compare
from distill.compare.verdict import Verdict, rank, reach_verdicts
from distill.config import Role
from distill.runs.folder import read_metrics
from distill.runs.record import LOG, ROW_SCORES
from shared.errors import DataError
from shared.shards.manifest import Manifest

Array = np.ndarray[Any, Any]

CHOSEN_ON, REPORTED_ON = "validation", "test"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One variant with one number of labels, by the candidate that the validation split chose: its runs, by seed.

    `choice_scores` are the mean validation scores of all candidates. `row_scores` (seeds, rows) are of the reported
    split, and `rows` (rows,) the numbers of those rows in it. `predictions` are there where the method is a classifier.
    `curves` are the validation scores of each seed by epoch.
    """

    variant: str
    labels: int | None
    role: Role
    choice: int
    options: Mapping[str, Any]
    choice_scores: tuple[float, ...]
    metrics: tuple[Mapping[str, Any], ...]
    rows: Array
    row_scores: Array
    predictions: SeedPredictions | None
    curves: tuple[tuple[float, ...], ...]

    @property
    def scores(self) -> list[float]:
        """The reported score of each seed."""
        return [metrics["test"] for metrics in self.metrics]

    @property
    def validation(self) -> list[float]:
        """The score of each seed on the split that chose."""
        return [metrics["dev_best"] for metrics in self.metrics]


def choose_runs(comparison: Comparison, cells: Sequence[Cell], folder: Path) -> list[Chosen]:
    """Choose the runs that count, by number of labels and then variant, in the comparison's order.

    For each variant and number of labels the candidate with the highest mean score on the validation split over the
    seeds is taken, the first one of equals; the test split chooses nothing. Raises DataError where there is no test
    split, or where two variants did not take as many steps or were not scored on the same rows.
    """
    by_key: dict[tuple[int | None, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        by_key.setdefault((cell.labels, cell.variant), {}).setdefault(cell.choice, []).append(cell)
    chosen = [
        _choose(comparison, labels, variant, candidates, folder / CELLS)
        for (labels, variant), candidates in by_key.items()
    ]
    steps = {run["student_steps"] for one in chosen for run in one.metrics}
    if len(steps) > 1:
        raise DataError(f"the variants took different numbers of steps ({sorted(steps)}), which is no fair comparison")
    if any(not np.array_equal(one.rows, chosen[0].rows) for one in chosen):
        raise DataError("the variants were not scored on the same test rows, which is no fair comparison")
    return chosen


def _choose(
    comparison: Comparison, labels: int | None, variant: str, candidates: Mapping[int, Sequence[Cell]], folder: Path
) -> Chosen:
    metrics = {index: [read_metrics(folder / cell.name) for cell in cells] for index, cells in candidates.items()}
    scores = {index: mean(run["dev_best"] for run in runs) for index, runs in metrics.items()}
    best = max(scores, key=lambda index: scores[index])
    folders = [folder / cell.name for cell in candidates[best]]
    rows, row_scores = _read_row_scores(folders)
    return Chosen(
        variant=variant,
        labels=labels,
        role=candidates[best][0].config.method.role,
        choice=best,
        options=comparison.list_candidates(variant)[best],
        choice_scores=tuple(scores.values()),
        metrics=tuple(metrics[best]),
        rows=rows,
        row_scores=row_scores,
        predictions=read_predictions(folders, REPORTED_ON),
        curves=tuple(map(_read_curve, folders)),
    )


def _read_curve(folder: Path) -> tuple[float, ...]:
    return tuple(json.loads(line)["dev"] for line in (folder / LOG).read_text().splitlines())


def _read_row_scores(folders: Sequence[Path]) -> tuple[Array, Array]:
    """Read the reported rows' numbers, (rows,), and their scores by seed, (seeds, rows)."""
    numbers, scores = [], []
    for folder in folders:
        table = pq.read_table(folder / ROW_SCORES, filters=[("split", "=", REPORTED_ON)])
        if not table.num_rows:
            raise DataError(
                f"{folder / ROW_SCORES} has no scores of a test split: the shards have no labelled rows there, and the "
                "validation rows chose the candidates, so they cannot be reported"
            )
        numbers.append(table["row"].to_numpy())
        scores.append(table["score"].to_numpy())
    if any(not np.array_equal(one, numbers[0]) for one in numbers):
        raise DataError(f"{folders[0]} and the other seeds were not scored on the same test rows")
    return numbers[0], np.stack(scores)


def judge_variants(chosen: Sequence[Chosen]) -> list[Verdict]:
    """Reach the verdict on each teacher variant, for each number of labels; none where there is one seed only."""
    if len(chosen[0].metrics) < 2:
        return []
    groups: dict[int | None, dict[str, Array]] = {}
    for one in chosen:
        groups.setdefault(one.labels, {})[one.variant] = one.row_scores
    return reach_verdicts(groups.items(), {one.variant: one.role for one in chosen})


def describe(
    comparison: Comparison,
    chosen: Sequence[Chosen],
    verdicts: Sequence[Verdict],
    manifest: Manifest,
    cost_usd: float | None,
) -> dict[str, Any]:
    """Give all figures of a comparison, as `--json` prints them. Differences are in units of the metric."""
    groups = [
        _describe_group([one for one in chosen if one.labels == labels], manifest)
        for labels in dict.fromkeys(one.labels for one in chosen)
    ]
    sentences = say_verdicts(verdicts, manifest) if comparison.tests else [_say_untested(comparison)]
    first = chosen[0].metrics[0]
    runs = [run for one in chosen for run in one.metrics]
    return {
        "name": comparison.name,
        "task": manifest.task,
        "teacher": manifest.teacher,
        "student": first["student"],
        "frozen_layers": first["config"].get("frozen_layers"),
        "metric": manifest.metric,
        "labels": list(manifest.labels),
        "verdict": " ".join(sentences),
        "sentences": sentences,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "student_steps": first["student_steps"],
        "seeds": list(comparison.seeds),
        "rows": {**first["rows"], "test": len(chosen[0].rows)},
        "candidates": len(chosen[0].choice_scores),
        "groups": groups,
        "cost": {
            "teacher_usd": cost_usd,
            "chosen_runs": len(runs),
            "seconds_of_chosen_runs": sum(run["seconds"] for run in runs),
        },
        "manifest_sha256": first["manifest_sha256"],
        "student_fingerprint": first["student_fingerprint"],
        "git_revisions": sorted({str(run["git_revision"]) for run in runs}),
        "packages": first["packages"],
        "device": first["device"],
    }


def _describe_group(group: Sequence[Chosen], manifest: Manifest) -> dict[str, Any]:
    """Describe the variants with one number of labels; the differences are empty where there is one seed only."""
    values = {one.variant: one.row_scores for one in group}
    baseline = next(one.variant for one in group if one.role == "undistilled")
    controls = [one.variant for one in group if one.role == "control"]
    strongest = max(controls, key=lambda name: values[name].mean(), default=None)
    tested = len(group[0].metrics) > 1
    against = rank(values, baseline) if tested else {}
    return {
        "labels": group[0].labels,
        "strongest_control": strongest,
        "variants": [_describe_variant(one, manifest) for one in group],
        "against_undistilled": {name: {**asdict(d), "p_holm": p} for name, (d, p) in against.items()},
        "against_strongest_control": {}
        if strongest is None or not tested
        else {name: asdict(compare(v, values[strongest])) for name, v in values.items() if name != strongest},
    }


def _describe_variant(one: Chosen, manifest: Manifest) -> dict[str, Any]:
    said = None if manifest.kind == "regression" else one.predictions
    calibration: Calibration | None = None if said is None else measure_calibration(said.logits, said.target)
    aligner = [run["aligner_dev"] for run in one.metrics if run.get("aligner_dev") is not None]
    return {
        "variant": one.variant,
        "role": one.role,
        "score": mean(one.scores),
        "scores": one.scores,
        "validation": mean(one.validation),
        "curve": [mean(scores) for scores in zip(*one.curves, strict=True)],
        "choice": dict(one.options),
        "choice_scores": list(one.choice_scores),
        "aligner_validation": mean(aligner) if aligner else None,
        "first_phase_steps": (one.metrics[0].get("first_phase") or {}).get("student_steps", 0),
        "seconds": mean(run["seconds"] for run in one.metrics),
        "calibration": None if calibration is None else asdict(calibration),
        "confusion": None if said is None else count_confusion(said.logits, said.target),
        "config": dict(one.metrics[0]["config"]),
    }


def _say_untested(comparison: Comparison) -> str:
    return (
        f"One seed only ({comparison.seeds[0]}): these are scores, and nothing is tested. Whether the teacher helped "
        "takes at least 2 seeds, better 5."
    )


def say_verdicts(verdicts: Sequence[Verdict], manifest: Manifest) -> list[str]:
    """Put the verdicts in words, one sentence a teacher variant and number of labels."""
    sentences = []
    for verdict in verdicts:
        gain, control = verdict.undistilled, verdict.control
        with_labels = "With all labels" if verdict.labels is None else f"With {verdict.labels} labels"
        by = (
            f"{gain.mean:+.3f} {manifest.metric} against plain fine-tuning (95% interval {gain.low:+.3f} to "
            f"{gain.high:+.3f})"
        )
        if control is not None:
            by += (
                f" and {control.mean:+.3f} ({control.low:+.3f} to {control.high:+.3f}) against the strongest control, "
                f"{verdict.strongest}"
            )
        subject = f"{with_labels}, {manifest.teacher}'s answers ({verdict.variant})"
        sentences.append(
            {
                "helps": f"{subject} help: {by}.",
                "explained": f"{subject} beat plain fine-tuning, but are not shown to beat a control: {by}.",
                "uncontrolled": f"{subject} may help, but no control was trained that could tell why: {by}.",
                "none": f"{subject} show no effect: {by}.",
                "hurts": f"{subject} do harm: {by}.",
            }[verdict.outcome]
        )
    return sentences
