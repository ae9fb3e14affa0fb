"""The rows of a teacher folder as prompts and answers, for other programs: what every format is made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distill.data.dialogues import EXAMPLE_COLUMNS, read_examples
from distill.methods.writing import find_question, has_same_tokenizer
from distill.scoring.replies import render_text
from shared.answers import gold_text, has_gold
from shared.errors import UsageError
from shared.example import Example
from shared.schema import Status
from shared.shards.manifest import Manifest, choose_teacher
from shared.shards.read import check_readable, list_row_groups, read_row_group
from shared.templates import Template, find_template
from shared.topk import TOPK_COLUMNS, TopK, decode_topk


@dataclass(frozen=True, slots=True)
class Answered:
    """A row with the text that is learnt of it: the teacher's whole reply, or where it was not asked the right answer.

    `ids` are the reply's tokens and `top` the teacher's top K of them, where the folder has both.
    """

    example: Example
    completion: str
    ids: list[int] | None
    top: TopK | None


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """A teacher folder whose rows are written by a template; `tokenizer` is the student's, where one is known."""

    folder: Path
    manifest: Manifest
    template: Template
    question: str
    tokenizer: Any | None = None

    def splits(self) -> tuple[str, ...]:
        """List the splits that have sealed rows."""
        return tuple(sorted({shard.split for shard in self.manifest.shards}))

    def read(self, split: str) -> Iterator[Answered]:
        """Read the rows of a split that have something to learn, in order."""
        for table in self._read_tables(split):
            columns = (table[name].to_pylist() for name in ("status", "reply", "reply_ids"))
            tops = decode_topk(table, range(len(table)))
            for example, status, reply, ids, top in zip(read_examples(table), *columns, tops, strict=True):
                whole = status == Status.OK and reply
                text = reply if whole else gold_text(example) if status == Status.UNASKED else None
                if text:
                    written = self.template.completion(example, text, self.question)
                    yield Answered(example, written, ids if whole else None, top if whole and ids else None)

    def read_labelled(self, split: str) -> Iterator[Example]:
        """Read the examples of a split that have a right answer, each once, in order."""
        for table in self._read_tables(split):
            for example, draw in zip(read_examples(table), table["draw"].to_pylist(), strict=True):
                if draw == 0 and has_gold(example):
                    yield example

    def read_texts(self, split: str) -> list[str]:
        """Read the texts of a split's examples, each once, in order."""
        return [
            " ".join(part for part in (example.text, example.text_pair) if part)
            for table in self._read_tables(split)
            for example, draw in zip(read_examples(table), table["draw"].to_pylist(), strict=True)
            if draw == 0
        ]

    def _read_tables(self, split: str) -> Iterator[pa.Table]:
        columns = [*EXAMPLE_COLUMNS, "status", "draw", "reply", "reply_ids", *TOPK_COLUMNS]
        for group in list_row_groups(self.folder, self.manifest, split):
            yield read_row_group(group, columns)

    def write_prompt(self, example: Example, *, scoring: bool = False) -> str:
        """Write the prompt as one text, by the tokenizer's chat template where the template is of messages."""
        return render_text(self.tokenizer, self.template.render(example, self.question, scoring=scoring))

    def check_tokenizer(self) -> Any:
        """Give the tokenizer, whose ids the teacher's are. Raises UsageError where it is missing or another one."""
        if self.tokenizer is None:
            raise UsageError("this format holds token ids: name the student's --tokenizer")
        if not has_same_tokenizer(self.manifest, self.tokenizer):
            said = self.manifest.recipe.get("tokenizer")
            name = said.get("name") if isinstance(said, dict) else "a tokenizer that it does not name"
            raise UsageError(
                f"{self.folder} has the token ids of {name}, and the tokenizer that was named has another vocabulary: "
                "its ids mean other words. Name the teacher's own"
            )
        return self.tokenizer


def choose_template(tokenizer: Any | None) -> str:
    """Name the template that is taken where none was named: chat for a model with a chat template, else alpaca."""
    return "chat" if tokenizer is not None and tokenizer.chat_template else "alpaca"


def open_rows(folder: Path, template: str, tokenizer: Any | None) -> AnsweredRows:
    """Open a teacher folder for writing its rows elsewhere. Raises UsageError for a task without texts to write."""
    teacher = choose_teacher(folder)
    manifest = check_readable(teacher)
    if manifest.kind not in ("choice", "generation"):
        raise UsageError(
            f"{teacher} is a {manifest.kind} task; rows are exported of tasks whose answers are written (choice, "
            "generation)"
        )
    return AnsweredRows(teacher, manifest, find_template(template, manifest.task), find_question(manifest), tokenizer)
