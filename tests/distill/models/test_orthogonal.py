"""The orthogonal map stays orthogonal, and moves little."""

import pytest
import torch
from torch import nn

from distill.models.orthogonal import OrthogonalLinear, init_linear, make_optimizer, retract_all


def distance_from_orthogonal(weight: torch.Tensor) -> float:
    small = weight if weight.shape[0] <= weight.shape[1] else weight.T
    return float((small @ small.T - torch.eye(len(small))).abs().max())


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (16, 40), (40, 16)])
def test_training_keeps_it_orthogonal(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer = OrthogonalLinear(inputs, outputs)
    assert distance_from_orthogonal(layer.weight.detach()) < 1e-5
    before = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    x, y = torch.randn(64, inputs), torch.randn(64, outputs)
    first = (layer(x) - y).square().mean()
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        assert distance_from_orthogonal(layer.weight.detach()) > 1e-4
        retract_all(layer)
        assert distance_from_orthogonal(layer.weight.detach()) < 1e-5
    assert loss.item() < first.item()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (16, 40), (40, 16)])
def test_an_orthogonal_matrix_is_its_own_retraction(inputs: int, outputs: int) -> None:
    layer = OrthogonalLinear(inputs, outputs)
    before = layer.weight.detach().clone()
    layer.retract()
    torch.testing.assert_close(layer.weight.detach(), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (32, 96), (96, 32)])
def test_it_is_the_q_of_a_qr_decomposition(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer = OrthogonalLinear(inputs, outputs)
    with torch.no_grad():
        layer.weight.add_(0.03 * torch.randn(outputs, inputs).sign())  # a long step of Adam
    columns = layer.weight.detach().double()
    columns = columns if outputs >= inputs else columns.T
    q, r = torch.linalg.qr(columns)
    expected = q * r.diagonal().sign()
    layer.retract()
    found = layer.weight.detach() if outputs >= inputs else layer.weight.detach().T
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_a_step_that_leaves_no_rank_shows() -> None:
    layer = OrthogonalLinear(8, 8)
    with torch.no_grad():
        layer.weight.zero_()
    layer.retract()
    assert not torch.isfinite(layer.weight).all()


def test_only_maps_with_a_gradient_are_touched() -> None:
    module = nn.Sequential(OrthogonalLinear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        module[0].weight.mul_(2)  # type: ignore[operator]
    before = [p.detach().clone() for p in module.parameters()]
    retract_all(module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_linear_layers_start_as_both_sources_say() -> None:
    layer = nn.Linear(300, 300)
    init_linear(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.detach().any()


def test_weight_decay_leaves_biases_and_norms_alone_unless_it_is_on_all() -> None:
    matrices = {"0.weight", "2.weight"}
    for decayed, shrunk in (("matrices", matrices), ("all", {*matrices, "1.weight", "1.bias"})):
        module = nn.Sequential(OrthogonalLinear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        module[2].bias.requires_grad_(False)
        optimizer = make_optimizer(module, 0.1, decayed)  # type: ignore[arg-type]
        names = {id(weight): name for name, weight in module.named_parameters()}
        trained = {names[id(w)]: group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
        assert trained.keys() == {"0.weight", "1.weight", "1.bias", "2.weight"}, "a frozen weight has no optimiser"
        assert {name for name, decay in trained.items() if decay} == shrunk
