"""The teacher's rows as other programs read them; what can be installed here reads them in these tests."""

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

from distill.cli import app
from distill.runs.export import export_rows
from distill.runs.formats.distillkit import unpack
from distill.runs.formats.rows import open_rows
from shared.errors import UsageError
from shared.shards.manifest import MANIFEST_NAME
from tests.distill.distill_rows import WriteFolder, make_rows
from tests.distill.writing_folder import K, write_run, write_written_folder


@pytest.fixture
def shards(tmp_path: Path, tiny_generator: Path) -> Path:
    return write_written_folder(tmp_path / "data", tiny_generator, "generation", "rouge_l")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_trl_reads_prompts_and_completions(shards: Path, tmp_path: Path, template: str) -> None:
    said = export_rows(shards, tmp_path / "trl", "trl", template)
    assert "train.jsonl 6" in said
    rows = datasets.load_dataset(
        "json", data_files={"train": str(tmp_path / "trl/train.jsonl")}, cache_dir=str(tmp_path / "cache")
    )["train"]
    assert rows.column_names == ["prompt", "completion"]
    if template == "chat":
        assert rows[2]["prompt"][-1]["role"] == "user"
        assert rows[2]["completion"] == [{"role": "assistant", "content": "The film is great, the answer 2."}]
        assert "What of the film 2?" in rows[2]["prompt"][-1]["content"]
    else:
        assert rows[2]["prompt"].endswith("### Response:\n")
        assert rows[2]["completion"] == "The film is great, the answer 2."
    assert "the answer 0." in str(read_lines(tmp_path / "trl/test.jsonl")[0]["completion"]), "the right answer"


def test_a_top_k_lies_where_distillkit_looks(shards: Path, tiny_generator: Path, tmp_path: Path) -> None:
    export_rows(shards, tmp_path / "kit", "distillkit", "alpaca", str(tiny_generator))
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    rows = open_rows(shards, "alpaca", tokenizer)
    config = yaml.safe_load((tmp_path / "kit/distillkit.yaml").read_text())["teacher"]["logprob_compressor"]
    assert (config["d"], config["k"], config["exact_k"]) == (len(tokenizer), K, K)
    table = pq.read_table(tmp_path / "kit/train.parquet")
    written = table.to_pylist()
    assert len({len(row["input_ids"]) for row in written}) == 1, "DistillKit drops rows of another length"
    for row, answered in zip(written, rows.read("train"), strict=True):
        assert answered.ids is not None
        assert answered.top is not None
        places = [place for place, label in enumerate(row["labels"]) if label != -100]
        assert len(places) == len(answered.ids), "the first token and the end token, too"
        length = sum(row["attention_mask"])
        assert tokenizer.decode(row["input_ids"][: places[0] + 1]) == rows.write_prompt(answered.example)
        assert row["input_ids"][places[0] + 1 : length] == answered.ids[:-1]
        for number, place in enumerate(places):
            assert len(row["bytepacked_indices"][place]) == math.ceil(K * math.ceil(math.log2(len(tokenizer))) / 8)
            ids, logprobs = unpack(
                np.array(row["compressed_logprobs"][place]),
                np.array(row["bytepacked_indices"][place]),
                K,
                len(tokenizer),
            )
            assert ids.tolist() == answered.top.ids[number].tolist()
            np.testing.assert_array_equal(logprobs, answered.top.logprobs[number])
            assert answered.ids[number] in ids, "what was said next is likely there"


def lay_out(row: dict[str, Any], tokens: int) -> tuple[list[list[int]], list[list[float]]]:
    """What axolotl makes of a row: its lists against the end of the tokens, and rows of nothing before."""
    before = tokens - len(row["logprobs"])
    assert before >= 0
    ids = [list(range(K))] * before + row["target_token_ids"]
    return ids, [[-math.inf] * K] * before + row["logprobs"]


def test_a_top_k_lies_where_axolotl_looks(shards: Path, tiny_generator: Path, tmp_path: Path) -> None:
    said = export_rows(shards, tmp_path / "axolotl", "axolotl", "chat", str(tiny_generator))
    assert "train.jsonl 6, K = 5; 0 left out" in said
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    rows = open_rows(shards, "chat", tokenizer)
    for row, answered in zip(read_lines(tmp_path / "axolotl/train.jsonl"), rows.read("train"), strict=True):
        assert answered.ids is not None
        assert answered.top is not None
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        tokens = tokenizer.encode(text)
        ids, logprobs = lay_out(row, len(tokens))
        first = len(tokens) - len(answered.ids)
        assert tokens[first:] == answered.ids, "the template ends with the end token that was said"
        for number, token in enumerate(answered.ids):
            assert token in ids[first + number - 1], "a place has the distribution of the token after it"
            np.testing.assert_allclose(logprobs[first + number - 1], answered.top.logprobs[number], rtol=1e-6)
        assert ids[-1][0] == tokenizer.eos_token_id


