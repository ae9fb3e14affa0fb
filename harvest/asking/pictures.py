"""Pictures that a teacher made, kept beside the shards: teacher=<name>/images/<first two digits>/<sha256>.png."""

from collections.abc import Mapping
from pathlib import Path

from shared.disk import explain_disk_errors, make_folder, replace_file


def find_picture(folder: Path, sha256: str) -> Path:
    """Where a teacher folder keeps the picture of that hash, if it does."""
    return folder / "images" / sha256[:2] / f"{sha256}.png"


def keep_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write PNG files, by their sha256, into a teacher folder; when this returns, they survive a power loss."""
    with explain_disk_errors(folder):
        for sha256, png in pictures.items():
            path = find_picture(folder, sha256)
            if not path.exists():
                make_folder(path.parent)
                replace_file(path, png)
