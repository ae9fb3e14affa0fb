"""What the files of a text-to-video pipeline tell before its weights are loaded: frames and sizes that it can make."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from harvest.teachers.painting.clips import CLIP_FAMILIES, UNUSABLE_CLIPS, ClipFamily
from harvest.teachers.painting.families import find_family
from harvest.teachers.painting.files import PipelineFiles, find_class
from harvest.teachers.painting.pictures import PICTURE_FAMILIES
from harvest.teachers.painting.weights import count_weights
from harvest.teachers.video.config import FRAMES, VideoConfig
from shared.errors import SourceError, UsageError
from shared.frozen_models import FrozenModel

_MOVED, _MOVES = "StableDiffusionPipeline", "AnimateDiffPipeline"  # with a motion adapter the one becomes the other
_ELSEWHERE = {
    **dict.fromkeys(PICTURE_FAMILIES, "paints pictures: give --teacher diffusion"),
    _MOVED: "paints pictures: give --teacher diffusion, or --motion-adapter NAME, which makes clips with it",
}


class ClipFiles(PipelineFiles):
    """See PipelineFiles; of a pipeline that makes clips. `adapter` is a motion adapter, None where it needs none."""

    noun = "clip"

    def __init__(self, config: VideoConfig, model: FrozenModel, adapter: FrozenModel | None) -> None:
        super().__init__(config, model)
        self._frames, self._adapter = config.frames, adapter

    @cached_property
    def name(self) -> str:
        """The class of the pipeline, checked."""
        name = self.index.get("_class_name")
        if self._adapter is not None:
            if name not in (_MOVED, _MOVES):
                raise SourceError(
                    f"a motion adapter goes with Stable Diffusion, and {self.model_name} is "
                    f"{f'a {name}' if name else 'no pipeline of diffusers'}"
                )
            name = _MOVES
        self.check_channels(find_family(self.model_name, name, CLIP_FAMILIES, UNUSABLE_CLIPS, _ELSEWHERE))
        return str(name)

    @property
    def family(self) -> ClipFamily:
        """Its family."""
        return CLIP_FAMILIES[self.name]

    @cached_property
    def _empty_autoencoder(self) -> Any:
        """The autoencoder without its weights: of some, only the class knows by how much it shrinks a clip."""
        import torch

        config = dict(self.autoencoder)
        kind = find_class(str(config.get("_class_name")))
        if kind is None:
            raise SourceError(f"{self.model_name} has no autoencoder that diffusers knows: fetch the model again")
        try:
            with torch.device("meta"):
                return kind.from_config(config)
        except Exception as error:  # a config that is cut short raises errors of many kinds
            reason = " ".join(str(error).split())[:200]
            raise SourceError(
                f"{self.model_name}: its autoencoder's config.json makes no {kind.__name__} ({reason}); fetch the "
                "model again"
            ) from error

    def _find_shrinking(self, *names: str) -> int | None:
        """The first of these that the autoencoder, or its config, has."""
        vae = self._empty_autoencoder
        found = (vars(vae).get(name) or vae.config.get(name) for name in names)
        return next((int(one) for one in found if one), None)

    @cached_property
    def scale(self) -> int:
        """Pixels of a frame a number of its latent, along an edge."""
        own = self._find_shrinking("spatial_compression_ratio", "scale_factor_spatial")
        return own or 2 ** (len(self._empty_autoencoder.config["block_out_channels"]) - 1)

    @cached_property
    def pace(self) -> int:
        """Frames a number of the latent, along time: 1 where each frame has a latent of its own."""
        return self._find_shrinking("temporal_compression_ratio", "scale_factor_temporal") or 1

    @cached_property
    def multiple(self) -> int:
        """Width and height in pixels are multiples of this."""
        patch = self.denoiser.get("patch_size") or 1
        return self.scale * int(patch[-1] if isinstance(patch, list) else patch)

    @cached_property
    def own_size(self) -> tuple[int, int]:
        """Width and height in pixels, unless they are chosen."""
        if "sample_width" in self.denoiser:
            return self.denoiser["sample_width"] * self.scale, self.denoiser["sample_height"] * self.scale
        own = self.find_sample_size() or self.family.size
        return own or (int(self.call["width"].default), int(self.call["height"].default))

    @cached_property
    def _longest(self) -> int | None:
        """Frames of the longest clip that the model was made for, where its files say so."""
        named = self.family.longest
        if named is None:
            return None
        config = self.denoiser if self._adapter is None else self._adapter.read_json("config.json") or {}
        found = config.get(named, 32 if self.family.is_strict else None)  # as the constructor has it
        return None if found is None else int(found)

    @cached_property
    def frames(self) -> int:
        """How many frames a clip has, checked: as chosen, or of the numbers that are possible the nearest to 64."""
        longest, chosen = self._longest, self._frames
        if chosen is None:
            wanted = FRAMES if longest is None else min(FRAMES, longest)
            below = 1 + (wanted - 1) // self.pace * self.pace
            above = below + self.pace
            is_free = longest is None or above <= longest
            return above if above - wanted < wanted - below and is_free else below
        if (chosen - 1) % self.pace:
            below = 1 + (chosen - 1) // self.pace * self.pace
            raise UsageError(
                f"--frames {chosen}: a clip by {self.model_name} has one frame more than a multiple of {self.pace}: "
                f"give {below} or {below + self.pace}"
            )
        if self.family.is_strict and longest is not None and chosen > longest:
            raise UsageError(f"--frames {chosen}: {self.model_name} has places for {longest} frames")
        return chosen

    def count_parts(self) -> Mapping[str, int]:
        """How many weights each part has; a motion adapter is copied into the denoiser, and let go of."""
        parts = dict(super().count_parts())
        parts.pop("motion_adapter", None)
        if self._adapter is not None:
            config = self._adapter.read_json("config.json") or {}
            parts["motion_adapter"] = count_weights("diffusers", "MotionAdapter", config)
        return parts

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of a clip's latent: channels, frames, height, width."""
        width, height = self.size
        channels = int(self.autoencoder.get("latent_channels") or self.autoencoder.get("z_dim") or 4)
        return channels, (self.frames - 1) // self.pace + 1, height // self.scale, width // self.scale

    @property
    def takes_one_window(self) -> bool:
        """Whether the denoiser takes the tokens of one window only: CogVideoX does, unless its positions rotate."""
        return "max_text_seq_length" in self.denoiser and not self.denoiser.get("use_rotary_positional_embeddings")
