"""A pipeline of diffusers, loaded: pictures and latents of prompts, each row's noise its own."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from harvest.teachers.diffusion.config import EDGE, STRENGTH, DiffusionConfig, DiffusionVector
from harvest.teachers.diffusion.files import PipelineFiles
from harvest.teachers.memory import explain_memory
from shared.errors import SourceError
from shared.frozen_models import FrozenModel, choose_inference_device

LORA_FILE = "pytorch_lora_weights.safetensors"

Latent = np.ndarray[Any, np.dtype[np.float32]]
Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Painting:
    """What was painted of one prompt.

    `latent` is float32 of shape (channels, height, width): the final one, or that of the second painting where the
    vector is ARMADA's. `picture` is RGB of shape (height, width, 3); black where the safety checker `flagged` it.
    """

    latent: Latent
    picture: Picture
    flagged: bool


class Painter:
    """The pipeline of `config`; raises SourceError where it cannot be loaded."""

    def __init__(
        self, config: DiffusionConfig, model: FrozenModel, lora: FrozenModel | None, files: PipelineFiles
    ) -> None:
        import diffusers
        import torch

        # Its warnings are ours to give: a flagged picture is a row that says so.
        diffusers.utils.logging.set_verbosity_error()
        self._config, self._files, self._family = config, files, files.family
        pipe = model.load(getattr(diffusers, files.name), dtype=getattr(torch, files.dtype))
        if lora is not None:
            _load_lora(pipe, lora, config)
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe.to(choose_inference_device())
        self._over: Any = None
        if config.vector is DiffusionVector.ARMADA:
            assert self._family.over is not None
            self._over = getattr(diffusers, self._family.over)(**{**pipe.components, **self._family.options})
            self._over.set_progress_bar_config(disable=True)

    def paint(self, chunks: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Painting]:
        """One painting a prompt. All prompts have the same number of chunks (see harvest.teachers.chunks).

        A row's noise comes from its own generator, on the CPU, so that it is the same in any batch and on any device.
        Raises TeacherError where the memory does not suffice.
        """
        import torch

        with watch_memory(self._config, self._files.dtype), torch.inference_mode():
            encoded = self._encode(chunks)
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            width, height = self._files.size
            note = _Noted()
            asked = {
                "width": width,
                "height": height,
                "output_type": "pt",
                "use_resolution_binning": False,  # the size is that of the recipe
                # Of the two kinds of callbacks a pipeline has one: what it is given last is the final latent.
                "callback_on_step_end": note.take,
                "callback": note.take_latents,
            }
            output = self._call(self._pipe, encoded, generators, asked)
            pictures = output.images.float()
            if self._family.is_signed:
                pictures = pictures * 0.5 + 0.5
            edges = (width, height) if self._over is None else (EDGE, EDGE)
            latents = note.latents if self._over is None else self._paint_over(pictures, encoded, generators)
            if self._family.packed:
                latents = unpack(latents, *self._files.measure_latent(*edges))
            flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(seeds)
            return [
                Painting(latent.float().cpu().numpy(), _to_bytes(picture), bool(flag))
                for latent, picture, flag in zip(latents, pictures, flagged, strict=True)
            ]

    def _call(self, pipe: Any, encoded: dict[str, Any], generators: Sequence[Any], asked: dict[str, Any]) -> Any:
        """Paint with `pipe`, which is asked for what it has a parameter for."""
        taken = inspect.signature(pipe.__call__).parameters
        return pipe(
            **encoded,
            num_inference_steps=self._config.steps,
            guidance_scale=self._files.guidance,
            generator=list(generators),
            # Some have a text as the default, which does not go with embeddings.
            **{name: value for name, value in {"negative_prompt": None, **asked}.items() if name in taken},
        )

    def _encode(self, chunks: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The prompts' embeddings, chunk beside chunk, as arguments of the pipeline.

        What the text encoders say of a whole prompt (the pooled embeddings) is that of its first chunk.
        """
        import torch

        guided = self._files.guidance > 1
        options = self._choose_options(guided)
        parts = [self._pipe.encode_prompt(list(prompts), **options) for prompts in zip(*chunks, strict=True)]
        encoded: dict[str, Any] = {}
        for name, *tensors in zip(self._family.encoded, *parts, strict=False):
            if name and (guided or not name.startswith("negative")):
                encoded[name] = tensors[0] if "pooled" in name else torch.cat(tensors, dim=1)
        return encoded

    def _choose_options(self, guided: bool) -> dict[str, Any]:
        """How a prompt is encoded: as a call of the pipeline would, where that differs from `encode_prompt` alone."""
        own = inspect.signature(self._pipe.encode_prompt).parameters
        called = inspect.signature(self._pipe.__call__).parameters
        options = {
            name: called[name].default
            for name in ("max_sequence_length", "complex_human_instruction")
            if name in own and name in called
        }
        options |= {name: None for name in ("prompt_2", "prompt_3") if name in own}
        if "do_classifier_free_guidance" in own:
            options["do_classifier_free_guidance"] = guided
        return {**options, "device": self._pipe.device, "num_images_per_prompt": 1}

    def _paint_over(self, pictures: Any, encoded: dict[str, Any], generators: Sequence[Any]) -> Any:
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
        return self._call(self._over, encoded, generators, asked).images


class _Noted:
    """The latents of the last step that a pipeline told of."""

    latents: Any = None

    def take(self, pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Take those that stand among the tensors."""
        self.latents = tensors["latents"]
        return tensors

    def take_latents(self, step: int, time: Any, latents: Any) -> None:
        """Take them as older pipelines give them."""
        self.latents = latents


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


def _to_bytes(picture: Any) -> Picture:
    import torch

    pixels = torch.nan_to_num(picture, nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    array: Picture = pixels.permute(1, 2, 0).cpu().numpy()
    return array


def watch_memory(config: DiffusionConfig, dtype: str) -> AbstractContextManager[None]:
    """Turn an error of too little memory in the block into a TeacherError that says what to lower."""
    ways = [f"--batch {config.batch // 2}"] if config.batch > 1 else []
    ways += ["a smaller --size"] + (["--dtype float16"] if dtype == "float32" else [])
    return explain_memory(f"paint {config.batch} pictures at a time with {config.model}", ways)
