"""What a teacher folder says of the harvest that fills it."""

from collections.abc import Mapping
from typing import Any

from harvest.teachers.base import Teacher
from shared.shards import Manifest
from shared.tasks import LoadedTask


def make_manifest(loaded: LoadedTask, teacher: Teacher) -> Manifest:
    """Make the manifest of a folder that is to hold `teacher`'s answers to a task; no shard is in it yet."""
    return describe_folder(loaded, teacher.name, teacher.recipe())


def describe_folder(loaded: LoadedTask, teacher: str, recipe: Mapping[str, Any]) -> Manifest:
    """Make the same of the name that the answers are kept under, and of the recipe that they come from."""
    task = loaded.task
    return Manifest(
        task=task.name,
        teacher=teacher,
        kind=task.kind,
        labels=task.labels,
        target_range=task.target_range,
        metric=task.metric,
        answer_rule=task.answer_rule,
        max_reply_tokens=task.max_reply_tokens,
        recipe=recipe,
        source=loaded.source,
    )
