"""Batches on their way to the device: a thread reads, tokenises and pads them ahead of training."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

from distill.compute.devices import Device
from distill.data.batches import Batch, BatchPart, count_fitting, iterate_batches

T = TypeVar("T")

AHEAD = 8  # batches that wait, ready, for training, at most


def load_batches(
    parts: Sequence[BatchPart], steps: int, seed: int, epoch: int, device: Device, *, start: int = 0
) -> Generator[Batch]:
    """Run iterate_batches in a thread of its own, and put each batch on the device.

    Fewer than AHEAD batches wait where they would take over a quarter of a source's buffer.
    """
    made = iterate_batches(parts, steps, seed, epoch, start=start, share=device.processes.share)
    if device.device.type == "cuda":
        made = (batch.pin() for batch in made)
    with closing(work_ahead(made, count_fitting(parts, AHEAD, copies=2))) as batches:  # vectors widen to float32
        for batch in batches:
            yield batch.to(device.device)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of what a thread makes, and what it died of."""

    error: BaseException | None


def work_ahead(items: Iterator[T], ahead: int = AHEAD) -> Generator[T]:
    """Give the same items, made by a thread that is at most `ahead` of them ahead.

    What the thread raises is raised here. The thread ends when the items do, or when this generator is closed.
    """
    ready: Queue[T | _End] = Queue(ahead)
    closed = Event()
    thread = Thread(target=_fill, args=(items, ready, closed), daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        while thread.is_alive():  # it may wait for a place in the queue
            with suppress(Empty):
                ready.get(timeout=0.05)


def _fill(items: Iterator[T], ready: "Queue[T | _End]", closed: Event) -> None:
    end = _End(None)
    try:
        for item in items:
            ready.put(item)
            if closed.is_set():
                return
    except BaseException as error:  # whatever it is, it is raised where the items are taken
        end = _End(error)
    ready.put(end)
