"""The losses of tokens against a float64 restatement with whole logits, and what must not change them."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.losses.registry import Divergence
from distill.losses.tokens import SKEW, TokenTargets, diverge, measure_logits, sum_losses
from distill.models.generator import Generator, load_generator
from shared.sources import resolve_model
from tests.distill.writing import VOCABULARY, make_writer

Array = np.ndarray[Any, Any]
N, V, K, D = 23, 17, 5, 8
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)


def draw_targets(seed: int, n: int = N, vocabulary: int = V, k: int = K) -> TokenTargets:
    """Positions with a teacher's top K of a random distribution, every fourth without, every fifth with fewer."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n, vocabulary))
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ids = np.argsort(-logprobs, axis=1)[:, :k]
    named = np.take_along_axis(logprobs, ids, 1)
    ids[::5, -2:], named[::5, -2:] = -1, -np.inf
    ids[::4], named[::4] = -1, -np.inf
    with np.errstate(divide="ignore"):
        tail = np.log(np.maximum(1 - np.exp(named).sum(1), 0))
    tail[::4] = 0
    weight = rng.uniform(0.5, 1, n) * (np.arange(n) % 4 != 0)
    of_tail = rng.uniform(0.5, 1, n) * (weight != 0)
    arrays = (rng.integers(vocabulary, size=n), rng.uniform(0, 1, n), ids, named, tail, weight, of_tail)
    return TokenTargets(*map(torch.from_numpy, arrays))


def restate(logits: Array, targets: TokenTargets, divergence: Divergence) -> tuple[float, ...]:
    """All terms, a position and a bucket at a time, from probabilities."""
    total = nll = diverged = tail = 0.0
    of_tail = targets.tail_weight.numpy()
    for i, row in enumerate(logits):
        q = np.exp(row - row.max())
        q /= q.sum()
        own = -np.log(q[int(targets.said[i])])
        total += float(targets.nll_weight[i]) * own
        nll += own
        if not targets.top_weight[i]:
            continue
        named = [int(token) for token in targets.ids[i] if token >= 0]
        p = [float(torch.exp(each)) for each in targets.logprobs[i][: len(named)]]
        pairs = [*zip(p, q[named], strict=True), (1 - sum(p), 1 - q[named].sum())]
        each = 0.0
        for a, b in pairs:
            m = {"forward-kl": b, "jsd": (a + b) / 2, "skewed-kl": SKEW * a + (1 - SKEW) * b}[divergence]
            part = a * np.log(a / m) if a > 0 else 0.0
            each += part if divergence != "jsd" else (part + b * np.log(b / m)) / 2
        total += float(targets.top_weight[i]) * each
        diverged += each
        if int(targets.said[i]) not in named:
            among = -np.log(q[int(targets.said[i])] / (1 - q[named].sum()))
            total += float(of_tail[i]) * among
            tail += among if of_tail[i] else 0.0
    return total, nll, diverged, tail


class Head(nn.Module):
    """A head with a bias and a cap: no plain linear layer."""

    def __init__(self, vocabulary: int = V, width: int = D) -> None:
        super().__init__()
        self.linear = nn.Linear(width, vocabulary, dtype=torch.float64)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.linear(hidden) / 5) * 5


