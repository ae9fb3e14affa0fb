"""ARMADA's terms for a vector that is regressed onto, against a restatement in numpy float64, and its gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from distill.losses.armada import paper_elementwise
from distill.losses.reconstruction import Reconstruction

N, D, P = 5, 4, 7
WEIGHTS: dict[str, Any] = {"alpha": 0.3, "beta": 0.7, "gamma": 2.0, "tau": 5.0}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_the_terms_are_those_of_the_equations() -> None:
    terms = Reconstruction(losses={"elementwise": (paper_elementwise, 1.5)}, **WEIGHTS)
    h, p_ts, a_ts, p_s, a_s = (draw(seed, N, P if seed in (1, 3) else D) for seed in range(5))
    found = terms.student_terms(h, (p_ts, a_ts), (p_s, a_s))
    target = ((h - a_s) ** 2).numpy().mean()
    soft = np.mean([np.linalg.norm((a_ts[i] - a_s[i]).numpy() / 5.0) for i in range(N)])
    match = 1.5 * np.mean([np.linalg.norm((p_ts[i] - p_s[i]).numpy()) for i in range(N)])
    wanted = {"target": target, "soft": soft, "match": match}
    wanted["vectors"] = 2.0 * (0.7 * target + 0.3 * soft) + 0.7 * match
    assert {name: term.item() for name, term in found.items()} == pytest.approx(wanted, rel=1e-12)
    main = draw(6, N, D)
    aligner = ((main - h) ** 2).numpy().mean() + 2.0 * ((a_ts - h) ** 2).numpy().mean()
    assert terms.aligner_loss(h, main, a_ts).item() == pytest.approx(aligner, rel=1e-12)


def test_the_teachers_side_gets_no_gradient_and_the_students_is_that_of_differences() -> None:
    terms = Reconstruction(losses={"elementwise": (paper_elementwise, 1.0)}, **WEIGHTS)
    h, p_ts, a_ts, p_s, a_s = (draw(seed, N, P if seed in (1, 3) else D).requires_grad_() for seed in range(5))
    total = terms.student_terms(h.detach(), (p_ts, a_ts), (p_s, a_s))["vectors"]
    torch.autograd.backward(total)
    assert p_ts.grad is None
    assert a_ts.grad is None
    for each, other in ((p_s, a_s), (a_s, p_s)):
        moved = torch.zeros_like(each)
        moved[1, 2] = 1e-6
        ends = []
        for sign in (1, -1):
            changed = each.detach() + sign * moved
            student = (changed, other.detach()) if each is p_s else (other.detach(), changed)
            ends.append(terms.student_terms(h.detach(), (p_ts.detach(), a_ts.detach()), student)["vectors"].item())
        assert each.grad is not None
        assert each.grad[1, 2].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_without_a_match_only_the_vector_is_learnt() -> None:
    h, p, a = draw(0, N, D), draw(1, N, P), draw(2, N, D)
    found = Reconstruction(losses={}, **WEIGHTS).student_terms(h, (p, a), (p, a))
    assert found.keys() == {"vectors", "target", "soft"}
