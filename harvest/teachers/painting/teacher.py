"""Paints texts, and makes of each painting a vector: what the teachers of pictures and of clips have in common."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from math import prod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.batches import answer_in_batches
from harvest.teachers.painting.config import LongPrompts, PaintingConfig
from harvest.teachers.painting.files import PipelineFiles
from harvest.teachers.painting.prompts import Prompted, check_prompt, group_prompts
from harvest.teachers.picture_encoder import PictureEncoder
from shared.example import Example
from shared.frozen_models import FrozenModel
from shared.schema import Answer, Status

SAFETY_CHECKER, BLACK = "safety_checker", "black"  # finish_reason of paintings that show nothing
_FRAME_BYTES = 12  # a pixel: three numbers of 32 bits
_DARKEST = 2  # of 255: a picture with no lighter pixel is black
Vector = np.ndarray[Any, np.dtype[np.float32]]


class Painted(Protocol):
    """What was painted of one prompt.

    `latent` is the final one. `pixels` are RGB bytes of any shape, black where the safety checker `flagged` them.
    """

    @property
    def latent(self) -> Vector: ...
    @property
    def pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]: ...
    @property
    def flagged(self) -> bool: ...

    def encode(self) -> bytes:
        """What is painted, as a file."""


PaintedT = TypeVar("PaintedT", bound=Painted)


class Paints(Protocol[PaintedT]):
    """A pipeline that is loaded."""

    def paint(self, chunks: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[PaintedT]:
        """One painting a prompt. All prompts have the same number of chunks (see harvest.teachers.chunks).

        Raises TeacherError where the memory does not suffice.
        """


class PaintingTeacher(ABC, Generic[PaintedT]):
    """Keeps the protocol of harvest.teachers.base.Teacher, but for what pictures and clips have of their own.

    `kind` is the teacher's name in the registry; `always_hashed` is whether a row holds the hash of its painting even
    where that is not kept.
    """

    remote = None
    kind: str
    always_hashed: bool

    def __init__(self, config: PaintingConfig, model: FrozenModel, files: PipelineFiles, name: str) -> None:
        self.name = name
        self._keeps, self._batch = config.keep_images, config.batch
        self._model, self._painting_files = model, files
        self._encoder = PictureEncoder(config.encoder) if config.encoder else None
        self._painter: Paints[PaintedT] | None = None

    @abstractmethod
    def _load(self) -> Paints[PaintedT]:
        """The pipeline, loaded."""

    @abstractmethod
    def _describe_parts(self) -> Mapping[str, Any]:
        """What of the recipe pictures, or clips, have of their own."""

    @abstractmethod
    def _describe_vector(self) -> Mapping[str, Any]:
        """How the vector is made, but for an encoder's."""

    @abstractmethod
    def _make_vectors(self, paintings: Sequence[PaintedT]) -> Sequence[Vector]:
        """The vectors of paintings."""

    @abstractmethod
    def _measure_row(self) -> tuple[int, float]:
        """Numbers of a vector, but for an encoder's, and about how many bytes a painting takes that is kept."""

    @property
    def memory(self) -> str | None:
        """What the weights and the frames of a batch take, by arithmetic; see harvest.teachers.base.find_memory."""
        files = self._painting_files
        try:
            parts = files.measure_parts()
        except Exception:  # a config that is cut short raises errors of many kinds; loading the model says which
            return None
        weights = ", ".join(f"{part} {_show_bytes(size)}" for part, size in parts.items())
        frames = self._batch * files.frames * prod(files.size) * _FRAME_BYTES
        return (
            f"{_show_bytes(sum(parts.values()))} of weights in {files.dtype} ({weights}), {_show_bytes(frames)} of "
            "what is painted at a time; what the layers compute with comes on top"
        )

    def recipe(self) -> Mapping[str, Any]:
        """Model, how it paints, and how the vector is made; the task's question plays no part.

        Raises SourceError for what is no pipeline that can be used here, UsageError for options that it cannot keep.
        Loads no weights.
        """
        files = self._painting_files
        long_prompts = LongPrompts.CHUNK if files.chunks_prompts else LongPrompts.REFUSE
        return {
            "teacher": self.kind,
            "pipeline": files.name,
            "model": self._model.fingerprint,
            "dtype": files.dtype,
            "size": list(files.size),
            "steps": files.steps,
            "guidance": files.guidance,
            "text": {"fields": "joined, lower case", "long_prompts": str(long_prompts)},
            "seed": "the first 63 bits of the request's key",
            "vector": {**self._describe_vector(), **(self._encoder.describe() if self._encoder else {})},
            **self._describe_parts(),
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The prompt. Raises DataError for one that is too long, where those are refused."""
        return check_prompt(example, self._painting_files)

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector and, where it is kept, the painting."""
        dimensions, painting = self._measure_row()
        dimensions = dimensions if self._encoder is None else self._encoder.width
        return Estimate(bytes=estimate_bytes(example, 2 * dimensions + (painting if self._keeps else 0)))

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Paint in batches; the model is loaded with the first."""
        return answer_in_batches(requests, self._batch, self._answer_batch)

    async def aclose(self) -> None:
        """Let go of the pipeline and of the encoder."""
        self._painter = None
        if self._encoder is not None:
            self._encoder.close()

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        if self._painter is None:
            self._painter = self._load()
        started, asked_at = time.perf_counter(), datetime.now(UTC)
        painted: list[tuple[Prompted, PaintedT]] = []
        for batch in group_prompts(requests, self._painting_files):
            paintings = self._painter.paint([one.chunks for one in batch], [one.seed for one in batch])
            painted += zip(batch, paintings, strict=True)
        vectors = self._make_vectors([painting for _, painting in painted])
        latency_ms = (time.perf_counter() - started) * 1000 / len(requests)
        replies = []
        for (one, painting), vector in zip(painted, vectors, strict=True):
            status, reason, error = classify_painting(painting, vector, self._painting_files.noun)
            file = painting.encode() if self._keeps or self.always_hashed else None
            kept = {} if file is None else {sha256(file).hexdigest(): file}
            answer = Answer(
                status,
                finish_reason=reason,
                embedding=None if status is Status.FAILED else vector,
                error=error,
                image_sha256=tuple(kept),
                prompt_tokens=one.tokens,
                latency_ms=latency_ms,
                asked_at=asked_at,
                attempts=1,
            )
            replies.append(Reply(one.request, answer, kept if self._keeps else {}))
        return replies


def classify_painting(painting: Painted, vector: Vector, noun: str) -> tuple[Status, str | None, str | None]:
    """Find status, finish_reason and error of a painting: one that shows nothing is kept as such, never as ok."""
    # "not <=", because a NaN is neither. The vector is kept as float16.
    if not np.isfinite(painting.latent).all() or not np.abs(vector).max() <= np.finfo(np.float16).max:
        return Status.FAILED, None, "the model's numbers overflowed; --dtype float32 (or bfloat16) has more room"
    if painting.flagged:
        return Status.REFUSED, SAFETY_CHECKER, f"the model's safety checker blackened the {noun}"
    if painting.pixels.max() <= _DARKEST:
        return Status.UNPARSABLE, BLACK, f"the {noun} is black; where that is frequent, try --dtype float32"
    return Status.OK, None, None


def _show_bytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
