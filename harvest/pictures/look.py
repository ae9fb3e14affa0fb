"""What is known of a picture before any of its pixels is decoded: the hash of its file's bytes, and its size.

Files are hashed as streams. A look at a file is remembered for as long as the file stays what it was.
"""

import os
import stat
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from harvest.pictures.fetch import fetch_picture, is_web_address, name_address
from shared.errors import DataError
from shared.example import RowPicture
from shared.printable import make_printable

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 64 << 20  # of a picture's file
MOST_PIXELS = 89_478_485  # Pillow's own bound, a quarter of a GiB of RGB: what is larger was made to fill a memory
# What is opened: decoders of pixels only. EPS would start Ghostscript, and WMF draws by the system's own means.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_REMEMBERED = 1 << 17  # looks, about 300 bytes each
# Files that are not pictures of pixels, by how they begin; and what is to be done.
_OTHERS = (
    ((b"<svg", b"<?xml"), "is a drawing of lines (SVG): draw it as PNG first"),
    ((b"<!doctype", b"<html"), "is a web page, and no picture: was the address that of a page?"),
    ((b"%pdf",), "is a PDF: draw its pages as PNG first"),
    ((b"version https://git-lfs",), "is a pointer of Git LFS, and not the file: run git lfs pull"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """A picture's file: the sha256 of its bytes, in hexadecimal, and width and height in pixels as they are shown."""

    sha256: str
    width: int
    height: int


def look(picture: RowPicture) -> Look:
    """Look at a picture. Raises DataError, naming it, where it cannot be shown."""
    found = find_picture_file(picture)
    if isinstance(found, bytes):
        width, height = _read_size(BytesIO(found), name_picture(picture))
        return Look(sha256(found).hexdigest(), width, height)
    try:
        status = os.stat(found)
    except (OSError, ValueError) as error:  # a path with a NUL
        raise _explain(picture, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"the picture {name_picture(picture)} is no file")
    _check_size(status.st_size, name_picture(picture))
    return _look_at_file(found, status.st_mtime_ns, status.st_size, name_picture(picture))


def read_picture(picture: RowPicture) -> bytes:
    """The bytes of a picture's file, which is first looked at. Raises DataError as look does."""
    look(picture)
    found = find_picture_file(picture)
    try:
        return found if isinstance(found, bytes) else found.read_bytes()
    except OSError as error:
        raise _explain(picture, error) from None


def find_picture_file(picture: RowPicture) -> Path | bytes:
    """A picture's file here, or its bytes; one of an address is fetched, once."""
    if picture.problem is not None:
        raise DataError(f"the picture {name_picture(picture)} {picture.problem}")
    if picture.content is not None:
        _check_size(len(picture.content), name_picture(picture))
        return picture.content
    if is_web_address(picture.place):
        return fetch_picture(picture.place)
    if "://" in picture.place:
        raise DataError(f"the picture {name_picture(picture)} is no path and no http(s) address; give one of these")
    return Path(picture.place)


def name_picture(picture: RowPicture) -> str:
    """What a message calls a picture."""
    place = picture.place if picture.place and picture.place != "data:" else "in the data"
    if is_web_address(place):
        place = name_address(place)
    return make_printable(place if len(place) <= 200 else f"...{place[-197:]}")


def open_picture(file: BinaryIO, name: str) -> "Image":
    """Open a picture, decoding nothing yet. Raises DataError that says what the file is instead."""
    from PIL import Image, UnidentifiedImageError

    # Of what is suspicious in a file, which is judged here. For good: a filter for a while is not safe among threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        image = Image.open(file, formats=_list_formats())
    except Image.DecompressionBombError:
        raise DataError(f"the picture {name} has more than {MOST_PIXELS:,} pixels: make it smaller") from None
    except UnidentifiedImageError:
        _refuse(file, name)
    except Exception as error:  # a damaged header raises errors of many kinds
        raise DataError(f"the picture {name} is damaged: {_shorten(error)}") from None
    if image.width * image.height > MOST_PIXELS:
        raise DataError(
            f"the picture {name} has {image.width:,} x {image.height:,} pixels, more than {MOST_PIXELS:,} in all: "
            "make it smaller"
        )
    return image


@lru_cache(_REMEMBERED)
def _look_at_file(path: Path, changed_at: int, size: int, name: str) -> Look:
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            file.seek(0)
            return Look(digest, *_read_size(file, name))
    except OSError as error:
        raise DataError(f"the picture {name} cannot be read: {error.strerror or error}") from None


def _read_size(file: BinaryIO, name: str) -> tuple[int, int]:
    image = open_picture(file, name)
    width, height = image.size
    return (height, width) if find_turn(image) >= 5 else (width, height)


def find_turn(image: "Image") -> int:
    """How a camera says that its picture is to be turned: EXIF's orientation, 1 (upright) to 8; 1 where it is none."""
    try:
        turn = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF that is damaged says nothing
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


@cache
def _list_formats() -> tuple[str, ...]:
    """Those of FORMATS that the installed Pillow knows."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: int, name: str) -> None:
    if not size:
        raise DataError(f"the picture {name} is an empty file")
    if size > MOST_BYTES:
        raise DataError(f"the picture {name} is a file of {size:,} bytes, and may have {MOST_BYTES:,}: make it smaller")


def _refuse(file: BinaryIO, name: str) -> NoReturn:
    file.seek(0)
    start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_xml = start.startswith(b"<?xml") and b"<svg" not in start
    for signs, what in _OTHERS:
        if start.startswith(signs) and not is_xml:
            raise DataError(f"the picture {name} {what}")
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        raise DataError(f"the picture {name} is HEIC, which Pillow does not read: convert it to JPEG or PNG")
    raise DataError(
        f"the picture {name} is no picture that can be read (it begins with {start[:8]!r}); such can: "
        f"{', '.join(FORMATS)}"
    )


def _explain(picture: RowPicture, error: OSError | ValueError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"there is no picture {name_picture(picture)}")
    reason = getattr(error, "strerror", None) or error
    return DataError(f"the picture {name_picture(picture)} cannot be read: {reason}")


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
