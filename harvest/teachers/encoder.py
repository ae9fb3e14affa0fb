"""`encoder`: any vision encoder of transformers (CLIP, SigLIP, DINOv2, ResNet, ...), frozen, over the drawn text; or,
of rows that have pictures, over those, and then the text is not drawn.

What the vector of a page is, harvest.teachers.picture_encoder says; that of a text of several pages, and
of a row of several pictures, is their mean.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from harvest.pictures import Shown, describe_preparing, describe_shown, open_rgb
from harvest.rendering import Layout, Page
from harvest.rendering.ahead import RenderPool
from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.pages import PAGE_SIZE, KeepOption, answer_pages, answer_pictures, describe_drawn
from harvest.teachers.picture_encoder import PictureEncoder
from shared.errors import DataError, require_extra
from shared.example import Example
from shared.options import Option, check_options
from shared.schema import Answer, Status
from shared.tasks import Task

_BATCH_ROWS = 64
_EMS = 14  # a page is this many of the largest letters wide


@dataclass(frozen=True, slots=True)
class VisionEncoderConfig:
    """Options of the encoder."""

    model: Annotated[str, Option("The vision encoder: a hub id, a folder, or pkg://module/path.")]
    size: Annotated[
        tuple[int, int] | None,
        replace(PAGE_SIZE, help=f"{PAGE_SIZE.help} Unless given, the model's own, at which nothing is resampled."),
    ] = None
    keep_images: KeepOption = False

    def __post_init__(self) -> None:
        check_options(self)


class VisionEncoderTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: VisionEncoderConfig, task: Task, name: str) -> None:
        require_extra("vision", "torch", "transformers")
        self.name = name
        self.sees_pictures = task.has_pictures
        self._size, self._keeps = config.size, config.keep_images
        self._encoder = PictureEncoder(config.model)
        self._renderer: RenderPool | None = None

    @cached_property
    def _layout(self) -> Layout:
        width, height = self._size or self._encoder.input_size
        # Letters as small as 10 pixels where the page is small: a text that needs more room goes over several pages.
        largest = min(32, max(10, width // _EMS))
        return Layout(
            width, height, margin=width // 28, min_font_size=min(16, max(10, width // 28)), max_font_size=largest
        )

    def recipe(self) -> Mapping[str, Any]:
        """Layout, model and how its pictures are prepared; the task's question plays no part."""
        if self.sees_pictures:
            return {"teacher": "encoder", **describe_preparing(True), **self._encoder.describe()}
        return {"teacher": "encoder", "layout": self._layout.fingerprint(), **self._encoder.describe()}

    def content(self, example: Example) -> Mapping[str, Any]:
        """The text that is drawn, or the row's pictures. Raises DataError where that cannot be shown."""
        if not self.sees_pictures:
            return describe_drawn(example)
        if not example.pictures:
            raise DataError("the row has no picture, and an encoder is shown nothing else of it")
        return describe_shown(example)

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector."""
        return Estimate(bytes=estimate_bytes(example, 2 * self._encoder.width))

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Encode in batches; one row that cannot be shown does not stop the others."""
        if self.sees_pictures:
            return answer_pictures(requests, _BATCH_ROWS, self._encode_pictures, keeps=self._keeps)
        if self._renderer is None:
            self._renderer = RenderPool(self._layout)
        return answer_pages(requests, self._renderer, _BATCH_ROWS, self._encode)

    async def aclose(self) -> None:
        """End what renders, and let go of the model."""
        if self._renderer is not None:
            self._renderer.close()
        self._encoder.close()

    def _encode_pictures(self, rows: Sequence[Sequence[Shown]]) -> list[Answer]:
        return _average(rows, self._encoder.encode_whole([open_rgb(one.content) for row in rows for one in row]))

    def _encode(self, texts: Sequence[Sequence[Page]]) -> list[Answer]:
        pictures = [np.repeat(page.pixels[:, :, None], 3, axis=2) for pages in texts for page in pages]
        return _average(texts, self._encoder.encode(pictures))


def _average(rows: Sequence[Sequence[object]], vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[Answer]:
    """The mean of the vectors of each row's pictures; `vectors` are those of all rows, one after the other."""
    following = iter(vectors)
    means = [np.mean([next(following) for _ in row], axis=0) for row in rows]
    return [Answer(Status.OK, embedding=mean) for mean in means]
