"""Which columns of a user's file are meant, where it leaves one choice."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shared.errors import Error, UsageError
from shared.sources import find_data_files
from shared.tasks.files import ANSWER_NEEDED, TEXT_NEEDED, FileOptions
from shared.tasks.pictures import find_picture_columns
from shared.tasks.tables import open_table

_NUMBERS = frozenset({"", "id", "idx", "index", "unnamed: 0"})  # of rows, as spreadsheets and pandas write them
_TEXT, _LABEL, _LABELS = "text", "label", "labels"
_PROMPT, _COMPLETION, _MESSAGES = "prompt", "completion", "messages"
_ASKED = frozenset({"text_column", "prompt_column", "messages_column"})
_BESIDE_WHOLE = frozenset(
    {"prompt_column", "completion_column", "image_column", "id_column"}
)  # what may be named of such rows
_ANSWERS = frozenset({"label_column", "target_column", "target_text_column", "prompt_column", "messages_column"})


@dataclass(frozen=True, slots=True)
class Guess:
    """The columns that were not named, by the option that names them, and what the user is told of them."""

    columns: FileOptions = field(default_factory=FileOptions)
    note: str = ""


def guess_columns(
    path: str, splits: Mapping[str, str], options: FileOptions, used: Collection[str] = frozenset()
) -> Guess:
    """Find the columns of texts, of labels and of pictures that `options` leaves open.

    `splits` are the files of `path`, and `used` columns that are named elsewhere than in `options`. Columns called
    messages, prompt and completion, text and label are what they are called, the first three where nothing that is
    named speaks against it; else the only column that is left holds the texts. Labels or a question say what is to be
    answered, too. The only column of pictures is taken where any other is guessed. Raises UsageError, which names the
    columns, where there are several, and where nothing says what is
    to be answered.
    """
    named = {option: column for option, column in options.items() if option.endswith("_column") and column}
    answered, several = bool(options.get("labels") or options.get("question")), options.get("label_columns") or ()
    asked, told = not _ASKED.isdisjoint(named), bool(several) or not _ANSWERS.isdisjoint(named)
    used = {*used, *several}
    whole = (
        not (answered or several or options.get("label_words") or options.get("multilabel"))
        and named.keys() <= _BESIDE_WHOLE
    )
    pictures = _find_pictures(splits, {*named.values(), *used})
    if asked and (told or answered) and not (whole and "completion_column" not in named):
        return Guess(note="" if "image_column" in named else _say_unshown(pictures))
    there = _list_columns(splits)
    guessed = _guess_whole(there, named) if whole else {}
    columns = [column for column in there if column not in {*named.values(), *used, *pictures}]
    if not asked and not guessed:
        guessed = _guess_text(path, columns, told)
    columns = [column for column in columns if column not in guessed.values()]
    if not told and _ANSWERS.isdisjoint(guessed):
        usual = [_LABEL, _LABELS] if options.get("multilabel") else [_LABEL]
        found = next((column for column in usual if column in columns), None)
        if found is not None and not (asked and answered):
            guessed["label_column"] = found
        elif not answered:
            raise UsageError(
                f"{ANSWER_NEEDED}. Beside the text {path} has: {_list(columns)} (--label-column, --labels, --question)"
            )
    unshown = "" if "image_column" in named else _say_unshown(pictures)
    if "image_column" not in named and len(pictures) == 1:
        guessed["image_column"], unshown = pictures[0], ""
    said = ", ".join(f"{option.replace('_', ' ')} {column!r}" for option, column in guessed.items())
    notes = (f"guessed: {said}; name others if that is wrong" if said else "", unshown)
    return Guess(guessed, "; ".join(filter(None, notes)))


def _find_pictures(splits: Mapping[str, str], named: Collection[object]) -> list[str]:
    """The columns of pictures in the first file that nobody named; none of a file that cannot be read."""
    with suppress(Error):  # whoever reads it says what is wrong with it
        table = open_table(next(iter(find_data_files(splits).values()))[0])
        return [column for column in find_picture_columns(table) if column not in named]
    return []


def _say_unshown(columns: Sequence[str]) -> str:
    """Say which pictures no teacher is shown: where the text's column was named, and where there are several."""
    return f"pictures that are not shown: {', '.join(columns)} (--image-column names those to show)" if columns else ""


def _guess_whole(columns: Sequence[str], named: Mapping[str, object]) -> FileOptions:
    """The columns of what says by itself what is to be answered: a conversation, or what a prompt's pair lacks."""
    pair = {"prompt_column": _PROMPT, "completion_column": _COMPLETION}
    free = [column for column in columns if column != named.get("id_column")]
    if _MESSAGES in free and pair.keys().isdisjoint(named):
        return {"messages_column": _MESSAGES}
    guessed: FileOptions = {}
    if set(pair.values()) <= set(free) and all(named.get(option, column) == column for option, column in pair.items()):
        if "prompt_column" not in named:
            guessed["prompt_column"] = _PROMPT
        if "completion_column" not in named:
            guessed["completion_column"] = _COMPLETION
    return guessed


def _guess_text(path: str, columns: Sequence[str], told: bool) -> FileOptions:
    """The column of the texts."""
    left = [column for column in columns if column.lower() not in _NUMBERS and (told or column != _LABEL)]
    if _TEXT in left:
        return {"text_column": _TEXT}
    if len(left) != 1:
        raise UsageError(
            f"{TEXT_NEEDED.format(path=path)}; it has: {_list(columns)}. The option is --text-column, text_column in a "
            "recipe"
        )
    return {"text_column": left[0]}


def _list_columns(splits: Mapping[str, str]) -> list[str]:
    """The columns of the first file. All of the hub's are downloaded: half of them would be another data set."""
    return open_table(next(iter(find_data_files(splits).values()))[0]).read_columns()


def _list(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "no other column"
