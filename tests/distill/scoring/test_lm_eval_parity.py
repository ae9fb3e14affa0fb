"""acc and acc_norm are lm-eval's own, to the last row, on four of its tasks in the hub's layout."""

from pathlib import Path

import pytest

from tests.distill.lm_eval_parity import check_parity, write_hub


@pytest.mark.filterwarnings("ignore")  # lm-eval's and datasets' own
def test_likelihood_scores_are_lm_evals(tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_hub(tmp_path / "hub", 12)
    check_parity(tmp_path / "hub", tmp_path, tiny_generator)
