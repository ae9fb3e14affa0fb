"""Finds, identifies and loads frozen transformers models; an error says which model failed and why."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.console import say
from shared.errors import SourceError, UsageError
from shared.sources import ResolvedModel, fingerprint_model, hub_errors, resolve_model


class FrozenModel:
    """The model that `source` names, as shared.sources.resolve_model takes it. Found when it is first needed."""

    def __init__(self, source: str, index: str = "config.json") -> None:
        self._source, self._index = source, index

    @cached_property
    def resolved(self) -> ResolvedModel:
        """Where the model lies. Raises SourceError where it cannot be found."""
        return resolve_model(self._source, say, self._index)

    @cached_property
    def fingerprint(self) -> str:
        """The identity of the model, as shared.sources.fingerprint_model makes it. Imports no torch."""
        return fingerprint_model(self.resolved)

    @cached_property
    def width(self) -> int:
        """The dimensions of its vectors by its config, 768 where that names none. Good for estimates."""
        config = self.read_json("config.json") or {}
        parts = [config, config.get("vision_config") or {}, config.get("text_config") or {}]
        named = [part.get(name) for name in ("projection_dim", "hidden_size") for part in parts]
        named += list(config.get("hidden_sizes") or ())[-1:]  # of a network of stages, as ResNet
        return int(next(filter(None, named), 768))

    def read_bytes(self, name: str) -> bytes | None:
        """Read the model's file `name`; None where it has no such file."""
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
        """Read the JSON file `name` of the model; None where there is none. Raises SourceError if it is cut short."""
        content = self.read_bytes(name)
        if content is None:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise SourceError(f"{name} of {self._source} is not JSON ({error}): fetch the model again") from None

    @cached_property
    def folder(self) -> Path:
        """The folder of all its files, for libraries that take no hub id: those of a hub model are downloaded.

        Raises SourceError where that fails.
        """
        place = self.resolved
        if place.kind == "folder":
            return Path(place.location)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(place.location, revision=place.revision))
        except hub_errors() as error:
            reason = str(error).splitlines()[0]
            raise SourceError(f"{self._source} cannot be downloaded: {reason}; what has arrived is kept") from error

    def load(self, loader: Any, **options: Any) -> Any:
        """Load this model with `loader.from_pretrained`. Raises SourceError where that fails."""
        place = self.resolved
        if loader.__name__.startswith("Auto"):  # else transformers would ask at the terminal whether to run its code
            options = {"trust_remote_code": False, **options}
        try:
            with quiet_transformers():
                return loader.from_pretrained(place.location, revision=place.revision, **options)
        except Exception as error:  # a file that was cut short raises errors of many kinds
            reason = " ".join(str(error).split())
            if "trust_remote_code" in reason:
                reason = "it is loaded by Python code of its own, which is not run; take another model"
            raise SourceError(f"{self._source} cannot be loaded with {loader.__name__}: {reason}") from error


def choose_inference_device() -> str:
    """Name the device that a frozen model computes on: the GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str, instead: str) -> None:
    """Raise UsageError where the device `name` cannot be computed on; `instead` says what can be given."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        if reason.startswith("Expected one of"):  # torch lists every backend that anybody ever had
            reason = "there is no such device"
        raise UsageError(f"device {name!r} cannot be used: {reason}; give {instead}") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting that a new head is new, and from drawing bars of its own."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
