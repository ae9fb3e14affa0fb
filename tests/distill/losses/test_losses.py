"""Every loss against a plain restatement in numpy float64, its gradient, and what it must not see."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.config import ArmadaConfig
from distill.losses.armada import (
    code_cosine,
    code_elementwise,
    code_euclid,
    code_soft,
    paper_cosine,
    paper_elementwise,
    paper_euclid,
    paper_soft,
)
from distill.losses.contrastive import Contrastive
from distill.losses.geometry import LEAST_ROWS, cka, procrustes
from distill.losses.label_kl import label_kl
from distill.losses.objective import Objective, WeightedLoss, make_objective
from distill.losses.registry import ENTRIES, LossOptions, Semantics, make_match
from distill.losses.task import task_loss
from distill.models.aligner import Aligner
from distill.models.outputs import Outputs
from distill.phi import Phi

Array = np.ndarray[Any, Any]
N, C, D, TAU, TEMPERATURE = 7, 3, 5, 5.0, 0.3
SEEDS = range(5)
SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)
LOSSES = [entry.name for entry in ENTRIES]


def find_match(semantics: Semantics, loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    return make_match(loss, semantics, LossOptions(contrastive_temperature=TEMPERATURE))


MATCHES = [find_match(semantics, loss) for semantics in SEMANTICS for loss in LOSSES]


def draw(seed: int, *shape: int, scale: float = 3.0) -> Array:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def norm(x: Array) -> Array:
    return np.asarray(np.sqrt((x**2).sum(axis=-1)))


# The restatements follow the equations row by row, and share nothing with what they check.


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


PHI: dict[Phi, Callable[[Array], Array]] = {"softmax": softmax, "sigmoid": sigmoid, "identity": lambda x: x}
WIDTHS: dict[Phi, int] = {"softmax": C, "sigmoid": C, "identity": 1}


def draw_targets(seed: int, phi: Phi) -> Array:
    rng = np.random.default_rng(seed)
    if phi == "identity":
        return draw(seed, N)
    return rng.integers(C, size=N) if phi == "softmax" else rng.random((N, C)) < 0.4


def restate_task(o: Array, y: Array, labelled: Array) -> float:
    if y.ndim == 2:
        sets = [-np.log(np.where(y[i], sigmoid(o[i]), 1 - sigmoid(o[i]))).sum() for i in range(len(o)) if labelled[i]]
        return float(np.mean(sets)) if sets else 0.0
    each = [
        -np.log(softmax(o[i])[int(y[i])]) if o.shape[1] > 1 else (o[i, 0] - y[i]) ** 2
        for i in range(len(o))
        if labelled[i]
    ]
    return float(np.mean(each)) if each else 0.0


def restate_soft(semantics: Semantics, t: Array, s: Array, tau: float, phi: Phi) -> float:
    if semantics == "paper":
        return float(np.mean([norm(PHI[phi](t[i] / tau) - PHI[phi](s[i] / tau)) for i in range(len(t))]))
    if phi == "identity":
        return float(np.mean((t - s) ** 2))
    return float(tau**2 * np.mean((PHI[phi](t / tau) - PHI[phi](s / tau)) ** 2))


def restate_match(semantics: Semantics, loss: str, t: Array, s: Array) -> float:
    t_mean, s_mean = t.sum(axis=0) / len(t), s.sum(axis=0) / len(s)
    if loss == "cosine":
        dot = float((t_mean * s_mean).sum())
        return 1 - dot if semantics == "paper" else 1 - dot / float(norm(t_mean) * norm(s_mean))
    if loss == "euclid":
        return float(norm(t_mean - s_mean) if semantics == "paper" else ((t_mean - s_mean) ** 2).mean())
    if loss == "elementwise":
        return float(norm(t - s).sum() / len(t) if semantics == "paper" else ((t - s) ** 2).mean())
    return {"cka": restate_cka, "procrustes": restate_procrustes, "contrastive": restate_contrastive}[loss](t, s)


def restate_hsic(x: Array, y: Array) -> float:
    """The estimator of Song et al. (2012), equation 5, term by term."""
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    product = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + product - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def restate_cka(t: Array, s: Array) -> float:
    return 1 - restate_hsic(t, s) / float(np.sqrt(restate_hsic(t, t) * restate_hsic(s, s)))


def restate_procrustes(t: Array, s: Array) -> float:
    a, b = t - t.mean(axis=0), s - s.mean(axis=0)
    a, b = a / np.sqrt((a**2).sum()), b / np.sqrt((b**2).sum())
    u, _, v = np.linalg.svd(a.T @ b)
    return float(((a @ (u @ v) - b) ** 2).sum())


def restate_contrastive(t: Array, s: Array, temperature: float = TEMPERATURE) -> float:
    scores = [[float(x @ y / (norm(x) * norm(y))) / temperature for y in t] for x in s]
    return float(-np.mean([np.log(np.exp(row[i]) / np.exp(row).sum()) for i, row in enumerate(scores)]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("labelled", [[1] * N, [1, 0, 0, 1, 1, 0, 1], [0] * N])
def test_task_loss(seed: int, labelled: list[int]) -> None:
    mask = np.array(labelled, bool)
    for phi, width in WIDTHS.items():
        o, y = draw(seed, N, width), draw_targets(seed + 100, phi)
        got = task_loss(torch.from_numpy(o), torch.from_numpy(y), torch.from_numpy(mask))
        assert float(got) == pytest.approx(restate_task(o, y, mask), abs=1e-6)


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
@pytest.mark.parametrize("phi", WIDTHS)
@pytest.mark.parametrize(("semantics", "loss"), [("paper", paper_soft), ("code", code_soft)])
def test_soft_targets(seed: int, phi: Phi, semantics: Semantics, loss: Callable[..., Tensor]) -> None:
    t, s = draw(seed, N, WIDTHS[phi]), draw(seed + 50, N, WIDTHS[phi])
    got = loss(torch.from_numpy(t), torch.from_numpy(s), TAU, phi)
    assert float(got) == pytest.approx(restate_soft(semantics, t, s, TAU, phi), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_match(seed: int, loss: str, semantics: Semantics) -> None:
    t, s = draw(seed, N, D), draw(seed + 50, N, D)
    got = find_match(semantics, loss)(torch.from_numpy(t), torch.from_numpy(s))
    assert float(got) == pytest.approx(restate_match(semantics, loss, t, s), abs=1e-6)


@pytest.mark.parametrize("loss", [paper_cosine, code_cosine, paper_euclid, code_euclid])
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
    for loss in LOSSES:
        match, sees = find_match(semantics, loss), loss not in ("cosine", "euclid")
        terms = [match(teacher, student) for teacher in (projected, shuffled)]
        gradients = [torch.autograd.grad(term, student)[0] for term in terms]
        assert torch.allclose(terms[0], terms[1], rtol=0, atol=1e-10) is not sees
        assert torch.allclose(gradients[0], gradients[1], rtol=0, atol=1e-10) is not sees


@pytest.mark.parametrize("loss", [paper_elementwise, code_elementwise, cka, procrustes, Contrastive(TEMPERATURE)])
def test_terms_of_rows_see_who_is_who(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    t, s = torch.from_numpy(draw(0, N, D)), torch.from_numpy(draw(1, N, D))
    assert abs(float(loss(t.flip(0), s)) - float(loss(t, s))) > 1e-3


@pytest.mark.parametrize("match", MATCHES)
def test_gradients_of_match(match: Callable[[Tensor, Tensor], Tensor]) -> None:
    t = torch.from_numpy(draw(0, N, D)).requires_grad_()
    s = torch.from_numpy(draw(1, N, D)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: match(t, x), s)
    assert torch.autograd.grad(match(t, s), t, allow_unused=True)[0] is None


@pytest.mark.parametrize("soft", [paper_soft, code_soft])
@pytest.mark.parametrize("phi", WIDTHS)
def test_gradients_of_soft_targets(soft: Callable[..., Tensor], phi: Phi) -> None:
    t = torch.from_numpy(draw(0, N, WIDTHS[phi])).requires_grad_()
    s = torch.from_numpy(draw(1, N, WIDTHS[phi])).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft(t, x, TAU, phi), s)
    assert torch.autograd.grad(soft(t, s, TAU, phi), t, allow_unused=True)[0] is None


def test_gradients_of_the_task_loss() -> None:
    mask = torch.tensor([True, False, True, True, False, True, True])
    o, v = torch.from_numpy(draw(0, N, C)).requires_grad_(), torch.from_numpy(draw(0, N, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: task_loss(x, torch.tensor([0, 1, 2, 0, 1, 2, 0]), mask), o)
    assert torch.autograd.gradcheck(lambda x: task_loss(x, torch.from_numpy(draw(1, N)), mask), v)


@pytest.mark.parametrize("match", MATCHES)
def test_equal_inputs_have_finite_gradients(match: Callable[[Tensor, Tensor], Tensor]) -> None:
    s = torch.from_numpy(draw(0, N, D)).requires_grad_()
    (gradient,) = torch.autograd.grad(match(s.detach().clone(), s), s)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("rows", range(1, LEAST_ROWS))
def test_a_batch_too_small_for_cka_gives_none(rows: int) -> None:
    s = torch.from_numpy(draw(1, rows, D)).requires_grad_()
    loss = cka(torch.from_numpy(draw(0, rows, D)), s)
    (gradient,) = torch.autograd.grad(loss, s)
    assert float(loss.detach()) == 0
    assert torch.equal(gradient, torch.zeros_like(s))


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("same", ["teacher", "student", "both"])
def test_rows_that_are_all_alike_have_finite_gradients(match: Callable[[Tensor, Tensor], Tensor], same: str) -> None:
    t, s = (torch.from_numpy(draw(seed, N, D)).float() for seed in (0, 1))
    t = t[:1].repeat(N, 1) if same != "student" else t
    s = (s[:1].repeat(N, 1) if same != "teacher" else s).requires_grad_()
    loss = match(t, s)
    (gradient,) = torch.autograd.grad(loss, s)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_the_unbiased_cka_of_independent_spaces_is_near_nothing_where_the_biased_one_is_near_all() -> None:
    """Twelve rows in 500 dimensions: the case of a batch."""
    values = [1 - float(cka(*(torch.from_numpy(draw(2 * seed + i, 12, 500)) for i in (0, 1)))) for seed in range(40)]
    biased = []
    for seed in range(40):
        x, y = (draw(2 * seed + i, 12, 500) for i in (0, 1))
        k, m = ((z - z.mean(axis=0)) @ (z - z.mean(axis=0)).T for z in (x, y))
        biased.append(float((k * m).sum() / np.sqrt((k**2).sum() * (m**2).sum())))
    assert abs(np.mean(values)) < 0.05
    assert np.mean(biased) > 0.9


@pytest.mark.parametrize("loss", [cka, procrustes])
@pytest.mark.parametrize("width", [3, D, 40])
def test_a_rotation_a_shift_and_a_scale_change_nothing(loss: Callable[[Tensor, Tensor], Tensor], width: int) -> None:
    t, s = draw(0, N, width), draw(1, N, width)
    q, _ = np.linalg.qr(draw(2, width, width))
    moved = 0.3 * t @ q + 5
    assert float(loss(torch.from_numpy(t), torch.from_numpy(moved))) == pytest.approx(0, abs=1e-9)
    before, after = (float(loss(torch.from_numpy(x), torch.from_numpy(s))) for x in (t, moved))
    assert before == pytest.approx(after, abs=1e-9)
    assert before > 0.05


def test_a_student_that_ran_away_gives_a_number_that_is_none() -> None:
    t, s = torch.ones(N, D), torch.full((N, D), torch.nan, requires_grad=True)
    assert torch.isnan(procrustes(t, s))


def restate_label_kl(q: Array, s: Array, tau: float) -> float:
    """Row by row, from probabilities."""
    each = []
    for logs, logits in zip(q, s, strict=True):
        teacher, student = np.exp(logs) ** (1 / tau), softmax(logits / tau)
        teacher = teacher / teacher.sum()
        each.append(np.exp(logs).sum() * (teacher * np.log(teacher / student)).sum())
    return float(tau**2 * np.mean(each))


def draw_partial(seed: int, residual: float = 0.2) -> Array:
    """Log-probabilities of labels, with a residual of about `residual` that differs by row."""
    return np.log(softmax(draw(seed, N, C)) * (1 - residual * np.random.default_rng(seed).uniform(0, 2, (N, 1))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tau", [1.0, TAU])
def test_label_kl(seed: int, tau: float) -> None:
    q, s = draw_partial(seed), draw(seed + 50, N, C)
    assert float(label_kl(torch.from_numpy(q), torch.from_numpy(s), tau)) == pytest.approx(
        restate_label_kl(q, s, tau), abs=1e-6
    )


def test_gradients_of_label_kl() -> None:
    q = torch.from_numpy(draw_partial(0)).requires_grad_()
    s = torch.from_numpy(draw(1, N, C)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: label_kl(q, x, TAU), s)
    assert torch.autograd.grad(label_kl(q, s, TAU), q, allow_unused=True)[0] is None


def test_a_partial_distribution_is_taken_as_it_is() -> None:
    """At tau = 1 the gradient is that of the cross-entropy to the partial distribution: (mass p - q) / n."""
    q, s = draw_partial(0), torch.from_numpy(draw(1, N, C)).requires_grad_()
    (gradient,) = torch.autograd.grad(label_kl(torch.from_numpy(q), s, 1.0), s)
    mass = np.exp(q).sum(axis=1, keepdims=True)
    assert mass.min() < 0.8
    expected = (mass * softmax(s.detach().numpy()) - np.exp(q)) / N
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-12)


def test_a_row_on_no_label_teaches_nothing() -> None:
    q, s = torch.from_numpy(draw_partial(0)), torch.from_numpy(draw(1, N, C)).requires_grad_()
    q[2] = -100.0  # what harvest writes for a label that was not seen
    loss = label_kl(q, s, TAU)
    (gradient,) = torch.autograd.grad(loss, s)
    assert torch.isfinite(loss)
    assert gradient[2].abs().max() < 1e-30
    assert gradient.abs().amax(1)[[0, 1, 3, 4, 5, 6]].min() > 1e-4


def make_outputs(seed: int, width: int) -> tuple[Outputs, tuple[Array, Array, Array]]:
    arrays = (draw(seed, N, width), draw(seed + 1, N, width), draw(seed + 2, N, D))
    return Outputs(*(torch.from_numpy(a).requires_grad_() for a in arrays)), arrays


def put_together(
    semantics: Semantics, loss: str, alpha: float, beta: float, gamma: float, phi: Phi = "softmax"
) -> Objective:
    losses = {} if loss == "none" else {loss: WeightedLoss(find_match(semantics, loss))}
    return Objective(semantics=semantics, losses=losses, alpha=alpha, beta=beta, gamma=gamma, tau=TAU, phi=phi)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("phi", WIDTHS)
@pytest.mark.parametrize("loss", [*LOSSES, "none"])
@pytest.mark.parametrize("semantics", get_args(Semantics))
@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_the_whole_objective(seed: int, phi: Phi, loss: str, semantics: Semantics, gamma: float) -> None:
    alpha, beta = 0.3, 1.7
    objective = put_together(semantics, loss, alpha, beta, gamma, phi)
    teacher, (o_t, a_t, p_t) = make_outputs(seed * 10, WIDTHS[phi])
    student, (o_s, a_s, p_s) = make_outputs(seed * 10 + 5, WIDTHS[phi])
    mask = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    y = draw_targets(seed, phi)

    task = restate_task(o_s, y, mask) + gamma * restate_task(a_s, y, mask)
    soft = restate_soft(semantics, o_t, o_s, TAU, phi) + gamma * restate_soft(semantics, a_t, a_s, TAU, phi)
    expected = (1 - alpha) * task + alpha * soft
    if loss != "none":
        expected += beta * restate_match(semantics, loss, p_t, p_s)
    terms = objective.student_terms(student, teacher, torch.from_numpy(y), torch.from_numpy(mask))
    assert float(terms["total"].detach()) == pytest.approx(expected, abs=1e-6)
    terms["total"].backward()
    assert teacher.main.grad is None
    assert teacher.auxiliary.grad is None
    assert teacher.projected.grad is None

    aligner = objective.aligner_loss(teacher, torch.from_numpy(y), torch.from_numpy(mask))
    expected = restate_task(o_t, y, mask) + gamma * restate_task(a_t, y, mask)
    assert float(aligner.detach()) == pytest.approx(expected, abs=1e-6)


def test_without_a_teacher_only_the_labels_count() -> None:
    student, (o, a, _) = make_outputs(0, C)
    y, mask = np.array([0, 1, 2, 0, 1, 2, 0]), np.ones(N, bool)
    objective = put_together("paper", "none", 0.0, 1.0, 0.5)
    terms = objective.student_terms(student, None, torch.from_numpy(y), torch.from_numpy(mask))
    assert set(terms) == {"total", "task"}
    expected = restate_task(o, y, mask) + 0.5 * restate_task(a, y, mask)
    assert float(terms["total"].detach()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("strength", [1.0, 0.25, 0.0])
def test_a_schedule_hands_the_teachers_weight_to_the_labels(strength: float) -> None:
    teacher, _ = make_outputs(0, C)
    student, _ = make_outputs(5, C)
    y, mask = torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.ones(N, dtype=torch.bool)
    objective = put_together("paper", "elementwise", 0.3, 1.7, 0.7)
    terms = objective.student_terms(student, teacher, y, mask, strength)
    expected = (1 - 0.3 * strength) * terms["task"] + strength * (0.3 * terms["soft"] + 1.7 * terms["match"])
    assert float(terms["total"].detach()) == pytest.approx(float(expected.detach()), abs=1e-9)


def test_several_losses_are_weighed_and_each_is_told() -> None:
    teacher, (_, _, p_t) = make_outputs(0, C)
    student, (_, _, p_s) = make_outputs(5, C)
    config = ArmadaConfig(
        loss=("cka", "contrastive=0.5"),
        soft="aligner",
        alpha=0.5,
        beta=1.7,
        gamma=1.0,
        tau=5.0,
        loss_options=LossOptions(contrastive_temperature=2.0),
    )
    y, mask = torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.ones(N, dtype=torch.bool)
    terms = make_objective(config, "softmax").student_terms(student, teacher, y, mask)
    cka_value, contrastive_value = restate_cka(p_t, p_s), restate_contrastive(p_t, p_s, 2.0)
    assert float(terms["cka"].detach()) == pytest.approx(cka_value, abs=1e-6)
    assert float(terms["contrastive"].detach()) == pytest.approx(contrastive_value, abs=1e-6)
    assert float(terms["match"].detach()) == pytest.approx(cka_value + 0.5 * contrastive_value, abs=1e-6)
    expected = 0.5 * terms["task"] + 0.5 * terms["soft"] + 1.7 * terms["match"]
    assert float(terms["total"].detach()) == pytest.approx(float(expected.detach()), abs=1e-9)
