"""What a student that writes is made from: prompts by a template, token ids by its tokenizer, and columns of shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.compute.devices import Device
from distill.config import DistillConfig
from distill.controls import CONTROLS
from distill.data.answer_weights import AnswerWeights
from distill.data.dialogues import DialogueColumn, DialogueEncoder, Learnt, make_encoder
from distill.data.run_rows import RunRows
from distill.methods.materials import FoundModel
from distill.models.pretrained import open_tokenizer
from distill.scoring.replies import render_text
from distill.training.step import derive_seed
from shared.answers import find_rule, gold_text
from shared.errors import UsageError
from shared.example import Example
from shared.fingerprints import fingerprint_tokenizer
from shared.shards.manifest import Manifest
from shared.templates import Template, find_template


@dataclass(frozen=True, slots=True)
class TemplatePrompter:
    """Renders prompts by a template, messages by the tokenizer's chat template."""

    template: Template
    question: str
    tokenizer: Any

    def write(self, example: Example, *, scoring: bool = False) -> str:
        """Give the whole prompt as text; with `scoring`, the one that the student is scored on."""
        return render_text(self.tokenizer, self.template.render(example, self.question, scoring=scoring))

    def complete(self, example: Example, answer: str) -> str:
        """Give an answer as the text that follows the prompt."""
        return self.template.completion(example, answer, self.question)

    def answer(self, example: Example) -> str | None:
        """Give the right answer of a row; None where it has none."""
        return gold_text(example)


@dataclass(frozen=True, slots=True)
class WritingMaterials:
    """What the method is made from; `found` is the student before training."""

    config: DistillConfig
    rows: RunRows
    found: FoundModel
    device: Device
    work: Path
    tokenizer: Any
    prompter: TemplatePrompter
    encoder: DialogueEncoder
    same_tokenizer: bool

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term."""
        return {term.name: term.weight for term in self.config.learnt}

    def make_columns(self) -> dict[str, DialogueColumn]:
        """Make the columns of dialogues that the terms need, by whose words they are.

        Vectors go with the first of them: with the reply, or where only the reference is learnt beside them, with that,
        since a teacher of vectors need not write.
        """
        shuffled = self.config.method.control == "shuffled-teacher"
        seed = derive_seed(self.config.training.seed, "shuffled teacher") if shuffled else None
        names = set(self.weights)
        columns = {}
        if names & {"reply", "topk"} or names == {"vectors"}:
            columns["reply"] = self.make_column(
                "reply", "topk" in names, None if names == {"vectors"} else seed, self._find_answers()
            )
        if "reference" in names:
            columns["reference"] = self.make_column("reference", answers=self._find_answers())
        return columns

    def make_column(
        self, learnt: Learnt, with_top: bool = False, shuffle: int | None = None, answers: AnswerWeights | None = None
    ) -> DialogueColumn:
        """Make a column of dialogues."""
        return DialogueColumn(self.encoder, self.prompter, learnt, self.same_tokenizer, with_top, shuffle, answers)

    def _find_answers(self) -> AnswerWeights | None:
        weight, rule = self.config.generative.answer_weight, name_rule(self.rows.manifest)
        return None if weight == 1 or rule is None else AnswerWeights(find_rule(rule), self.tokenizer, weight)


def gather_writing(
    config: DistillConfig, rows: RunRows, found: FoundModel, device: Device, work: Path
) -> WritingMaterials:
    """Load the student's tokenizer, find the template, and hold the terms to what the shards have.

    Raises SourceError for the tokenizer, and UsageError for a template, or for terms that the shards cannot give.
    """
    tokenizer, manifest, wanted = open_tokenizer(found.source), rows.manifest, config.generative
    name = wanted.template or ("alpaca" if tokenizer.chat_template is None else "chat")
    prompter = TemplatePrompter(find_template(name, manifest.task), find_question(manifest), tokenizer)
    ends = find_ends(tokenizer, chat=prompter.template.chat)
    encoder = make_encoder(tokenizer, wanted.sequence_length, ends)
    same = has_same_tokenizer(manifest, tokenizer)
    if same is not True and "topk" in {term.name for term in config.learnt}:
        raise UsageError(_explain_tokenizers(manifest, config.student.model, same))
    return WritingMaterials(config, rows, found, device, work, tokenizer, prompter, encoder, same is True)


def find_question(manifest: Manifest) -> str:
    """Find the task's question in what the teacher was asked; empty where there is none."""
    prompt = manifest.recipe.get("prompt")
    return str(prompt.get("question") or "") if isinstance(prompt, dict) else ""


