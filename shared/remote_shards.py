"""Harvests that lie elsewhere: on the Hugging Face hub (hf://datasets/org/name), in an object store (s3://bucket/folder).

Each is brought to a folder of this disk, which is read as any other. Nothing that reads shards knows more of it.
"""

from pathlib import Path

from shared.errors import UsageError
from shared.hub_shards import fetch_hub_shards, find_hub_address
from shared.stores.address import find_store_address
from shared.stores.mirror import mirror_for_reading


def find_address(path: Path | str) -> str | None:
    """The address elsewhere that `path` spells, with both of its slashes; None of a path of this disk."""
    address = find_hub_address(path) or find_store_address(path)
    return None if address is None else str(address)


def fetch_shards(path: Path | str) -> Path:
    """Bring a harvest that lies elsewhere here and return its folder; a path of this disk as it is.

    What is on the hub is fetched to its cache; of an object store the manifests are copied, and shards are read where
    they are. Raises SourceError or StoreError where it cannot be, and ShardError where there is no harvest.
    """
    address = find_store_address(path)
    return fetch_hub_shards(path) if address is None else mirror_for_reading(address)


def refuse_stored(path: Path | str, command: str) -> None:
    """Raise UsageError for an address of an object store, of which a command, or its option, makes nothing."""
    address = find_store_address(path)
    if address is not None:
        raise UsageError(
            f"{command} takes a folder of this disk, and not {address}: the store's own tool (aws s3 cp "
            "--recursive) copies one to the other, and a copy is a folder as any other"
        )
