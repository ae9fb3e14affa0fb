"""One run in several processes, as torchrun or `accelerate launch` start them.

Every process draws the same batches and trains the same aligner. Of the training texts each encodes its own share, and
gets the tokens of the others; of a batch's texts, each runs the student over its own share. Their outputs are gathered
before the losses see them, so that a loss over the whole batch (a distance of means, a contrast of rows) is the same as
in one process, and not a mean of losses over parts. Gradients flow through a process's own rows only, and are summed:
that sum is the gradient of the one loss over the whole batch.

Where they share the student's weights, too (see distill.compute.sharding), every process must run it equally often, be
it over a row that counts nothing: a layer is put together by all of them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from distill.compute.sharding import is_sharded
from shared.errors import UsageError

Array = np.ndarray[Any, Any]
T = TypeVar("T")

_ADDED = 1 << 22  # numbers that are added up at once


@dataclass(frozen=True, slots=True)
class Processes:
    """`count` processes train together; this one is number `rank`. Only the first writes files and messages.

    `shards` is whether they share the student's weights. `talk` is what they agree over on the CPU, None for the group
    that they compute in.
    """

    rank: int = 0
    count: int = 1
    shards: bool = False
    talk: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, rows: int) -> Array:
        """Choose the rows of a batch that this process computes; one at least, so that all take part in a step."""
        return np.arange(self.rank, rows, self.count) if self.rank < rows else np.zeros(1, np.int64)

    def place(self, own: Tensor, rows: int) -> Tensor:
        """Place the rows of `share` (m, d) where they stand among all `rows` of a batch; those of others are 0."""
        everything = own.new_zeros(rows, own.shape[1])
        # None of them is its own where `share` had to take another's row.
        everything[self.rank :: self.count] = own[: len(range(self.rank, rows, self.count))]
        return everything

    def gather(self, own: Tensor, rows: int) -> Tensor:
        """Gather all `rows` rows of a batch, where `own` (m, d) are those of `share`. Gradients reach `own` only."""
        if self.count == 1:
            return own
        everything = self.place(own.detach(), rows)
        distributed.all_reduce(everything)
        everything[self.rank :: self.count] = own[: len(range(self.rank, rows, self.count))]
        return everything

    def gather_all(self, own: Sequence[Tensor], rows: int) -> list[Tensor]:
        """Gather several tensors (m, d) at once."""
        if self.count == 1:
            return list(own)
        together = self.gather(torch.cat(list(own), dim=1), rows)
        return list(torch.split(together, [tensor.shape[1] for tensor in own], dim=1))

    def add(self, own: Tensor) -> Tensor:
        """Add up what each process has, without gradients."""
        own = own.detach()
        if self.count > 1:
            distributed.all_reduce(own)
        return own

    def add_array(self, own: Array) -> None:
        """Add up, in its place, what each process has of an array (n, ...), some rows at a time."""
        if self.count == 1:
            return
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        rows = max(1, _ADDED * len(own) // max(1, own.size))
        for first in range(0, len(own), rows):
            some = torch.from_numpy(own[first : first + rows]).to(device)
            distributed.all_reduce(some)
            own[first : first + rows] = some.cpu().numpy()

    def copy_weights(self, module: nn.Module) -> None:
        """Give every process the first one's weights; those that are sharded stay: they were cut from the same ones."""
        if self.count > 1:
            for weight in module.state_dict().values():
                if not is_sharded(weight):
                    distributed.broadcast(weight, 0)

    @contextmanager
    def take_turn(self) -> Iterator[None]:
        """Let the processes of each machine do the block one after the other, where they share the student's weights.

        All must come to it. Where it fails in one, those that have not begun it do so at once: to fail alike.
        """
        turns = self.find_greatest(local_rank())[0] + 1 if self.shards else 1
        failed, taken = 0, 0
        while self.shards and taken < local_rank() and not failed:
            failed, taken = self.find_greatest(failed)[0], taken + 1
        own = 1
        try:
            yield
            own = 0
        finally:
            while self.shards and taken < turns and not failed:
                failed, taken = self.find_greatest(own)[0], taken + 1

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def find_greatest(self, *own: int) -> list[int]:
        """Give the greatest of what the processes have, of each of several numbers. Waits for no device."""
        if self.count == 1:
            return list(own)
        numbers = torch.tensor(own)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, self.talk)
        return [int(number) for number in numbers]

    def count_idle(self, parts: int, rows: int, most: int | None) -> int:
        """Count the parts that this process computes beside its own, for nothing, of a batch of `rows` rows.

        It cuts its share into so many `parts`, of `most` rows at most; where the processes share the student's weights,
        each computes as many parts as the one with the largest share.
        """
        if not self.shards or most is None:
            return 0
        return -(-rows // self.count // most) - parts

    def agree(self, value: T) -> T:
        """Give every process the first one's `value`, a small object that can be pickled."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, 0)
        return box[0]

    def gather_objects(self, own: T) -> list[T]:
        """Give every process what each of them has, in order: objects that can be pickled."""
        if self.count == 1:
            return [own]
        boxes: list[Any] = [None] * self.count
        distributed.all_gather_object(boxes, own)
        return boxes


@contextmanager
def connect_processes() -> Iterator[Processes]:
    """Join the other processes of this run, where a launcher started several. Raises UsageError if that fails."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes()
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and the processes cannot connect: {error}. Start them with: "
            "torchrun --nproc-per-node N --no-python distill run ..."
        ) from error
    try:
        talk = distributed.new_group(backend="gloo") if torch.cuda.is_available() else None
        yield Processes(distributed.get_rank(), distributed.get_world_size(), talk=talk)
    finally:
        distributed.destroy_process_group()


def local_rank() -> int:
    """Give the number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
