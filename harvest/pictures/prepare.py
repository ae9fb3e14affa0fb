"""Pictures as any teacher takes them: one upright frame, RGB or grey, 8 bits a channel, in a PNG or JPEG file.

A file that is so already is sent as it is. Any other is decoded and written anew, from JPEG as JPEG and else as PNG:
the first frame of an animated one, turned as its EXIF says, CMYK and palettes as RGB, 16 bits as 8, and what is
transparent on white. All pixels are decoded either way: what breaks off is found before anything is asked.
"""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING

from harvest.pictures.look import find_turn, name_picture, open_picture, read_picture
from shared.errors import DataError
from shared.example import RowPicture

if TYPE_CHECKING:
    from PIL.Image import Image

PREPARING = 1  # part of recipes; it counts the ways in which pictures are converted
_PLAIN = {"PNG": ("RGB", "L"), "JPEG": ("RGB", "L")}
_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_QUALITY = 95  # of a JPEG that is written anew


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a teacher is shown it: a PNG or JPEG file, its width and height in pixels.

    `sha256` and `original` are of the file as the user has it, and `changes` say what was done to it, if anything was.
    """

    sha256: str
    content: bytes
    width: int
    height: int
    original: bytes
    changes: tuple[str, ...] = ()


def prepare(picture: RowPicture, longest_side: int | None = None) -> Shown:
    """Decode a picture, and convert it where it is not what any teacher takes, or its side is longer than that.

    Raises DataError, naming it, where it is damaged or cannot be converted.
    """
    original, name = read_picture(picture), name_picture(picture)
    image = open_picture(BytesIO(original), name)
    kind = str(image.format)
    try:
        changes = list(_list_changes(image, longest_side))
        image.load()
        if not changes:
            return Shown(sha256(original).hexdigest(), original, *image.size, original)
        image = _flatten(_turn(image), name)
        if (size := fit_size(*image.size, longest_side)) != image.size:
            image = image.resize(size, resample=3)  # bicubic
        image.info.clear()  # a colour profile, of CMYK say, that would be written with it
        content = BytesIO()
        if kind in ("JPEG", "MPO"):
            image.save(content, "JPEG", quality=_QUALITY, subsampling=0)
        else:
            image.save(content, "PNG", compress_level=1)
    except DataError:
        raise
    except Exception as error:  # damaged pixels raise errors of many kinds
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"the picture {name} is damaged or breaks off: {reason}") from None
    return Shown(sha256(original).hexdigest(), content.getvalue(), *image.size, original, tuple(changes))


def fit_size(width: int, height: int, longest_side: int | None) -> tuple[int, int]:
    """Width and height, scaled down where one is larger than `longest_side`."""
    if longest_side is None or max(width, height) <= longest_side:
        return width, height
    scale = longest_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def open_rgb(content: bytes) -> "Image":
    """The picture of a prepared file, RGB."""
    from PIL import Image

    return Image.open(BytesIO(content)).convert("RGB")


def _list_changes(image: "Image", longest_side: int | None) -> list[str]:
    """What is to be done to a picture that was opened, and not decoded yet."""
    changes = []
    if getattr(image, "is_animated", False):
        changes.append("of several frames, the first is shown")
    if find_turn(image) != 1:
        changes.append("turned as its EXIF says")
    if image.mode in _ALPHA or "transparency" in image.info:
        changes.append("what is transparent is shown on white")
    if image.mode.startswith("I") or _is_deep(image):
        changes.append("16 bits a channel are shown as 8")
    elif image.mode not in ("RGB", "L", *_ALPHA):
        changes.append(f"{image.mode} is shown as RGB")
    if longest_side is not None and max(image.size) > longest_side:
        changes.append(f"made smaller, to {longest_side} pixels")
    if image.mode not in _PLAIN.get(str(image.format), ()) and not changes:
        changes.append(f"{image.format} is sent as PNG")
    return changes


def _is_deep(image: "Image") -> bool:
    """Whether a PNG file has 16 bits a channel, of which Pillow reads the upper 8."""
    tile = getattr(image, "tile", None)
    return bool(image.format == "PNG" and tile and "16" in str(tile[0][3]))


def _turn(image: "Image") -> "Image":
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if find_turn(image) != 1 else image


def _flatten(image: "Image", name: str) -> "Image":
    """RGB, or grey, with nothing transparent."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _narrow(image, name)
    if image.mode == "F":
        raise DataError(f"the picture {name} holds floating-point numbers, and nothing says which is white")
    if image.mode in _ALPHA or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _narrow(image: "Image", name: str) -> "Image":
    """The upper 8 of 16 bits: Pillow's own conversion would make white of all above 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"the picture {name} holds numbers beyond 16 bits, and nothing says which is white")
    return Image.fromarray((values >> 8).astype(np.uint8))
