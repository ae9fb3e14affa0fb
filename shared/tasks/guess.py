"""Which columns of a user's file are meant, where it leaves one choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.errors import UsageError
from shared.sources import find_data_files
from shared.tasks.files import FileOptions
from shared.tasks.tables import open_table

_NUMBERS = frozenset({"", "id", "idx", "index", "unnamed: 0"})  # of rows, as spreadsheets and pandas write them
_TEXT, _LABEL = "text", "label"
_ASKED = frozenset({"text_column", "prompt_column", "messages_column"})
_ANSWERS = frozenset({"label_column", "target_column", "target_text_column", "prompt_column", "messages_column"})


@dataclass(frozen=True, slots=True)
class Guess:
    """The columns that were not named, by the option that names them, and what the user is told of them."""

    columns: FileOptions = field(default_factory=FileOptions)
    note: str = ""


def guess_columns(path: str, splits: Mapping[str, str], options: FileOptions) -> Guess:
    """Find the columns of texts and of labels that `options` leaves open.

    `splits` are the files of `path`. Columns called messages, prompt and completion, text and label are what they are
    called; else the only column that is left holds the texts. Labels or a question say what is to be answered, too.
    Raises UsageError, which names the columns, where there are several, and where nothing says what is to be answered.
    """
    named = {option: column for option, column in options.items() if option.endswith("_column") and column}
    answered = bool(options.get("labels") or options.get("question"))
    asked, told = not _ASKED.isdisjoint(named), not _ANSWERS.isdisjoint(named)
    if asked and (told or answered):
        return Guess()
    columns = [column for column in _list_columns(splits) if column not in named.values()]
    guessed: FileOptions = {}
    if not asked:
        guessed = _guess_asked(path, columns, told)
        columns = [column for column in columns if column not in guessed.values()]
    if not told and _ANSWERS.isdisjoint(guessed):
        if _LABEL in columns and not (asked and answered):
            guessed["label_column"] = _LABEL
        elif not answered:
            raise UsageError(
                "name a label column, a target column or a column of target texts; or, for rows that have none, the "
                "labels to ask for, or a question that is answered in free text. Beside the text "
                f"{path} has: {_list(columns)} (--label-column, --labels, --question)"
            )
    said = ", ".join(f"{option.replace('_', ' ')} {column!r}" for option, column in guessed.items())
    return Guess(guessed, f"guessed: {said}; name others if that is wrong" if said else "")


def _guess_asked(path: str, columns: Sequence[str], told: bool) -> FileOptions:
    """The columns of what is asked: a conversation, a prompt with its completion, or a text."""
    if not told and "messages" in columns:
        return {"messages_column": "messages"}
    if not told and {"prompt", "completion"} <= set(columns):
        return {"prompt_column": "prompt", "completion_column": "completion"}
    left = [column for column in columns if column.lower() not in _NUMBERS and (told or column != _LABEL)]
    if _TEXT in left:
        return {"text_column": _TEXT}
    if len(left) != 1:
        raise UsageError(
            f"name the column of {path} that holds the text; it has: {_list(columns)}. The option is --text-column, "
            "text_column in a recipe"
        )
    return {"text_column": left[0]}


def _list_columns(splits: Mapping[str, str]) -> list[str]:
    """The columns of the first file. All of the hub's are downloaded: half of them would be another data set."""
    return open_table(next(iter(find_data_files(splits).values()))[0]).read_columns()


def _list(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "no other column"
