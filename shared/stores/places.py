"""Where the mirrors of object stores lie on this disk, and how messages name them: by their addresses."""

import os
from pathlib import Path

from shared.sources import cache_folder
from shared.stores.address import SCHEMES, StoreAddress


def readers_place() -> Path:
    """Name the folder below which readers' mirrors lie, stores/ of the cache folder: it may be emptied at any time."""
    return cache_folder() / "stores"


def writers_place() -> Path:
    """Name the folder below which writers' mirrors lie: what is in them and not uploaded yet is nowhere else.

    It is harvest-distill/stores in $XDG_STATE_HOME, or else in ~/.local/state.
    """
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "harvest-distill" / "stores"


def place_mirror(place: Path, address: StoreAddress) -> Path:
    """Name the mirror of an address below a place."""
    return place / address.scheme / address.bucket / address.path


def find_written_address(folder: Path) -> StoreAddress | None:
    """Find the address that a writers' mirror stands for; None of any other folder."""
    place = writers_place()
    if not folder.is_relative_to(place):
        return None
    scheme, bucket, *parts = folder.relative_to(place).parts
    return StoreAddress(scheme, bucket, "/".join(parts))


def spell_mirrors(text: str) -> str:
    """Put the addresses in place of the readers' mirrors that a text names."""
    place = str(readers_place())
    if place in text:
        for scheme in SCHEMES:
            text = text.replace(f"{place}/{scheme}/", f"{scheme}://")
    return text
