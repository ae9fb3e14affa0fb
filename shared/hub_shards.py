"""Finds a harvest on the Hugging Face hub, and fetches it to the hub's cache: hf://datasets/org/name[@rev][/teacher=x].

What is fetched is read where it lies, through the links of that cache; nothing is ever written to it.
"""

import re
from functools import cache
from pathlib import Path

from shared.errors import SourceError
from shared.hub_files import list_hub_files
from shared.sources import find_data_files, hub_endpoint, resolve_file

_ADDRESS = re.compile(r"hf:/{1,2}(?P<rest>datasets/.+)")  # a Path has made one slash of two


def find_hub_address(path: Path | str) -> str | None:
    """The hub's address that `path` spells, with both of its slashes; None of a path of this disk."""
    match = _ADDRESS.fullmatch(str(path))
    return f"hf://{match['rest'].rstrip('/')}" if match else None


def fetch_hub_shards(path: Path | str) -> Path:
    """Fetch the harvest at a hub's address to its cache and return the folder there; a path of this disk as it is.

    A process fetches an address once: what it reads stays that of one commit. Where HARVEST_DISTILL_HUB names a mirror,
    the folder is the mirror's; where the hub is out of reach, what the cache has. Raises SourceError where nothing is
    found, and where it is no harvest.
    """
    address = find_hub_address(path)
    if address is None:
        return Path(path)
    place = resolve_file(address)
    return place if isinstance(place, Path) else _fetch(address, hub_endpoint())


@cache
def _fetch(address: str, endpoint: str) -> Path:
    """Fetch the shards and manifests at `address`. `endpoint` is the hub's, for which the answer holds."""
    listed = list_hub_files(address)
    start = f"{listed.path}/" if listed.path else ""
    manifest = re.compile(re.escape(start) + r"(?P<teacher>(teacher=[^/]+/)?)manifest\.json")
    teachers = [match["teacher"] for name in listed.files if (match := manifest.fullmatch(name))]
    if not teachers:
        raise SourceError(
            f"{address} is no harvest: a harvest has teacher=<name>/manifest.json, as `harvest push` writes it, and "
            f"this has {', '.join(listed.files[:4]) or 'no file'}{', ...' if len(listed.files) > 4 else ''}. Texts to "
            f"ask a teacher about are given to harvest run --task {address}"
        )
    wanted = {f"manifest of {teacher}": f"{listed.root}/{start}{teacher}manifest.json" for teacher in teachers}
    for teacher in teachers:
        if any(re.fullmatch(re.escape(start + teacher) + r"split=[^/]+/[^/]+\.parquet", name) for name in listed.files):
            wanted[f"shards of {teacher}"] = f"{listed.root}/{start}{teacher}split=*/*.parquet"
    found = find_data_files(wanted)[f"manifest of {teachers[0]}"][0].parent
    return found.parent if teachers[0] else found
