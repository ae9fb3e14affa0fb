"""What is painted of an example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harvest.teachers.base import Request
from harvest.teachers.chunks import split_into_chunks
from harvest.teachers.painting.files import PipelineFiles
from shared.errors import DataError
from shared.example import Example


@dataclass(frozen=True, slots=True)
class Prompted:
    """A request and its prompt in chunks; `tokens` counts those of the text, the windows' marks and padding not."""

    request: Request
    chunks: Sequence[str]
    tokens: int

    @property
    def seed(self) -> int:
        """The seed of the row's noise, 63 bits."""
        return int(self.request.key[:16], 16) >> 1


def build_prompt(example: Example) -> str:
    """What is painted: the text fields, one after the other, in lower case (as ARMADA's code does)."""
    fields = [example.text] if example.text_pair is None else [example.text, example.text_pair]
    return " ".join(" ".join(fields).lower().split())


def check_prompt(example: Example, files: PipelineFiles) -> Mapping[str, Any]:
    """Return the content of a request. Raises DataError for a prompt that is too long, where those are refused."""
    prompt = build_prompt(example)
    if not files.chunks_prompts and (tokens := files.count_tokens(prompt)) > files.window:
        raise DataError(
            f"the prompt has {tokens} tokens, and the text encoder of {files.model_name} takes {files.window}; "
            f"{files.advice_on_long_prompts}"
        )
    return {"prompt": prompt}


def group_prompts(requests: Sequence[Request], files: PipelineFiles) -> list[list[Prompted]]:
    """The prompts of `requests`, those of as many chunks together: padding would change what is painted of a row."""
    by_chunks: dict[int, list[Prompted]] = {}
    for request in requests:
        prompt = build_prompt(request.example)
        chunks = split_into_chunks(prompt, files.window, files.count_tokens)
        by_chunks.setdefault(len(chunks), []).append(Prompted(request, chunks, files.count_tokens(prompt)))
    return list(by_chunks.values())
