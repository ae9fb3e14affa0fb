"""A cascade: rows of several teacher folders as one, each row's answer that of the first folder which has one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from harvest.chat.imported import IMPORTED
from harvest.teachers.kept_answers import KeptAnswers
from shared.console import say
from shared.errors import UsageError
from shared.example import Example
from shared.keys import TOKENIZER
from shared.schema import Answer, Status
from shared.shards import hash_manifest, iterate_pieces
from shared.shards.manifest import hash_recipe
from shared.tasks import Task

_OF_TOKENIZER = ("reply_ids", "reply_logprobs", "topk_ids", "topk_logprobs", "topk_tail")
# What a row of a cascade does not take over: the raw reply can be read again where it is, and the bill was paid there.
_LEFT_OUT: dict[str, Any] = {
    **{"raw": None, "image_sha256": None, "cost_usd": 0.0, "prompt_tokens": None, "completion_tokens": None},
    **{"latency_ms": None, "attempts": 0},
}


@dataclass(frozen=True, slots=True)
class Cascade:
    """Folders in the order in which they are looked at. `dropped` are columns that not all of them have alike."""

    folders: Sequence[KeptAnswers]
    dropped: Sequence[str]
    vector_type: pa.DataType | None

    @property
    def row_bytes(self) -> int:
        """About those of a row as it is kept."""
        return 1 << 14

    def describe(self) -> Mapping[str, Any]:
        """What a recipe says of it: which answers of which folders."""
        tokenizer = self.folders[0].manifest.recipe.get(TOKENIZER)
        return {
            "kind": "folders",
            "folders": [
                {"teacher": one.manifest.teacher, "manifest_sha256": hash_manifest(one.manifest)}
                for one in self.folders
            ],
            **({} if tokenizer is None or "reply_ids" in self.dropped else {TOKENIZER: tokenizer}),
        }

    def read(self, examples: Iterable[Example]) -> list[Answer]:
        """Give the answers of rows: the first that is whole, or else that of the last folder which was asked."""
        return [self._find(example) for example in examples]

    def _find(self, example: Example) -> Answer:
        found = Answer(Status.UNASKED)
        for folder in self.folders:
            answer = folder.find(example, 0)
            if answer is not None:
                found = answer
                if answer.status is Status.OK:
                    break
        lacking: dict[str, Any] = dict.fromkeys(self.dropped)
        return replace(found, **_LEFT_OUT, **lacking)

    def close(self) -> None:
        """Let go of what was read."""
        for folder in self.folders:
            folder.close()


def open_cascade(paths: Sequence[Path], task: Task) -> Cascade:
    """Open the folders of a cascade. Raises UsageError for one that is given twice, or is of another task."""
    folders = [KeptAnswers(path, task) for path in paths]
    names = [str(one.folder.resolve()) for one in folders]
    if len(set(names)) < len(names):
        raise UsageError("--folder: a folder is given twice")
    dropped: list[str] = []
    if len({str(one.manifest.recipe.get(TOKENIZER)) for one in folders}) > 1:
        dropped += _OF_TOKENIZER
        say("the folders' replies are of several tokenizers: tokens and their log-probabilities are left out")
    kinds = [_find_vectors(one) for one in folders]
    if len(set(kinds)) > 1:
        dropped.append("embedding")
        say("the folders' vectors are not alike: they are left out, and label probabilities and replies taken over")
    kind = kinds[0]
    return Cascade(folders, dropped, None if kind is None or "embedding" in dropped else kind[1])


def _find_vectors(folder: KeptAnswers) -> tuple[int, pa.DataType, str] | None:
    """The width, the type and the origin of a folder's vectors; None where its first answered row has none.

    Their origin is the recipe: two models' numbers mean nothing to each other, if there are as many. Of imported ones
    nobody knows it but who imported them.
    """
    origin = IMPORTED if folder.manifest.recipe.get("teacher") == IMPORTED else hash_recipe(folder.manifest)
    for piece in iterate_pieces(folder.folder, folder.manifest, ("status", "embedding")):
        for row, status in enumerate(piece.table["status"].to_pylist()):
            if status == Status.OK:
                vector = piece.table["embedding"][row]
                return (len(vector), vector.type.value_type, origin) if vector.is_valid else None
    return None
