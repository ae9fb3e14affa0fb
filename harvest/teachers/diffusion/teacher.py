"""Paints texts, and makes of each painting a vector."""

import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.batches import answer_in_batches
from harvest.teachers.chunks import split_into_chunks
from harvest.teachers.diffusion.config import EDGE, STRENGTH, DiffusionConfig, DiffusionVector, LongPrompts
from harvest.teachers.diffusion.files import PipelineFiles
from harvest.teachers.diffusion.painter import LORA_FILE, Painter, Painting, Picture
from harvest.teachers.diffusion.prompts import build_prompt
from harvest.teachers.picture_encoder import PictureEncoder
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.frozen_models import FrozenModel
from shared.schema import Answer, Status
from shared.tasks import Task

PNG_BYTES = 1.5  # a pixel, about: for estimates
SAFETY_CHECKER, BLACK = "safety_checker", "black"  # finish_reason of pictures that show nothing
_DARKEST = 2  # of 255: a picture with no lighter pixel is black


@dataclass(frozen=True, slots=True)
class _Prompted:
    """A request and its prompt in chunks; `tokens` counts those of the text, the windows' marks and padding not."""

    request: Request
    chunks: Sequence[str]
    tokens: int


class DiffusionTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: DiffusionConfig, task: Task, name: str) -> None:
        require_extra("diffusion", "torch", "transformers", "diffusers", *(["peft"] if config.lora else []))
        self.name = name
        self._config = config
        self._model = FrozenModel(config.model, "model_index.json")
        self._files = PipelineFiles(config, self._model)
        self._lora = FrozenModel(config.lora, LORA_FILE) if config.lora else None
        self._encoder = PictureEncoder(config.encoder) if config.encoder else None
        self._painter: Painter | None = None

    def recipe(self) -> Mapping[str, Any]:
        """Model, how it paints, and how the vector is made; the task's question plays no part.

        Raises SourceError for what is no pipeline that can be used here, UsageError for options that it cannot keep.
        Loads no weights.
        """
        config, files = self._config, self._files
        return {
            "teacher": "diffusion",
            "pipeline": files.name,
            "model": self._model.fingerprint,
            "lora": None if self._lora is None else self._lora.fingerprint,
            "dtype": files.dtype,
            "size": list(files.size),
            "steps": config.steps,
            "guidance": files.guidance,
            "text": {"fields": "joined, lower case", "long_prompts": str(config.long_prompts)},
            "seed": "the first 63 bits of the request's key",
            "vector": self._describe_vector(),
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The prompt. Raises DataError for one that is too long, where those are refused."""
        prompt, files = build_prompt(example), self._files
        if self._config.long_prompts is LongPrompts.REFUSE and (tokens := files.count_tokens(prompt)) > files.window:
            raise DataError(
                f"the prompt has {tokens} tokens, and the text encoder of {self._config.model} takes {files.window}; "
                "--long-prompts chunk encodes it in several windows"
            )
        return {"prompt": prompt}

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector and, where it is kept, the picture."""
        width, height = self._files.size
        dimensions = prod(self._shape) if self._encoder is None else self._encoder.width
        picture = PNG_BYTES * width * height if self._config.keep_images else 0
        return Estimate(bytes=estimate_bytes(example, 2 * dimensions + picture))

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Paint in batches; the model is loaded with the first."""
        return answer_in_batches(requests, self._config.batch, self._answer_batch)

    async def aclose(self) -> None:
        """Let go of the pipeline and of the encoder."""
        self._painter = None
        if self._encoder is not None:
            self._encoder.close()

    @property
    def _shape(self) -> tuple[int, int, int]:
        """The shape of the latent that is the vector: channels, height, width."""
        is_armada = self._config.vector is DiffusionVector.ARMADA
        return self._files.measure_latent(*((EDGE, EDGE) if is_armada else self._files.size))

    def _describe_vector(self) -> Mapping[str, Any]:
        kind = str(self._config.vector)
        if self._encoder is not None:
            return {"kind": kind, **self._encoder.describe()}
        shape = {"shape": list(self._shape)} if self._files.family.names_shape else {}
        if self._config.vector is DiffusionVector.ARMADA:
            return {"kind": kind, "edge": EDGE, "strength": STRENGTH, "steps": self._config.steps, **shape}
        return {"kind": kind, **shape}

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        files = self._files
        if self._painter is None:
            self._painter = Painter(self._config, self._model, self._lora, files)
        started, asked_at = time.perf_counter(), datetime.now(UTC)
        by_chunks: dict[int, list[_Prompted]] = {}  # padding a row to another's length would change its picture
        for request in requests:
            prompt = build_prompt(request.example)
            chunks = split_into_chunks(prompt, files.window, files.count_tokens)
            by_chunks.setdefault(len(chunks), []).append(_Prompted(request, chunks, files.count_tokens(prompt)))
        painted: list[tuple[_Prompted, Painting]] = []
        for batch in by_chunks.values():
            seeds = [int(one.request.key[:16], 16) >> 1 for one in batch]
            painted += zip(batch, self._painter.paint([one.chunks for one in batch], seeds), strict=True)
        vectors = self._make_vectors([painting for _, painting in painted])
        latency_ms = (time.perf_counter() - started) * 1000 / len(requests)
        replies = []
        for (one, painting), vector in zip(painted, vectors, strict=True):
            png = encode_picture(painting.picture)
            digest = sha256(png).hexdigest()
            status, reason, error = classify_painting(painting, vector)
            answer = Answer(
                status,
                finish_reason=reason,
                embedding=None if status is Status.FAILED else vector,
                error=error,
                image_sha256=(digest,),
                prompt_tokens=one.tokens,
                latency_ms=latency_ms,
                asked_at=asked_at,
                attempts=1,
            )
            replies.append(Reply(one.request, answer, {digest: png} if self._config.keep_images else {}))
        return replies

    def _make_vectors(self, paintings: Sequence[Painting]) -> Sequence[np.ndarray[Any, np.dtype[np.float32]]]:
        if self._encoder is None:
            return [painting.latent.reshape(-1) for painting in paintings]
        return list(self._encoder.encode([painting.picture for painting in paintings]))


def classify_painting(
    painting: Painting, vector: np.ndarray[Any, np.dtype[np.float32]]
) -> tuple[Status, str | None, str | None]:
    """Find status, finish_reason and error of a painting: one that shows nothing is kept as such, never as ok."""
    # "not <=", because a NaN is neither. The vector is kept as float16.
    if not np.isfinite(painting.latent).all() or not np.abs(vector).max() <= np.finfo(np.float16).max:
        return Status.FAILED, None, "the model's numbers overflowed; --dtype float32 (or bfloat16) has more room"
    if painting.flagged:
        return Status.REFUSED, SAFETY_CHECKER, "the model's safety checker blackened the picture"
    if painting.picture.max() <= _DARKEST:
        return Status.UNPARSABLE, BLACK, "the picture is black; where that is frequent, try --dtype float32"
    return Status.OK, None, None


def encode_picture(picture: Picture) -> bytes:
    """A picture as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()
