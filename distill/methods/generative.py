"""A student that writes, as a method: it learns replies, references, and a teacher's top K of each token."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from distill.compute.weights import collect_trained
from distill.methods.reconstructing import (
    ReconstructionPhase,
    VectorTeacher,
    make_vector_teacher,
    restore_teacher,
)
from distill.methods.writing import WritingMaterials
from distill.methods.writing_phase import WriterPhase, plan_dialogues
from distill.methods.writing_scores import Said, WritingScores
from distill.models.adapters import halve_frozen
from distill.models.generator import Generator, load_generator, set_ends
from distill.models.pretrained import check_fits
from distill.models.saving import save_generator
from distill.models.sharded import shard_student, wake
from distill.training.method import Phase, Result, RowScores
from distill.training.progress import EpochRecord, Progress
from distill.training.step import derive_seed
from shared.console import say

RECONSTRUCTION, STUDENT = "reconstruction", "student"
DRIFT_ROWS = 4  # whose logits are held against each other before and after an adapter is merged


class Generative:
    """A causal language model that learns a weighted sum of terms: see distill.losses.tokens."""

    def __init__(self, materials: WritingMaterials) -> None:
        self.materials = materials
        with_vectors = "vectors" in materials.weights and materials.config.method.traits.trains_student
        self.teacher = make_vector_teacher(materials) if with_vectors else None
        self.plan = plan_dialogues(materials, None if self.teacher is None else self.teacher.column)
        self.generator = build_generator(materials, self.teacher)
        self.scores = WritingScores(materials, self.generator)
        self.aligned: Result = {}

    @property
    def phases(self) -> tuple[str, ...]:
        """The aligner's passes, where vectors are learnt, and the student's training."""
        return (STUDENT,) if self.teacher is None else (RECONSTRUCTION, STUDENT)

    def make_phase(self, name: str, results: Mapping[str, Result]) -> Phase[Any]:
        """Make a phase, given the results of those before it."""
        if self.teacher is not None and name == RECONSTRUCTION:
            return ReconstructionPhase.start(self.materials, self.teacher, self.plan.usable.wanted)
        if self.teacher is not None:
            self.aligned = results[RECONSTRUCTION]
            restore_teacher(self.teacher, self.aligned)
        return WriterPhase.start(self.materials, self.generator, self.plan, self.scores, self.teacher)

    def describe_epoch(self, record: EpochRecord) -> dict[str, Any]:
        """Give an epoch as the run's log has it."""
        return {
            "epoch": record.epoch,
            "dev": record.dev,
            "student": {name.removeprefix("student/"): mean for name, mean in record.terms.items()},
            "student_steps": record.steps,
            "student_rows": record.rows,
            "seconds": record.seconds,
        }

    @cached_property
    def said(self) -> dict[str, Said]:
        """What the student says of the scored rows of each split. All processes must ask for it together."""
        return self.scores.say_all()

    def score_rows(self) -> dict[str, RowScores]:
        """Score rows: by split, and the further measures of a split as `<split>_nll` and `<split>_agreement`."""
        return {split: RowScores(said.number, said.score) for split, said in self.said.items()}

    def describe(self, progress: Progress) -> dict[str, Any]:
        """Give what metrics.json says of the method."""
        config = self.materials.config
        means = {name: float(said.score.mean()) for name, said in self.said.items()}
        return {
            "metric": self.scores.metric,
            "loss": "+".join(self.materials.weights),
            "semantics": config.method.semantics,
            "control": config.method.control,
            "role": config.role,
            "test": means.get("test"),
            "nll": means.get("test_nll"),
            "agreement": means.get("test_agreement"),
            "validation": means.get("validation"),
            "aligner_dev": None,
            "aligner_steps": self.aligned.get("steps", 0),
            "first_phase": {"aligner_loss": self.aligned["loss"]} if self.aligned else None,
            "truncated_texts": 0,
            "template": self.materials.prompter.template.name,
            "same_tokenizer": self.materials.same_tokenizer,
            "replies": {
                "asked": self.plan.usable.asked,
                "learnt": int(self.plan.usable.wanted.sum()),
                "right": self.plan.usable.right if self.plan.usable.judged else None,
                "left_out": dict(self.plan.usable.left_out),
            },
        }

    def collect(self) -> None:
        """Bring the student's weights together in the first process: in one built anew, on the CPU."""
        device = self.materials.device
        if device.processes.shards:
            alone = replace(self.materials, device=device.move_to_cpu())
            whole = build_generator(alone, self.teacher) if device.processes.is_first else None
            collect_trained(self.generator, whole)
            self.generator = whole or self.generator

    def save_predictions(self, folder: Path) -> None:
        """Write replies/<split>.parquet, where replies were written."""
        self.scores.write_replies(self.said, folder)

    def save(self, folder: Path) -> None:
        """Write student/, a whole model, and adapter/ where it was trained as one."""
        materials = self.materials
        rows = [ids for ids in self.scores.list_prompts(DRIFT_ROWS) if ids]
        drift = save_generator(self.generator.model, materials.tokenizer, folder, rows, materials.encoder.ends)
        if drift is not None:
            say(f"the adapter is in student/ too: {drift}")


def build_generator(materials: WritingMaterials, teacher: VectorTeacher | None) -> Generator:
    """Build a fresh student on its device, with heads where a teacher's vectors are learnt. Raises SourceError."""
    device = materials.device
    with device.processes.take_turn():  # a whole student lies in a machine's memory once
        generator = _load_built(materials, teacher)
    if device.processes.shards:
        wake(generator, device)
    return generator


def _load_built(materials: WritingMaterials, teacher: VectorTeacher | None) -> Generator:
    config, wanted = materials.config, materials.config.student
    torch.manual_seed(derive_seed(config.training.seed, "student"))
    model = load_generator(
        materials.found.source,
        wanted.layers,
        wanted.layers_kept,
        wanted.dropout,
        wanted.lora_rank,
        wanted.lora_targets,
        wanted.gradient_checkpointing,
    )
    length = materials.encoder.max_length
    check_fits(model, materials.found.source, materials.tokenizer, length, "--sequence-length")
    set_ends(model, materials.encoder.ends, materials.tokenizer.pad_token_id)
    torch.manual_seed(derive_seed(config.training.seed, "heads"))
    generator = Generator(model, None if teacher is None else (teacher.joint_width, teacher.column.width))
    if wanted.lora_rank is not None and materials.device.half is not None:
        halve_frozen(model, materials.device.half)
    if materials.device.processes.shards:
        shard_student(generator, materials.device)
    generator.to(materials.device.device)
    return generator
