"""Makes a pool of what the user chose."""

import os
from functools import partial

from harvest.teachers.base import Teacher
from harvest.teachers.pool.config import PoolConfig
from harvest.teachers.pool.hosts import Host
from harvest.teachers.pool.messages import Settings
from harvest.teachers.pool.processes import ProcessHost, check_amounts
from harvest.teachers.pool.ray import RayHost
from harvest.teachers.pool.teacher import PoolTeacher
from harvest.teachers.registry import TeacherChoice, choose_entry, is_registered_here
from shared.errors import UsageError, require_extra
from shared.schema import answer_schema
from shared.tasks import Task


def make_pool(teacher: Teacher, choice: TeacherChoice, task: Task, config: PoolConfig) -> PoolTeacher | None:
    """The replicas of `teacher`, which was made of `choice` for `task`; None where none were asked for.

    Raises UsageError for a teacher that is asked from one process, or for what this machine has not; MissingExtraError
    where Ray is to place them, and is not installed.
    """
    if config.replicas is None:
        return None
    if teacher.remote is not None:
        raise UsageError(
            f"--replicas {config.replicas}: an endpoint is asked from one process, which keeps the one account of what "
            "is spent, so that --max-cost holds. It has as many requests in flight as --concurrency says; of several "
            "servers of one model give each with --endpoint"
        )
    if is_registered_here(choice.teacher):
        raise UsageError(
            f"--replicas {config.replicas}: the teacher {choice.teacher} is known to this program alone, and a replica "
            "is a process of its own: make a package of it (docs/extending.md)"
        )
    if config.cluster is not None:
        require_extra("ray", "ray")
    else:
        check_amounts(config.per_replica or {})
    return PoolTeacher(teacher, config.replicas, partial(_make_host, teacher, choice, task, config))


def _make_host(teacher: Teacher, choice: TeacherChoice, task: Task, config: PoolConfig) -> Host:
    assert config.replicas is not None
    settings = Settings(choice, task, teacher.name, teacher.recipe(), os.getcwd(), str(answer_schema()))
    amounts = config.per_replica or {}
    if config.cluster is None:
        return ProcessHost(settings, config.replicas, amounts)
    needs_gpu = choose_entry(choice.teacher, choice.options).requirements.gpu
    return RayHost(settings, config.cluster, {"cpus": 1, "gpus": float(needs_gpu), **amounts})
