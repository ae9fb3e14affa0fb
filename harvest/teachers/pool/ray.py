"""Replicas as actors of a Ray cluster, which chooses their machines by what each needs.

An actor that waits for a place makes an autoscaling cluster grow. Documentation: https://docs.ray.io/en/latest/ray-core/actors.html
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any

from harvest.pictures.look import read_picture
from harvest.teachers.pool.messages import (
    BEAT_SECONDS,
    Alive,
    Batch,
    Close,
    FromReplica,
    Means,
    Said,
    Settings,
    ToReplica,
)
from harvest.teachers.pool.replica import Replica
from shared.cluster import Head, join_cluster
from shared.console import say
from shared.errors import DataError
from shared.example import RowPicture

CLOSING_SECONDS = 20.0  # an engine of a replica's own may take 15 of them
WAITING_SECONDS = 30.0  # for a place, before that is said
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # Ray shows all that a machine has to whoever asked for none


class RayHost:
    """Has Ray place the replicas of `settings`, each with the `amounts` of cpus and gpus.

    `address` is as in join_cluster. Raises ClusterError where it cannot be reached.
    """

    def __init__(self, settings: Settings, address: str, amounts: Mapping[str, float]) -> None:
        import ray

        self._settings, self._amounts = settings, amounts
        self._is_own = join_cluster(address)
        self._head = Head()
        found = ray.cluster_resources().get("GPU", 0)
        if found and not amounts["gpus"]:
            say(f"the cluster has {found:g} GPUs, and replicas have none: --per-replica gpus=1 gives each one")

    def start(self, number: int) -> "RayLink":
        """Start an actor; Ray gives it a place as soon as there is one."""
        return RayLink(self._settings, self._amounts)

    def check(self) -> None:
        """Raise ClusterError once the cluster has lost its head."""
        self._head.look()
        self._head.check("What was answered is kept")

    def close(self) -> None:
        """Leave the cluster, which ends where it was started for this; of one without a head nothing is left."""
        import ray

        if self._is_own and self._head.is_there:
            ray.shutdown()


class RayLink:
    """An actor, and the calls that are made of it."""

    def __init__(self, settings: Settings, amounts: Mapping[str, float]) -> None:
        import ray

        self._ray = ray
        self._amounts = amounts
        cpus = int(amounts["cpus"])
        means = Means(cpus, None if amounts["gpus"] else _NO_GPU)
        options = {"num_cpus": cpus, "num_gpus": amounts["gpus"], "scheduling_strategy": "SPREAD"}
        self._actor: Any = ray.remote(ReplicaActor).options(**options).remote(settings, means)
        self._given: Any = None
        self._is_up = self._has_waited = False
        self._numbers, self._lock = 0, Lock()
        self._end = "ended"

    def send(self, message: ToReplica) -> None:
        """Hand a message over; it is numbered, for Ray may run an actor's calls in another order."""
        if isinstance(message, Batch) and "pictures" in message.examples:
            pictures = [own and tuple(map(_carry, own)) for own in message.examples["pictures"]]
            message = replace(message, examples={**message.examples, "pictures": pictures})
        with self._lock:
            self._actor.take.remote(self._numbers, message)
            self._numbers += 1

    def receive(self) -> Sequence[FromReplica] | None:
        """Wait for messages; None once the actor has ended or cannot be reached."""
        try:
            if self._given is None:
                self._given = self._actor.give.remote()
            if not (self._is_up or self._has_waited):
                ready, _ = self._ray.wait([self._given], timeout=WAITING_SECONDS)
                if not ready:
                    self._has_waited = True
                    return [Said(self._describe_wait())]
            messages: Sequence[FromReplica] | None = self._ray.get(self._given)
        except Exception as error:  # the actor died, its machine is gone, or this process leaves the cluster
            self._end = f"ended ({' '.join(str(error).split())})"
            return None
        self._given, self._is_up = None, True
        return messages

    def explain_end(self) -> str:
        """Say why, in Ray's words."""
        return self._end

    def close(self) -> None:
        """Have the actor end its teacher, and wait for that; what lasts longer than CLOSING_SECONDS is killed."""
        with suppress(Exception):
            self.send(Close())
            self._ray.get(self._actor.finish.remote(), timeout=CLOSING_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the actor. An engine in a process of its own ends with its socket."""
        with suppress(Exception):
            self._ray.kill(self._actor)

    def _describe_wait(self) -> str:
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._amounts.items())
        return (
            f"nothing was heard for {WAITING_SECONDS:g} s: Ray starts it, or has no place yet for {needs} and waits "
            "until a machine has room or joins (`ray status` shows them); --per-replica asks for less"
        )


def _carry(picture: RowPicture) -> RowPicture:
    """The picture with its file's bytes, which another machine need not have; as it was where it cannot be read."""
    if picture.content is not None or "://" in picture.place:
        return picture
    try:
        return replace(picture, content=read_picture(picture))
    except DataError:
        return picture


class ReplicaActor:
    """The actor: a replica in Ray's event loop. Its calls are asynchronous, so that one may wait while others run."""

    def __init__(self, settings: Settings, means: Means) -> None:
        self._outbox: list[FromReplica] = []
        self._news = asyncio.Event()
        self._replica = Replica(settings, means, self._put)
        self._serving: asyncio.Task[None] | None = None
        self._following = 0
        self._early: dict[int, ToReplica] = {}

    async def take(self, number: int, message: ToReplica) -> None:
        """Take a message, once those of smaller numbers are there."""
        self._early[number] = message
        while (following := self._early.pop(self._following, None)) is not None:
            self._following += 1
            if isinstance(following, Close):
                self._replica.close()
            else:
                self._replica.take(following)

    async def give(self) -> list[FromReplica] | None:
        """Give what was said since the last call, waiting for something; None once all is said."""
        if self._serving is None:
            self._serving = asyncio.create_task(self._replica.serve())
            self._serving.add_done_callback(self._note_end)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), BEAT_SECONDS)
        if not self._outbox:
            return None if self._serving.done() else [Alive()]
        messages, self._outbox = self._outbox, []
        if not self._serving.done():
            self._news.clear()
        return messages

    async def finish(self) -> None:
        """Wait until the replica has ended."""
        if self._serving is not None:
            await asyncio.wait([self._serving])

    def _put(self, message: FromReplica) -> None:
        self._outbox.append(message)
        self._news.set()

    def _note_end(self, _: object) -> None:
        self._news.set()
