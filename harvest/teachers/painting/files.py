"""What the files of a pipeline tell before its weights are loaded: its class, prompt length, and sizes."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from harvest.teachers.painting.config import LongPrompts, PaintingConfig
from harvest.teachers.painting.families import Family
from harvest.teachers.painting.weights import count_weights
from shared.errors import SourceError, UsageError
from shared.frozen_models import FrozenModel, choose_inference_device, quiet_transformers

FULL, HALF = 4, 2  # bytes of a weight


class PipelineFiles(ABC):
    """The pipeline that `config` names, by its files and by the signatures of its class. Loads no weights.

    Its properties raise SourceError for what is no pipeline that can be used here, and UsageError for options that it
    cannot keep.
    """

    noun: str  # what its pipelines paint

    def __init__(self, config: PaintingConfig, model: FrozenModel) -> None:
        self._config, self._model = config, model

    @property
    def model_name(self) -> str:
        """The model, as the user named it."""
        return self._config.model

    @property
    @abstractmethod
    def name(self) -> str:
        """The class of the pipeline, checked."""

    @property
    @abstractmethod
    def family(self) -> Family:
        """Its family."""

    @property
    @abstractmethod
    def scale(self) -> int:
        """Pixels of a picture a number of its latent, along an edge."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Width and height in pixels are multiples of this."""

    @property
    @abstractmethod
    def own_size(self) -> tuple[int, int]:
        """Width and height in pixels, unless they are chosen."""

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """What model_index.json holds."""
        return self._model.read_json("model_index.json") or {}

    def read_config(self, part: str) -> Mapping[str, Any]:
        """What the config.json of a part holds."""
        return self._model.read_json(f"{part}/config.json") or {}

    @cached_property
    def denoiser(self) -> Mapping[str, Any]:
        """The config of the denoiser."""
        return self.read_config(self.family.denoiser)

    @cached_property
    def autoencoder(self) -> Mapping[str, Any]:
        """The config of the autoencoder."""
        return self.read_config(self.family.autoencoder)

    def check_channels(self, family: Family, packed: int = 1) -> None:
        """Raise SourceError for a denoiser that takes more than a latent, `packed` numbers of which it takes as one."""
        channels = self.read_config(family.denoiser).get("in_channels")
        vae = self.read_config(family.autoencoder)
        expected = (vae.get("latent_channels") or vae.get("z_dim") or 4) * packed
        if channels is not None and channels != expected:
            raise SourceError(
                f"{self.model_name} paints over parts of pictures, not texts: its {family.denoiser} takes {channels} "
                f"channels, and a latent has {expected}"
            )

    @cached_property
    def call(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of a call of the pipeline. Imports its class."""
        return inspect.signature(find_class(self.name).__call__).parameters

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels, checked."""
        width, height = self._config.size or self.own_size
        if width % self.multiple or height % self.multiple:
            raise UsageError(
                f"--size {width}x{height}: width and height of a {self.noun} by {self.model_name} must be multiples of "
                f"{self.multiple}"
            )
        return width, height

    def find_sample_size(self) -> tuple[int, int] | None:
        """Width and height in pixels that the denoiser's config names, where it does."""
        sample = self.denoiser.get("sample_size")
        if sample is None:
            return None
        height, width = sample if isinstance(sample, list) else (sample, sample)
        return width * self.scale, height * self.scale

    @cached_property
    def steps(self) -> int:
        """Denoising steps: as chosen, or the pipeline's own."""
        return int(self._config.steps or self.call["num_inference_steps"].default)

    @cached_property
    def guidance(self) -> float:
        """How far the prompt is followed: as chosen, or as the family has it, or the pipeline's own."""
        if self._config.guidance is not None:
            return self._config.guidance
        own = self.family.guidance
        return float(self.call["guidance_scale"].default if own is None else own)

    @property
    def dtype(self) -> str:
        """The name of the number type that the model computes in."""
        if self._config.dtype != "auto":
            return self._config.dtype
        return self.family.half if choose_inference_device() == "cuda" else "float32"

    @property
    def frames(self) -> int:
        """How many frames it paints of a prompt."""
        return 1

    def count_parts(self) -> Mapping[str, int]:
        """How many weights each part has that the pipeline takes."""
        taken = inspect.signature(find_class(self.name).__init__).parameters
        held = {part: kind for part, kind in self.index.items() if part in taken and isinstance(kind, list) and kind[1]}
        counts = {part: count_weights(kind[0], kind[1], self.read_config(part)) for part, kind in held.items()}
        return {part: count for part, count in counts.items() if count}

    def measure_parts(self) -> Mapping[str, int]:
        """Bytes of the weights of each part, as they are loaded."""
        exact, size = self.family.exact, FULL if self.dtype == "float32" else HALF
        return {part: count * (FULL if part in exact else size) for part, count in self.count_parts().items()}

    @cached_property
    def _tokenizer(self) -> tuple[str, Any]:
        """The tokenizer of the longest prompts, with its class: that which is not CLIP's, where there is one."""
        import transformers

        held = {name: part[1] for name, part in self.index.items() if name.startswith("tokenizer") and part[1]}
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
        return int(self.family.window or self.call["max_sequence_length"].default) - marks

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without the marks around it."""
        return len(self._tokenizer[1](text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def takes_one_window(self) -> bool:
        """Whether the denoiser takes the tokens of one window only."""
        return False

    @property
    def chunks_prompts(self) -> bool:
        """Whether a prompt past the window is encoded in several."""
        return self._config.long_prompts is LongPrompts.CHUNK and not self.takes_one_window

    @property
    def advice_on_long_prompts(self) -> str:
        """What can be done about a prompt past the window."""
        if self.takes_one_window:
            return "its denoiser has places for no more"
        return "--long-prompts chunk encodes it in several windows"


def find_class(name: str) -> Any:
    """A class of diffusers by its name, None where it has none. transformers says nothing of what it does without."""
    import diffusers

    with quiet_transformers():
        return getattr(diffusers, name, None)
