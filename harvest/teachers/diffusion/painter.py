"""A text-to-image pipeline, loaded: pictures and latents of prompts, each row's noise its own."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harvest.teachers.diffusion.config import EDGE, STRENGTH, DiffusionConfig, DiffusionVector
from harvest.teachers.diffusion.files import PictureFiles
from harvest.teachers.painting.pipeline import (
    Latent,
    Picture,
    Pipeline,
    make_generators,
    to_bytes,
    to_device,
    watch_memory,
)
from shared.errors import SourceError
from shared.frozen_models import FrozenModel

LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True)
class Painting:
    """What was painted of one prompt.

    `latent` is float32 of shape (channels, height, width): the final one, or that of the second painting where the
    vector is ARMADA's. `pixels` are RGB of shape (height, width, 3); black where the safety checker `flagged` them.
    """

    latent: Latent
    pixels: Picture
    flagged: bool

    def encode(self) -> bytes:
        """The picture as a PNG file."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


class Painter:
    """The pipeline of `config`; raises SourceError where it cannot be loaded."""

    def __init__(
        self, config: DiffusionConfig, model: FrozenModel, lora: FrozenModel | None, files: PictureFiles
    ) -> None:
        import diffusers

        self._config, self._files, self._family = config, files, files.family
        self._pipeline = Pipeline(model, files, {})
        pipe = self._pipeline.pipe
        if lora is not None:
            _load_lora(pipe, lora, config)
        to_device(pipe)
        self._over: Any = None
        if config.vector is DiffusionVector.ARMADA:
            assert self._family.over is not None
            self._over = getattr(diffusers, self._family.over)(**{**pipe.components, **self._family.options})
            self._over.set_progress_bar_config(disable=True)

    def paint(self, chunks: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Painting]:
        """One painting a prompt; as harvest.teachers.painting.teacher.Paints says."""
        import torch

        with watch_memory(self._config, self._files.noun, self._files.dtype), torch.inference_mode():
            encoded = self._pipeline.encode(chunks)
            generators = make_generators(seeds)
            width, height = self._files.size
            asked = {
                "width": width,
                "height": height,
                "output_type": "pt",
                "use_resolution_binning": False,  # the size is that of the recipe
            }
            output, latents = self._pipeline.call(self._pipeline.pipe, encoded, generators, asked)
            pictures = output.images.float()
            if self._family.is_signed:
                pictures = pictures * 0.5 + 0.5
            edges = (width, height) if self._over is None else (EDGE, EDGE)
            if self._over is not None:
                latents = self._paint_over(pictures, encoded, generators)
            if self._family.packed:
                latents = unpack(latents, *self._files.measure_latent(*edges))
            flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(seeds)
            return [
                Painting(latent.float().cpu().numpy(), picture, bool(flag))
                for latent, picture, flag in zip(latents, to_bytes(pictures), flagged, strict=True)
            ]

    def _paint_over(self, pictures: Any, encoded: Mapping[str, Any], generators: Sequence[Any]) -> Any:
        """The latents of ARMADA's second painting: the picture shrunk, noised, and painted with the same prompt."""
        from torch.nn.functional import interpolate

        small = interpolate(pictures, (EDGE, EDGE), mode="bicubic", antialias=True).clamp(0, 1)
        asked = {
            "image": small.to(self._over.vae.dtype),
            "strength": STRENGTH,
            "output_type": "latent",
            "width": EDGE,
            "height": EDGE,
        }
        output, _ = self._pipeline.call(self._over, encoded, generators, asked)
        return output.images


def unpack(latents: Any, channels: int, height: int, width: int) -> Any:
    """Latents of shape (rows, channels, height, width) from Flux's packed ones: a sequence of squares of 2 x 2."""
    squares = latents.reshape(len(latents), height // 2, width // 2, channels, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(latents), channels, height, width)


def _load_lora(pipe: Any, lora: FrozenModel, config: DiffusionConfig) -> None:
    place = lora.resolved
    try:
        pipe.load_lora_weights(place.location, revision=place.revision, weight_name=LORA_FILE)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(f"the LoRA {config.lora} does not go with {config.model}: {reason}") from error
