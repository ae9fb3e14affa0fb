"""ARMADA (arXiv:2603.10877) over label heads, as a method. Plain fine-tuning is ARMADA without a teacher's terms."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distill.losses.objective import Objective, make_objective
from distill.methods.aligning import AlignerPhase, AlignerTraining, find_answered, restore_aligner
from distill.methods.materials import Materials
from distill.methods.students import StudentPhase, build_student, check_mix, collect_student, save_weights
from distill.methods.targets import SoftTargets
from distill.scoring.metrics import SET_METRICS
from distill.scoring.predict import Predictions, clip_values, predict, predict_aligner, score
from distill.scoring.pseudovalues import make_pseudovalues
from distill.training.method import Phase, Result, RowScores
from distill.training.progress import EpochRecord, Progress
from shared.shards.manifest import Manifest

PRETRAINING, STUDENT = "pretraining", "student"


class Armada:
    """A student with label heads: with an aligner or none, and with soft `targets` in place of the aligner's or none.

    `first_phase` is what metrics.json says of what was trained before the student, None where nothing was.
    """

    def __init__(
        self, materials: Materials, aligner: AlignerTraining | None = None, targets: SoftTargets | None = None
    ) -> None:
        self.materials, self.aligner, self.targets = materials, aligner, targets
        self.first_phase: dict[str, Any] | None = None
        check_mix(materials)
        self._vector_width = None if aligner is None else aligner.vectors.width
        self.built = build_student(materials, self._vector_width)
        self._phase: StudentPhase | None = None

    @property
    def phases(self) -> tuple[str, ...]:
        """The aligner's passes before the first epoch, where any were asked for, and the student."""
        learns = self.aligner is not None and self.aligner.rows is not None
        pretrains = learns and self.materials.config.method.aligner_pretraining > 0
        return (PRETRAINING, STUDENT) if pretrains else (STUDENT,)

    @cached_property
    def objective(self) -> Objective:
        """What the student minimises."""
        return make_objective(self.materials.config.method, self.materials.phi)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if name == PRETRAINING:
            assert self.aligner is not None
            return AlignerPhase(self.aligner, self.materials.config.method.aligner_pretraining)
        if self.aligner is not None and PRETRAINING in results:
            restore_aligner(self.aligner, results[PRETRAINING])
        answered = (
            None if self.aligner is None else find_answered(self.materials, self.materials.rows.dev, self.aligner)
        )
        self._phase = StudentPhase.start(
            self.materials, self.built.student, self.objective, self.aligner, self.targets, answered
        )
        return self._phase

    def describe_epoch(self, record: EpochRecord) -> dict[str, Any]:
        """Give an epoch as the run's log has it."""
        return describe_epoch(record)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """What the student says of the scored rows of each split, and what predict_teacher adds.

        All processes must ask for it together.
        """
        materials, model = self.materials, self.built.student.model
        said = {"validation": predict(model, materials.dev, materials.device)}
        if materials.test is not None:
            said["test"] = predict(model, materials.test, materials.device)
        return {**said, **self.predict_teacher()}

    def predict_teacher(self) -> dict[str, Predictions]:
        """Give what the aligner says of the test rows, `test_aligner`, where the teacher answered all of them."""
        materials = self.materials
        if materials.test is None or materials.rows.test is None or self.aligner is None:
            return {}
        answered = find_answered(materials, materials.rows.test, self.aligner)
        if answered is None or answered.rows != materials.test.rows:
            return {}
        return {"test_aligner": predict_aligner(self.aligner.aligner, answered, materials.device)}

    def score_rows(self) -> dict[str, RowScores]:
        """Score rows by pseudovalues of the task's metric: of accuracy, whether a row is right."""
        return score_predictions(self.materials.rows.manifest, self.predictions)

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Give what metrics.json says of the method."""
        config = self.materials.config.method
        aligner = [record.scores["aligner/dev"] for record in progress.epochs if "aligner/dev" in record.scores]
        test = self.predictions.get("test")
        return {
            "loss": config.loss_name,
            "semantics": config.semantics,
            "control": config.control,
            "alpha": config.alpha,
            "test": None if test is None else score(self.materials.rows.manifest, test),
            "aligner_dev": max(aligner, default=None),
            "aligner_steps": sum(record.counts.get("aligner/loss", 0) for record in progress.epochs),
            "first_phase": self.first_phase,
            "teacher_head": None,
            "truncated_texts": 0 if self._phase is None else self._phase.plan.truncated,
        }

    def collect(self) -> None:
        """Bring the student's weights together in the first process."""
        self.built = collect_student(self.materials, self.built, self._vector_width)

    def save_predictions(self, folder: Path) -> None:
        """Write predictions.npz."""
        save_predictions(folder, self.materials.rows.manifest, self.predictions)

    def save(self, folder: Path) -> None:
        """Write student/, heads.safetensors, and aligner.safetensors where there is one."""
        self.built.save(folder, self.materials)
        if self.aligner is not None:
            save_weights(self.aligner.aligner.state_dict(), folder / "aligner.safetensors")


def describe_epoch(record: EpochRecord) -> dict[str, Any]:
    """Give an epoch as the run's log has it."""
    student = {name: mean for name, mean in record.terms.items() if name.startswith("student/")}
    return {
        "epoch": record.epoch,
        "dev": record.dev,
        "evaluations": [{"step": each.step, "dev": each.dev} for each in record.evaluations],
        "aligner_dev": record.scores.get("aligner/dev"),
        "aligner_loss": record.terms.get("aligner/loss"),
        "student": {name.removeprefix("student/"): mean for name, mean in student.items()},
        "aligner_steps": record.counts.get("aligner/loss", 0),
        "student_steps": record.steps,
        "student_rows": record.rows,
        "seconds": record.seconds,
    }


def score_predictions(manifest: Manifest, predictions: Mapping[str, Predictions]) -> dict[str, RowScores]:
    """Score rows by pseudovalues of the task's metric: of accuracy, whether a row is right.

    Where a row has several labels, `<split>_<metric>` are those of the other metrics of such tasks.
    """
    further = [name for name in SET_METRICS if name != manifest.metric] if manifest.kind == "multilabel" else []
    scores = {split: _score_rows(manifest, manifest.metric, said) for split, said in predictions.items()}
    for split in ("validation", "test"):
        if split in predictions:
            scores |= {f"{split}_{name}": _score_rows(manifest, name, predictions[split]) for name in further}
    return scores


def _score_rows(manifest: Manifest, metric: str, said: Predictions) -> RowScores:
    return RowScores(said.number, make_pseudovalues(metric, clip_values(manifest, said.logits), said.target))


def save_predictions(folder: Path, manifest: Manifest, predictions: Mapping[str, Predictions]) -> None:
    """Write predictions.npz.

    `<split>` holds float32 logits (n, c), or values (n, 1) within the task's range, in the order of the shards;
    `<split>_target` the labels (n,), or (n, c) of booleans where a row has several.
    """
    arrays = {split: clip_values(manifest, said.logits) for split, said in predictions.items()}
    arrays |= {f"{split}_target": said.target for split, said in predictions.items()}
    np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **arrays)
