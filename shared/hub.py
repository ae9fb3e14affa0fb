"""Makes model repositories on the Hugging Face hub and uploads to them. shared.sources reads from the hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import Error, UsageError, require_extra
from shared.sources import hub_endpoint, hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads them


def make_repository(name: str, private: bool) -> tuple[str, str]:
    """Make the model repository `name`, if it is not there, and return its id (owner/name) and its address.

    The token is taken from the environment only, and never shown. Raises UsageError, before anything is sent, where
    there is no token, where the environment forbids the hub, or where the hub allows no such name. Raises Error where
    the hub refuses.
    """
    require_extra("distill", "huggingface_hub")
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"{name} cannot be the name of a repository on the hub: {error}") from None
    if offline := next((name for name in _OFFLINE if os.environ.get(name, "").upper() in _TRUE), None):
        raise UsageError(f"{offline} is set, so nothing can be sent to the hub: unset it first")
    api = _connect()
    with _sending(name):
        made = api.create_repo(name, private=private, exist_ok=True)
    return made.repo_id, str(made)


def upload_folder(repository: str, folder: Path, message: str) -> None:
    """Upload a folder's files to a repository, as one commit. Raises Error where the hub refuses."""
    api = _connect()
    with _sending(repository):
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)


def _connect() -> "HfApi":
    from huggingface_hub import HfApi

    token = next((os.environ[name] for name in _TOKENS if os.environ.get(name)), None)
    if token is None:
        raise UsageError(
            f"there is no token for {hub_endpoint()}: set HF_TOKEN to one that may write (make one under Settings, "
            "Access Tokens); nothing was sent"
        )
    return HfApi(endpoint=hub_endpoint(), token=token)


@contextmanager
def _sending(repository: str) -> Iterator[None]:
    errors: tuple[type[Exception], ...] = (*hub_errors(), ValueError, RuntimeError)
    try:
        yield
    # huggingface_hub wraps the error of a file that was refused: the cause says why.
    except errors as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise Error(
            f"{hub_endpoint()} did not take {repository}: {reason}. Nothing here was changed; when the cause is "
            "mended, send it again"
        ) from None
