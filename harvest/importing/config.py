"""What a user chose to import: the options of `harvest import`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from harvest.asking.plan import EVERY_SPLIT
from harvest.config import TaskChoice
from shared.errors import UsageError
from shared.options import Option, check_options, parse_names

_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_WHAT = "What is imported"
_ROWS = "Which row is which"


def parse_files(texts: Sequence[str]) -> dict[str, str]:
    """Read `FILE` and `split=FILE` as files by split, `*` for all. Raises ValueError that says what to give."""
    files: dict[str, str] = {}
    for text in texts:
        split, equals, path = text.partition("=")
        if not (equals and _SPLIT_NAME.fullmatch(split)):
            split, path = EVERY_SPLIT, text
        if not path or split in files:
            raise ValueError("give one file, or one for each split: train=train.npy")
        files[split] = path
    if EVERY_SPLIT in files and len(files) > 1:
        raise ValueError("give one file of all splits, or one for each split: train=train.npy")
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """One import: vectors, answers, or folders whose answers make one."""

    task: TaskChoice
    vectors: Annotated[
        Mapping[str, str],
        Option(
            "Vectors of the rows: .npy, .parquet or .safetensors; may be repeated, one for each split.",
            metavar="[SPLIT=]FILE",
            parse=parse_files,
            repeated=True,
            panel=_WHAT,
        ),
    ] = field(default_factory=dict)
    answers: Annotated[
        Mapping[str, str],
        Option(
            "Replies, or probabilities of the labels: CSV, Parquet, JSONL, an OpenAI batch's output; may be repeated, "
            "one for each split.",
            metavar="[SPLIT=]FILE",
            parse=parse_files,
            repeated=True,
            panel=_WHAT,
        ),
    ] = field(default_factory=dict)
    folders: Annotated[
        tuple[Path, ...],
        Option(
            "A teacher=<name> folder; given twice or more, a row's answer is that of the first which has one.",
            name="folder",
            panel=_WHAT,
        ),
    ] = ()
    column: Annotated[
        str | None, Option("The column of the replies, or of the vectors; a tensor's name.", panel=_WHAT)
    ] = None
    scores: Annotated[
        tuple[str, ...] | None,
        Option(
            "The columns of the labels' probabilities or their logs, in the order of the labels: a,b,c",
            parse=parse_names,
            metavar="A,B,C",
            panel=_WHAT,
        ),
    ] = None
    ids: Annotated[
        str | None,
        Option("The column of the rows' ids, or a file: FILE, FILE:COLUMN.", metavar="COLUMN|FILE", panel=_ROWS),
    ] = None
    texts: Annotated[
        str | None, Option("The column of what was asked: rows are matched by their texts.", panel=_ROWS)
    ] = None
    batch_input: Annotated[
        Path | None, Option("The input file of an OpenAI batch: rows are matched by the texts in it.", panel=_ROWS)
    ] = None
    name: Annotated[str | None, Option("Keep the answers under teacher=<name>. Unless given, the file's name.")] = None
    out: Annotated[Path | None, Option("Folder of the task's shards. Unless given, data/<task>.")] = None
    splits: Annotated[
        tuple[str, ...] | None, Option("Only this split; may be repeated.", name="split", panel=_ROWS)
    ] = None

    def __post_init__(self) -> None:
        check_options(self)
        given = [name for name in ("vectors", "answers", "folders") if getattr(self, name)]
        if len(given) != 1:
            raise UsageError("harvest import takes one of --vectors FILE, --answers FILE and --folder FOLDER")
        if self.folders and len(self.folders) < 2:
            raise UsageError("--folder is given for each folder that answers are taken from: twice or more")
        if self.folders and self.name is None:
            raise UsageError("answers of several folders need a --name")
        if sum(one is not None for one in (self.ids, self.texts, self.batch_input)) > 1:
            raise UsageError("rows are matched by --ids, by --texts or by --batch-input: give one of them")
        if not self.answers and (self.scores or self.texts or self.batch_input):
            raise UsageError("--scores, --texts and --batch-input go with --answers")
        if self.folders and (self.column or self.ids):
            raise UsageError("rows of folders are matched by their ids and texts: --column and --ids are for files")

    @property
    def files(self) -> Mapping[str, str]:
        """The files of vectors or answers, by split."""
        return self.vectors or self.answers
