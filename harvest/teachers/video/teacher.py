"""Makes clips of texts, and of each clip a vector."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from harvest.teachers.painting.teacher import PaintingTeacher, Vector
from harvest.teachers.video.config import EDGE, VideoConfig, VideoVector
from harvest.teachers.video.files import ClipFiles
from harvest.teachers.video.painter import SCHEDULER, Clip, ClipPainter
from shared.errors import require_extra
from shared.frozen_models import FrozenModel
from shared.tasks import Task

WEBP_BYTES = 0.1  # a pixel of a frame, about: for estimates


class VideoTeacher(PaintingTeacher[Clip]):
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    # To write a clip as a file takes seconds, which a run that keeps none is spared.
    kind, always_hashed = "video", False

    def __init__(self, config: VideoConfig, task: Task, name: str) -> None:
        require_extra("diffusion", "torch", "transformers", "diffusers")
        model = FrozenModel(config.model, "model_index.json")
        self._adapter = FrozenModel(config.motion_adapter) if config.motion_adapter else None
        self._config, self._files = config, ClipFiles(config, model, self._adapter)
        super().__init__(config, model, self._files, name)

    def _load(self) -> ClipPainter:
        return ClipPainter(self._config, self._model, self._adapter, self._files)

    def _describe_parts(self) -> Mapping[str, Any]:
        frames = {"frames": self._files.frames}
        if self._adapter is None:
            return frames
        return {**frames, "motion_adapter": self._adapter.fingerprint, "scheduler": {"class": "DDIM", **SCHEDULER}}

    def _describe_vector(self) -> Mapping[str, Any]:
        kind = {"kind": str(self._config.vector)}
        match self._config.vector:
            case VideoVector.FIRST_FRAME:
                return {**kind, "shape": [EDGE, EDGE], "values": "grey, from -1 to 1"}
            case VideoVector.ENCODER:
                return {**kind, "pooled": "mean over frames"}
        return {**kind, "shape": list(self._shape)}

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of the vector that is made of the latent."""
        channels, frames, height, width = self._files.shape
        if self._config.vector is VideoVector.LATENT:
            return channels, frames, height, width
        return channels, height, width

    def _measure_row(self) -> tuple[int, float]:
        numbers = EDGE * EDGE if self._config.vector is VideoVector.FIRST_FRAME else prod(self._shape)
        return numbers, WEBP_BYTES * prod(self._files.size) * self._files.frames

    def _make_vectors(self, paintings: Sequence[Clip]) -> Sequence[Vector]:
        match self._config.vector:
            case VideoVector.FIRST_FRAME:
                return [clip.first.reshape(-1) for clip in paintings]
            case VideoVector.LATENT:
                return [clip.latent.reshape(-1) for clip in paintings]
            case VideoVector.LATENT_MEAN:
                return [clip.latent.mean(axis=1).reshape(-1) for clip in paintings]
        assert self._encoder is not None
        return [self._encoder.encode(list(clip.pixels)).mean(axis=0) for clip in paintings]
