"""From finished cells to what a comparison says: the chosen candidates, the tests, and all that the report draws."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from distill.compare.calibration import Calibration, measure_calibration
from distill.compare.plan import Cell, Plan
from distill.compare.runner import CELLS, read_metrics
from distill.compare.statistics import compare, make_pseudovalues
from distill.compare.verdict import Verdict, judge, rank
from distill.config import Role
from shared.errors import DataError
from shared.shards.manifest import Manifest

Array = np.ndarray[Any, Any]

CHOSEN_ON, REPORTED_ON = "validation", "test"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One variant with one number of labels, by the candidate that the validation split chose: its runs, by seed.

    `choice_scores` are the mean validation scores of all candidates. `logits` is (seeds, rows, c); `aligner`, of the
    same shape, is what the aligners make of the teacher's answers to those rows, None where there are none. `curves`
    are the validation scores of each seed by epoch.
    """

    variant: str
    labels: int | None
    role: Role
    choice: int
    options: Mapping[str, Any]
    choice_scores: tuple[float, ...]
    metrics: tuple[Mapping[str, Any], ...]
    logits: Array
    target: Array
    pseudovalues: Array
    aligner: Array | None
    curves: tuple[tuple[float, ...], ...]

    @property
    def scores(self) -> list[float]:
        """The reported score of each seed."""
        return [metrics["test"] for metrics in self.metrics]

    @property
    def validation(self) -> list[float]:
        """The score of each seed on the split that chose."""
        return [metrics["dev_best"] for metrics in self.metrics]


def choose_runs(plan: Plan, cells: Sequence[Cell], folder: Path, manifest: Manifest) -> list[Chosen]:
    """The runs that count, by number of labels and then variant, in the plan's order.

    For each variant and number of labels the candidate with the highest mean score on the validation split over the
    seeds is taken, the first one of equals; the test split chooses nothing. Raises DataError where there is no test
    split, or where two variants did not take as many steps.
    """
    by_key: dict[tuple[int | None, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        by_key.setdefault((cell.labels, cell.variant), {}).setdefault(cell.choice, []).append(cell)
    chosen = []
    for (labels, variant), candidates in by_key.items():
        metrics = {
            index: [read_metrics(folder / CELLS / cell.name) for cell in group] for index, group in candidates.items()
        }
        scores = {index: mean(run["dev_best"] for run in runs) for index, runs in metrics.items()}
        best = max(scores, key=lambda index: scores[index])
        logits, target, aligner = _read_predictions(folder, candidates[best])
        values = np.stack([make_pseudovalues(manifest.metric, one, target) for one in logits])
        chosen.append(
            Chosen(
                variant,
                labels,
                candidates[best][0].config.method.role,
                best,
                plan.list_candidates(variant)[best],
                tuple(scores.values()),
                tuple(metrics[best]),
                logits,
                target,
                values,
                aligner,
                tuple(_read_curve(folder / CELLS / cell.name) for cell in candidates[best]),
            )
        )
    steps = {run["student_steps"] for one in chosen for run in one.metrics}
    if len(steps) > 1:
        raise DataError(f"the variants took different numbers of steps ({sorted(steps)}), which is no fair comparison")
    return chosen


def _read_curve(folder: Path) -> tuple[float, ...]:
    return tuple(json.loads(line)["dev"] for line in (folder / "log.jsonl").read_text().splitlines())


def _read_predictions(folder: Path, cells: Sequence[Cell]) -> tuple[Array, Array, Array | None]:
    logits, target, aligner = [], None, []
    for cell in cells:
        path = folder / CELLS / cell.name / "predictions.npz"
        with np.load(path) as arrays:
            if REPORTED_ON not in arrays:
                raise DataError(
                    f"{path} has no predictions of a test split: the shards have no labelled rows there, and the "
                    "validation rows chose the candidates, so they cannot be reported"
                )
            logits.append(arrays[REPORTED_ON])
            target = arrays[f"{REPORTED_ON}_target"]
            if f"{REPORTED_ON}_aligner" in arrays:
                aligner.append(arrays[f"{REPORTED_ON}_aligner"])
    assert target is not None
    return np.stack(logits), target, np.stack(aligner) if len(aligner) == len(cells) else None


def judge_runs(chosen: Sequence[Chosen]) -> list[Verdict]:
    """The verdict on each teacher variant, for each number of labels; none of one seed, which cannot tell luck."""
    if len(chosen[0].logits) < 2:
        return []
    groups: dict[int | None, dict[str, Array]] = {}
    for one in chosen:
        groups.setdefault(one.labels, {})[one.variant] = one.pseudovalues
    return judge(groups.items(), {one.variant: one.role for one in chosen})


def describe(
    plan: Plan, chosen: Sequence[Chosen], verdicts: Sequence[Verdict], manifest: Manifest, cost_usd: float | None
) -> dict[str, Any]:
    """All figures of a comparison, as `--json` prints them. Differences are in units of the metric."""
    baseline = next(one.variant for one in chosen if one.role == "undistilled")
    groups = []
    for labels in dict.fromkeys(one.labels for one in chosen):
        group = [one for one in chosen if one.labels == labels]
        values = {one.variant: one.pseudovalues for one in group}
        tested = values if len(plan.seeds) > 1 else {}
        against = rank(tested, baseline) if tested else {}
        controls = [one.variant for one in group if one.role == "control"]
        strongest = max(controls, key=lambda name: values[name].mean(), default=None)
        groups.append(
            {
                "labels": labels,
                "strongest_control": strongest,
                "variants": [_describe_variant(one, manifest) for one in group],
                "against_undistilled": {name: {**asdict(d), "p_holm": p} for name, (d, p) in against.items()},
                "against_strongest_control": {}
                if strongest is None
                else {name: asdict(compare(v, values[strongest])) for name, v in tested.items() if name != strongest},
            }
        )
    sentences = say_verdicts(verdicts, manifest)
    first = chosen[0].metrics[0]
    runs = [run for one in chosen for run in one.metrics]
    return {
        "name": plan.name,
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
        "seeds": list(plan.seeds),
        "rows": {**first["rows"], "test": len(chosen[0].target)},
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


def _describe_variant(one: Chosen, manifest: Manifest) -> dict[str, Any]:
    regression = manifest.kind == "regression"
    calibration: Calibration | None = None if regression else measure_calibration(one.logits, one.target)
    aligner = [run["aligner_dev"] for run in one.metrics if run["aligner_dev"] is not None]
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
        "first_phase_steps": (one.metrics[0]["first_phase"] or {}).get("student_steps", 0),
        "seconds": mean(run["seconds"] for run in one.metrics),
        "calibration": None if calibration is None else asdict(calibration),
        "confusion": None if regression else count_confusion(one.logits, one.target),
        "config": dict(one.metrics[0]["config"]),
    }


def count_confusion(logits: Array, target: Array) -> list[list[float]]:
    """The mean over seeds of the number of rows of each label (lines) that got each label (columns)."""
    classes = logits.shape[-1]
    counts = np.zeros((classes, classes))
    for one in logits:
        np.add.at(counts, (target, one.argmax(axis=1)), 1)
    confusion: list[list[float]] = (counts / len(logits)).tolist()
    return confusion


def say_verdicts(verdicts: Sequence[Verdict], manifest: Manifest) -> list[str]:
    """The verdicts in words, one sentence a teacher variant and number of labels."""
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
