"""Addresses of folders in object stores, as a user writes them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.errors import UsageError

SCHEMES = ("s3", "gs", "az")
_WRITTEN = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):/+(?P<rest>.*)", re.DOTALL)  # a Path has made one slash of two
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A place in an object store. `bucket` is Azure's container; `path` has no slash at its ends, and may be empty."""

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        """Spell it as a user writes it."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")

    def __truediv__(self, name: str) -> Self:
        """Name a file or folder below it."""
        return type(self)(self.scheme, self.bucket, f"{self.path}/{name}" if self.path else name)

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.path.rpartition("/")[2] or self.bucket

    @property
    def parent(self) -> Self:
        """The folder that it lies in."""
        return type(self)(self.scheme, self.bucket, self.path.rpartition("/")[0])


def find_store_address(path: Path | str) -> StoreAddress | None:
    """Read an object store's address; None of a path of this disk, and of what is an address elsewhere.

    Raises UsageError for one that cannot be, and for one that holds a secret; the message is without it.
    """
    match = _WRITTEN.fullmatch(str(path))
    if match is None:
        return None
    scheme, rest = match["scheme"], match["rest"]
    if "@" in rest or "?" in rest:
        raise UsageError(
            f"an address of {scheme}:// is {scheme}://bucket/folder and nothing more: keys and tokens are read from "
            "the environment"
        )
    bucket, *parts = [part for part in rest.split("/") if part] or [""]
    if not _BUCKET.fullmatch(bucket) or {".", ".."} & {*parts} or not "".join(parts).isprintable():
        raise UsageError(f"{scheme}://{rest} is no address of a folder: it is written {scheme}://bucket/folder")
    return StoreAddress(scheme, bucket, "/".join(parts))