def find_ends(tokenizer: Any, *, chat: bool) -> tuple[int, ...]:
    """Find the tokens that end a reply: in a chat, the one that the chat template ends a turn with, and the end token.

    Raises UsageError where there is none.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if chat and tokenizer.chat_template is not None:
        mark = "\u2603"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(mark)[2].strip()
        ids = tokenizer.encode(after, add_special_tokens=False)
        if ids and ids[0] in tokenizer.added_tokens_decoder:
            ends.insert(0, ids[0])
    if not ends:
        raise UsageError("the student's tokenizer has no end token: it could not learn to stop")
    return tuple(dict.fromkeys(ends))


def has_same_tokenizer(manifest: Manifest, tokenizer: Any) -> bool | None:
    """Tell whether the ids in the shards mean what they mean to the student; None where the shards do not say."""
    recorded = manifest.recipe.get("tokenizer")
    if not isinstance(recorded, dict) or "sha256" not in recorded:
        return None
    return bool(recorded["sha256"] == fingerprint_tokenizer(tokenizer.get_vocab()))


def _explain_tokenizers(manifest: Manifest, student: str, same: bool | None) -> str:
    advice = f"Take a student of the teacher's family, or learn the text: --learn reply ({student} can)"
    if same is None:
        return (
            f"the shards of {manifest.teacher} do not say which tokenizer their token ids are of, so topk cannot be "
            f"learnt from them. {advice}"
        )
    name = manifest.recipe["tokenizer"].get("name")
    return (
        f"the token ids in the shards of {manifest.teacher} are of the tokenizer {name}, and the student {student} has "
        f"another: topk cannot be learnt, because its ids name other tokens there. {advice}"
    )


def name_rule(manifest: Manifest) -> str | None:
    """Name the rule by which replies of a task are judged; None where it has none."""
    return manifest.answer_rule or ("choice" if manifest.kind == "choice" else None)


def check_writing(config: DistillConfig, manifest: Manifest) -> None:
    """Raise UsageError for what a student that writes cannot be trained with."""
    student, method, names = config.student, config.method, {term.name for term in config.learnt}
    if len(config.data.shards) > 1:
        raise UsageError("a student that writes learns from one teacher: give --shards once")
    if not method.traits.for_texts:
        known = ", ".join(name for name, traits in CONTROLS.items() if traits.for_texts)
        raise UsageError(f"control {method.control} is for label heads; for a student that writes there is {known}")
    if method.control != "none" and names == {"reference"}:
        raise UsageError(f"control {method.control} needs a teacher: learn something besides the reference")
    if student.frozen_layers is not None:
        raise UsageError("frozen_layers is for students with label heads")
    if "vectors" in names and not method.gamma and not (method.terms and method.beta):
        raise UsageError(
            "learn vectors has no term that counts: give --gamma 1, --loss euclid or both (--preset armada does)"
        )
    if "vectors" in names and config.training.micro_batch is not None:
        raise UsageError("micro_batch goes without vectors: their losses see the whole batch")
    if name_rule(manifest) is None:
        if config.generative.only == "correct":
            raise UsageError(f"{manifest.task} has no answer rule, so nothing says which replies are correct")
        if config.generative.answer_weight != 1:
            raise UsageError(f"{manifest.task} has no answer rule, so nothing says where the answer of a reply begins")
    if config.generative.score_by == "acc-norm" and manifest.kind != "choice":
        raise UsageError(f"{manifest.task} has no choices: acc-norm cannot be its score")
