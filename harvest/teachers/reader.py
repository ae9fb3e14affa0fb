"""`reader`: a frozen vision teacher that works anywhere. It draws the text, reads the picture, encodes what it read.

    text -> page (PNG) -> its lines -> PP-OCR recogniser -> what it read -> sentence encoder -> embedding

A vision teacher of text has to be able to read; this one can, on a laptop. What it read is kept as `reply`.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from harvest.rendering import Layout, Page
from harvest.rendering.ahead import RenderPool
from harvest.teachers.base import Estimate, Reply, Request, Reread, estimate_bytes
from harvest.teachers.ocr import LineReader, describe_recogniser
from harvest.teachers.pages import PAGE_SIZE, answer_pages, describe_drawn
from shared.cores import CorePool, count_cores
from shared.errors import require_extra
from shared.example import Example
from shared.frozen_models import choose_inference_device
from shared.options import Option, check_options
from shared.schema import Answer, Status
from shared.sentences import SentenceEncoder
from shared.sources import MPNET
from shared.tasks import Task

_ROWS_A_CORE = 64


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """Options of the reader."""

    encoder: Annotated[str, Option("The sentence encoder: a hub id, a folder, or pkg://module/path.")] = MPNET
    size: Annotated[tuple[int, int], PAGE_SIZE] = (512, 512)

    def __post_init__(self) -> None:
        check_options(self)


class ReaderTeacher:
    """See the module. Keeps the protocol of harvest.teachers.base.Teacher."""

    remote = None

    def __init__(self, config: ReaderConfig, task: Task, name: str) -> None:
        require_extra("vision", "torch", "transformers", "rapidocr", "onnxruntime")
        self.name = name
        self._layout = Layout(*config.size)
        self._renderer = RenderPool(self._layout)
        self._encoder = SentenceEncoder(config.encoder)
        self._reader: LineReader | None = None
        self._cores: CorePool | None = None

    @staticmethod
    def make_reread(recipe: Mapping[str, Any]) -> Reread:
        """What reads the kept lines of a row again, whatever the recipe. Its vector needs the encoder, and stays."""
        return reread

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
        return answer_pages(requests, self._renderer, _ROWS_A_CORE * count_cores(), self._answer_batch)

    async def aclose(self) -> None:
        """End what renders, and let go of recogniser and encoder."""
        self._renderer.close()
        if self._cores is not None:
            self._cores.close()
        self._reader = self._cores = None
        self._encoder.close()

    def _answer_batch(self, pages: Sequence[Sequence[Page]]) -> list[Answer]:
        """Read and encode a run of texts on each core; where a GPU computes, one after the other."""
        if self._reader is None or self._cores is None:
            self._reader = LineReader()
            self._cores = CorePool(1 if choose_inference_device() == "cuda" else None)
            self._encoder.load()
        return self._cores.map(partial(self._read_and_encode, self._reader), pages)

    def _read_and_encode(self, reader: LineReader, pages: Sequence[Sequence[Page]]) -> list[Answer]:
        raws = [json.dumps(lines, ensure_ascii=False).encode() for lines in read_pages(reader, pages)]
        texts = [join_lines(raw) for raw in raws]
        vectors = self._encoder.encode(texts)
        return [
            Answer(Status.OK, reply=text, embedding=vector, raw=raw)
            for text, vector, raw in zip(texts, vectors, raws, strict=True)
        ]


def read_pages(reader: LineReader, texts: Sequence[Sequence[Page]]) -> list[list[str]]:
    """Read the lines of each text's pages, each with the break after it.

    The only source is the pixels of the pages.
    """
    crops, places = [], []
    for number, pages in enumerate(texts):
        for page in pages:
            for line in page.lines:
                crops.append(page.pixels[line.top : line.bottom, line.left : line.right])
                places.append((number, line.ends_with))
    read: list[list[str]] = [[] for _ in texts]
    for (number, ends_with), line_text in zip(places, reader.read(crops), strict=True):
        read[number].append(line_text + ends_with)
    return read


def join_lines(raw: bytes) -> str:
    """The text of the lines that a row's `raw` holds, a JSON list of strings."""
    return "".join(json.loads(raw)).rstrip()


def reread(raw: bytes) -> Mapping[str, Any]:
    """The text of a row's lines, by column."""
    return {"status": Status.OK, "reply": join_lines(raw)}
