"""Cells as work of a Ray cluster: an actor for each that is trained at a time, on a machine that Ray chooses.

An actor trains its cells as a machine with one place does, in a worker process (distill.compare.processes). Cells write
to the comparison's folder, which all machines must share: an actor that was lost leaves its cell's checkpoint there,
and another goes on from it.

Two must never write to one cell's folder, and an actor that Ray takes for dead may live behind a torn network. So an
actor that has heard nothing of the driver for LEASE_SECONDS ends itself, and no cell is handed on before that.

Documentation: https://docs.ray.io/en/latest/ray-core/actors.html
"""

import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, cast

from distill.compare.hosts import ENDED, Job
from distill.compare.places import ANY_GPU, VISIBLE, Place
from distill.compare.placing import Placing
from distill.compare.processes import ProcessHost
from distill.compare.sight import Sight, list_tokens, show
from shared.cluster import Head, join_cluster
from shared.console import say
from shared.errors import ClusterError, Error, StoppedError

LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0
HANDING_ON_SECONDS = LEASE_SECONDS + BEAT_SECONDS
WAITING_SECONDS = 30.0  # for a place, before that is said
LOOK_SECONDS = 0.3  # between looks whether an actor has come up, or its cell has ended
ANSWER_SECONDS = 120.0  # for every machine to say what it sees
MOST_LOSSES = 3  # of the actors of one cell, before it is taken to be what kills them
CALLS = 4  # of one actor at a time: a training, and what is said to it meanwhile
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a machine sleeps
_KEPT = "Its last checkpoint is kept"
_NAMES = {"cpus": "CPU", "gpus": "GPU"}  # of what a cell has, as Ray has them


class RayHost:
    """Has Ray place the cells of `jobs` as `placing` says. See Host.

    All machines that have room for a cell are asked first whether they see the comparisons' folders and the shards.
    Raises ClusterError where one does not, or where the cluster cannot be reached.
    """

    def __init__(self, jobs: Sequence[Job], placing: Placing) -> None:
        assert placing.cluster is not None
        self._held, self._lock = ExitStack(), Lock()
        self._ending = Event()  # no cell is begun any more
        self._closed, self._has_waited = Event(), Event()
        self._coming: list[RayWorker] = []  # that Ray has no place for yet, or starts
        self._workers: list[RayWorker] = []
        self._idle: list[RayWorker] = []  # of the workers
        is_own = join_cluster(placing.cluster)
        self._head = Head()
        if is_own:
            self._held.callback(_leave_cluster)
        try:
            self._amounts = choose_amounts(jobs, placing, find_resources())
            rooms = {name: room for name, each in find_resources().items() if (room := count_room(each, self._amounts))}
            self.count = min(placing.workers or sum(rooms.values()) or 1, len(jobs))
            self._sight = show(jobs)
            self._held.callback(self._sight.hide)
            check_nodes(self._sight, list(rooms))
        except BaseException:
            self._held.close()
            raise
        self._threads = ThreadPoolExecutor(self.count, "cell")
        Thread(target=self._beat, daemon=True).start()

    def submit(self, job: Job) -> Future[None]:
        """See Host."""
        return self._threads.submit(self._train, job)

    def stop(self) -> None:
        """See Host. Actors that wait for a place have nothing to keep."""
        with self._lock:
            self._ending.set()
            workers, coming = list(self._workers), list(self._coming)
        for worker in workers:
            worker.stop()
        for worker in coming:
            worker.kill()

    def close(self) -> None:
        """See Host. Interrupted meanwhile, it leaves no actor behind either. What waits for a place is not begun."""
        self._ending.set()
        with self._held:
            try:
                self._threads.shutdown(wait=True, cancel_futures=True)
            finally:
                self._closed.set()
                with self._lock:
                    for worker in (*self._workers, *self._coming):
                        worker.kill()
                if not self._head.is_there:  # what is left there ends by itself: see wait_for_killed
                    self._held.pop_all()

    def _train(self, job: Job) -> None:
        """Train a cell, in a thread of its own: again where its actor is lost."""
        for losses in range(1, MOST_LOSSES + 1):
            worker = self._take()
            why = worker.train(job, self._head)
            if why is None:
                with self._lock:
                    self._idle.append(worker)
                return
            with self._lock:
                self._workers.remove(worker)
            if self._ending.is_set():
                raise StoppedError(f"{job.cell.name} was stopped")
            if losses < MOST_LOSSES:
                say(
                    f"{job.cell.name}: its process on the cluster was lost ({why}). It goes on elsewhere from its last "
                    f"checkpoint, in {HANDING_ON_SECONDS:g} s, when nothing of it can be left"
                )
                self._wait(HANDING_ON_SECONDS)
        raise ClusterError(f"its process on the cluster was lost {MOST_LOSSES} times, and then so: {why}")

    def _take(self) -> "RayWorker":
        """Take an actor that is idle, or has come up: of those that wait for a place, whichever is first."""
        began = time.monotonic()
        while (worker := self._find_worker()) is None:
            if time.monotonic() - began > WAITING_SECONDS:
                self._say_waits()
            time.sleep(LOOK_SECONDS)
        return worker

    def _find_worker(self) -> "RayWorker | None":
        """Find an actor for a cell, or see to it that one more comes."""
        with self._lock:
            if self._ending.is_set():
                raise StoppedError("the comparison was stopped")
            self._head.check(_KEPT)
            self._welcome()
            if self._idle:
                return self._idle.pop()
            if len(self._workers) + len(self._coming) < self.count:
                self._coming.append(RayWorker(self._amounts, self._sight))
            return None

    def _welcome(self) -> None:
        """Count those that have come up among the workers: from then on they must hear of this process."""
        come = [worker for worker in self._coming if worker.has_come()]
        self._coming = [worker for worker in self._coming if worker not in come]
        self._workers += come
        self._idle += come

    def _say_waits(self) -> None:
        if not self._has_waited.is_set():
            self._has_waited.set()
            needs = ", ".join(f"{amount:g} {name}" for name, amount in self._amounts.items())
            say(
                f"a cell has waited for {WAITING_SECONDS:g} s: Ray starts its process, or has no place yet for {needs} "
                "and waits until a machine has room or joins (`ray status` shows them); --per-cell asks for less"
            )

    def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until the comparison is stopped."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self._ending.wait(LOOK_SECONDS):
            self._head.check(_KEPT)

    def _beat(self) -> None:
        """Let the actors know that this process lives, and look whether the cluster does."""
        while not self._closed.wait(BEAT_SECONDS):
            with self._lock:
                self._welcome()
                workers = list(self._workers)
            for worker in workers:
                worker.hear()
            self._head.look()