@pytest.mark.real  # axolotl takes long to import
@pytest.mark.filterwarnings("ignore")  # axolotl's own
def test_axolotls_own_reader_lays_a_top_k_against_the_tokens_before_it(
    shards: Path, tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    reader = pytest.importorskip("axolotl.integrations.kd.chat_template")
    options = pytest.importorskip("axolotl.utils.dict").DictDefault({"sequence_len": 512, "train_on_inputs": False})
    export_rows(shards, tmp_path / "axolotl", "axolotl", "chat", str(tiny_generator))
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    named = {"field_messages": "messages", "logprobs_field": "logprobs", "chat_template": "tokenizer_default"}
    strategy = reader.load(tokenizer, options, named)
    rows = open_rows(shards, "chat", tokenizer)
    for row, answered in zip(read_lines(tmp_path / "axolotl/train.jsonl"), rows.read("train"), strict=True):
        assert answered.ids is not None
        assert answered.top is not None
        made = strategy.tokenize_prompt(row)
        tokens, ids, mask = made["input_ids"], made["target_token_ids"], made["target_mask"]
        assert len(tokens) == len(ids) == len(made["target_logprobs"]) == len(mask)
        first = len(tokens) - len(answered.ids)
        assert tokens[first:] == answered.ids
        assert [place for place, counts in enumerate(mask) if counts[0]] == list(range(first, len(tokens)))
        for number in range(1, len(answered.ids)):
            place = first + number - 1  # its hidden state foretells the token after it
            top = answered.top.logprobs[number]
            assert ids[place] == answered.top.ids[number].tolist()
            expected = top - np.logaddexp.reduce(top)  # axolotl knows no tail
            np.testing.assert_allclose(made["target_logprobs"][place], expected, atol=1e-5)


def test_another_tokenizers_ids_are_refused(shards: Path, tiny_causal: Path, tmp_path: Path) -> None:
    for program in ("distillkit", "axolotl"):
        with pytest.raises(UsageError, match="has the token ids of the test's, and the tokenizer that was named"):
            export_rows(shards, tmp_path / "out", program, "alpaca", str(tiny_causal))
        with pytest.raises(UsageError, match="name the student's --tokenizer"):
            export_rows(shards, tmp_path / "out", program, "alpaca")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "nothing is left behind"


def test_what_has_no_written_answers_is_refused(write_folder: WriteFolder, tmp_path: Path) -> None:
    labels = write_folder({"train": [make_rows(4)]})
    done = CliRunner().invoke(app, ["export", str(labels), str(tmp_path / "out"), "--to", "trl"])
    assert done.exit_code == 2
    assert "is a classification task" in done.stderr
    done = CliRunner().invoke(app, ["export", str(labels), str(tmp_path / "out"), "--template", "chat"])
    assert done.exit_code == 2
    assert "name the program with --to" in done.stderr


def test_a_runs_own_template_and_tokenizer_are_taken(shards: Path, tiny_generator: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path, tiny_generator, shards, template="chat")
    done = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "out"), "--to", "axolotl"])
    assert done.exit_code == 0, done.stderr
    assert "train.jsonl 6" in done.stdout
    assert (shards / "teacher=t" / MANIFEST_NAME).exists()


@pytest.mark.filterwarnings("ignore")  # TRL's and datasets' own
@pytest.mark.real
def test_trl_trains_on_completions_only(shards: Path, tiny_generator: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    export_rows(shards, tmp_path / "trl", "trl", "alpaca")
    rows = datasets.load_dataset(
        "json", data_files={"train": str(tmp_path / "trl/train.jsonl")}, cache_dir=str(tmp_path / "cache")
    )["train"]
    options = trl.SFTConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        max_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        bf16=False,
        dataloader_pin_memory=False,
    )
    trainer = trl.SFTTrainer(str(tiny_generator), args=options, train_dataset=rows)
    batch = next(iter(trainer.get_train_dataloader()))
    tokenizer = AutoTokenizer.from_pretrained(tiny_generator)
    learnt = [str(tokenizer.decode(row[row != -100])) for row in batch["labels"]]
    assert all(text.startswith("The film is great, the answer ") and text.endswith(".</s>") for text in learnt)
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))
