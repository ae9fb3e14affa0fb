"""From finished cells to what a comparison says: the chosen candidates, the tests, and all that the report draws."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from distill.compare.classifier import SeedPredictions, count_confusion, read_predictions
from distill.compare.measures import describe_measures, read_measures
from distill.compare.plan import Cell, Comparison
from distill.compare.sentences import choose_wording, say_untested, say_verdicts
from distill.compare.statistics import FEWEST_SEEDS
from distill.compare.verdict import Verdict, compare_with_rivals, rank, reach_verdicts
from distill.config import Role
from distill.runs.folder import read_metrics
from distill.runs.names import CELLS, EPOCHS
from distill.runs.record import ROW_SCORES
from distill.scoring.calibration import Calibration, measure_calibration
from distill.scoring.metrics import SPANS
from shared.errors import DataError
from shared.shards.manifest import Manifest

Array = np.ndarray[Any, Any]

CHOSEN_ON, REPORTED_ON = "validation", "test"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One variant with one number of labels, by the candidate that the validation split chose: its runs, by seed.

    `choice_scores` are the mean validation scores of all candidates. `row_scores` (seeds, rows) are of the reported
    split, and `rows` (rows,) the numbers of those rows in it. `predictions` are there where the method is a classifier.
    `curves` are the validation scores of each seed by epoch, and `measures` what else the method measured of those
    rows, by name, each (seeds, rows).
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
    measures: Mapping[str, Array] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """What the score is called."""
        return str(self.metrics[0]["metric"])

    @property
    def scores(self) -> list[float]:
        """The reported score of each seed."""
        return [metrics["test"] for metrics in self.metrics]

    @property
    def reported_from(self) -> str:
        """The split that the reported rows are of, which is another where the test split has no labels."""
        return str(self.metrics[0].get("test_from") or REPORTED_ON)

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
    # A probe of the frozen student takes no step.
    steps = {run["student_steps"] for one in chosen for run in one.metrics if run["student_steps"]}
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
        role=candidates[best][0].config.role,
        choice=best,
        options=comparison.list_candidates(variant)[best],
        choice_scores=tuple(scores.values()),
        metrics=tuple(metrics[best]),
        rows=rows,
        row_scores=row_scores,
        predictions=read_predictions(folders, REPORTED_ON),
        curves=tuple(map(_read_curve, folders)),
        measures=read_measures(folders, REPORTED_ON),
    )


def _read_curve(folder: Path) -> tuple[float, ...]:
    return tuple(json.loads(line)["dev"] for line in (folder / EPOCHS).read_text().splitlines())


def _read_row_scores(folders: Sequence[Path]) -> tuple[Array, Array]:
    """Read the reported rows' numbers, (rows,), and their scores by seed, (seeds, rows)."""
    numbers, scores = [], []
    for folder in folders:
        table = pq.read_table(folder / ROW_SCORES, filters=[("split", "=", REPORTED_ON)])
        if not table.num_rows:
            raise DataError(
                f"{folder / ROW_SCORES} has no scores of a test split: an older version trained it, which held no rows "
                "out where the test split has no labels. Train such cells again with --overwrite"
            )
        numbers.append(table["row"].to_numpy())
        scores.append(table["score"].to_numpy())
    if any(not np.array_equal(one, numbers[0]) for one in numbers):
        raise DataError(f"{folders[0]} and the other seeds were not scored on the same test rows")
    return numbers[0], np.stack(scores)


