"""Every loss against a plain restatement in numpy float64, its gradient, and what it must not see."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.aligner import Aligner
from distill.config import Loss, Semantics
from distill.losses.mean_cosine import mean_cosine
from distill.losses.mean_distance import mean_distance
from distill.losses.mean_dot import mean_dot
from distill.losses.mean_mse import mean_mse
from distill.losses.objective import MATCH, Objective
from distill.losses.row_distance import row_distance
from distill.losses.row_mse import row_mse
from distill.losses.soft_distance import soft_distance
from distill.losses.soft_mse import soft_mse
from distill.losses.task import task_loss
from distill.outputs import Outputs

Array = np.ndarray[Any, Any]
N, C, D, TAU = 7, 3, 5, 5.0
SEEDS = range(5)


def draw(seed: int, *shape: int, scale: float = 3.0) -> Array:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def norm(x: Array) -> Array:
    return np.asarray(np.sqrt((x**2).sum(axis=-1)))


# The restatements follow the equations row by row, and share nothing with what they check.


def restate_task(o: Array, y: Array, labelled: Array) -> float:
    each = [
        -np.log(softmax(o[i])[int(y[i])]) if o.shape[1] > 1 else (o[i, 0] - y[i]) ** 2
        for i in range(len(o))
        if labelled[i]
    ]
    return float(np.mean(each)) if each else 0.0


def restate_soft(semantics: Semantics, t: Array, s: Array, tau: float) -> float:
    regression = t.shape[1] == 1
    if semantics == "paper":
        phi: Callable[[Array], Array] = (lambda x: x) if regression else softmax
        return float(np.mean([norm(phi(t[i] / tau) - phi(s[i] / tau)) for i in range(len(t))]))
    if regression:
        return float(np.mean((t - s) ** 2))
    return float(tau**2 * np.mean((softmax(t / tau) - softmax(s / tau)) ** 2))


def restate_match(semantics: Semantics, loss: Loss, t: Array, s: Array) -> float:
    t_mean, s_mean = t.sum(axis=0) / len(t), s.sum(axis=0) / len(s)
    if loss == "cosine":
        dot = float((t_mean * s_mean).sum())
        return 1 - dot if semantics == "paper" else 1 - dot / float(norm(t_mean) * norm(s_mean))
    if loss == "euclid":
        return float(norm(t_mean - s_mean) if semantics == "paper" else ((t_mean - s_mean) ** 2).mean())
    return float(norm(t - s).sum() / len(t) if semantics == "paper" else ((t - s) ** 2).mean())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("labelled", [[1] * N, [1, 0, 0, 1, 1, 0, 1], [0] * N])
def test_task_loss(seed: int, labelled: list[int]) -> None:
    mask = np.array(labelled, bool)
    o, y = draw(seed, N, C), np.random.default_rng(seed).integers(C, size=N)
    got = task_loss(torch.from_numpy(o), torch.from_numpy(y), torch.from_numpy(mask))
    assert float(got) == pytest.approx(restate_task(o, y, mask), abs=1e-6)
    values, target = draw(seed, N, 1), draw(seed + 100, N)
    got = task_loss(torch.from_numpy(values), torch.from_numpy(target), torch.from_numpy(mask))
    assert float(got) == pytest.approx(restate_task(values, target, mask), abs=1e-6)


@pytest.mark.parametrize("hidden", [-1, 0, 2])
def test_a_hidden_label_changes_nothing(hidden: int) -> None:
    o = torch.from_numpy(draw(0, N, C)).requires_grad_()
    mask = torch.tensor([True, False, True, True, False, True, True])
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    loss = task_loss(o, y, mask)
    (gradient,) = torch.autograd.grad(loss, o)
    other = task_loss(o, torch.where(mask, y, hidden), mask)
    (other_gradient,) = torch.autograd.grad(other, o)
    assert torch.equal(loss, other)
    assert torch.equal(gradient, other_gradient)
    assert not gradient[~mask].any()


@pytest.mark.parametrize("hidden", [float("nan"), float("inf"), -3.0])
def test_a_hidden_target_changes_nothing(hidden: float) -> None:
    o = torch.from_numpy(draw(0, N, 1)).requires_grad_()
    mask = torch.tensor([True, False, True, True, False, True, True])
    y = torch.from_numpy(draw(1, N))
    (gradient,) = torch.autograd.grad(task_loss(o, y, mask), o)
    (other,) = torch.autograd.grad(task_loss(o, torch.where(mask, y, hidden), mask), o)
    assert torch.equal(gradient, other)


def test_a_batch_without_labels_has_no_task_term_and_no_gradient_of_it() -> None:
    o = torch.from_numpy(draw(0, N, C)).requires_grad_()
    loss = task_loss(o, torch.full((N,), -100), torch.zeros(N, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, o)
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width", [C, 1])
@pytest.mark.parametrize(("semantics", "loss"), [("paper", soft_distance), ("code", soft_mse)])
def test_soft_targets(seed: int, width: int, semantics: Semantics, loss: Callable[..., Tensor]) -> None:
    t, s = draw(seed, N, width), draw(seed + 50, N, width)
    got = loss(torch.from_numpy(t), torch.from_numpy(s), TAU, width == 1)
    assert float(got) == pytest.approx(restate_soft(semantics, t, s, TAU), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", [loss for loss in get_args(Loss) if loss != "none"])
@pytest.mark.parametrize("semantics", get_args(Semantics))
def test_match(seed: int, loss: Loss, semantics: Semantics) -> None:
    t, s = draw(seed, N, D), draw(seed + 50, N, D)
    got = MATCH[semantics, loss](torch.from_numpy(t), torch.from_numpy(s))
    assert float(got) == pytest.approx(restate_match(semantics, loss, t, s), abs=1e-6)


@pytest.mark.parametrize("loss", [mean_dot, mean_cosine, mean_distance, mean_mse])
def test_batch_means_do_not_see_who_is_who(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    t, s = torch.from_numpy(draw(0, N, D)), torch.from_numpy(draw(1, N, D))
    assert float(loss(t[torch.randperm(N)], s)) == pytest.approx(float(loss(t, s)), abs=1e-12)


@pytest.mark.parametrize("semantics", get_args(Semantics))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_teacher_shuffled_within_the_batch_leaves_cosine_and_euclid_as_they_are(
    semantics: Semantics, seed: int
) -> None:
    """The paper leaves this open: neither the term nor what it does to the student can tell the pairing."""
    torch.manual_seed(seed)
    aligner = Aligner(torch.zeros(D), torch.ones(D), C, semantics).double().eval()
    vectors = torch.from_numpy(draw(seed, N, D))
    projected = aligner(vectors).projected
    student = torch.from_numpy(draw(seed + 50, *projected.shape)).requires_grad_()
    shuffled = aligner(vectors[torch.randperm(N)]).projected
    for loss, sees in (("cosine", False), ("euclid", False), ("elementwise", True)):
        match = MATCH[semantics, loss]  # type: ignore[index]
        terms = [match(teacher, student) for teacher in (projected, shuffled)]
        gradients = [torch.autograd.grad(term, student)[0] for term in terms]
        assert torch.allclose(*terms, rtol=0, atol=1e-10) is not sees
        assert torch.allclose(*gradients, rtol=0, atol=1e-10) is not sees


@pytest.mark.parametrize("loss", [row_distance, row_mse])
def test_elementwise_terms_see_who_is_who(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    t, s = torch.from_numpy(draw(0, N, D)), torch.from_numpy(draw(1, N, D))
    assert abs(float(loss(t.flip(0), s)) - float(loss(t, s))) > 1e-3


@pytest.mark.parametrize("match", list(MATCH.values()))
def test_gradients_of_match(match: Callable[[Tensor, Tensor], Tensor]) -> None:
    t = torch.from_numpy(draw(0, N, D)).requires_grad_()
    s = torch.from_numpy(draw(1, N, D)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: match(t, x), s)
    assert torch.autograd.grad(match(t, s), t, allow_unused=True)[0] is None


@pytest.mark.parametrize("soft", [soft_distance, soft_mse])
@pytest.mark.parametrize("width", [C, 1])
def test_gradients_of_soft_targets(soft: Callable[..., Tensor], width: int) -> None:
    t = torch.from_numpy(draw(0, N, width)).requires_grad_()
    s = torch.from_numpy(draw(1, N, width)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft(t, x, TAU, width == 1), s)
    assert torch.autograd.grad(soft(t, s, TAU, width == 1), t, allow_unused=True)[0] is None


def test_gradients_of_the_task_loss() -> None:
    mask = torch.tensor([True, False, True, True, False, True, True])
    o, v = torch.from_numpy(draw(0, N, C)).requires_grad_(), torch.from_numpy(draw(0, N, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: task_loss(x, torch.tensor([0, 1, 2, 0, 1, 2, 0]), mask), o)
    assert torch.autograd.gradcheck(lambda x: task_loss(x, torch.from_numpy(draw(1, N)), mask), v)


@pytest.mark.parametrize("match", list(MATCH.values()))
def test_equal_inputs_have_finite_gradients(match: Callable[[Tensor, Tensor], Tensor]) -> None:
    s = torch.from_numpy(draw(0, N, D)).requires_grad_()
    (gradient,) = torch.autograd.grad(match(s.detach().clone(), s), s)
    assert torch.isfinite(gradient).all()


def make_outputs(seed: int, width: int) -> tuple[Outputs, tuple[Array, Array, Array]]:
    arrays = (draw(seed, N, width), draw(seed + 1, N, width), draw(seed + 2, N, D))
    return Outputs(*(torch.from_numpy(a).requires_grad_() for a in arrays)), arrays


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width", [C, 1])
@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("semantics", get_args(Semantics))
@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_the_whole_objective(seed: int, width: int, loss: Loss, semantics: Semantics, gamma: float) -> None:
    alpha, beta = 0.3, 1.7
    objective = Objective(semantics, loss, alpha, beta, gamma, TAU, regression=width == 1)
    teacher, (o_t, a_t, p_t) = make_outputs(seed * 10, width)
    student, (o_s, a_s, p_s) = make_outputs(seed * 10 + 5, width)
    mask = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    y = np.random.default_rng(seed).integers(C, size=N) if width > 1 else draw(seed, N)

    task = restate_task(o_s, y, mask) + gamma * restate_task(a_s, y, mask)
    soft = restate_soft(semantics, o_t, o_s, TAU) + gamma * restate_soft(semantics, a_t, a_s, TAU)
    expected = (1 - alpha) * task + alpha * soft
    if loss != "none":
        expected += beta * restate_match(semantics, loss, p_t, p_s)
    terms = objective.student_terms(student, teacher, torch.from_numpy(y), torch.from_numpy(mask))
    assert float(terms["total"].detach()) == pytest.approx(expected, abs=1e-6)
    terms["total"].backward()  # type: ignore[no-untyped-call]
    assert teacher.main.grad is None
    assert teacher.auxiliary.grad is None
    assert teacher.projected.grad is None

    aligner = objective.aligner_loss(teacher, torch.from_numpy(y), torch.from_numpy(mask))
    expected = restate_task(o_t, y, mask) + gamma * restate_task(a_t, y, mask)
    assert float(aligner.detach()) == pytest.approx(expected, abs=1e-6)


def test_without_a_teacher_only_the_labels_count() -> None:
    student, (o, a, _) = make_outputs(0, C)
    y, mask = np.array([0, 1, 2, 0, 1, 2, 0]), np.ones(N, bool)
    objective = Objective("paper", "none", 0.0, 1.0, 0.5, TAU, regression=False)
    terms = objective.student_terms(student, None, torch.from_numpy(y), torch.from_numpy(mask))
    assert set(terms) == {"total", "task"}
    expected = restate_task(o, y, mask) + 0.5 * restate_task(a, y, mask)
    assert float(terms["total"].detach()) == pytest.approx(expected, abs=1e-6)
