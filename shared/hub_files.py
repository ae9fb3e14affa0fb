"""Lists the files of a data set of the Hugging Face hub before any of them is downloaded."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from shared.errors import SourceError, require_extra
from shared.sources import WITHOUT_HUB, check_hub, hub_endpoint, hub_errors

HUB_FOLDER = re.compile(
    r"(?P<root>hf://datasets/(?P<id>[^/@]+/(?P<name>[^/@]+))(@(?P<revision>[^/]+))?)(/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A place in a data set: `root` is the address of its repository, `path` what follows, `files` all of its files."""

    root: str
    path: str
    files: tuple[str, ...]


def list_hub_files(address: str) -> HubFolder:
    """List the files of hf://datasets/org/name[@revision][/path], whatever the path.

    Where the hub is out of reach they are those in its cache. Raises SourceError, saying what is missing.
    """
    match = HUB_FOLDER.fullmatch(address)
    if match is None:
        raise SourceError(f"{address} is not of the form hf://datasets/org/name or hf://datasets/org/name/path")
    require_extra("distill", "huggingface_hub")
    repo, revision = match["id"], unquote(match["revision"] or "") or None
    reason = check_hub()
    names = _list_cached(address, repo, revision, reason) if reason else _ask_hub(address, repo, revision)
    return HubFolder(match["root"], (match["path"] or "").strip("/"), tuple(sorted(names)))


def _ask_hub(address: str, repo: str, revision: str | None) -> list[str]:
    from huggingface_hub import HfApi

    try:
        found = HfApi(endpoint=hub_endpoint()).dataset_info(repo, revision=revision, timeout=10)
    except hub_errors() as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise SourceError(
            f"{address}: the hub gives no such data set: {reason}. Check the spelling; a private or gated one needs "
            "HF_TOKEN"
        ) from None
    return [file.rfilename for file in found.siblings or ()]


def _list_cached(address: str, repo: str, revision: str | None, reason: str) -> list[str]:
    from huggingface_hub import snapshot_download

    try:
        # Without patterns a snapshot of which a part was downloaded is refused.
        folder = snapshot_download(
            repo, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[]
        )
    except hub_errors():
        folder = ""
    names = (
        [file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()] if folder else []
    )
    if not names:
        at = f" --revision {revision}" if revision else ""
        raise SourceError(
            f"{address} is not in the local Hugging Face cache, and the hub is out of reach: {reason}. Where there is "
            f"a network, run: hf download --repo-type dataset {repo}{at}. {WITHOUT_HUB}"
        )
    return names
