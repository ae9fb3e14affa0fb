"""The pictures of a row: drawn again as the teacher saw them, or those that it made and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harvest.asking.pictures import find_picture
from harvest.chat.prompts import find_drawn
from harvest.rendering import Layout, render
from shared.schema import Row
from shared.shards import Manifest


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file. `differs` where the teacher is known to have seen other bytes."""

    png: bytes
    differs: bool = False


def list_pictures(folder: Path, manifest: Manifest, row: Row) -> Sequence[Picture]:
    """Draw the pages again: the same text and layout give the same picture, and its hash says whether they did.

    Of a teacher that was shown none, read the pictures that it made, as far as they are kept. Raises DataError for a
    character that no font draws.
    """
    seen = row.answer.image_sha256 or ()
    drawn = find_drawn(manifest.recipe, row.example)
    if drawn is None:
        kept = (find_picture(folder, digest) for digest in seen)
        return [Picture(path.read_bytes()) for path in kept if path.is_file()]
    layout = {key: value for key, value in manifest.recipe["layout"].items() if key not in ("version", "fonts")}
    pages = render(drawn, Layout(**layout))
    return [Picture(page.png, bool(seen) and page.sha256 not in seen[n : n + 1]) for n, page in enumerate(pages)]
