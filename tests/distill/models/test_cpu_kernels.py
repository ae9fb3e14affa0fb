"""What makes a step shorter on a CPU: the same function, but for what dropout draws."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from distill.models.cpu_kernels import drop_out, quicken


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kept = drop_out(torch.ones(401, 999, dtype=dtype), rate)
    assert kept.dtype == dtype
    values = kept.float().unique()
    assert values.tolist() == [0.0, pytest.approx(1 / (1 - rate), rel=4e-3)]
    share = (kept == 0).float()
    assert share.mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / kept.numel()) ** 0.5)
    # a draw makes four values: none of the four may be dropped more often, nor with its neighbour
    columns = share.flatten()[:400_000].view(-1, 4)
    assert (columns.mean(0) - rate).abs().max().item() < 4 * (rate * (1 - rate) / len(columns)) ** 0.5
    off_diagonal = torch.corrcoef(columns.T) - torch.eye(4)
    assert off_diagonal.abs().max().item() < 5 / len(columns) ** 0.5


def test_dropout_follows_the_seed_and_its_gradient_the_mask() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    first = drop_out(x, 0.3)
    first.sum().backward()
    torch.manual_seed(3)
    assert torch.equal(first, drop_out(x, 0.3))
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, first)


def test_a_quickened_model_computes_and_saves_the_same(tiny_student: Path, tmp_path: Path) -> None:
    plain, quick = (
        AutoModelForSequenceClassification.from_pretrained(tiny_student, hidden_dropout_prob=0.5) for _ in range(2)
    )
    quick.load_state_dict(plain.state_dict())
    quicken(quick, 64)
    assert quick.config._attn_implementation == "eager"
    ids = torch.randint(5, 19, (4, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [7], [2]])).long()
    for model in (plain, quick):
        model.eval()
    expected = plain(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(quick(input_ids=ids, attention_mask=mask).logits, expected)

    quick.train()
    assert not torch.allclose(quick(input_ids=ids, attention_mask=mask).logits, expected)
    quick.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(input_ids=ids, attention_mask=mask).logits, expected)


def test_long_texts_keep_fused_attention(tiny_student: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_student)
    quicken(model, 512)
    assert model.config._attn_implementation == "sdpa"


def test_a_rate_of_zero_and_of_one_are_torchs(tiny_student: Path) -> None:
    x = torch.randn(3, 4)
    for rate in (0.0, 1.0):
        part = nn.Sequential(nn.Dropout(rate)).train()
        quicken(part, 512)
        assert torch.equal(part(x), nn.functional.dropout(x, rate))
