"""Paints pictures of texts, and makes of each a vector."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from harvest.teachers.diffusion.config import EDGE, STRENGTH, DiffusionConfig, DiffusionVector
from harvest.teachers.diffusion.files import PictureFiles
from harvest.teachers.diffusion.painter import LORA_FILE, Painter, Painting
from harvest.teachers.painting.teacher import PaintingTeacher, Vector
from shared.errors import require_extra
from shared.frozen_models import FrozenModel
from shared.tasks import Task

PNG_BYTES = 1.5  # a pixel, about: for estimates


class DiffusionTeacher(PaintingTeacher[Painting]):
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    kind, always_hashed = "diffusion", True

    def __init__(self, config: DiffusionConfig, task: Task, name: str) -> None:
        require_extra("diffusion", "torch", "transformers", "diffusers", *(["peft"] if config.lora else []))
        model = FrozenModel(config.model, "model_index.json")
        self._config, self._files = config, PictureFiles(config, model)
        self._lora = FrozenModel(config.lora, LORA_FILE) if config.lora else None
        super().__init__(config, model, self._files, name)

    def _load(self) -> Painter:
        return Painter(self._config, self._model, self._lora, self._files)

    def _describe_parts(self) -> Mapping[str, Any]:
        return {"lora": None if self._lora is None else self._lora.fingerprint}

    @property
    def _shape(self) -> tuple[int, int, int]:
        """The shape of the latent that is the vector: channels, height, width."""
        is_armada = self._config.vector is DiffusionVector.ARMADA
        return self._files.measure_latent(*((EDGE, EDGE) if is_armada else self._files.size))

    def _describe_vector(self) -> Mapping[str, Any]:
        kind = str(self._config.vector)
        if self._encoder is not None:
            return {"kind": kind}
        shape = {"shape": list(self._shape)} if self._files.family.names_shape else {}
        if self._config.vector is DiffusionVector.ARMADA:
            return {"kind": kind, "edge": EDGE, "strength": STRENGTH, "steps": self._config.steps, **shape}
        return {"kind": kind, **shape}

    def _measure_row(self) -> tuple[int, float]:
        return prod(self._shape), PNG_BYTES * prod(self._files.size)

    def _make_vectors(self, paintings: Sequence[Painting]) -> Sequence[Vector]:
        if self._encoder is None:
            return [painting.latent.reshape(-1) for painting in paintings]
        return list(self._encoder.encode([painting.pixels for painting in paintings]))
