"""What a teacher folder says of the harvest that fills it."""

from harvest.teachers.base import Teacher
from shared.shards import Manifest
from shared.tasks import LoadedTask


def make_manifest(loaded: LoadedTask, teacher: Teacher) -> Manifest:
    """Make the manifest of a folder that is to hold `teacher`'s answers to a task; no shard is in it yet."""
    task = loaded.task
    return Manifest(
        task=task.name,
        teacher=teacher.name,
        kind=task.kind,
        labels=task.labels,
        target_range=task.target_range,
        metric=task.metric,
        answer_rule=task.answer_rule,
        max_reply_tokens=task.max_reply_tokens,
        recipe=teacher.recipe(),
        source=loaded.source,
    )