def wait_for_killed(folders: Iterable[Path]) -> None:
    """Wait until nothing is left of a command that trained in one of these folders on a cluster, and was killed, or
    whose cluster was gone: it left its tokens.
    """
    if tokens := [token for folder in folders for token in list_tokens(folder)]:
        say(
            f"{tokens[0].parent}: a command that trained it on a cluster could not end its processes there. It goes on "
            f"in {HANDING_ON_SECONDS:g} s, when none of them can be left"
        )
        time.sleep(HANDING_ON_SECONDS)
        for token in tokens:
            token.unlink(missing_ok=True)


def _leave_cluster() -> None:
    import ray

    ray.shutdown()


def find_resources() -> dict[str, Mapping[str, float]]:
    """Give what each machine of the cluster has, by the machine's id in Ray."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def choose_amounts(
    jobs: Sequence[Job], placing: Placing, resources: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Choose what a cell has of each machine: one core, and a GPU where there are any, unless the user says it."""
    may_use_gpu = ANY_GPU.issuperset(job.cell.config.training.device for job in jobs)
    has_gpu = any(each.get("GPU", 0) for each in resources.values())
    return {"cpus": 1.0, "gpus": float(may_use_gpu and has_gpu), **(placing.per_cell or {})}


def count_room(resources: Mapping[str, float], amounts: Mapping[str, float]) -> int:
    """Count the cells that a machine with these resources has room for."""
    return min(math.floor(resources.get(_NAMES[name], 0) / amount) for name, amount in amounts.items() if amount)


def check_nodes(sight: Sight, nodes: Sequence[str]) -> None:
    """Raise ClusterError unless all of these machines see what they must; one that is lost meanwhile is left out."""
    import ray
    from ray.exceptions import RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(look_from_node)
    asked = {}
    for node in nodes:
        on_it = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[look.options(num_cpus=0, max_retries=0, scheduling_strategy=on_it).remote(sight)] = node
    if asked:
        ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    named = {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in ray.nodes()}
    for answer, node in asked.items():
        try:
            missing = ray.get(answer, timeout=0)
        except RayTaskError as error:
            missing = f"it cannot run this package ({_join(error.cause)}): install the same there"
        except TimeoutError:
            missing = f"it has not answered for {ANSWER_SECONDS:g} s (`ray status` says how it is)"
        except Exception:  # it left the cluster
            continue
        if missing is not None:
            raise ClusterError(f"no cell can be trained on the machine {named[node]}: {missing}. Nothing was trained")


