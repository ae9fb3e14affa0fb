"""What a machine of a cluster must see as the one does where a comparison was started: its folder, and the shards."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from distill.compare.hosts import Job
from shared.disk import explain_disk_errors, replace_file
from shared.errors import Error, require_extra
from shared.remote_shards import find_address
from shared.shards.manifest import choose_teacher, hash_manifest, load_manifest

SEEN_SECONDS = 10.0  # a file of another machine may be late where a network's file system keeps what it has looked up

_TOKEN = ".seen-"  # begins the name of one, which no other has: what is looked up may be kept

ShardsName = tuple[Path, str | None]  # a folder or an address, and the teacher that is chosen of it


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen from the folder `here`: `tokens`, the text of files, and `shards`, the hashes of manifests."""

    here: str
    tokens: Mapping[Path, str]
    shards: Mapping[ShardsName, str]

    def hide(self) -> None:
        """Remove the tokens."""
        for token in self.tokens:
            with suppress(OSError):
                token.unlink(missing_ok=True)

    def find_missing(self) -> str | None:
        """Say what this machine lacks of it, and what to do; None where a cell can be trained here."""
        try:
            require_extra("distill", "torch", "transformers", "safetensors", "scipy")
        except Error as error:
            return str(error)
        ends = time.monotonic() + SEEN_SECONDS
        for token, text in self.tokens.items():
            while not is_seen(Path(self.here, token), text):
                if time.monotonic() > ends:
                    return (
                        f"it does not see {Path(self.here, token).parent}, or sees another folder under that name. A "
                        "cell is trained into that folder, so it must lie on a disk that all machines share, under one "
                        "path: give such a folder with --out, or leave out --on"
                    )
                time.sleep(0.1)
        for name, digest in self.shards.items():
            if why := explain_difference(self.here, name, digest):
                return (
                    f"it does not see the shards {find_address(name[0]) or name[0]} as they are here ({why}). Put them "
                    "on a disk that all machines share, under one path, or into an object store (s3://...)"
                )
        return None


def is_seen(token: Path, text: str) -> bool:
    """Tell whether a file has that text."""
    try:
        return token.read_text() == text
    except (OSError, ValueError):
        return False


def explain_difference(here: str, name: ShardsName, digest: str) -> str | None:
    """Say how shards differ from those whose manifest has that hash; None where they do not."""
    path, teacher = name
    try:
        found = hash_manifest(load_manifest(choose_teacher(path if find_address(path) else Path(here, path), teacher)))
    except (Error, OSError) as error:
        return str(error)
    return None if found == digest else "others are there"


def list_tokens(folder: Path) -> list[Path]:
    """List the tokens that are in a comparison's folder."""
    return list(folder.glob(f"{_TOKEN}*"))


def show(jobs: Sequence[Job]) -> Sight:
    """Put a token into the folders of the jobs' comparisons, and give what there is to be seen."""
    tokens = {job.folder / f"{_TOKEN}{uuid4().hex}": uuid4().hex for job in {job.folder: job for job in jobs}.values()}
    names = dict.fromkeys(name for job in jobs for name in job.cell.shards)
    sight = Sight(os.getcwd(), tokens, {name: hash_manifest(load_manifest(choose_teacher(*name))) for name in names})
    try:
        for token, text in tokens.items():
            with explain_disk_errors(token.parent):
                replace_file(token, text.encode())
    except BaseException:
        sight.hide()
        raise
    return sight
