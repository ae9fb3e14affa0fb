"""The label scores of an empty text: what a teacher says of the labels before it has read anything.

They are what contextual calibration divides by (Zhao et al., arXiv:2102.09690). They are kept beside the answers, which
stay as the teacher gave them.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from harvest.asking.plan import request_key
from harvest.teachers.base import Request, Teacher
from shared.console import say
from shared.disk import replace_file
from shared.example import Example
from shared.keys import RequestKeys
from shared.shards.publish import publish_file

CALIBRATION_NAME = "calibration.json"
_EMPTY = Example("", "")


async def calibrate(teacher: Teacher, folder: Path) -> None:
    """Ask `teacher` about an empty text, unless that was done, and keep its label scores in a file of `folder`.

    Raises as the teacher does.
    """
    path = folder / CALIBRATION_NAME
    key, _ = request_key(RequestKeys(teacher.recipe()), teacher, _EMPTY)
    if path.is_file() and json.loads(path.read_bytes()).get("request_key") == key:
        return
    async with aclosing(teacher.answer(_give(Request(key, _EMPTY)))) as replies:
        (answer,) = [reply.answer async for reply in replies]
    if answer.label_logprobs is None:
        say(f"an empty text has no label scores, so that there is nothing to calibrate with: {answer.error}")
        return
    record: Mapping[str, Any] = {
        "text": _EMPTY.text,
        "label_logprobs": list(answer.label_logprobs),
        "residual_mass": answer.residual_mass,
        "request_key": key,
    }
    replace_file(path, f"{json.dumps(record, indent=1)}\n".encode())
    publish_file(path)


async def _give(request: Request) -> AsyncGenerator[Request, None]:
    yield request
