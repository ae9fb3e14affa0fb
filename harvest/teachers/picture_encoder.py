"""Vectors of pictures from a frozen vision encoder of transformers (CLIP, SigLIP, DINOv2, ViT, ResNet, ...).

The vector of a picture is, in this order of preference:

- of a model with two towers (CLIP, SigLIP): its image embedding, after the projection and before any normalisation
  (`get_image_features`);
- of a vision tower: its `pooler_output`, if the pooler's weights came with the model;
- otherwise the mean over the positions of `last_hidden_state`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from shared.errors import SourceError
from shared.frozen_models import FrozenModel, choose_inference_device

_BATCH_PICTURES = 16


class PictureEncoder:
    """A frozen vision encoder. `source` is as shared.sources.resolve_model takes it; weights load with first use."""

    def __init__(self, source: str) -> None:
        self._name = source
        self._source = FrozenModel(source)
        self._model: Any = None
        self._processor: Any = None
        self._has_pooler = True

    def describe(self) -> Mapping[str, Any]:
        """All that decides its vectors, as JSON: the model, and how pictures are prepared for it. Imports no torch."""
        return {
            "model": self._source.fingerprint,
            "input_size": list(self.input_size),
            "processing": self._processing,
        }

    @cached_property
    def _processing(self) -> Mapping[str, Any]:
        """What the model's files say about pictures."""
        own = self._source.read_json("preprocessor_config.json")
        shared = self._source.read_json("processor_config.json") or {}  # of a model with a tokenizer beside it
        return own or shared.get("image_processor") or {}

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Width and height in pixels of the picture that the model takes. Reads its files; imports no torch."""
        return read_input_size(self._processing, self._source)

    @property
    def width(self) -> int:
        """Dimensions of its vectors. Reads the model's files; imports no torch."""
        return self._source.width

    def encode(self, pictures: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector a picture, float32 of shape (n, d). Pictures are RGB of one shape (height, width, 3).

        No centre crop: it would cut what is drawn. Where the pictures have the model's size, no resampling either.
        Raises SourceError where the model cannot be loaded.
        """
        import torch

        if self._model is None:
            self._load()
        width, height = self.input_size
        vectors = []
        for start in range(0, len(pictures), _BATCH_PICTURES):
            batch = list(pictures[start : start + _BATCH_PICTURES])
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

    def encode_whole(self, pictures: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One vector a picture, float32 of shape (n, d), prepared as the model's own processor does: resized and
        cropped.

        Pictures are of PIL, RGB, of any sizes. Raises SourceError where the model cannot be loaded.
        """
        import torch

        if self._model is None:
            self._load()
        vectors = []
        for start in range(0, len(pictures), _BATCH_PICTURES):
            batch = pictures[start : start + _BATCH_PICTURES]
            with torch.inference_mode():
                ready = [self._processor(one, return_tensors="pt")["pixel_values"] for one in batch]
                same = len({tuple(pixels.shape) for pixels in ready}) == 1
                together = [torch.cat(ready)] if same else ready
                vectors += [self._pool(pixels.to(self._model.device)).float().cpu().numpy() for pixels in together]
        return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)

    def close(self) -> None:
        """Let go of the weights; the next picture loads them again."""
        self._model = self._processor = None

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
                f"{self._name} is a {type(model).__name__}, which gives no one vector for a picture; choose a "
                "vision encoder: CLIP, SigLIP, DINOv2 or ViT, say"
            )
        missing = set(report["missing_keys"])
        self._has_pooler = not any("pooler" in name for name in missing)
        if others := sorted(name for name in missing if "pooler" not in name):
            raise SourceError(
                f"{self._name} lacks weights of a {type(model).__name__}: {', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}; the copy is damaged, or it is another kind of model"
            )
        self._model = model.to(choose_inference_device()).eval()


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
