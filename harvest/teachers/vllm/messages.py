"""What is said between `harvest` and the process of the engine: plain data, pickled.

harvest -> engine    Settings, then Questions
engine -> harvest    Ready or Failure, then lists of Results, or a Failure at any time
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from harvest.teachers.given_rows import Scores

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the engine is to run. `revision` is None for a folder.

    `label_words` are scored, where there are any: by their first tokens, or with `whole_words` to their end. `vector`
    is the pooling, "LAST" or "MEAN", of the pass that gives vectors, None of the one that gives replies. With
    `scores_given` the tokens of the questions are scored, and nothing is said.
    """

    model: str
    revision: str | None
    engine: Mapping[str, Any]
    label_words: Sequence[str] = ()
    whole_words: bool = False
    vector: str | None = None
    max_tokens: int = 1
    temperature: float = 0.0
    top_p: float | None = None
    topk: int | None = None
    scores_given: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its pictures come before what is written. Those of the row are PNG or JPEG files, and drawn pages
    greyscale of shape (height, width).

    `seed` is that of sampling, None where nothing is sampled. Where there are `tokens`, they are the prompt, and
    nothing else is; the last `scored` of them are given a score, which is all that is asked.
    """

    number: int
    pictures: Sequence[Pixels | bytes]
    written: str
    seed: int | None = None
    tokens: Sequence[int] = ()
    scored: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded. `room` is how many questions the engine takes before it answers one."""

    version: str
    room: int
    first_tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one question: a reply as a chat completion's JSON, a vector, scores, or why there is none."""

    number: int
    reply: bytes | None = None
    vector: Vector | None = None
    scores: Scores | None = None
    problem: str | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No question can be answered any more. `usage` is whether what the user asked for is the cause."""

    message: str
    usage: bool = False
