"""Gradients that are summed over processes while the way back goes on: a bucket at a time, as its last one is ready.

The first way back notes in which order they come, and buckets are made of that, the same ones in every process. Source:
Li et al., arXiv:2006.15704 (PyTorch DDP), sections 3.2 and 4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from distill.compute.processes import Processes

BUCKET_BYTES = 25 << 20


@dataclass(slots=True)
class _Bucket:
    """Weights whose gradients are summed together; `waiting` are those whose gradients are not ready yet."""

    weights: list[nn.Parameter]
    waiting: int = 0
    flat: Tensor | None = None
    work: Any = None

    def launch(self) -> None:
        """Begin to sum what there is of gradients."""
        gradients = [weight.grad.flatten() for weight in self.weights if weight.grad is not None]
        if gradients:
            self.flat = torch.cat(gradients)
            self.work = distributed.all_reduce(self.flat, async_op=True)

    def finish(self) -> None:
        """Wait for the sums, and put them in the gradients' places."""
        if self.flat is None:
            return
        self.work.wait()
        weights = [weight for weight in self.weights if weight.grad is not None]
        sums = torch.split(self.flat, [weight.numel() for weight in weights])
        for weight, total in zip(weights, sums, strict=True):
            assert weight.grad is not None
            weight.grad.copy_(total.view_as(weight.grad))
        self.flat = self.work = None


class GradientSums:
    """Sums the gradients of a module over processes; `begin_last` comes before the last way back of each step.

    In every process the same weights must get a gradient. Where the processes share the weights there is nothing to do.
    """

    def __init__(self, module: nn.Module, processes: Processes, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._processes, self._bucket_bytes = processes, bucket_bytes
        self._weights = [weight for weight in module.parameters() if weight.requires_grad]
        self._order: list[int] | None = []  # of the weights, as their gradients came; None once it is known
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[int, _Bucket] = {}
        self._is_last, self._launched = False, 0
        self._places = {id(weight): place for place, weight in enumerate(self._weights)}
        if processes.count > 1 and not processes.shards:
            for weight in self._weights:
                weight.register_post_accumulate_grad_hook(self._hear)

    def begin_last(self) -> None:
        """Let the next way back begin to sum what it makes ready."""
        self._is_last, self._launched = True, 0
        for bucket in self._buckets:
            bucket.waiting = len(bucket.weights)

    def finish(self) -> None:
        """Wait until all gradients are sums."""
        self._is_last = False
        if self._processes.count == 1 or self._processes.shards:
            return
        if self._order is not None:
            self._make_buckets(self._processes.agree(self._order))
            self._order = None
        for bucket in self._buckets[self._launched :]:
            bucket.launch()
        for bucket in self._buckets:
            bucket.finish()

    def _hear(self, weight: Tensor) -> None:
        """Hear that a weight's gradient is ready; buckets are summed in their order, whichever is ready first."""
        if not self._is_last:
            return
        place = self._places[id(weight)]
        if self._order is not None:
            self._order.append(place)
            return
        self._bucket_of[place].waiting -= 1
        while self._launched < len(self._buckets) and self._buckets[self._launched].waiting <= 0:
            self._buckets[self._launched].launch()
            self._launched += 1

    def _make_buckets(self, order: Sequence[int]) -> None:
        """Put weights into buckets in the order in which their gradients come, those without one last."""
        came = set(order)
        sizes: list[int] = []
        for place in [*order, *(place for place in range(len(self._weights)) if place not in came)]:
            weight = self._weights[place]
            size = weight.numel() * weight.element_size()
            if not sizes or sizes[-1] + size > self._bucket_bytes:
                self._buckets.append(_Bucket([]))
                sizes.append(0)
            self._buckets[-1].weights.append(weight)
            self._bucket_of[place] = self._buckets[-1]
            sizes[-1] += size
        self._launched = 0
