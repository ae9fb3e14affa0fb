"""What the columns of a file of answers are: guessed where they leave one choice, refused with what to name elsewhere.

Known are the output of an OpenAI batch (custom_id, response, error), the response files of Bespoke Curator
(response_message, generic_request), and tables: one column of replies, as TRL's data sets have them (completion,
messages) and spreadsheets do, or one column of numbers for each label.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harvest.importing.config import ImportConfig
from shared.errors import DataError, UsageError
from shared.suggestions import suggest
from shared.tasks import LoadedTask
from shared.tasks.frames import list_template_columns

Kind = Literal["batch", "curator", "replies", "scores"]

CUSTOM_ID, RESPONSE, ERROR = BATCH = ("custom_id", "response", "error")
MESSAGE, ERRORS, REQUEST, REASON = CURATOR = ("response_message", "response_errors", "generic_request", "finish_reason")
MESSAGES = "messages"
REPLIES = ("reply", "response", "completion", "answer", "output", "prediction", "label", MESSAGES)
PROMPTS = ("prompt", MESSAGES)
SAMPLE_ID = "sample_id"
# What stands around a label's name in a column of its scores: prob_positive, p(positive), logprob_positive, ...
_MARK = r"(?:log[ _-]?)?(?:prob(?:ability|s)?|p|score)"
_SCORE = re.compile(rf"(?:{_MARK}[ _.:(-]+)?(.+?)(?:[ _.:-]+{_MARK}|\))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What is read of a file. `answers` are the columns of the replies or scores, the first of replies.

    `ids` and `texts` are the columns by which rows are matched: at most one of them is there.
    """

    kind: Kind
    answers: tuple[str, ...]
    ids: str | None = None
    texts: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([*self.answers, *([self.ids] if self.ids else []), *self.texts]))


def find_layout(file: str, names: Sequence[str], loaded: LoadedTask, config: ImportConfig) -> FileLayout:
    """Find what the columns `names` of a file are. Raises DataError, listing them, where that is left open."""
    for named in (config.column, config.texts, *(config.scores or ())):
        if named is not None and named not in names:
            raise DataError(f"{file} has no column {named!r}; {suggest(named, names)}")
    kind, answers = _find_answers(file, names, loaded, config)
    ids, texts = _find_keys(kind, answers, names, loaded, config)
    return FileLayout(kind, answers, ids, texts)


def _find_answers(
    file: str, names: Sequence[str], loaded: LoadedTask, config: ImportConfig
) -> tuple[Kind, tuple[str, ...]]:
    labels = loaded.task.labels
    if config.scores is not None:
        if len(config.scores) != len(labels):
            raise UsageError(
                f"--scores names {len(config.scores)} columns, and the labels of {loaded.task.name} are "
                f"{', '.join(labels) or 'none'}: name one for each, in their order"
            )
        return "scores", config.scores
    if config.column is not None:
        return "replies", (config.column, *([REASON] if REASON in names else []))
    if CUSTOM_ID in names and (RESPONSE in names or ERROR in names):
        return "batch", tuple(name for name in (RESPONSE, ERROR) if name in names)
    if MESSAGE in names:
        return "curator", tuple(name for name in CURATOR if name in names)
    if scores := find_score_columns(names, loaded):
        return "scores", scores
    own = set(_list_own_columns(loaded)) - set(REPLIES)
    found = [name for name in REPLIES if name in names and name not in own]
    if len(found) > 1 and MESSAGES in found:  # beside a column of replies it is what was asked
        found.remove(MESSAGES)
    if len(found) != 1:
        what = f"several columns that may be the answers ({', '.join(found)})" if found else "no column of answers"
        raise DataError(
            f"{file} has {what}: name the one of the replies with --column, or those of the labels' probabilities with "
            f"--scores; it has: {', '.join(names)}"
        )
    return "replies", (found[0], *([REASON] if REASON in names else []))


def find_score_columns(names: Sequence[str], loaded: LoadedTask) -> tuple[str, ...]:
    """Find one column for each label, by its name, its word or its value; none where not each has exactly one."""
    bare = {name: match[1].casefold() for name in names if (match := _SCORE.fullmatch(name.strip()))}
    for spelled in (loaded.task.labels, loaded.task.label_words, loaded.label_values):
        found = [[name for name, inner in bare.items() if label.casefold() == inner] for label in spelled]
        if found and all(len(columns) == 1 for columns in found):
            return tuple(columns[0] for columns in found)
    return ()


def _find_keys(
    kind: Kind, answers: Sequence[str], names: Sequence[str], loaded: LoadedTask, config: ImportConfig
) -> tuple[str | None, tuple[str, ...]]:
    """Find the column of the ids, or those of the texts; neither where rows are matched by order or another file."""
    if config.texts is not None:
        return None, (config.texts,)
    if config.batch_input is not None:
        if kind != "batch":
            raise UsageError("--batch-input goes with the output of an OpenAI batch, which has custom_id and response")
        return CUSTOM_ID, ()
    if config.ids is not None:
        return (config.ids, ()) if config.ids in names else (None, ())
    for column in (CUSTOM_ID, SAMPLE_ID, loaded.id_column):
        if column is not None and column in names:
            return column, ()
    if kind == "curator":
        return None, ((REQUEST,) if REQUEST in names else ())
    own = _list_own_columns(loaded)
    if own and all(name in names for name in own):
        return None, tuple(own)
    prompts = [name for name in PROMPTS if name in names]
    return None, tuple(prompts[:1])


def _list_own_columns(loaded: LoadedTask) -> list[str]:
    """The columns of the task's own texts: a file of answers that has them has them from there."""
    return [name for template in loaded.text_templates for name in list_template_columns(template)]


def describe_layout(layout: FileLayout) -> Mapping[str, object]:
    """What a recipe says of it."""
    return {"kind": layout.kind, "columns": list(layout.answers)}
