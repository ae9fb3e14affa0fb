"""The gradients of one step of the student: computed a micro-batch at a time, they are those of the whole batch.

A loss that compares the rows of a batch has no value on a part of it. So the whole batch's outputs are computed first,
without a graph; the loss gives its gradient with regard to these; and each part is computed again, with a graph that
takes the gradient on to the weights. Source: GradCache (Gao, Zhang, Han and Callan, arXiv:2101.06983).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.compute.devices import Device
from distill.compute.gradients import GradientSums
from distill.models.classifier import Student
from distill.models.outputs import Outputs

Terms = dict[str, Tensor]  # of the objective, `total` among them


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """The rows of a batch, of `rows` in all, that this process computes, in parts, one after the other.

    Each part draws from a seed of its own, so that a second pass over it has the dropout of the first. The last parts,
    as many as are `idle`, count nothing: other processes have more, and the student is computed equally often in all.
    """

    student: Student
    device: Device
    scaler: torch.amp.GradScaler
    sums: GradientSums
    rows: int
    parts: Sequence[dict[str, Tensor]]
    seeds: Sequence[int]
    idle: int = 0

    def backpropagate(self, find_terms: Callable[[Outputs], Terms], *, compares_rows: bool) -> Terms:
        """Add the gradients of `total`, scaled, to the student's weights, and give the terms of the whole batch.

        `find_terms` gives the terms of the outputs of all rows of the batch. Unless it `compares_rows`, each part is
        computed once: the gradient of a row is the same, whatever the outputs of the others are.
        """
        if len(self.parts) == 1:
            terms = find_terms(self._gather(self._compute(0)))
            self.sums.begin_last()
            self._scale(terms).backward()
            return terms
        return self._go_back_twice(find_terms) if compares_rows else self._go_back_by_rows(find_terms)

    def _go_back_twice(self, find_terms: Callable[[Outputs], Terms]) -> Terms:
        with torch.no_grad():
            computed = [self._compute(part) for part in range(len(self.parts))][: self._counted]
        own = [torch.cat(tensors).requires_grad_() for tensors in zip(*computed, strict=True)]
        terms = find_terms(self._gather(own))
        gradients = torch.autograd.grad(self._scale(terms), own, allow_unused=True, materialize_grads=True)
        for part, rows in self._place():
            outputs = self._compute(part)
            of_part = [gradient[rows] for gradient in gradients]
            if part >= self._counted:
                of_part = [torch.zeros_like(output) for output in outputs]
            if part == len(self.parts) - 1:
                self.sums.begin_last()
            torch.autograd.backward(outputs, of_part)
        return terms

    def _go_back_by_rows(self, find_terms: Callable[[Outputs], Terms]) -> Terms:
        processes, computed = self.device.processes, []
        count = sum(map(count_rows, self.parts[: self._counted]))
        for part, rows in self._place():
            tensors = [tensor[: rows.stop - rows.start] for tensor in self._compute(part)]
            computed.append([tensor.detach() for tensor in tensors])
            alone = [tensor.new_zeros(count, tensor.shape[1]) for tensor in tensors]
            for whole, tensor in zip(alone, tensors, strict=True):
                whole[rows] = tensor
            terms = find_terms(Outputs(*(processes.place(whole, self.rows) for whole in alone)))
            if part == len(self.parts) - 1:
                # Gathered before gradients are summed, as in a process whose share is one part: all do it in one order.
                outputs = self._gather([torch.cat(each) for each in zip(*computed, strict=True)])
                self.sums.begin_last()
            self._scale(terms).backward()
        with torch.no_grad():
            return find_terms(outputs)

    @property
    def _counted(self) -> int:
        return len(self.parts) - self.idle

    def _compute(self, part: int) -> list[Tensor]:
        self.device.seed(self.seeds[part])
        with self.device.autocast():
            own: Outputs = self.student(self.parts[part])
        return [own.main, own.auxiliary, own.projected]

    def _scale(self, terms: Terms) -> Tensor:
        scaled: Tensor = self.scaler.scale(terms["total"])
        return scaled

    def _gather(self, own: Sequence[Tensor]) -> Outputs:
        return Outputs(*self.device.processes.gather_all(own, self.rows))

    def _place(self) -> Iterator[tuple[int, slice]]:
        """Give each part, and its rows among those of this process; none for a part that counts nothing."""
        start = 0
        for part, inputs in enumerate(self.parts):
            end = start + (count_rows(inputs) if part < self._counted else 0)
            yield part, slice(start, end)
            start = end


def count_rows(inputs: Mapping[str, Tensor]) -> int:
    """Count the rows of what a model takes of a batch."""
    return len(next(iter(inputs.values())))


def cut_inputs(inputs: dict[str, Tensor], rows: int | None) -> list[dict[str, Tensor]]:
    """Cut what a model takes of a batch into parts of so many rows; one part where `rows` is None."""
    count = count_rows(inputs)
    size = count if rows is None else rows
    return [{name: each[start : start + size] for name, each in inputs.items()} for start in range(0, count, size)]
