"""The options of a task of the user's own, each in one place: flags, keys of a recipe and of a task in YAML."""

from dataclasses import dataclass
from typing import Annotated

from shared.answers import RULES
from shared.options import Option, parse_names

FILE_PANEL = "A file of your own"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Which columns hold what, and what a teacher is asked about them; see shared.tasks.task_from_file."""

    text_column: Annotated[str | None, Option("The text.", panel=FILE_PANEL)] = None
    text_pair_column: Annotated[str | None, Option("A second text.", panel=FILE_PANEL)] = None
    label_column: Annotated[str | None, Option("A class to predict.", panel=FILE_PANEL)] = None
    multilabel: Annotated[
        bool,
        Option("A row has any number of labels: the label column holds lists, or texts like a|b.", panel=FILE_PANEL),
    ] = False
    label_columns: Annotated[
        tuple[str, ...] | None,
        Option(
            "Several labels a row, a column of 0 and 1 for each: a,b,c",
            parse=parse_names,
            metavar="A,B,C",
            panel=FILE_PANEL,
        ),
    ] = None
    target_column: Annotated[str | None, Option("A number to predict.", panel=FILE_PANEL)] = None
    target_text_column: Annotated[str | None, Option("A text to write.", panel=FILE_PANEL)] = None
    prompt_column: Annotated[
        str | None, Option("What is asked as it stands, without a question.", panel=FILE_PANEL)
    ] = None
    completion_column: Annotated[str | None, Option("What is to be written for the prompt.", panel=FILE_PANEL)] = None
    messages_column: Annotated[
        str | None,
        Option(
            "Conversations, lists of {role, content}; the assistant's last message is to be written.", panel=FILE_PANEL
        ),
    ] = None
    choices_column: Annotated[
        str | None, Option("Each row's own choices, a list; the label column says which is right.", panel=FILE_PANEL)
    ] = None
    image_column: Annotated[
        str | None,
        Option(
            "Pictures that the teacher is shown beside the text: paths, URLs or bytes, one or a list a row.",
            panel=FILE_PANEL,
        ),
    ] = None
    id_column: Annotated[
        str | None, Option("A name of each row that stays. Unless given, its number.", panel=FILE_PANEL)
    ] = None
    labels: Annotated[
        tuple[str, ...] | None,
        Option(
            "The labels, in the order of their numbers: a,b,c", parse=parse_names, metavar="A,B,C", panel=FILE_PANEL
        ),
    ] = None
    label_words: Annotated[
        tuple[str, ...] | None,
        Option(
            "What the teacher answers with, one a label: a,b,c", parse=parse_names, metavar="A,B,C", panel=FILE_PANEL
        ),
    ] = None
    question: Annotated[str | None, Option("What the teacher is asked.", panel=FILE_PANEL)] = None
    answer_rule: Annotated[
        str | None,
        Option(f"How a written reply is judged: {', '.join(RULES)}. Unless given, the task's own.", panel=FILE_PANEL),
    ] = None
    max_reply_tokens: Annotated[
        int | None, Option("The longest reply. Unless given, the task's own.", at_least=1, panel=FILE_PANEL)
    ] = None
