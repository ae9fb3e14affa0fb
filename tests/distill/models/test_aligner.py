"""The aligner's modules, in both semantics."""

import pytest
import torch
from torch import nn

from distill.models.aligner import MAX_SQUARE_WIDTH, Aligner, check_width
from distill.models.orthogonal import OrthogonalLinear
from shared.errors import UsageError

WIDTH, OUTPUTS = 20, 3


def make(semantics: str, width: int = WIDTH) -> Aligner:
    torch.manual_seed(0)
    mean, std = torch.randn(width), torch.rand(width) + 0.5
    return Aligner(mean, std, OUTPUTS, semantics).eval()  # type: ignore[arg-type]


def dropouts(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Dropout) for part in module.modules())


def test_paper() -> None:
    aligner = make("paper")
    vectors = torch.randn(5, WIDTH) * 4 + 2
    out = aligner(vectors)
    hidden = torch.relu(aligner.body[0]((vectors - aligner.mean) / aligner.std))
    projected = hidden @ aligner.projection.weight.T
    torch.testing.assert_close(out.projected, projected)
    torch.testing.assert_close(out.main, aligner.head[-1](hidden))
    torch.testing.assert_close(out.auxiliary, aligner.auxiliary[-1](projected))
    assert out.projected.shape == (5, 768)
    assert out.main.shape == out.auxiliary.shape == (5, OUTPUTS)
    assert dropouts(aligner) == 0


def test_code_projects_the_vector_itself() -> None:
    aligner = make("code")
    vectors = torch.randn(5, WIDTH) * 4 + 2
    out = aligner(vectors)
    standardised = (vectors - aligner.mean) / aligner.std
    hidden = torch.relu(aligner.body[3](torch.relu(aligner.body[0](standardised))))
    projected = standardised @ aligner.projection.weight.T
    torch.testing.assert_close(out.projected, projected)
    torch.testing.assert_close(out.main, aligner.head[-1](hidden))
    torch.testing.assert_close(out.auxiliary, aligner.auxiliary[-1](projected))
    assert out.projected.shape == (5, WIDTH)
    assert (dropouts(aligner.body), dropouts(aligner.head), dropouts(aligner.auxiliary)) == (2, 1, 2)


def test_the_papers_size_is_about_the_papers() -> None:
    aligner = make("paper", 1024)
    plain = sum(p.numel() for p in aligner.parameters()) - aligner.projection.weight.numel()
    assert plain == pytest.approx(0.8e6, rel=0.02)


@pytest.mark.parametrize("semantics", ["paper", "code"])
def test_standardisation_travels_with_the_weights(semantics: str) -> None:
    aligner = make(semantics)
    copy = Aligner(torch.zeros(WIDTH), torch.ones(WIDTH), OUTPUTS, semantics).eval()  # type: ignore[arg-type]
    copy.load_state_dict(aligner.state_dict())
    vectors = torch.randn(4, WIDTH)
    assert torch.equal(copy(vectors).main, aligner(vectors).main)
    assert isinstance(aligner.projection, OrthogonalLinear)


def test_a_square_projection_that_no_memory_holds_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"262,144 x 262,144 here, and training it takes 1,100 GB.*--semantics paper"):
        check_width(262_144, "code")
    check_width(MAX_SQUARE_WIDTH, "code")
    check_width(262_144, "paper")
