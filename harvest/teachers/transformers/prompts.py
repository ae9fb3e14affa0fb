"""Requests as what a model takes: messages in its chat template as tokens, and pages as its processor prepares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from harvest.chat.pricing import TEMPLATE_TOKENS, guess_image_tokens, guess_tokens
from harvest.chat.prompts import Draw, build_prompt
from harvest.pictures import Shown, open_rgb
from harvest.rendering import Page
from harvest.teachers.base import Request
from harvest.teachers.given_rows import Given
from harvest.teachers.tokenizers import PromptTokenizer
from harvest.teachers.transformers.config import TransformersConfig
from harvest.teachers.transformers.model import LocalModel, pad_left
from shared.errors import SourceError
from shared.example import Message
from shared.tasks import Task
from shared.templates import Rendered, Template, find_template


@dataclass(frozen=True, slots=True)
class Ready:
    """A request as it is asked: token ids, or its row's pictures and its pages with what is written below them, or a
    text that is given.

    `length` is how many tokens it has, where there are pictures about so many.
    """

    request: Request
    length: int
    tokens: Sequence[int] = ()
    shown: Sequence[Shown] = ()
    pages: Sequence[Page] = ()
    written: str = ""
    given: Given | None = None

    @property
    def has_pictures(self) -> bool:
        """Whether it is asked by pictures, of whatever kind."""
        return bool(self.shown or self.pages)


class Prompts:
    """The prompts of `task` for a model: what `draw` says is drawn, or all of it in writing."""

    def __init__(
        self, config: TransformersConfig, draw: Draw, task: Task, model: LocalModel, tokenizer: PromptTokenizer
    ) -> None:
        self.template: Template | None = None if config.template is None else find_template(config.template, task.name)
        self._draw, self._task, self._name, self._size = draw, task, config.model, config.size
        self._model, self._tokenizer = model, tokenizer

    @cached_property
    def processor(self) -> Any:
        """What prepares text and pictures for a model that sees. Raises SourceError where it cannot be loaded."""
        from transformers import AutoProcessor

        try:
            processor = self._model.files.load(AutoProcessor)
        except SourceError as error:
            if find_spec("torchvision") is not None:
                raise
            raise SourceError(f"{error}. It may need torchvision, which is not installed") from error
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return processor

    def write(self, request: Request) -> Ready:
        """A request in writing. Raises DataError where a template does not fit the row."""
        if self.template is not None:
            rendered = self.template.render(request.example, self._task.question)
        else:
            written = build_prompt(self._task.question, request.example, self._draw).written or "."
            if self._model.sees_pictures:
                tokens = self._tokenizer.encode(self._spell(written, 0))
                return Ready(request, len(tokens), tokens)
            rendered = Rendered(None, (Message("user", written),))
        tokens = self._tokenizer.encode_prompt(rendered)
        return Ready(request, len(tokens), tokens)

    def show(self, request: Request, shown: Sequence[Shown] = (), pages: Sequence[Page] = ()) -> Ready:
        """A request with its row's pictures, and whose text is drawn on `pages`, if it is."""
        written = build_prompt(self._task.question, request.example, self._draw).written
        sizes = [*((one.width, one.height) for one in shown), *(self._size for _ in pages)]
        images = sum(guess_image_tokens(self._name, *size) for size in sizes)
        length = guess_tokens(written) + TEMPLATE_TOKENS + images
        return Ready(request, int(length), shown=shown, pages=pages, written=written)

    def make_inputs(self, batch: Sequence[Ready]) -> Mapping[str, Any]:
        """The prompts of a batch as tensors, padded on the left. All of them have pictures, or none has."""
        if not batch[0].has_pictures:
            return pad_left([one.tokens for one in batch])
        pictures = [_open_pictures(one) for one in batch]
        texts = [self._spell(one.written, len(own)) for one, own in zip(batch, pictures, strict=True)]
        return dict(
            self.processor(images=pictures, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")
        )

    def decode(self, prompt: Sequence[int], said: Sequence[int]) -> str:
        """The text of `said`, tokens that follow `prompt`: with its first space, which some tokenizers drop alone.

        Without half a letter at its end, where the reply was cut inside one.
        """
        tail = list(prompt[-4:])
        before, whole = self._decode(tail), self._decode([*tail, *said])
        text = whole[len(before) :] if whole.startswith(before) else self._decode(said)
        return text.rstrip("\N{REPLACEMENT CHARACTER}")

    def _decode(self, ids: Sequence[int]) -> str:
        tokenizer = self._tokenizer.tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _spell(self, written: str, pictures: int) -> str:
        """The turn of a user in the model's own chat template, with places for pictures before what is written."""
        parts: list[dict[str, str]] = [{"type": "image"}] * pictures
        if written:
            parts = [*parts, {"type": "text", "text": written}]
        return str(self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True))


def _open_pictures(ready: Ready) -> list[Any]:
    """The pictures of a request, RGB: the row's own, then its pages."""
    from PIL import Image

    pages = [Image.fromarray(page.pixels).convert("RGB") for page in ready.pages]
    return [*(open_rgb(one.content) for one in ready.shown), *pages]
