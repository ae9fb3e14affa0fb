"""`encoder`: any vision encoder of transformers (CLIP, SigLIP, DINOv2, ViT, ...), frozen, over the drawn text.

The vector of a page is, in this order of preference:

- of a model with two towers (CLIP, SigLIP): its image embedding, after the projection and before any normalisation
  (`get_image_features`);
- of a vision tower: its `pooler_output`, if the pooler's weights came with the model;
- otherwise the mean over the positions of `last_hidden_state`.

The vector of a text of several pages is the mean over its pages.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from harvest.prompts import lay_out
from harvest.rendering import Layout, prepare_text
from harvest.teachers.base import Reply, Request
from harvest.teachers.batches import answer_in_batches, draw_requests
from shared.errors import SourceError, require_extra
from shared.example import Example
from shared.frozen import FrozenModel, choose_device
from shared.row import Answer, Status
from shared.tasks import Task

_BATCH_ROWS = 64
_BATCH_PAGES = 16
_EMS = 14  # a page is this many of the largest letters wide


@dataclass(frozen=True, slots=True)
class VisionEncoderConfig:
    """Options of the encoder. `size` (width, height) in pixels is that of the drawn page.

    None is the model's own input size, at which nothing is resampled; another size is scaled to that.
    """

    model: str
    size: tuple[int, int] | None = None


class VisionEncoderTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    def __init__(self, config: VisionEncoderConfig, task: Task, name: str) -> None:
        require_extra("vision", "torch", "transformers")
        self.name = name
        self._config = config
        self._source = FrozenModel(config.model)
        self._model: Any = None
        self._processor: Any = None
        self._has_pooler = True

    @cached_property
    def _processing(self) -> Mapping[str, Any]:
        """What the model's files say about pictures."""
        own = self._source.read_json("preprocessor_config.json")
        shared = self._source.read_json("processor_config.json") or {}  # of a model with a tokenizer beside it
        return own or shared.get("image_processor") or {}

    @cached_property
    def _input_size(self) -> tuple[int, int]:
        """Width and height in pixels of the picture that the model takes. Reads its files; imports no torch."""
        return read_input_size(self._processing, self._source)

    @cached_property
    def _layout(self) -> Layout:
        width, height = self._config.size or self._input_size
        # Letters as small as 10 pixels where the page is small: a text that needs more room goes over several pages.
        largest = min(32, max(10, width // _EMS))
        return Layout(
            width, height, margin=width // 28, min_font_size=min(16, max(10, width // 28)), max_font_size=largest
        )

    def recipe(self) -> Mapping[str, Any]:
        """Layout, model and how its pictures are prepared; the task's question plays no part."""
        return {
            "teacher": "encoder",
            "layout": self._layout.fingerprint(),
            "model": self._source.fingerprint,
            "input_size": list(self._input_size),
            "processing": self._processing,
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The text that is drawn. Raises DataError where a character of it cannot be."""
        text = lay_out(example)
        prepare_text(text)
        return {"draw": text}

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Encode in batches; one row that cannot be drawn does not stop the others."""
        return answer_in_batches(requests, _BATCH_ROWS, self._answer_batch)

    def _answer_batch(self, requests: Sequence[Request]) -> list[Reply]:
        started, asked_at = time.perf_counter(), datetime.now(UTC)
        drawn, replies = draw_requests(requests, self._layout)
        pages = iter(self._encode([drawing.pixels for one in drawn for drawing in one.drawings]))
        vectors = [np.mean([next(pages) for _ in one.drawings], axis=0) for one in drawn]
        latency_ms = (time.perf_counter() - started) * 1000 / len(requests)
        for one, vector in zip(drawn, vectors, strict=True):
            answer = Answer(
                Status.OK,
                embedding=vector,
                image_sha256=one.image_sha256,
                latency_ms=latency_ms,
                asked_at=asked_at,
                attempts=1,
            )
            replies.append(Reply(one.request, answer))
        return replies

    def _encode(self, pages: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector a page, float32 of shape (n, d)."""
        import torch

        if self._model is None:
            self._load()
        width, height = self._input_size
        vectors = []
        for start in range(0, len(pages), _BATCH_PAGES):
            batch = [np.repeat(page[:, :, None], 3, axis=2) for page in pages[start : start + _BATCH_PAGES]]
            # No centre crop: it would cut the text. Where the page has the model's size, no resampling either.
            pixels = self._processor(
                batch,
                return_tensors="pt",
                do_resize=batch[0].shape[:2] != (height, width),
                size={"height": height, "width": width},
                do_center_crop=False,
                input_data_format="channels_last",
            )["pixel_values"]
            with torch.inference_mode():
                vectors.append(self._pool(pixels.to(self._model.device)).float().cpu().numpy())
        return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)

    def _pool(self, pixels: Any) -> Any:
        if hasattr(self._model, "get_text_features"):
            return self._model.get_image_features(pixel_values=pixels).pooler_output
        output = self._model(pixel_values=pixels)
        if self._has_pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        return output.last_hidden_state.mean(1)

    def _load(self) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModel

        self._processor = self._source.load(AutoImageProcessor)
        model, report = self._source.load(AutoModel, dtype=torch.float32, output_loading_info=True)
        if model.main_input_name != "pixel_values" and not hasattr(model, "get_text_features"):
            raise SourceError(
                f"{self._config.model} is a {type(model).__name__}, which gives no one vector for a picture; choose a "
                "vision encoder: CLIP, SigLIP, DINOv2 or ViT, say"
            )
        missing = set(report["missing_keys"])
        self._has_pooler = not any("pooler" in name for name in missing)
        if others := sorted(name for name in missing if "pooler" not in name):
            raise SourceError(
                f"{self._config.model} lacks weights of a {type(model).__name__}: {', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}; the copy is damaged, or it is another kind of model"
            )
        self._model = model.to(choose_device()).eval()


def read_input_size(processing: Mapping[str, Any], model: FrozenModel) -> tuple[int, int]:
    """Width and height in pixels of the picture that a model takes.

    `processing` is its preprocessor_config.json; where that names no size, its config.json does. Raises SourceError.
    """
    size = processing.get("crop_size") if processing.get("do_center_crop") else None
    size = size or processing.get("size")
    if size is None:
        config = model.read_json("config.json") or {}
        size = (config.get("vision_config") or config).get("image_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        width, height = size.get("width", edge), size.get("height", edge)
        if width and height:
            return width, height
    raise SourceError(
        f"the files of {model.resolved.source} name no picture size (preprocessor_config.json has none, nor has "
        "config.json), so it is no vision encoder that can be used here"
    )
