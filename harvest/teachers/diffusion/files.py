"""What the files of a pipeline tell before its weights are loaded: its family, prompt length, and sizes."""

import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from harvest.teachers.diffusion.config import DiffusionConfig, DiffusionVector
from harvest.teachers.diffusion.families import Family, find_family
from shared.errors import SourceError, UsageError
from shared.frozen_models import FrozenModel, choose_inference_device


class PipelineFiles:
    """The pipeline that `config` names, by its files and by the signatures of its class. Loads no weights.

    Its properties raise SourceError for what is no pipeline that can be used here, and UsageError for options that it
    cannot keep.
    """

    def __init__(self, config: DiffusionConfig, model: FrozenModel) -> None:
        self._config, self._model = config, model

    @cached_property
    def _index(self) -> Mapping[str, Any]:
        return self._model.read_json("model_index.json") or {}

    @cached_property
    def name(self) -> str:
        """The class of the pipeline, checked."""
        name, config = self._index.get("_class_name"), self._config
        family = find_family(config.model, name)
        channels = self._denoiser_of(family).get("in_channels")
        expected = self._autoencoder_of(family).get("latent_channels", 4) * (4 if family.packed else 1)
        if channels is not None and channels != expected:
            raise SourceError(
                f"{config.model} paints over parts of pictures, not texts: its {family.denoiser} takes {channels} "
                f"channels, and a latent has {expected}"
            )
        if config.vector is DiffusionVector.ARMADA and family.over is None:
            raise UsageError(
                f"--vector armada paints over a picture, and diffusers has no pipeline that does so with the parts of "
                f"a {name}: give --vector latent, or --vector encoder"
            )
        return str(name)

    @property
    def family(self) -> Family:
        """Its family."""
        return find_family(self._config.model, self.name)

    def _denoiser_of(self, family: Family) -> Mapping[str, Any]:
        return self._model.read_json(f"{family.denoiser}/config.json") or {}

    def _autoencoder_of(self, family: Family) -> Mapping[str, Any]:
        return self._model.read_json(f"{family.autoencoder}/config.json") or {}

    @cached_property
    def _denoiser(self) -> Mapping[str, Any]:
        return self._denoiser_of(self.family)

    @cached_property
    def _autoencoder(self) -> Mapping[str, Any]:
        return self._autoencoder_of(self.family)

    @cached_property
    def _call(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of a call of the pipeline. Imports its class."""
        import diffusers

        return inspect.signature(getattr(diffusers, self.name).__call__).parameters

    @cached_property
    def scale(self) -> int:
        """Pixels of a picture a number of its latent, along an edge."""
        blocks = self._autoencoder.get("block_out_channels") or self._autoencoder["encoder_block_out_channels"]
        return int(2 ** (len(blocks) - 1))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels, checked."""
        family, step = self.family, 2 if self.family.packed else int(self._denoiser.get("patch_size") or 1)
        multiple = self.scale * (family.step or step)
        width, height = self._config.size or self._own_size
        if width % multiple or height % multiple:
            raise UsageError(
                f"--size {width}x{height}: width and height of a picture by {self._config.model} must be multiples of "
                f"{multiple}"
            )
        return width, height

    @cached_property
    def _own_size(self) -> tuple[int, int]:
        sample = self._denoiser.get("sample_size")
        if sample is not None:
            height, width = sample if isinstance(sample, list) else (sample, sample)
            return width * self.scale, height * self.scale
        edge = self.family.edge or self._call["height"].default
        return edge, edge

    def measure_latent(self, width: int, height: int) -> tuple[int, int, int]:
        """The shape of the latent of a picture so large: channels, height, width."""
        return int(self._autoencoder.get("latent_channels", 4)), height // self.scale, width // self.scale

    @cached_property
    def guidance(self) -> float:
        """How far the prompt is followed: as chosen, or as the family has it, or the pipeline's own."""
        if self._config.guidance is not None:
            return self._config.guidance
        own = self.family.guidance
        return float(self._call["guidance_scale"].default if own is None else own)

    @property
    def dtype(self) -> str:
        """The name of the number type that the model computes in."""
        if self._config.dtype != "auto":
            return self._config.dtype
        return self.family.half if choose_inference_device() == "cuda" else "float32"

    @cached_property
    def _tokenizer(self) -> tuple[str, Any]:
        """The tokenizer of the longest prompts, with its class: that which is not CLIP's, where there is one."""
        import transformers

        held = {name: part[1] for name, part in self._index.items() if name.startswith("tokenizer") and part[1]}
        name = next((name for name in sorted(held, reverse=True) if "CLIP" not in held[name]), "tokenizer")
        made = getattr(transformers, held[name], transformers.AutoTokenizer)
        return held[name], self._model.load(made, subfolder=name)

    @cached_property
    def window(self) -> int:
        """How many tokens of a text are encoded at a time, without the marks around them."""
        kind, tokenizer = self._tokenizer
        marks = len(tokenizer("")["input_ids"])
        if "CLIP" in kind:
            return int(tokenizer.model_max_length) - marks
        return int(self.family.window or self._call["max_sequence_length"].default) - marks

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without the marks around it."""
        return len(self._tokenizer[1](text, add_special_tokens=False, verbose=False)["input_ids"])
