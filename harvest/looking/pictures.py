"""The pictures of a row: drawn again as the teacher saw them, and those of which a copy is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harvest.asking.pictures import find_picture, list_places
from harvest.chat.prompts import find_drawn
from harvest.rendering import Layout, render
from shared.schema import Row
from shared.shards import Manifest
from shared.stores.mirror import read_stored


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file, a PNG where it was drawn. `differs` where the teacher is known to have seen other bytes."""

    content: bytes
    differs: bool = False


def list_pictures(folder: Path, manifest: Manifest, row: Row) -> Sequence[Picture]:
    """Draw the pages again: the same text and layout give the same picture, and its hash says whether they did.

    Before them stand the row's own pictures, and those that the teacher made, as far as they are kept. Raises DataError
    for a character that no font draws.
    """
    seen = row.answer.image_sha256 or ()
    drawn = find_drawn(manifest.recipe, row.example)
    if drawn is None:
        return _read_kept(folder, seen)
    layout = {key: value for key, value in manifest.recipe["layout"].items() if key not in ("version", "fonts")}
    pages = render(drawn, Layout(**layout))
    own = len(seen) - len(pages) if "pictures" in manifest.recipe and seen else 0
    drawn_as = seen[own:]
    again = [Picture(page.png, bool(seen) and page.sha256 not in drawn_as[n : n + 1]) for n, page in enumerate(pages)]
    return [*_read_kept(folder, seen[:own]), *again]


def _read_kept(folder: Path, hashes: Sequence[str]) -> list[Picture]:
    kept = (_read_picture(folder, digest) for digest in hashes)
    return [Picture(content) for content in kept if content is not None]


def _read_picture(folder: Path, digest: str) -> bytes | None:
    path = find_picture(folder, digest)
    if path.is_file():
        return path.read_bytes()
    stored = (read_stored(place) for place in list_places(folder, digest))
    return next((content for content in stored if content is not None), None)
