"""What a method over texts and labels is made from: the rows, the student's model and tokenizer, the device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from distill.compute.devices import Device
from distill.config import DistillConfig
from distill.data.batches import RowSource
from distill.data.columns import TEXT, BatchColumn, label_columns
from distill.data.run_rows import RunRows
from distill.data.split import Bools
from distill.data.tokens import TextColumn, TextEncoder
from distill.models.pretrained import count_positions, load_tokenizer
from distill.phi import PHIS, Phi
from distill.scoring.metrics import find_metric
from distill.scoring.predict import scored_rows
from shared.console import say
from shared.errors import UsageError
from shared.keys import canonical_json
from shared.shards.manifest import Manifest, hash_manifest
from shared.sources import ResolvedModel, fingerprint_model, resolve_model


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Where a model lies, and what identifies its weights."""

    source: ResolvedModel
    fingerprint: str


def find_model(name: str, trusts_code: bool = False) -> FoundModel:
    """Find a model by what a user calls it; `trusts_code` lets code that comes with it run. Raises SourceError."""
    source = replace(resolve_model(name, say), trusts_code=trusts_code)
    return FoundModel(source, fingerprint_model(source))


@dataclass(frozen=True, slots=True)
class Materials:
    """What a method is made from.

    `found` is the student before training; `dev` and `test` are the rows that score it. What must last for the run
    only lies in the folder `work`; outputs of frozen layers lie in `frozen`, which runs share, or there too where that
    is None.
    """

    config: DistillConfig
    rows: RunRows
    found: FoundModel
    device: Device
    work: Path
    frozen: Path | None
    tokenizer: Any
    encoder: TextEncoder
    dev: RowSource
    test: RowSource | None

    @property
    def outputs(self) -> int:
        """Outputs of each head: the number of labels, or 1 for a regression."""
        return count_outputs(self.rows.manifest)

    @property
    def phi(self) -> Phi:
        """What the outputs are, by the kind of the task."""
        return PHIS[self.rows.manifest.kind]

    @property
    def regression(self) -> bool:
        """Whether the task is to predict a number."""
        return self.phi == "identity"

    def read_training(self, columns: Mapping[str, BatchColumn], *, wanted: Bools) -> RowSource:
        """Give training rows with some columns, and with the labels that training may see."""
        labels = label_columns(self.rows.train, visible=self.rows.visible)
        buffer_bytes = self.config.data.buffer_bytes
        return RowSource(self.rows.train, {**columns, **labels}, wanted=wanted, buffer_bytes=buffer_bytes)

    def read_answered_texts(self) -> RowSource:
        """Give the texts of all training rows that the teacher answered."""
        return self.read_training({TEXT: TextColumn(self.encoder)}, wanted=self.rows.train.answered)

    def name_frozen_outputs(self) -> str:
        """Name a file by all that changes the frozen layers' outputs, and the rows that they are of."""
        config = self.config
        made_of = {
            "student_fingerprint": self.found.fingerprint,
            "student_layers": config.student.layers,
            "frozen_layers": config.student.frozen_layers,
            "max_length": config.data.max_length,
            "manifest_sha256": {str(each.folder): hash_manifest(each.manifest) for each in self.rows.teachers},
            "device": str(self.device.device),
            **self.device.describe_half(),
        }
        return f"frozen-{sha256(canonical_json(made_of).encode()).hexdigest()[:16]}.safetensors"


def gather_materials(
    config: DistillConfig, rows: RunRows, found: FoundModel, device: Device, work: Path, frozen: Path | None = None
) -> Materials:
    """Load the student's tokenizer, and prepare the rows that score it. Raises SourceError."""
    config = settle_alpha(config, rows)
    tokenizer = load_tokenizer(found.source)
    limits = (config.data.max_length, tokenizer.model_max_length, count_positions(found.source))
    tokenizer.model_max_length = min(limit for limit in limits if limit is not None)
    encoder = TextEncoder(tokenizer, tokenizer.model_max_length)
    dev = scored_rows(rows.dev, encoder, config.data.buffer_bytes)
    test = None if rows.test is None else scored_rows(rows.test, encoder, config.data.buffer_bytes)
    return Materials(config, rows, found, device, work, frozen, tokenizer, encoder, dev, test)


def settle_alpha(config: DistillConfig, rows: RunRows) -> DistillConfig:
    """Replace alpha auto by what the share of the answered rows that show their label makes of it.

    It is 1 where next to none does, and falls to .5 where a third does: labels that are plenty are better than what the
    teacher makes of a text.
    """
    if config.method.alpha != "auto":
        return config
    share = float(rows.visible.sum()) / max(1, int(rows.train.answered.sum()))
    return replace(config, method=replace(config.method, alpha=1 - 0.5 * min(1.0, 3 * share)))


def count_outputs(manifest: Manifest) -> int:
    """Count the outputs of each head: the labels, or 1. Raises UsageError for a task that has no label heads."""
    find_metric(manifest.metric)
    if manifest.kind == "regression":
        return 1
    if manifest.kind not in PHIS:
        raise UsageError(f"{manifest.task} is a task of kind {manifest.kind!r}; {', '.join(PHIS)} train here")
    if len(manifest.labels) < 2:
        raise UsageError(
            f"{manifest.task} has {len(manifest.labels)} labels ({', '.join(manifest.labels)}): there is nothing to "
            "tell apart. Harvest a task with two at least"
        )
    return len(manifest.labels)


def check_labels(config: DistillConfig, manifest: Manifest) -> None:
    """Raise UsageError for a task whose labels the config's method cannot train, and options of students that write."""
    count_outputs(manifest)
    if config.generative.learn:
        raise UsageError(f"{manifest.task} is a task of labels: --learn is for students that write")
    if not config.method.traits.for_labels:
        raise UsageError(
            f"{manifest.task} is a task of labels: control {config.method.control} is for students that write"
        )
    if config.student.layers_kept != "first":
        raise UsageError("student_layers_kept is for students that write: others keep their first layers")
    if manifest.kind == "regression":
        if config.method.traits.needs_classes:
            raise UsageError(f"{manifest.task} is a regression: control {config.method.control} needs labels")
        if config.method.soft == "kl":
            raise UsageError(f"{manifest.task} is a regression: soft kl needs a distribution over labels")