def make_inputs(seed: int = 0) -> tuple[Tensor, Head]:
    torch.manual_seed(seed)
    return torch.randn(N, D, dtype=torch.float64, requires_grad=True), Head()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_losses_are_those_of_whole_logits(divergence: Divergence) -> None:
    logits = np.random.default_rng(1).normal(scale=3, size=(N, V))
    targets = draw_targets(2)
    sums = measure_logits(torch.from_numpy(logits), targets, divergence)
    assert [each.item() for each in sums] == pytest.approx(restate(logits, targets, divergence), rel=1e-10)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_are_those_of_differences(divergence: Divergence) -> None:
    targets, step = draw_targets(3), 1e-5
    values = np.random.default_rng(4).normal(scale=2, size=(N, V))
    logits = torch.from_numpy(values).requires_grad_()
    (grad,) = torch.autograd.grad(measure_logits(logits, targets, divergence).total, [logits])
    for i, j in np.ndindex(N, V):
        moved = np.zeros((1, V))
        moved[0, j] = step
        row, own = values[i : i + 1], targets.cut(i, i + 1)
        up, down = (restate(row + sign * moved, own, divergence)[0] for sign in (1, -1))
        assert float(grad[i, j]) == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_buckets_and_tail_together_estimate_the_whole_divergence() -> None:
    """Over all tokens that the teacher may say next, each as often as it does, in the mean."""
    rng = np.random.default_rng(10)
    p, q = (torch.from_numpy(rng.normal(scale=2, size=V)).log_softmax(0) for _ in range(2))
    ids = p.topk(K).indices.expand(V, K)
    tail = torch.log(1 - p[ids[0]].exp().sum()).expand(V)
    targets = TokenTargets(torch.arange(V), torch.zeros(V), ids, p[ids], tail, p.exp(), p.exp())
    others = torch.isin(torch.arange(V), ids[0], invert=True)
    entropy = -(p[others].exp() * (p[others] - tail[0])).sum()  # of what the others leave open, in the student's favour
    found = measure_logits(q.expand(V, V), targets, "forward-kl").total - entropy
    assert found.item() == pytest.approx((p.exp() * (p - q)).sum().item(), rel=1e-9)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("rows", [1, 7, N, None])
