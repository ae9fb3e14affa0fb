"""Requests to an object store, and what their failures mean to the person at the keyboard.

The library is obstore: credentials, region and endpoint are those that it finds in the environment (AWS_...,
GOOGLE_..., AZURE_...). It tries again after server errors, dropped connections and timeouts.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from shared.errors import StoreError, require_extra
from shared.stores.address import StoreAddress

T = TypeVar("T")

EXTRA = "stores"
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with AWS_REGION (AWS_ENDPOINT_URL for a store that is not "
    "Amazon's; AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key's file",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_METADATA_SERVER = "169.254.169.254"  # asked for credentials where the environment has none
_DELETED_AT_ONCE = 1000
_opened: "dict[tuple[str, str, str | None], Bucket]" = {}  # by scheme, bucket and endpoint
_LIST_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of an object it is: what a conditional write is held against."""

    etag: str | None
    number: str | None = None

    def as_mode(self) -> dict[str, str]:
        """Spell it as obstore takes it."""
        return {key: value for key, value in (("e_tag", self.etag), ("version", self.number)) if value is not None}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a store: the key below its bucket, its size in bytes and its version."""

    key: str
    size: int
    version: Version
    modified: datetime


class ConflictError(Exception):
    """The object is not of the version that a conditional write was held against."""


class Bucket:
    """A bucket that answered. Keys are full paths below it. Every method raises StoreError where the store fails."""

    def __init__(self, address: StoreAddress, store: Any) -> None:
        self._address = address
        self._store = store

    def list_files(self, folder: str) -> list[StoredObject]:
        """List all objects below a folder: one request a thousand of them."""
        import obstore

        with explain_store_errors(self._address):
            found = _try_again(lambda: obstore.list(self._store, folder or None).collect())
        return [_describe(meta) for meta in found]

    def list_folder(self, folder: str) -> tuple[list[str], list[StoredObject]]:
        """List the keys of the folders right below a folder, and the objects there."""
        import obstore

        with explain_store_errors(self._address):
            found = _try_again(lambda: obstore.list_with_delimiter(self._store, folder or None))
        return [str(prefix) for prefix in found["common_prefixes"]], [_describe(meta) for meta in found["objects"]]

    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        """Read a whole object; None where there is none."""
        import obstore

        with explain_store_errors(self._address):
            try:
                found = obstore.get(self._store, key)
                return bytes(found.bytes()), _describe(found.meta)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """Read the bytes from `start` up to `end`."""
        import obstore

        with explain_store_errors(self._address):
            content = bytes(obstore.get_range(self._store, key, start=start, end=end))
        if len(content) != end - start:
            raise StoreError(f"{self._spell(key)} has no bytes {start} to {end}: it gave {len(content)} of them")
        return content

    def stream(self, key: str) -> Iterator[bytes]:
        """Read an object in pieces of a few megabytes."""
        import obstore

        with explain_store_errors(self._address):
            for piece in obstore.get(self._store, key).stream(min_chunk_size=4 << 20):
                yield bytes(piece)

    def write(self, key: str, content: bytes, over: Version | Literal["nothing", "anything"]) -> Version:
        """Write an object where it is of the version `over`, or there is none, or whatever is there.

        Raises ConflictError where it is not.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = {"nothing": "create", "anything": "overwrite"}[over] if isinstance(over, str) else over.as_mode()
        with explain_store_errors(self._address):
            try:
                written = obstore.put(self._store, key, content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                raise ConflictError(self._spell(key)) from error
        return Version(written["e_tag"], written["version"])

    def upload(self, key: str, path: Path) -> None:
        """Write a file, whatever is there: in parts where it is large, and whole or not at all."""
        import obstore

        with explain_store_errors(self._address):
            obstore.put(self._store, key, path)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; what is not there is no error."""
        import obstore

        with explain_store_errors(self._address):
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                try:
                    obstore.delete(self._store, list(keys[first : first + _DELETED_AT_ONCE]))
                except FileNotFoundError:
                    continue

    def _spell(self, key: str) -> StoreAddress:
        return StoreAddress(self._address.scheme, self._address.bucket, key)


def open_bucket(address: StoreAddress) -> Bucket:
    """Connect to the bucket of an address. Raises StoreError within seconds where it cannot be used.

    A process finds out once whether it can.
    """
    place = (address.scheme, address.bucket, find_endpoint(address))
    if place not in _opened:
        _opened[place] = _open(address)
    return _opened[place]


def find_endpoint(address: StoreAddress) -> str | None:
    """The endpoint that the environment names for a store; None where it is that of the scheme's owner."""
    return next((value for name in _ENDPOINTS[address.scheme] if (value := os.environ.get(name))), None)


def _open(address: StoreAddress) -> Bucket:
    """Ask for a list of what is at the address: more than that nobody may be allowed to."""
    require_extra(EXTRA, "obstore")
    import obstore

    bucket = StoreAddress(address.scheme, address.bucket, "")
    with explain_store_errors(bucket):
        store = _connect(bucket, seconds=10, retries=1)
        next(iter(obstore.list(store, address.path or None, chunk_size=1)), None)
        return Bucket(bucket, _connect(bucket, seconds=120, retries=6))


def _connect(address: StoreAddress, seconds: int, retries: int) -> Any:
    from obstore.store import from_url

    return from_url(
        str(address),
        # Plain HTTP is spoken where the environment names such an endpoint, and nowhere else.
        client_options={"allow_http": True, "timeout": f"{seconds}s", "connect_timeout": "5s"},
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=seconds)},
    )


