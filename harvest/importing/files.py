"""The files of one import: opened, checked to their last row, and matched to the rows of the task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from harvest.asking.plan import EVERY_SPLIT
from harvest.chat.imported import ReplyReader, choose_scoring, describe_reading
from harvest.chat.scoring import LabelWords
from harvest.importing.config import ImportConfig
from harvest.importing.ids import read_ids
from harvest.importing.layouts import FileLayout, describe_layout, find_layout
from harvest.importing.match import Ints, Keys, Matching, match_rows
from harvest.importing.replies import Replies, read_batch_input, spill_replies
from harvest.importing.scores import open_scores
from harvest.importing.vectors import open_vectors
from shared.errors import DataError, SourceError, UsageError
from shared.schema import Answer
from shared.sources import find_data_files
from shared.tasks import LoadedTask
from shared.tasks.tables import open_table


class FileRows(Protocol):
    """The rows of a file, on disk."""

    @property
    def row_bytes(self) -> int:
        """About how many bytes a row takes."""

    def read(self, numbers: Ints) -> list[Answer]:
        """Give the answers of rows by their numbers: unasked, where a number is NOWHERE or the row has none."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose rows are matched. `recipe` is what decides its answers; `vector_type` that of vectors."""

    rows: FileRows
    matching: Matching
    recipe: Mapping[str, Any]
    vector_type: pa.DataType | None = None

    def read(self, split: str, start: int, stop: int) -> list[Answer]:
        """Give the answers of some rows of a split."""
        return self.rows.read(self.matching.places[split][start:stop])


def open_files(config: ImportConfig, loaded: LoadedTask, splits: Sequence[str], work: Path) -> dict[str, OpenFile]:
    """Open the files of a choice, by split; `work` is a folder for scratch files.

    Raises SourceError for a file that is not there, UsageError for a split that there is not, and DataError, naming
    file and row, for what cannot be used.
    """
    opened: dict[str, OpenFile] = {}
    for split, source in config.files.items():
        own = splits if split == EVERY_SPLIT else [split]
        if unknown := [one for one in own if one not in splits]:
            raise UsageError(f"{source} is for the split {unknown[0]!r}; the splits are {', '.join(splits)}")
        path = _find_file(source)
        scratch = work / f"file-{len(opened)}"
        scratch.mkdir()
        file = (_open_vectors if config.vectors else _open_answers)(config, loaded, own, path, scratch)
        opened |= dict.fromkeys(own, file)
    if len({file.vector_type for file in opened.values()}) > 1:
        raise DataError("the files of the splits hold vectors of several types: save all as float16, or all as float32")
    widths = {np.shape(getattr(file.rows, "array", ()))[1:] for file in opened.values()}
    if len(widths) > 1:
        raise DataError(f"the files of the splits hold rows of several widths: {sorted(widths)}")
    return opened


def _find_file(source: str) -> Path:
    found = find_data_files({EVERY_SPLIT: source})[EVERY_SPLIT]
    if len(found) != 1 or not found[0].is_file():
        raise SourceError(f"{source} is no single file")
    return found[0]


def _describe_file(path: Path, matching: Matching, rows: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "rows": rows, "matched_by": matching.by}


def _open_vectors(
    config: ImportConfig, loaded: LoadedTask, splits: Sequence[str], path: Path, scratch: Path
) -> OpenFile:
    vectors = open_vectors(path, config.column, scratch)
    rows = len(vectors.array)
    name, ids = ("", None) if config.ids is None else read_ids(config.ids, path, rows)
    matching = match_rows(loaded, splits, Keys(str(path), rows, name, ids))
    kind = pa.from_numpy_dtype(vectors.dtype)
    recipe = {
        **_describe_file(path, matching, rows),
        "kind": "vectors",
        "column": config.column,
        "dtype": str(vectors.dtype),
    }
    return OpenFile(vectors, matching, recipe, kind)


def _open_answers(
    config: ImportConfig, loaded: LoadedTask, splits: Sequence[str], path: Path, scratch: Path
) -> OpenFile:
    columns = open_table(path).read_columns()
    layout = find_layout(str(path), columns, loaded, config)
    if layout.kind == "scores":
        read = open_scores(path, layout, scratch / "scores", several=loaded.task.kind == "multilabel")
        keys = _find_keys(config, layout, path, len(read.scores.array), read.ids, read.texts)
        matching = match_rows(loaded, splits, keys)
        described = {**describe_layout(layout), "logs": read.scores.logs}
        return OpenFile(read.scores, matching, {**_describe_file(path, matching, keys.rows), **described})
    reading = describe_reading(loaded.task, loaded.label_values)
    if reading["label_words"]:
        LabelWords(
            reading["label_words"], several=loaded.task.kind == "multilabel"
        )  # refuses words that cannot be told apart
    spilled = spill_replies(path, layout, scratch / "replies")
    if not spilled.samples:
        raise DataError(f"{path}: no row has an answer ({', '.join(layout.answers)})")
    texts = spilled.texts
    if config.batch_input is not None and spilled.ids is not None:
        texts = read_batch_input(config.batch_input, spilled.ids)
    keys = _find_keys(config, layout, path, spilled.rows, spilled.ids, texts)
    matching = match_rows(loaded, splits, keys)
    scoring = choose_scoring(spilled.samples, reading)
    rows = Replies(spilled.path, spilled.ends, ReplyReader.make(reading, scoring))
    described = {**describe_layout(layout), "reading": {**reading, "scoring": str(scoring)}}
    return OpenFile(rows, matching, {**_describe_file(path, matching, keys.rows), **described})


def _find_keys(
    config: ImportConfig, layout: FileLayout, path: Path, rows: int, ids: Any, texts: list[list[int]] | None
) -> Keys:
    """What the rows of a table are matched by: texts, ids of its own or of another file, or their order."""
    if config.batch_input is not None:
        return Keys(str(path), rows, str(config.batch_input), texts=texts)
    if texts is not None:
        return Keys(str(path), rows, ", ".join(layout.texts), texts=texts)
    if ids is not None:
        return Keys(str(path), rows, f"the column {layout.ids}", ids)
    if config.ids is not None:
        name, found = read_ids(config.ids, path, rows)
        return Keys(str(path), rows, name, found)
    return Keys(str(path), rows)


def join_recipes(files: Iterable[tuple[str, OpenFile]], is_one: bool) -> dict[str, Any]:
    """The recipe of all files: what they have in common once, and the rest by split."""
    own = {"sha256", "rows", "matched_by"}
    recipes = {(EVERY_SPLIT if is_one else split): file.recipe for split, file in files}
    shared = {name: value for name, value in next(iter(recipes.values())).items() if name not in own}
    for split, recipe in recipes.items():
        differing = [name for name in shared if recipe.get(name) != shared[name]]
        if differing:
            raise DataError(
                f"the files of the splits are not alike: {differing[0]} is {shared[differing[0]]} in one, and "
                f"{recipe.get(differing[0])} in that of {split}. Import them under several names"
            )
    files_of = {
        split: {name: value for name, value in recipe.items() if name in own} for split, recipe in recipes.items()
    }
    return {**shared, "files": files_of}
