"""What a student that writes is held to at each token: the text itself, and a teacher's stored top K.

    nll         - log q(said)
    forward-kl  sum_b p_b log(p_b / q_b)
    jsd         1/2 sum_b p_b log(p_b / m_b) + 1/2 sum_b q_b log(q_b / m_b)       m = (p + q) / 2
    skewed-kl   sum_b p_b log(p_b / m_b)                                          m = l p + (1 - l) q, l = .1
    tail        - log(q(said) / q(all others))       where said is one of all others, else 0

b runs over K + 1 buckets: the K tokens that the teacher's row names, and all others together. p is the teacher's
distribution over them, q the student's. Without the last bucket this would be no divergence: it could be made negative
by putting mass on tokens that the row does not name. Sources: Hinton, Vinyals and Dean, arXiv:1503.02531 (forward-kl);
Agarwal et al., arXiv:2306.13649 (jsd); Ko et al., arXiv:2402.03898 (skewed-kl).

`tail` is the part of a distribution that the buckets leave open. The KL over the whole vocabulary is that over the
buckets, plus p(all others) times the KL among those; a token of the teacher's own text is a draw of p, so where it is
one of the others, its likelihood among them estimates that second part, without a word on the K (ours).

The logits of all positions never exist together: see sum_losses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from distill.losses.registry import Divergence

SKEW = 0.1
# A log-probability below it counts as this: its probability is 0 in every type, and no infinity meets another.
LOG_FLOOR = -1e4
# Logits that exist at once. On a CPU 64 MiB of float32 stay near its caches; a GPU wants matrices that fill it.
CPU_LOGITS, GPU_LOGITS = 2**24, 2**27


class TokenTargets(NamedTuple):
    """What n positions are held to.

    `said` (n,) are the ids of the tokens that stand there, and `nll_weight` (n,) what each one's likelihood counts.
    `ids` and `logprobs` (n, K) are the teacher's most probable tokens, -1 and minus infinity where it gave fewer;
    `tail` (n,) is the log of what all others have; `top_weight` (n,) is what each position's divergence counts, 0
    where the teacher gave none, and `tail_weight` (n,) what the likelihood of `said` among all others does.
    """

    said: Tensor
    nll_weight: Tensor
    ids: Tensor
    logprobs: Tensor
    tail: Tensor
    top_weight: Tensor
    tail_weight: Tensor

    def cut(self, start: int, end: int) -> "TokenTargets":
        """Give those of some positions."""
        return TokenTargets(*(each[start:end] for each in self))


class LossSums(NamedTuple):
    """`total` is what is learnt: all terms, each position times its weight. The others are over all positions.

    `nll`, `divergence` and `tail` are sums that no weight changes but a weight of 0, which leaves a position out.
    """

    total: Tensor
    nll: Tensor
    divergence: Tensor
    tail: Tensor


_TERMS = len(LossSums._fields)


def sum_losses(
    hidden: Tensor, head: nn.Module, targets: TokenTargets, divergence: Divergence, rows: int | None = None
) -> LossSums:
    """Sum what n positions are held to; `hidden` (n, d) is what their tokens are predicted from, by `head`.

    The head turns `rows` of them at a time into logits (rows, V), as many as fit the device unless given. Their
    gradient is taken at once, for `hidden` and for the head's trainable weights, and they are forgotten: the memory is
    that of rows x V numbers, and the head runs once forward and once back. Gradients are those of the loss in one
    piece, up to the order of summation. Only `total` has a gradient, and that one pass backwards long.
    """
    rows = rows or choose_rows(head, hidden.device)
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or weights):
        found = _ChunkedLoss.apply(hidden, head, targets, divergence, rows, *weights)  # type: ignore[no-untyped-call]
        return LossSums(*found)
    sums = hidden.new_zeros(_TERMS, dtype=torch.promote_types(hidden.dtype, torch.float32))
    for start in range(0, len(hidden), rows):
        chunk = targets.cut(start, start + rows)
        sums = sums + torch.stack(measure_logits(head(hidden[start : start + rows]), chunk, divergence))
    return LossSums(*sums.unbind())


def choose_rows(head: nn.Module, device: torch.device) -> int:
    """Choose how many positions are turned into logits at a time."""
    vocabulary = max((weight.shape[0] for weight in head.parameters() if weight.dim() > 1), default=1)
    return max(1, (CPU_LOGITS if device.type == "cpu" else GPU_LOGITS) // vocabulary)


def measure_logits(logits: Tensor, targets: TokenTargets, divergence: Divergence) -> LossSums:
    """Sum what the positions of `logits` (n, V) are held to, in float32 or better."""
    top, rest, said = _Buckets.apply(logits, targets.ids, targets.said)  # type: ignore[no-untyped-call]
    buckets = torch.cat([top, rest[:, None]], 1)
    normaliser = buckets.logsumexp(1)
    nll = normaliser - said
    diverged = nll.new_zeros(len(nll))
    if targets.ids.shape[1]:
        teacher = torch.cat([targets.logprobs, targets.tail[:, None]], 1).to(buckets.dtype)
        diverged = diverge(teacher, buckets - normaliser[:, None], divergence)
    among = torch.where((targets.ids != targets.said[:, None]).all(1), rest - said, 0)
    terms = ((nll, targets.nll_weight), (diverged, targets.top_weight), (among, targets.tail_weight))
    total = torch.stack([(values * weight).sum() for values, weight in terms]).sum()
    return LossSums(total, *((values * (weight != 0)).sum().detach() for values, weight in terms))


def diverge(teacher: Tensor, student: Tensor, divergence: Divergence) -> Tensor:
    """Give each position's divergence, (n,), of log-probabilities over the same buckets, both (n, K + 1).

    The teacher's are brought to sum to 1, which they miss by what their storage rounds. No divergence is below 0: what
    comes out so is the rounding of a sum that is 0.
    """
    ours = teacher.detach().log_softmax(1).clamp(min=LOG_FLOOR)
    theirs = student.clamp(min=LOG_FLOOR)
    return DIVERGENCES[divergence](ours, theirs).clamp(min=0)


def _forward_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(1)


def _jsd(p: Tensor, q: Tensor) -> Tensor:
    mixed = torch.logaddexp(p, q) - math.log(2)
    return (_forward_kl(p, mixed) + _forward_kl(q, mixed)) / 2


def _skewed_kl(p: Tensor, q: Tensor) -> Tensor:
    return _forward_kl(p, torch.logaddexp(p + math.log(SKEW), q + math.log(1 - SKEW)))


DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward-kl": _forward_kl,
    "jsd": _jsd,
    "skewed-kl": _skewed_kl,
}


class _Buckets(Function):
    """Logits (n, V) to those of the named tokens (n, K), logsumexp over all others (n,), and that of `said` (n,).

    The logsumexp leaves the K out before it sums: the log of 1 less their sum would have no digits left where they
    have nearly all. Backwards, the gradient is written over the numbers that were kept for it.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rest = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        spoken = rest.gather(1, said[:, None]).squeeze(1)
        absent = ids < 0
        first = ids[:, :1].clamp(min=0)  # names the same token again in a place that has none
        named = torch.where(absent, first, ids).long()
        found = rest.gather(1, named)
        rest.scatter_(1, named, torch.where(absent[:, :1], found, -math.inf))
        others = rest.logsumexp(1)
        ctx.saved = (rest, others, named, absent, said, logits.dtype)
        return found.masked_fill(absent, -math.inf), others, spoken

    @staticmethod
    def backward(ctx: Any, top: Tensor, others: Tensor, spoken: Tensor) -> Any:
        rest, total, named, absent, said, dtype = ctx.saved
        ctx.saved = None
        finite = total.masked_fill(total == -math.inf, 0)  # where no token is left over, there is no gradient
        grad = rest.sub_(finite[:, None]).exp_().mul_(others[:, None])
        grad.scatter_add_(1, named, top.masked_fill(absent, 0))
        grad.scatter_add_(1, said[:, None], spoken[:, None])
        return grad.to(dtype), None, None


