"""Pictures that a teacher made or was shown, kept beside the shards: images/<first two digits>/<sha256>.<ending>."""

from collections.abc import Mapping
from pathlib import Path

from shared.disk import explain_disk_errors, make_folder, replace_file

PNG, WEBP = ".png", ".webp"
_SIGNS = {b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tiff", b"MM\0*": ".tiff"}
_SUFFIXES = tuple(dict.fromkeys((PNG, WEBP, *_SIGNS.values())))


def find_picture(folder: Path, sha256: str) -> Path:
    """Where a teacher folder keeps the picture of that hash, if it does.

    Each ending is tried: to list the folder would take the longer the more pictures there are.
    """
    places = list_places(folder, sha256)
    return next((place for place in places if place.exists()), places[0])


def list_places(folder: Path, sha256: str) -> list[Path]:
    """Where the picture of that hash may be, by the ending of its name."""
    return [folder / "images" / sha256[:2] / f"{sha256}{suffix}" for suffix in _SUFFIXES]


def keep_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write the files of pictures, by their sha256, into a teacher folder; when this returns, they survive a power
    loss.
    """
    with explain_disk_errors(folder):
        for sha256, content in pictures.items():
            path = find_picture(folder, sha256)
            if not path.exists():
                make_folder(path.parent)
                replace_file(path.with_suffix(find_suffix(content)), content)


def find_suffix(content: bytes) -> str:
    """The ending of a picture's name, by how its file begins."""
    if content[8:12] == b"WEBP":
        return WEBP
    return next((suffix for sign, suffix in _SIGNS.items() if content.startswith(sign)), PNG)