def test_in_pieces_the_loss_and_its_gradients_are_those_in_one(divergence: Divergence, rows: int | None) -> None:
    targets = draw_targets(5)
    hidden, head = make_inputs()
    whole = measure_logits(head(hidden), targets, divergence)
    wanted = torch.autograd.grad(3 * whole.total, [hidden, *head.parameters()])
    pieces = sum_losses(hidden, head, targets, divergence, rows)
    found = torch.autograd.grad(3 * pieces.total, [hidden, *head.parameters()])
    assert [each.item() for each in pieces] == pytest.approx([each.item() for each in whole], rel=1e-10)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        unlearnt = sum_losses(hidden, head, targets, divergence, rows)
    assert [each.item() for each in unlearnt] == pytest.approx([each.item() for each in whole], rel=1e-10)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_under_an_adapter_the_pieces_come_to_the_same_gradients(divergence: Divergence, tmp_path: Path) -> None:
    """Of a LLaMA whose frozen head is its embeddings' too: the loss, and the gradient of every trained weight."""
    model = load_generator(resolve_model(str(make_writer(tmp_path))), lora_rank=4, lora_targets="all-linear")
    generator = Generator(model).double()
    torch.manual_seed(1)
    trained = [weight for weight in generator.parameters() if weight.requires_grad]
    for weight in trained:
        nn.init.normal_(weight, std=0.3)  # peft begins with updates of zero, which half of the gradients are then
    ids = torch.randint(len(VOCABULARY), (3, 8))
    targets = draw_targets(9, ids.numel(), len(VOCABULARY))
    found = []
    for rows in (None, 5):
        hidden = generator(ids, torch.ones_like(ids)).flatten(0, 1)
        whole = measure_logits(generator.head(hidden), targets, divergence)
        sums = whole if rows is None else sum_losses(hidden, generator.head, targets, divergence, rows)
        found.append((sums.total.item(), torch.autograd.grad(sums.total, trained)))
    (wanted, gradients), (total, own) = found
    assert total == pytest.approx(wanted, rel=1e-6)
    assert len(trained) == 2 * 2 * 7  # two matrices for each of seven linear layers in each of two blocks
    for a, b in zip(own, gradients, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_frozen_weights_of_a_head_get_no_gradient() -> None:
    hidden, head = make_inputs()
    head.linear.weight.requires_grad_(False)
    sum_losses(hidden, head, draw_targets(5), "forward-kl", 4).total.backward()
    assert head.linear.weight.grad is None
    assert head.linear.bias.grad is not None
    assert hidden.grad is not None


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_divergence_is_negative(divergence: Divergence, dtype: torch.dtype) -> None:
    """Not even between distributions that are the same to the last digits, or as far apart as can be."""
    rng = np.random.default_rng(6)
    for scale in (1e-3, 1.0, 30.0, 1000.0):
        logits = torch.from_numpy(rng.normal(scale=scale, size=(400, K + 1))).to(dtype)
        p = logits.log_softmax(1)
        others = torch.from_numpy(rng.normal(scale=scale, size=(400, K + 1))).to(dtype).log_softmax(1)
        near = (logits + torch.from_numpy(rng.normal(scale=1e-6, size=logits.shape)).to(dtype)).log_softmax(1)
        for q in (p, near, others):
            found = diverge(p, q, divergence)
            assert torch.isfinite(found).all()
            assert (found >= 0).all()
        assert diverge(p, p, divergence).max() < 1e-6


def test_the_rest_keeps_its_digits_where_the_named_tokens_have_almost_all() -> None:
    """1 - sum(p) would be 0 in float32: the log of the rest is known from its own logits."""
    logits = torch.full((1, 1000), -30.0)
    logits[0, :2] = 30.0
    ids = torch.tensor([[0, 1]])
    tail = torch.tensor([-53.0])
    said, named, none, one = torch.tensor([0]), torch.full((1, 2), -0.6931472), torch.zeros(1), torch.ones(1)
    targets = TokenTargets(said, none, ids, named, tail, one, none)
    logits.requires_grad_()
    sums = measure_logits(logits, targets, "forward-kl")
    sums.total.backward()
    assert torch.isfinite(sums.total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    student_tail = np.log(998.0) - 60 - np.log(2 + 998 * np.exp(-60.0))
    assert sums.divergence.item() == pytest.approx(np.exp(-53.0) * (-53 - student_tail), abs=1e-6)


def test_a_top_k_of_the_whole_vocabulary_leaves_no_rest() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64).log_softmax(1)
    targets = TokenTargets(
        torch.zeros(3, dtype=torch.int64),
        torch.ones(3),
        torch.arange(4).expand(3, 4),
        teacher,
        torch.full((3,), -torch.inf),
        torch.ones(3),
        torch.ones(3),
    )
    sums = measure_logits(logits, targets, "forward-kl")
    wanted = (teacher.exp() * (teacher - logits.log_softmax(1))).sum()
    assert sums.divergence.item() == pytest.approx(wanted.item())
    (grad,) = torch.autograd.grad(sums.total, [logits])
    assert torch.isfinite(grad).all()


def test_positions_of_weight_zero_count_nothing() -> None:
    """What stands there, and what the teacher said there, changes neither the loss nor any gradient."""
    hidden, head = make_inputs()
    targets = draw_targets(7)
    silent = torch.arange(N) % 3 == 0
    quiet = targets._replace(
        nll_weight=targets.nll_weight.masked_fill(silent, 0),
        top_weight=targets.top_weight.masked_fill(silent, 0),
        tail_weight=targets.top_weight.masked_fill(silent, 0),
    )
    other = draw_targets(8)
    changed = TokenTargets(
        torch.where(silent, other.said, quiet.said),
        quiet.nll_weight,
        torch.where(silent[:, None], other.ids, quiet.ids),
        torch.where(silent[:, None], other.logprobs, quiet.logprobs),
        torch.where(silent, other.tail, quiet.tail),
        quiet.top_weight,
        quiet.tail_weight,
    )
    results = []
    for each in (quiet, changed):
        sums = sum_losses(hidden, head, each, "forward-kl", 5)
        (grad,) = torch.autograd.grad(sums.total, [hidden])
        assert (grad[silent] == 0).all()
        results.append((sums, grad))
    assert results[0][0].total.item() == results[1][0].total.item()
    assert results[0][0].nll.item() == results[1][0].nll.item()
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    hidden, _ = make_inputs()
    half, own = hidden.detach().bfloat16().requires_grad_(), Head().bfloat16()
    targets = TokenTargets(*(each.float() if each.is_floating_point() else each for each in draw_targets(5)))
    sums = sum_losses(half, own, targets, "forward-kl", 4)
    sums.total.backward()
    assert sums.total.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