class _ChunkedLoss(Function):
    """sum_losses with its gradients, which it takes as it goes."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: nn.Module,
        targets: TokenTargets,
        divergence: Divergence,
        rows: int,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        sums = hidden.new_zeros(_TERMS, dtype=torch.promote_types(hidden.dtype, torch.float32))
        by_hidden = torch.empty_like(hidden)
        by_weight: list[Tensor | None] = [None] * len(weights)
        for start in range(0, len(hidden), rows):
            here = slice(start, start + rows)
            with torch.enable_grad():
                own = hidden[here].detach().requires_grad_()
                measured = measure_logits(head(own), targets.cut(start, start + rows), divergence)
                found = torch.autograd.grad(measured.total, [own, *weights])
            by_hidden[here] = found[0]
            _add_to(by_weight, found[1:])
            sums += torch.stack(measured).detach()
        ctx.found = (by_hidden, *by_weight)
        total, *others = sums.unbind()
        ctx.mark_non_differentiable(*others)
        return total, *others

    @staticmethod
    def backward(ctx: Any, total: Tensor, *_: Tensor) -> Any:
        found = ctx.found
        ctx.found = None
        by_hidden, *by_weight = (None if grad is None else grad.mul_(total) for grad in found)
        return by_hidden, None, None, None, None, *by_weight


def _add_to(sums: list[Tensor | None], more: Sequence[Tensor]) -> None:
    for index, grad in enumerate(more):
        known = sums[index]
        sums[index] = grad if known is None else known.add_(grad)
