"""What the files of a text-to-image pipeline tell before its weights are loaded."""

from functools import cached_property

from harvest.teachers.diffusion.config import DiffusionConfig, DiffusionVector
from harvest.teachers.painting.clips import CLIP_FAMILIES
from harvest.teachers.painting.families import find_family
from harvest.teachers.painting.files import PipelineFiles
from harvest.teachers.painting.pictures import PICTURE_FAMILIES, UNUSABLE_PICTURES, PictureFamily
from shared.errors import UsageError
from shared.frozen_models import FrozenModel

_ELSEWHERE = dict.fromkeys(CLIP_FAMILIES, "makes clips: give --teacher video")


class PictureFiles(PipelineFiles):
    """See PipelineFiles; of a pipeline that paints pictures."""

    noun = "picture"

    def __init__(self, config: DiffusionConfig, model: FrozenModel) -> None:
        super().__init__(config, model)
        self._vector = config.vector

    @cached_property
    def name(self) -> str:
        """The class of the pipeline, checked."""
        name = self.index.get("_class_name")
        family = find_family(self.model_name, name, PICTURE_FAMILIES, UNUSABLE_PICTURES, _ELSEWHERE)
        self.check_channels(family, 4 if family.packed else 1)
        if self._vector is DiffusionVector.ARMADA and family.over is None:
            raise UsageError(
                f"--vector armada paints over a picture, and diffusers has no pipeline that does so with the parts of "
                f"a {name}: give --vector latent, or --vector encoder"
            )
        return str(name)

    @property
    def family(self) -> PictureFamily:
        """Its family."""
        return PICTURE_FAMILIES[self.name]

    @cached_property
    def scale(self) -> int:
        """Pixels of a picture a number of its latent, along an edge."""
        blocks = self.autoencoder.get("block_out_channels") or self.autoencoder["encoder_block_out_channels"]
        return int(2 ** (len(blocks) - 1))

    @cached_property
    def multiple(self) -> int:
        """Width and height in pixels are multiples of this."""
        step = 2 if self.family.packed else int(self.denoiser.get("patch_size") or 1)
        return self.scale * (self.family.step or step)

    @cached_property
    def own_size(self) -> tuple[int, int]:
        """Width and height in pixels, unless they are chosen."""
        edge = self.family.edge
        return self.find_sample_size() or ((edge, edge) if edge else (self.call["height"].default,) * 2)

    def measure_latent(self, width: int, height: int) -> tuple[int, int, int]:
        """The shape of the latent of a picture so large: channels, height, width."""
        return int(self.autoencoder.get("latent_channels", 4)), height // self.scale, width // self.scale
