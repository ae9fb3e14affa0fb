"""Reading of drawn lines by PP-OCR's recogniser, a small CRNN-like network with a CTC head that onnxruntime runs.

The renderer knows where its lines are, so no detector is needed: that makes reading about seventy times as fast as
the whole PP-OCR pipeline. The network comes with the package rapidocr (PP-OCRv6 small: Chinese, Japanese and Latin
letters; it has no Cyrillic and no Hangul).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import SourceError, require_extra

_HEIGHT = 48  # pixels: the height of line that the network was trained on
# Lines are made narrower: less work, and no more reading errors (from .7 downwards there are). White to the left and
# right of a line, in line heights, and up to a multiple of _WIDTH_STEP pixels is what keeps its last letter.
_WIDTH_SCALE = 0.85
_MARGIN = 0.15
_WIDTH_STEP = 32
_BATCH_WIDTH = 8192  # pixels of width of one call: bounds memory at about 80 MB of output
_BLANK = 0  # CTC's class for "no character here"


def find_recogniser() -> Path:
    """Path of the ONNX file in the package, which is not imported. Raises MissingExtraError or SourceError."""
    require_extra("vision", "rapidocr", "onnxruntime")
    spec = find_spec("rapidocr")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        paths = sorted(Path(folder, "models").glob("*_rec_*.onnx"))
        if paths:
            return paths[-1]
    raise SourceError("the package rapidocr carries no models/*_rec_*.onnx; run: pip install 'rapidocr>=3.10'")


@cache
def describe_recogniser() -> Mapping[str, Any]:
    """All that decides what is read, as JSON: the sha256 of the ONNX file, and how lines are scaled."""
    digest = sha256(find_recogniser().read_bytes()).hexdigest()
    return {"sha256": digest, "width_scale": _WIDTH_SCALE, "margin": _MARGIN, "width_step": _WIDTH_STEP}


class LineReader:
    """The recogniser, loaded. On a CPU a call takes one core, and several threads may call it at once."""

    def __init__(self) -> None:
        path = find_recogniser()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        providers = [
            name
            for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if name in onnxruntime.get_available_providers()
        ]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        characters = self._session.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._alphabet = np.array(["", *characters, " "])

    @property
    def alphabet(self) -> frozenset[str]:
        """The characters that it can read."""
        return frozenset(self._alphabet.tolist()) - {""}

    def read(self, lines: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> list[str]:
        """What each of `lines`, uint8 greyscale of shape (height, width), dark on light, says.

        Only lines of one width go together: padding would change what is read of a line with the company it is in.
        """
        images = [_scale(line) for line in lines]
        by_width: dict[int, list[int]] = {}
        for index, image in enumerate(images):
            by_width.setdefault(image.shape[1], []).append(index)
        texts = [""] * len(images)
        for width, indices in by_width.items():
            size = max(1, _BATCH_WIDTH // width)
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                # The network takes colours from -1 (black) to 1 (white).
                pixels = np.stack([images[index] for index in batch])[:, None] / np.float32(127.5) - 1
                (scores,) = self._session.run(None, {self._input: np.repeat(pixels, 3, axis=1)})
                for index, classes in zip(batch, scores.argmax(axis=-1), strict=True):
                    texts[index] = self._decode(classes)
        return texts

    def _decode(self, classes: np.ndarray[Any, np.dtype[np.int64]]) -> str:
        """CTC's greedy decoding: repeated classes are one character, blanks none (Graves et al. 2006, section 3.2)."""
        keep = classes != _BLANK
        keep[1:] &= classes[1:] != classes[:-1]
        return "".join(self._alphabet[classes[keep]].tolist())


def _scale(line: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image

    height = line.shape[0]
    margin = round(height * _MARGIN)
    line = np.pad(line, ((0, 0), (margin, margin)), constant_values=255)
    size = (max(1, round(line.shape[1] * _HEIGHT / height * _WIDTH_SCALE)), _HEIGHT)
    scaled = np.asarray(Image.fromarray(line).resize(size, Image.Resampling.BILINEAR))
    return np.pad(scaled, ((0, 0), (0, -size[0] % _WIDTH_STEP)), constant_values=255)