def judge_variants(chosen: Sequence[Chosen]) -> list[Verdict]:
    """Reach the verdict on each teacher variant, for each number of labels; none where there are too few seeds."""
    if len(chosen[0].metrics) < FEWEST_SEEDS:
        return []
    groups: dict[int | None, dict[str, Array]] = {}
    for one in chosen:
        groups.setdefault(one.labels, {})[one.variant] = one.row_scores
    roles = {one.variant: one.role for one in chosen}
    return reach_verdicts(groups.items(), roles, SPANS.get(chosen[0].metric, inf))


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
    wording = choose_wording(manifest.kind)
    sentences = [say_untested(comparison.seeds)]
    if verdicts:
        sentences = say_verdicts(verdicts, manifest.teacher, chosen[0].metric, wording)
    first = chosen[0].metrics[0]
    runs = [run for one in chosen for run in one.metrics]
    return {
        "name": comparison.name,
        "task": manifest.task,
        "teacher": manifest.teacher,
        "student": first["student"],
        "frozen_layers": first["config"].get("frozen_layers"),
        "metric": chosen[0].metric,
        "labels": list(manifest.labels),
        "verdict": " ".join(sentences),
        "sentences": sentences,
        "wording": asdict(wording),
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "student_steps": max(run["student_steps"] for run in runs),
        "seeds": list(comparison.seeds),
        "test_from": chosen[0].reported_from,
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
    """Describe the variants with one number of labels; the differences are empty where there are too few seeds."""
    values = {one.variant: one.row_scores for one in group}
    undistilled = next(one.variant for one in group if one.role == "undistilled")
    rivals = [one.variant for one in group if one.role in ("control", "baseline")]
    tested, span = len(group[0].metrics) >= FEWEST_SEEDS, SPANS.get(group[0].metric, inf)
    against = rank(values, undistilled, span) if tested else {}
    against_rivals = {
        one.variant: compare_with_rivals(one.variant, values, rivals, span)
        for one in group
        if tested and one.role == "teacher"
    }
    return {
        "labels": group[0].labels,
        "teacher_head": _find_teacher_head(group),
        "variants": [_describe_variant(one, manifest) for one in group],
        "measures": _describe_measures(group, undistilled),
        "against_undistilled": {name: {**asdict(d), "p_holm": p} for name, (d, p) in against.items()},
        "against_rivals": {
            teacher: {rival: asdict(difference) for rival, difference in differences.items()}
            for teacher, differences in against_rivals.items()
        },
    }


def _describe_measures(group: Sequence[Chosen], undistilled: str) -> list[dict[str, Any]]:
    """Describe what else was measured, the score that is tested first; nothing where nothing else was."""
    if not any(set(one.measures) - {one.metric} for one in group):
        return []
    measures = {one.variant: {one.metric: one.row_scores, **_drop(one.measures, one.metric)} for one in group}
    return describe_measures(measures, undistilled)


def _drop(measures: Mapping[str, Array], name: str) -> dict[str, Array]:
    return {key: values for key, values in measures.items() if key != name}


def _find_teacher_head(group: Sequence[Chosen]) -> float | None:
    """Find the mean score of the head that a teacher variant's soft targets are of.

    It is of the test rows where the teacher answered any, and else of the training rows whose label the run hid.
    """
    for one in group:
        heads = [run["teacher_head"] for run in one.metrics if run.get("teacher_head")]
        for rows in ("test", "hidden"):
            scores: list[float] = [head[rows] for head in heads if head.get(rows) is not None]
            if one.role == "teacher" and len(scores) == len(one.metrics):
                return mean(scores)
    return None


def _describe_variant(one: Chosen, manifest: Manifest) -> dict[str, Any]:
    said = None if manifest.kind == "regression" else one.predictions
    calibration: Calibration | None = None if said is None else measure_calibration(said.logits, said.target)
    aligner = [run["aligner_dev"] for run in one.metrics if run.get("aligner_dev") is not None]
    return {
        "variant": one.variant,
        "role": one.role,
        "trained": one.metrics[0]["student_steps"] > 0,
        "score": mean(one.scores),
        "scores": one.scores,
        "validation": mean(one.validation),
        "validation_scores": one.validation,
        "curve": [mean(scores) for scores in zip(*one.curves, strict=True)],
        "choice": dict(one.options),
        "choice_scores": list(one.choice_scores),
        "aligner_validation": mean(aligner) if aligner else None,
        "first_phase_steps": (one.metrics[0].get("first_phase") or {}).get("student_steps", 0),
        "seconds": mean(run["seconds"] for run in one.metrics),
        "calibration": None if calibration is None else asdict(calibration),
        "confusion": None if said is None or said.target.ndim == 2 else count_confusion(said.logits, said.target),
        "config": dict(one.metrics[0]["config"]),
    }
