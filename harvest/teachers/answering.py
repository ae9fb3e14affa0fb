"""What teachers that answer in words share: what a request holds, and about what it takes of a model that runs here."""

from collections.abc import Mapping
from typing import Any

from harvest.chat.pricing import TEMPLATE_TOKENS, guess_image_tokens, guess_tokens
from harvest.chat.prompts import Draw, build_prompt
from harvest.pictures import describe_shown, look_at_row
from harvest.rendering import prepare_text
from harvest.teachers.base import Estimate, estimate_bytes
from harvest.teachers.local_config import LocalConfig
from shared.example import Example
from shared.tasks import Task
from shared.topk import estimate_topk_bytes

LOGPROB_BYTES = 14  # on disk, of one alternative in a raw reply: mostly the digits of its log-probability


def describe_question(task: Task, example: Example, draw: Draw, *, sees_pictures: bool) -> Mapping[str, Any]:
    """Return the content of a request: what is drawn, or else written, and the row's pictures where they are shown.

    Raises DataError for a character that cannot be drawn, and a picture that cannot be shown.
    """
    prompt = build_prompt(task.question, example, draw)
    said = {"text": prompt.written} if prompt.drawn is None else {"draw": prepare_text(prompt.drawn)}
    return {**said, **describe_shown(example)} if sees_pictures else said


def estimate_local(
    config: LocalConfig, task: Task, example: Example, draw: Draw, *, sees_pictures: bool, said: int, width: int
) -> Estimate:
    """Estimate a request: free; about how many tokens it computes, and the bytes of an answer of `said` tokens.

    `width` is how many numbers the vector has that is kept, 0 where none is.
    """
    prompt, layout = build_prompt(task.question, example, draw), config.make_layout(draw)
    images = 0
    if layout is not None and prompt.drawn is not None:
        images = layout.guess_pages(prompt.drawn) * guess_image_tokens(config.model, *config.size)
    if sees_pictures:
        images += sum(guess_image_tokens(config.model, one.width, one.height) for one in look_at_row(example))
    answer: float = 4 * said + 2 * width
    if config.topk is not None:
        answer += said * LOGPROB_BYTES * config.topk + estimate_topk_bytes(said, config.topk)
    return Estimate(guess_tokens(prompt.written) + TEMPLATE_TOKENS, images, said, 0.0, estimate_bytes(example, answer))
