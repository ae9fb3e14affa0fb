"""A pipeline of diffusers, loaded: pictures and latents of prompts, each row's noise its own."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from harvest.teachers import memory
from harvest.teachers.diffusion.config import EDGE, STRENGTH, DiffusionConfig, DiffusionVector
from shared.errors import SourceError
from shared.frozen_models import FrozenModel, choose_inference_device

LORA_FILE = "pytorch_lora_weights.safetensors"
# The pipelines whose prompts and latents are known, and what paints over a picture with the same parts.
PIPELINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # The first painting was looked at already.
    "StableDiffusionPipeline": (
        "StableDiffusionImg2ImgPipeline",
        {"safety_checker": None, "requires_safety_checker": False},
    ),
    "StableDiffusionXLPipeline": ("StableDiffusionXLImg2ImgPipeline", {}),
}

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

    def __init__(self, config: DiffusionConfig, model: FrozenModel, lora: FrozenModel | None, pipeline: str) -> None:
        import diffusers
        import torch

        # Its warnings are ours to give: a flagged picture is a row that says so.
        diffusers.utils.logging.set_verbosity_error()
        self._config = config
        dtype = getattr(torch, choose_dtype(config))
        pipe = model.load(getattr(diffusers, pipeline), dtype=dtype)
        if lora is not None:
            _load_lora(pipe, lora, config)
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe.to(choose_inference_device())
        self._over: Any = None
        if config.vector is DiffusionVector.ARMADA:
            over, options = PIPELINES[pipeline]
            self._over = getattr(diffusers, over)(**{**pipe.components, **options})
            self._over.set_progress_bar_config(disable=True)

    def paint(self, chunks: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Painting]:
        """One painting a prompt. All prompts have the same number of chunks (see harvest.teachers.chunks).

        A row's noise comes from its own generator, on the CPU, so that it is the same in any batch and on any device.
        Raises TeacherError where the memory does not suffice.
        """
        import torch

        with explain_memory(self._config), torch.inference_mode():
            encoded = self._encode(chunks)
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            size = self._config.size or (None, None)
            final: dict[str, Any] = {}

            def note(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                final.update(tensors)
                return tensors

            output = self._pipe(
                **encoded,
                width=size[0],
                height=size[1],
                num_inference_steps=self._config.steps,
                guidance_scale=self._config.guidance,
                generator=generators,
                output_type="pt",
                callback_on_step_end=note,
            )
            pictures = output.images.float()
            latents = final["latents"] if self._over is None else self._paint_over(pictures, encoded, generators)
            flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(seeds)
            return [
                Painting(latent.float().cpu().numpy(), _to_bytes(picture), bool(flag))
                for latent, picture, flag in zip(latents, pictures, flagged, strict=True)
            ]

    def _encode(self, chunks: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The prompts' embeddings, chunk beside chunk, as arguments of the pipeline.

        What the text encoder says of a whole prompt (SDXL's pooled embedding) is that of its first chunk.
        """
        import torch

        guided = self._config.guidance > 1
        parts = [
            self._pipe.encode_prompt(
                prompt=list(prompts),
                device=self._pipe.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
            )
            for prompts in zip(*chunks, strict=True)
        ]
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        encoded: dict[str, Any] = {}
        for name, *tensors in zip(names, *parts, strict=False):
            if guided or not name.startswith("negative"):
                encoded[name] = tensors[0] if "pooled" in name else torch.cat(tensors, dim=1)
        return encoded

    def _paint_over(self, pictures: Any, encoded: dict[str, Any], generators: Sequence[Any]) -> Any:
        """The latents of ARMADA's second painting: the picture shrunk, noised, and painted with the same prompt."""
        from torch.nn.functional import interpolate

        small = interpolate(pictures, (EDGE, EDGE), mode="bicubic", antialias=True).clamp(0, 1)
        return self._over(
            **encoded,
            image=small.to(self._over.vae.dtype),
            strength=STRENGTH,
            num_inference_steps=self._config.steps,
            guidance_scale=self._config.guidance,
            generator=list(generators),
            output_type="latent",
        ).images


def choose_dtype(config: DiffusionConfig) -> str:
    """The name of the number type that the model computes in."""
    if config.dtype != "auto":
        return config.dtype
    return "float16" if choose_inference_device() == "cuda" else "float32"


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


def explain_memory(config: DiffusionConfig) -> AbstractContextManager[None]:
    """Turn an error of too little memory in the block into a TeacherError that says what to lower."""
    ways = [f"--batch {config.batch // 2}"] if config.batch > 1 else []
    ways += ["a smaller --size"] + (["--dtype float16"] if choose_dtype(config) == "float32" else [])
    return memory.explain_memory(f"paint {config.batch} pictures at a time with {config.model}", ways)