def look_from_node(sight: Sight) -> str | None:
    """Say what the machine on which this is called lacks."""
    return sight.find_missing()


def _join(error: object) -> str:
    return " ".join(str(error).split())


class RayWorker:
    """An actor, and the calls that are made of it."""

    def __init__(self, amounts: Mapping[str, float], sight: Sight) -> None:
        import ray

        self._ray = ray
        resources = {"num_cpus": int(amounts["cpus"]), "num_gpus": amounts["gpus"]}
        options = {"scheduling_strategy": "SPREAD", "max_concurrency": CALLS}
        self._actor = cast(Any, ray.remote(CellActor).options(**resources, **options).remote())
        self._begun = self._actor.begin.remote(sight, int(amounts["cpus"]), hides_gpus=not amounts["gpus"])

    def has_come(self) -> bool:
        """Tell whether it is up, or has failed to come up, which `train` says."""
        try:
            return bool(self._ray.wait([self._begun], timeout=0)[0])
        except Exception:  # the cluster is gone
            return True

    def train(self, job: Job, head: Head) -> str | None:
        """Train a cell; give None once it is trained, or why the actor was lost. Raises what was raised there.

        Raises ClusterError once the cluster has lost its head.
        """
        from ray.exceptions import RayTaskError

        try:
            self._ray.get(self._begun)
            training = self._actor.train.remote(job)
            while not self._ray.wait([training], timeout=LOOK_SECONDS)[0]:
                head.check(_KEPT)
            self._ray.get(training)
        except RayTaskError as error:
            raise _name_cause(error) from None
        except ClusterError:
            raise
        except Exception as error:  # it died, or its machine is gone, or the cluster is
            self.kill()
            return _join(error)
        return None

    def hear(self) -> None:
        """Let it know that the driver lives."""
        with suppress(Exception):
            self._actor.hear.remote()

    def stop(self) -> None:
        """Have its cell keep its checkpoint and end."""
        with suppress(Exception):
            self._actor.stop.remote()

    def kill(self) -> None:
        """Kill it; the process of its cell ends with it."""
        with suppress(Exception):
            self._ray.kill(self._actor)


def _name_cause(error: Any) -> BaseException:
    cause: object = error.cause
    return cause if isinstance(cause, BaseException) else Error(_join(error))


class CellActor:
    """The actor: a machine's one place for a cell, in threads of Ray's."""

    def __init__(self) -> None:
        self._lock, self._told = Lock(), False

    def begin(self, sight: Sight, cpus: int, *, hides_gpus: bool) -> None:
        """Go to where the driver is, once all is seen that must be. Raises ClusterError where it is not."""
        if missing := sight.find_missing():
            raise ClusterError(f"it came to the machine {platform.node()}, and there {missing}")
        os.chdir(sight.here)
        if hides_gpus:  # Ray shows all that a machine has to whoever asked for none
            os.environ[VISIBLE] = ""
        self._host = ProcessHost([Place(None, cpus)])
        self._watch = DriverWatch(LEASE_SECONDS)

    def train(self, job: Job) -> None:
        """Train a cell. Raises StoppedError where it was told to stop, and what was raised in the cell."""
        with self._lock:
            if self._told:
                raise StoppedError(f"{job.cell.name} was stopped before it began")
            training = self._host.submit(job)
        error = training.exception()
        if isinstance(error, ENDED) and self._told:
            raise StoppedError(f"{job.cell.name} was stopped")
        if isinstance(error, StoppedError | KeyboardInterrupt):  # by whoever drains the machine, say
            os._exit(1)  # and so the cell goes on elsewhere
        if isinstance(error, ENDED):
            raise Error(
                f"its process on {platform.node()} ended, perhaps for want of memory: --per-cell with more cpus leaves "
                "it a larger part of the machine"
            )
        if error is not None:
            raise error

    def hear(self) -> None:
        """Note that the driver lives."""
        self._watch.hear()

    def stop(self) -> None:
        """Have the cell keep its checkpoint, and end."""
        with self._lock:
            self._told = True
            self._host.stop()


class DriverWatch:
    """Ends this process, and so its children, where nothing is heard for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.hear()
        Thread(target=self._look, daemon=True).start()

    def hear(self) -> None:
        """Note that something is heard."""
        self._heard = time.clock_gettime(_CLOCK)

    def _look(self) -> None:
        while time.clock_gettime(_CLOCK) - self._heard < self._seconds:
            time.sleep(min(1.0, self._seconds / 10))
        os._exit(1)
