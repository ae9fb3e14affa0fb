"""Answers of other tools: spelled as chat completions, and read by the task's own reading of answers.

What is kept as `raw` is a chat completion, whatever file it came in, so that it can be read again from its recipe and
its bytes alone, as a harvested reply can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from harvest.chat.dialects import DIALECTS, Scoring
from harvest.chat.elicitation import READ_COLUMNS
from harvest.chat.prompts import FREE_TEXT, LABEL_SET
from harvest.chat.reply import Form, parse
from harvest.chat.scoring import LabelWords
from shared.schema import Answer, Status
from shared.tasks import Task

IMPORTED = "imported"  # the teacher of a recipe whose answers were made elsewhere
_DIALECT = DIALECTS["openai"]  # whose chat completions they are kept as


def spell_reply(text: str, finish_reason: str | None = None, usage: Mapping[str, Any] | None = None) -> bytes:
    """Write a reply as the body of a chat completion."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return orjson.dumps({"choices": [choice], **({} if usage is None else {"usage": usage})})


def describe_reading(task: Task, values: Sequence[str]) -> dict[str, Any]:
    """Describe for a recipe how replies are read. `values` are the labels as the task's own file has them, in order.

    A reply that is the name of a label, or its value there, means that label as the label's word does.
    """
    words = task.label_words
    known = {word.casefold() for word in words}
    spellings = {
        name: word
        for names in (values, task.labels)
        for name, word in zip(names, words, strict=True)
        if name.casefold() not in known
    }
    answers = {"classification": "label", "multilabel": LABEL_SET, "regression": "number"}
    answer = answers.get(task.kind, FREE_TEXT)
    return {"answer": answer, "label_words": list(words), "spellings": spellings}


@dataclass(frozen=True, slots=True)
class ReplyReader:
    """Reads the replies of one recipe. `spellings` are names of labels that are not their words."""

    words: LabelWords | None
    spellings: Mapping[str, str]
    numeric: bool
    scoring: Scoring

    @classmethod
    def make(cls, reading: Mapping[str, Any], scoring: Scoring) -> Self:
        """Make the reader of what describe_reading gave. Raises UsageError as LabelWords does."""
        several = reading["answer"] == LABEL_SET
        words = LabelWords(reading["label_words"], several=several) if reading["label_words"] else None
        return cls(words, reading["spellings"], reading["answer"] == "number", scoring)

    def read(self, raw: bytes) -> Answer:
        """Read a chat completion. Never raises: one that cannot be read is unparsable."""
        form = Form(_DIALECT, self.scoring, self.words, numeric=self.numeric)
        if not self.spellings or self.scoring is not Scoring.VOTES:
            return parse(raw, form).answer
        said = parse(raw, replace(form, scoring=Scoring.TEXT, words=None)).answer
        return replace(parse(self._respell(raw), form).answer, raw=raw, reply=said.reply)

    def reread(self, raw: bytes) -> Mapping[str, Any]:
        """Read a kept reply again, by column."""
        answer = self.read(raw)
        return {name: getattr(answer, name) for name in READ_COLUMNS}

    def _respell(self, raw: bytes) -> bytes:
        """The completion with the label's word in the place of its name."""
        try:
            body = orjson.loads(raw)
            for choice in body["choices"]:
                message = choice["message"]
                message["content"] = self.spellings.get(message["content"].strip(), message["content"])
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            return raw
        return orjson.dumps(body)


def choose_scoring(raws: Sequence[bytes], reading: Mapping[str, Any]) -> Scoring:
    """Choose where the probabilities of a file's labels come from, by some replies of it.

    They are its tokens' log-probabilities, where one of these brings those of a label; else what it says is one vote.
    """
    if not reading["label_words"]:
        return Scoring.TEXT
    if reading["answer"] == LABEL_SET:
        return Scoring.LABEL_SET
    reader = ReplyReader.make(reading, Scoring.TOP_LOGPROBS)
    scored = any(reader.read(raw).status is Status.OK for raw in raws)
    return Scoring.TOP_LOGPROBS if scored else Scoring.VOTES


def make_reader(recipe: Mapping[str, Any]) -> ReplyReader | None:
    """Make what reads the replies of a recipe of imported answers again; None where they are no replies."""
    reading = recipe.get("reading")
    return None if reading is None else ReplyReader.make(reading, Scoring(reading["scoring"]))
