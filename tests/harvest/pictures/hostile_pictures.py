"""Pictures as they come: each is converted, and said how, or refused by name. Small files, made on the spot."""

import struct
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RED = (200, 30, 20)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture's file."""
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def make_plain(size: tuple[int, int] = (40, 24)) -> Image.Image:
    """A picture whose left upper corner is red, and all else blue."""
    image = Image.new("RGB", size, (10, 20, 220))
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    return image


def make_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is, and holds a few bytes."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 64)))
    parts = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (*chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_turned() -> bytes:
    """A JPEG that a camera took on its side (orientation 6)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(make_plain(), "JPEG", exif=exif.tobytes(), quality=95, subsampling=0)


def make_damaged_exif() -> bytes:
    return save(make_plain(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", quality=95, subsampling=0)


def make_animated(kind: str) -> bytes:
    frames = [make_plain(), Image.new("RGB", (40, 24), "white")]
    return save(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def make_deep(kind: str) -> bytes:
    """Grey of 16 bits, red's share of it 51,200 of 65,535."""
    return save(Image.fromarray(np.full((24, 40), 200 << 8, np.uint16)), kind)


def make_clear() -> Image.Image:
    """Red in the left upper corner, and clear elsewhere."""
    image = Image.new("RGBA", (40, 24), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 20, 12))
    return image


# What is converted: the file, what is said, and the size and the pixel in the left upper corner that a teacher sees.
CONVERTED: Mapping[str, tuple[Callable[[], bytes], str, tuple[int, int], tuple[int, int, int]]] = {
    "plain.png": (lambda: save(make_plain(), "PNG"), "", (40, 24), RED),
    "plain.jpg": (lambda: save(make_plain(), "JPEG", quality=95, subsampling=0), "", (40, 24), RED),
    "grey.png": (lambda: save(Image.new("L", (40, 24), 90), "PNG"), "", (40, 24), (90, 90, 90)),
    "one pixel.png": (lambda: save(Image.new("RGB", (1, 1), RED), "PNG"), "", (1, 1), RED),
    "wrong ending.jpg": (lambda: save(make_plain(), "PNG"), "", (40, 24), RED),
    "no ending": (lambda: save(make_plain(), "PNG"), "", (40, 24), RED),
    "broken exif.jpg": (make_damaged_exif, "", (40, 24), RED),
    "turned.jpg": (make_turned, "EXIF", (24, 40), (10, 20, 220)),
    "animated.gif": (lambda: make_animated("GIF"), "first", (40, 24), RED),
    "animated.webp": (lambda: make_animated("WEBP"), "first", (40, 24), RED),
    "animated.png": (lambda: make_animated("PNG"), "first", (40, 24), RED),
    "pages.tiff": (lambda: make_animated("TIFF"), "first", (40, 24), RED),
    "cmyk.jpg": (lambda: save(Image.new("CMYK", (40, 24), (0, 255, 255, 0)), "JPEG"), "CMYK", (40, 24), (255, 0, 0)),
    "deep.png": (lambda: make_deep("PNG"), "16 bits", (40, 24), (200, 200, 200)),
    "deep.tiff": (lambda: make_deep("TIFF"), "16 bits", (40, 24), (200, 200, 200)),
    "palette.gif": (lambda: save(make_plain().convert("P"), "GIF"), "RGB", (40, 24), (204, 51, 0)),
    "palette with transparency.png": (
        lambda: save(Image.new("P", (40, 24)), "PNG", transparency=0), "white", (40, 24), (255, 255, 255),
    ),
    "clear.png": (lambda: save(make_clear(), "PNG"), "white", (40, 24), RED),
    "grey clear.png": (lambda: save(Image.new("LA", (40, 24), (0, 0)), "PNG"), "white", (40, 24), (255, 255, 255)),
    "one bit.png": (lambda: save(Image.new("1", (40, 24), 1), "PNG"), "RGB", (40, 24), (255, 255, 255)),
    "photo.webp": (lambda: save(make_plain(), "WEBP", lossless=True), "PNG", (40, 24), RED),
    "old.bmp": (lambda: save(make_plain(), "BMP"), "PNG", (40, 24), RED),
}  # fmt: skip

# What is refused: the file, and what is said.
REFUSED: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "empty.png": (lambda: b"", "empty"),
    "text.png": (lambda: b"not a picture", "no picture that can be read"),
    "drawing.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html>404", "web page"),
    "paper.pdf": (lambda: b"%PDF-1.7", "PDF"),
    "script.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that can be read"),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "pointer.png": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "cut.jpg": (lambda: save(make_plain((400, 300)), "JPEG")[:1200], "breaks off"),
    "cut.png": (lambda: save(make_plain((400, 300)), "PNG", compress_level=0)[:9000], "breaks off"),
    "cut in its head.png": (lambda: save(make_plain(), "PNG")[:20], "damaged"),
    "bomb.png": (lambda: make_header(30_000, 30_000), "pixels"),
    "large.png": (lambda: make_header(12_000, 9_000), "12,000 x 9,000"),
    "float.tiff": (lambda: save(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
}


def write_all(folder: Path) -> None:
    """Write each picture into a folder, under its name."""
    files = {name: make for name, (make, *_) in CONVERTED.items()} | {name: make for name, (make, _) in REFUSED.items()}
    for name, make in files.items():
        (folder / name).write_bytes(make())
