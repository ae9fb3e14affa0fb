"""`reader`: a frozen vision teacher that works anywhere. It draws the text, reads the picture, encodes what it read.

    text -> page (PNG) -> its lines -> PP-OCR recogniser -> what it read -> sentence encoder -> embedding

A vision teacher of text has to be able to read; this one can, on a laptop. What it read is kept as `reply`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harvest.rendering import Drawing, Layout
from harvest.teachers.base import Estimate, Reply, Request, estimate_bytes
from harvest.teachers.batches import DrawnRequest, answer_drawn, answer_in_batches, describe_drawn
from harvest.teachers.ocr import LineReader, describe_recogniser
from shared.errors import require_extra
from shared.example import Example
from shared.schema import Answer, Status
from shared.sentences import SentenceEncoder
from shared.sources import MPNET
from shared.tasks import Task

_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """Options of the reader: its sentence encoder, and the size (width, height) of its pages in pixels."""

    encoder: str = MPNET
    size: tuple[int, int] = (512, 512)


class ReaderTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    def __init__(self, config: ReaderConfig, task: Task, name: str) -> None:
        require_extra("vision", "torch", "transformers", "rapidocr", "onnxruntime")
        self.name = name
        self._layout = Layout(*config.size)
        self._encoder = SentenceEncoder(config.encoder)
        self._reader: LineReader | None = None

    def recipe(self) -> Mapping[str, Any]:
        """Layout, recogniser and encoder; the task's question plays no part."""
        return {
            "teacher": "reader",
            "layout": self._layout.fingerprint(),
            "recogniser": describe_recogniser(),
            "encoder": self._encoder.fingerprint(),
        }

    def content(self, example: Example) -> Mapping[str, Any]:
        """The text that is drawn. Raises DataError where a character of it cannot be."""
        return describe_drawn(example)

    def estimate(self, example: Example) -> Estimate:
        """Free, but for the bytes of the vector and of what is read."""
        return Estimate(bytes=estimate_bytes(example, len(example.text) / 2 + 2 * self._encoder.width))

    def answer(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Reply, None]:
        """Read in batches; one row that cannot be drawn does not stop the others."""
        return answer_in_batches(requests, _BATCH_ROWS, lambda batch: answer_drawn(batch, self._layout, self._encode))

    def _encode(self, drawn: Sequence[DrawnRequest]) -> list[Answer]:
        texts = self._read([one.drawings for one in drawn])
        vectors = self._encoder.encode(texts)
        return [Answer(Status.OK, reply=text, embedding=vector) for text, vector in zip(texts, vectors, strict=True)]

    def _read(self, texts: Sequence[Sequence[Drawing]]) -> list[str]:
        """What the recogniser reads on the pages of each text: its only source is their pixels."""
        if self._reader is None:
            self._reader = LineReader()
        crops, places = [], []
        for number, drawings in enumerate(texts):
            for drawing in drawings:
                for line in drawing.lines:
                    crops.append(drawing.pixels[line.top : line.bottom, line.left : line.right])
                    places.append((number, line.ends_with))
        read = [""] * len(texts)
        for (number, ends_with), line_text in zip(places, self._reader.read(crops), strict=True):
            read[number] += line_text + ends_with
        return [text.rstrip() for text in read]
