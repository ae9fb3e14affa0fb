"""A pipeline of diffusers, loaded: prompts encoded, and called with each row's own noise."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from harvest.teachers.memory import explain_memory
from harvest.teachers.painting.config import PaintingConfig
from harvest.teachers.painting.files import PipelineFiles, find_class
from shared.frozen_models import FrozenModel, choose_inference_device

Latent = np.ndarray[Any, np.dtype[np.float32]]
Picture = np.ndarray[Any, np.dtype[np.uint8]]


class Pipeline:
    """The pipeline of `files`; `pipe` is diffusers' own. `parts` are those that take the place of the model's.

    Raises SourceError where it cannot be loaded.
    """

    def __init__(self, model: FrozenModel, files: PipelineFiles, parts: Mapping[str, Any]) -> None:
        import diffusers
        import torch

        # Its warnings are ours to give: a flagged picture is a row that says so.
        diffusers.utils.logging.set_verbosity_error()
        self._files = files
        dtype: Any = getattr(torch, files.dtype)
        if files.family.exact:
            dtype = {"default": dtype, **dict.fromkeys(files.family.exact, torch.float32)}
        self.pipe = model.load(find_class(files.name), dtype=dtype, **parts)
        self.pipe.set_progress_bar_config(disable=True)

    def call(
        self, pipe: Any, encoded: Mapping[str, Any], generators: Sequence[Any], asked: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Paint with `pipe`, which is asked for what it has a parameter for. Gives its output and the final latents."""
        taken = inspect.signature(pipe.__call__).parameters
        note = _Noted()
        # Of the two kinds of callbacks a pipeline has one: what it is given last is the final latent.
        asked = {"callback_on_step_end": note.take, "callback": note.take_latents, **asked}
        # Some have a text as the default, which does not go with embeddings.
        asked = {"negative_prompt": None, **asked}
        output = pipe(
            **encoded,
            num_inference_steps=self._files.steps,
            guidance_scale=self._files.guidance,
            generator=list(generators),
            **{name: value for name, value in asked.items() if name in taken},
        )
        return output, note.latents

    def encode(self, chunks: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The prompts' embeddings, chunk beside chunk, as arguments of the pipeline.

        All prompts have the same number of chunks (see harvest.teachers.chunks). What the text encoders say of a whole
        prompt (the pooled embeddings) is that of its first chunk.
        """
        import torch

        guided = self._files.guidance > 1
        options = self._choose_options(guided)
        parts = [self.pipe.encode_prompt(list(prompts), **options) for prompts in zip(*chunks, strict=True)]
        encoded: dict[str, Any] = {}
        for name, *tensors in zip(self._files.family.encoded, *parts, strict=False):
            if name and (guided or not name.startswith("negative")):
                encoded[name] = tensors[0] if "pooled" in name else torch.cat(tensors, dim=1)
        return encoded

    def _choose_options(self, guided: bool) -> dict[str, Any]:
        """How a prompt is encoded: as a call of the pipeline would, where that differs from `encode_prompt` alone."""
        own = inspect.signature(self.pipe.encode_prompt).parameters
        called = inspect.signature(self.pipe.__call__).parameters
        options = {
            name: called[name].default
            for name in ("max_sequence_length", "complex_human_instruction")
            if name in own and name in called
        }
        options |= {name: None for name in ("prompt_2", "prompt_3") if name in own}
        options |= {name: 1 for name in ("num_images_per_prompt", "num_videos_per_prompt") if name in own}
        if "do_classifier_free_guidance" in own:
            options["do_classifier_free_guidance"] = guided
        return {**options, "device": self.pipe.device}


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


def make_generators(seeds: Sequence[int]) -> list[Any]:
    """Each row's source of noise, on the CPU, so that it is the same in any batch and on any device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def to_device(pipe: Any) -> Any:
    """The pipeline on the device that frozen models compute on."""
    return pipe.to(choose_inference_device())


def to_bytes(pictures: Any) -> Picture:
    """Pictures of numbers from 0 to 1 and shape (..., channels, height, width) as bytes, channels last."""
    import torch

    pixels = torch.nan_to_num(pictures, nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    array: Picture = pixels.movedim(-3, -1).cpu().numpy()
    return array


def watch_memory(config: PaintingConfig, noun: str, dtype: str, *more: str) -> AbstractContextManager[None]:
    """Turn an error of too little memory in the block into a TeacherError that says what to lower, `more` too."""
    ways = [f"--batch {config.batch // 2}"] if config.batch > 1 else []
    ways += ["a smaller --size", *more] + (["--dtype float16"] if dtype == "float32" else [])
    many = f"{config.batch} {noun}s at a time" if config.batch > 1 else f"a {noun}"
    return explain_memory(f"paint {many} with {config.model}", ways)
