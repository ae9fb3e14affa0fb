"""Makes repositories on the Hugging Face hub and commits files to them. shared.sources reads from the hub."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import file_digest, sha1, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shared.console import say
from shared.errors import Error, UsageError, require_extra
from shared.sources import hub_endpoint, hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads them
_COMMIT_FILES = 200  # the hub advises against many more in one commit
_REASONS = {
    401: "the token in HF_TOKEN is none that it knows",
    403: "the token in HF_TOKEN may not write there",
    409: "somebody else changed it meanwhile",
    412: "somebody else changed it meanwhile",
}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: `digest` is the sha256 of a large one, and of a small one what git calls it by."""

    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as its newest commit has it. `id` is owner/name, `address` where a browser finds it."""

    id: str
    kind: Kind
    address: str
    private: bool
    commit: str
    files: Mapping[str, HubFile]


def check_repository_name(name: str) -> None:
    """Raise UsageError, sending nothing, unless the hub can be written to and allows the name.

    The token is taken from the environment only, and never shown.
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
    _connect()


def open_repository(name: str, kind: Kind, *, public: bool) -> Repository:
    """Make the repository `name` where it is not there, private unless `public`, and look at what it holds.

    Raises UsageError as check_repository_name does, and where it is there and public though `public` is false: what is
    sent there anybody can read. Raises Error where the hub refuses.
    """
    check_repository_name(name)
    from huggingface_hub.hf_api import RepoFile

    api = _connect()
    with _sending(name):
        made = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
        info = api.repo_info(made.repo_id, repo_type=kind)
        tree = list(api.list_repo_tree(made.repo_id, recursive=True, revision=info.sha, repo_type=kind))
    if not info.private and not public:
        raise UsageError(
            f"{made} is there already and public: anybody can read what is sent to it. Say so with --public, or name "
            "another repository; nothing was sent"
        )
    if info.private and public:
        say(f"{made} is there already and private, and stays so: its settings on the hub make it public")
    files = {
        file.path: HubFile(file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in tree
        if isinstance(file, RepoFile)
    }
    return Repository(made.repo_id, kind, str(made), bool(info.private), str(info.sha), files)


def find_changed(repository: Repository, files: Mapping[str, Path | bytes]) -> list[str]:
    """List those of `files`, by their paths in the repository, that are not there byte for byte."""
    return [name for name, content in files.items() if not _is_there(repository.files.get(name), content)]


def download_file(repository: Repository, name: str) -> Path:
    """Download a file of the repository's newest commit to the hub's cache. Raises Error where the hub refuses."""
    with _sending(repository.id):
        return Path(
            _connect().hf_hub_download(repository.id, name, repo_type=repository.kind, revision=repository.commit)
        )


def commit_files(
    repository: Repository, files: Mapping[str, Path | bytes], removed: Collection[str], message: str
) -> Repository:
    """Commit files and removals to a repository, unless somebody else has changed it; return what it is then.

    Files that are there byte for byte are not sent, and where all are, nothing is. All is one commit, so that no
    reader finds half of it; of very many files those that are new to the repository come first, in commits of their
    own. What was uploaded before a break is not uploaded again. Raises Error where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    changed = find_changed(repository, files)
    new = [name for name in changed if name not in repository.files]
    early = new[: (len(new) - 1) // _COMMIT_FILES * _COMMIT_FILES] if len(changed) > _COMMIT_FILES else []
    batches = [early[start : start + _COMMIT_FILES] for start in range(0, len(early), _COMMIT_FILES)]
    api, commit = _connect(), repository.commit
    for number, names in enumerate([*batches, [name for name in changed if name not in set(early)]]):
        last = number == len(batches)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, files[name]) for name in names
        ]
        operations += [CommitOperationDelete(name) for name in removed if last]
        if not operations:
            continue
        with _sending(repository.id):
            made = api.create_commit(
                repository.id,
                operations,
                commit_message=message,
                repo_type=repository.kind,
                parent_commit=commit,
            )
        commit = str(made.oid)
    return replace(repository, commit=commit)


def _is_there(kept: HubFile | None, content: Path | bytes) -> bool:
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    if kept is None or kept.bytes != size:
        return False
    if len(kept.digest) == 64:
        if isinstance(content, bytes):
            return sha256(content).hexdigest() == kept.digest
        with content.open("rb") as file:
            return file_digest(file, "sha256").hexdigest() == kept.digest
    whole = content.read_bytes() if isinstance(content, Path) else content
    return sha1(b"blob %d\0%s" % (size, whole)).hexdigest() == kept.digest


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
        cause = error.__cause__ or error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        known = f": {_REASONS[status]}" if status in _REASONS else ""
        raise Error(
            f"{hub_endpoint()} did not take {repository}{known} ({reason.rstrip('.')}). Nothing here was changed; when "
            "the cause is mended, the same command goes on from there"
        ) from None
