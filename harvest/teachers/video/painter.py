"""A text-to-video pipeline, loaded: frames and latents of prompts, each row's noise its own."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harvest.teachers.painting.pipeline import (
    Latent,
    Picture,
    Pipeline,
    make_generators,
    to_bytes,
    to_device,
    watch_memory,
)
from harvest.teachers.video.config import EDGE, VideoConfig
from harvest.teachers.video.files import ClipFiles
from shared.frozen_models import FrozenModel

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
_MILLISECONDS, _QUALITY = 125, 90  # of a frame of a clip that is kept
# What diffusers' guide to AnimateDiff has in place of the scheduler of Stable Diffusion.
SCHEDULER = {"beta_schedule": "linear", "timestep_spacing": "linspace", "steps_offset": 1, "clip_sample": False}


@dataclass(frozen=True, slots=True)
class Clip:
    """What was made of one prompt.

    `latent` is the final one, float32 of shape (channels, frames, height, width); `first` the first frame, grey, from
    -1 to 1, float32 of shape (512, 512). `pixels` are RGB frames of shape (frames, height, width, 3).
    """

    latent: Latent
    first: Latent
    pixels: Picture
    flagged: bool = False  # no text-to-video pipeline of diffusers has a safety checker

    def encode(self) -> bytes:
        """The clip as an animated WebP file, eight frames a second."""
        from PIL import Image

        frames, file = [Image.fromarray(frame) for frame in self.pixels], io.BytesIO()
        frames[0].save(
            file, "WEBP", save_all=True, append_images=frames[1:], duration=_MILLISECONDS, quality=_QUALITY, method=0
        )
        return file.getvalue()


class ClipPainter:
    """The pipeline of `config`, of which `pipe` is diffusers' own; raises SourceError where it cannot be loaded."""

    def __init__(self, config: VideoConfig, model: FrozenModel, adapter: FrozenModel | None, files: ClipFiles) -> None:
        self._config, self._files, self._family = config, files, files.family
        parts = {} if adapter is None else _load_motion(model, adapter, files.dtype)
        self._pipeline = Pipeline(model, files, parts)
        self.pipe = pipe = self._pipeline.pipe
        if "motion_adapter" in pipe.components:
            pipe.register_modules(motion_adapter=None)  # the denoiser has a copy of it
        to_device(pipe)
        pipe.vae.enable_slicing()  # one clip is decoded at a time: the same numbers in less memory

    def paint(self, chunks: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Clip]:
        """One clip a prompt; as harvest.teachers.painting.teacher.Paints says."""
        import torch

        files = self._files
        with watch_memory(self._config, files.noun, files.dtype, "fewer --frames"), torch.inference_mode():
            width, height = files.size
            asked = {
                "width": width,
                "height": height,
                "num_frames": files.frames,
                "output_type": "pt",
                **self._family.asked,
            }
            encoded = self._pipeline.encode(chunks)
            output, latents = self._pipeline.call(self.pipe, encoded, make_generators(seeds), asked)
            latents = self._arrange(latents).float().cpu().numpy()
            frames = output.frames.float()
            first = _make_grey(frames[:, 0]).cpu().numpy()
            return [
                Clip(latent, grey, pixels)
                for latent, grey, pixels in zip(latents, first, to_bytes(frames), strict=True)
            ]

    def _arrange(self, latents: Any) -> Any:
        """Latents of shape (rows, channels, frames, height, width) from the pipeline's own."""
        _, frames, height, width = self._files.shape
        if self._family.packed:
            transformer = self.pipe.transformer.config
            return unpack(latents, frames, height, width, transformer.patch_size, transformer.patch_size_t)
        if self._family.frames_first:
            latents = latents.transpose(1, 2)
        return latents[:, :, -frames:]  # CogVideoX 1.5 pads them at the front


def unpack(latents: Any, frames: int, height: int, width: int, patch: int, patch_time: int) -> Any:
    """Latents of shape (rows, channels, frames, height, width) from a sequence of patches, as LTX-Video's are."""
    patches = latents.reshape(
        len(latents), frames // patch_time, height // patch, width // patch, -1, patch_time, patch, patch
    )
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(len(latents), -1, frames, height, width)


def _make_grey(pictures: Any) -> Any:
    """RGB pictures from 0 to 1, (rows, 3, height, width), as grey ones from -1 to 1, (rows, 512, 512)."""
    import torch
    from torch.nn.functional import interpolate

    grey = (pictures * torch.tensor(_LUMA, device=pictures.device)[:, None, None]).sum(1, keepdim=True)
    edged = interpolate(grey, (EDGE, EDGE), mode="bicubic", antialias=True).clamp(0, 1)
    return edged[:, 0] * 2 - 1


def _load_motion(model: FrozenModel, adapter: FrozenModel, dtype: str) -> dict[str, Any]:
    """The parts that make AnimateDiff of Stable Diffusion: the adapter, and a scheduler that goes with it."""
    import torch
    from diffusers import DDIMScheduler, MotionAdapter

    return {
        "motion_adapter": adapter.load(MotionAdapter, dtype=getattr(torch, dtype)),
        "scheduler": model.load(DDIMScheduler, subfolder="scheduler", **SCHEDULER),
    }
