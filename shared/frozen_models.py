"""Frozen transformers models: found, identified and loaded, with errors that say which one and why."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.console import say
from shared.errors import SourceError
from shared.sources import ResolvedModel, fingerprint_model, resolve_model


class FrozenModel:
    """A model that `source` names (see shared.sources.resolve_model). Nothing is looked for before it is needed."""

    def __init__(self, source: str, index: str = "config.json") -> None:
        self._source, self._index = source, index

    @cached_property
    def resolved(self) -> ResolvedModel:
        """Where it lies. Raises SourceError."""
        return resolve_model(self._source, say, self._index)

    @cached_property
    def fingerprint(self) -> str:
        """What identifies its weights: see shared.sources.fingerprint_model. Imports no torch."""
        return fingerprint_model(self.resolved)

    @cached_property
    def width(self) -> int:
        """Dimensions of its vectors as its config says, 768 where it does not: for estimates."""
        config = self.read_json("config.json") or {}
        parts = [config, config.get("vision_config") or {}, config.get("text_config") or {}]
        named = [part.get(name) for name in ("projection_dim", "hidden_size") for part in parts]
        return int(next(filter(None, named), 768))

    def read_bytes(self, name: str) -> bytes | None:
        """The content of the model's file `name`, None where it has no such file."""
        path = Path(self.resolved.location, name)
        if self.resolved.kind == "hub":
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

            try:
                path = Path(hf_hub_download(self.resolved.location, name, revision=self.resolved.revision))
            except EntryNotFoundError:
                return None
        return path.read_bytes() if path.is_file() else None

    def read_json(self, name: str) -> Any:
        """The JSON in the model's file `name`, None where there is none. Raises SourceError for one that is cut."""
        content = self.read_bytes(name)
        if content is None:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise SourceError(f"{name} of {self._source} is not JSON ({error}): fetch the model again") from None

    def load(self, loader: Any, **options: Any) -> Any:
        """`loader.from_pretrained` of this model. Raises SourceError."""
        place = self.resolved
        try:
            return loader.from_pretrained(place.location, revision=place.revision, **options)
        except Exception as error:  # its readers raise errors of many kinds at a file that was cut short
            reason = " ".join(str(error).split())
            raise SourceError(f"{self._source} cannot be loaded with {loader.__name__}: {reason}") from error


def choose_inference_device() -> str:
    """Name the device that a frozen model computes on: the GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