def _try_again(ask: Callable[[], T]) -> T:
    """Ask for a list, again where its body broke off: obstore does so itself for every other read."""
    for _ in range(_LIST_ATTEMPTS - 1):
        try:
            return ask()
        except Exception as error:
            if "body error" not in str(error):
                raise
    return ask()


def _describe(meta: Any) -> StoredObject:
    return StoredObject(
        meta["path"], meta["size"], Version(meta.get("e_tag"), meta.get("version")), meta["last_modified"]
    )


@contextmanager
def explain_store_errors(address: StoreAddress) -> Iterator[None]:
    """Turn what obstore raises in the block into a StoreError without keys, signatures and answers of the server."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise StoreError(_explain(address, error)) from None


def _explain(address: StoreAddress, error: Exception) -> str:
    # What follows has the request with its query, in which Azure's signatures are.
    text = str(error).partition("\n\nDebug source")[0]
    code, said = (re.search(rf"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message"))
    answer = ": ".join(match[1].splitlines()[0].rstrip(".") for match in (code, said) if match and match[1].strip())
    bucket = StoreAddress(address.scheme, address.bucket, "")
    where = f" at {endpoint}" if (endpoint := find_endpoint(address)) else ""
    if _METADATA_SERVER in text or "Account must be specified" in text:
        return f"{bucket}: the environment has no credentials for it. Set {_CREDENTIALS[address.scheme]}"
    if "NoSuchBucket" in text or "ContainerNotFound" in text or "bucket does not exist" in text:
        return f"there is no bucket {bucket}{where}: check the spelling and the endpoint, or make it"
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or re.search(r"code: 40[13]", text):
        return (
            f"{bucket}{where} refuses these credentials ({answer or 'no reason given'}): check "
            f"{_CREDENTIALS[address.scheme]}, and that they may list, read and write there"
        )
    if "HTTP error" in text:
        return f"{bucket}{where} cannot be reached: check the network and the endpoint, then run the same command again"
    if isinstance(error, FileNotFoundError):
        return f"an object of {address} is not there any more: another run has replaced it, or somebody removed it"
    status = re.search(r"status code: (\d+[^:]*)", text)
    reason = answer or (status[1] if status else re.sub(r"\?\S*", "", text.splitlines()[0])[:200])
    return f"{bucket}{where} failed: {reason}. Run the same command again"
