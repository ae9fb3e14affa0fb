"""Four tasks of lm-eval in the hub's layout, for holding our likelihoods against lm-eval's own, row by row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import polars as pl
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.compute.devices import Device
from distill.scoring.replies import score_by_likelihood
from shared.example import Example
from shared.templates import find_template

CPU = Device(torch.device("cpu"))
# A file of the hub, and lm-eval's own description of the task.
FILES = {
    "arc_easy": ("allenai/ai2_arc/ARC-Easy/test-00000-of-00001.parquet", "arc/arc_easy.yaml"),
    "hellaswag": ("Rowan/hellaswag/data/validation-00000-of-00001.parquet", "hellaswag/hellaswag.yaml"),
    "openbookqa": ("allenai/openbookqa/main/test-00000-of-00001.parquet", "openbookqa/openbookqa.yaml"),
    "winogrande": ("allenai/winogrande/winogrande_xl/validation-00000-of-00001.parquet", "winogrande/default.yaml"),
}
THINGS = ["sun", "moon", "sea", "wind", "old stone", "bird", "river that runs to the sea", "lamp", "tree", "cat"]
PLACES = ["sky", "house", "water", "field"]


def make_hub_rows(name: str, count: int) -> list[dict[str, Any]]:
    """Rows with all columns of the task's data set; of ARC some have three choices, or numbered ones."""
    rows: list[dict[str, Any]] = []
    for i in range(count):
        four = [THINGS[(3 * i + j * (1 + i % 3)) % len(THINGS)] for j in range(4)]
        place, other = PLACES[i % 4], PLACES[(i + 1) % 4]
        if name == "arc_easy":
            labels = list("1234" if i % 4 == 3 else "ABCD")[: 3 + i % 2]
            choices = {"text": four[: len(labels)], "label": labels}
            rows.append(
                {
                    "id": f"Q{i}",
                    "question": f"Which of these is most often seen in the {place} at {i % 12} o'clock?",
                    "choices": choices,
                    "answerKey": labels[i % 3],
                }
            )
        elif name == "openbookqa":
            choices = {"text": [f"the {thing}" for thing in four], "label": list("ABCD")}
            stem = f"Something that you find near a {place} is"
            rows.append({"id": f"{i}-1", "question_stem": stem, "choices": choices, "answerKey": "ABCD"[i % 4]})
        elif name == "hellaswag":
            rows.append(
                {
                    "ind": i,
                    "activity_label": f"Seeing a {four[0]}",
                    "ctx_a": f"A woman [title] walks to the {place}.  She stops.",
                    "ctx_b": ["she", "then SHE", ""][i % 3],
                    "ctx": "",
                    "endings": [f"looks at the {thing} [step] of the {other}." for thing in four],
                    "source_id": "made",
                    "split": "val",
                    "split_type": "indomain",
                    "label": str(i % 4),
                }
            )
        else:
            sentence = f"The {four[0]} was not in the {place} when the _ was in the {other}."
            rows.append({"sentence": sentence, "option1": four[0], "option2": four[1], "answer": "12"[i % 2]})
    return rows


def make_example(name: str, row: Mapping[str, Any]) -> Example:
    """Make of a row what the task's source makes of it."""
    if name == "hellaswag":
        text, pair, choices = f"{row['activity_label']}: {row['ctx_a']}", row["ctx_b"] or None, row["endings"]
        label = int(row["label"])
    elif name == "winogrande":
        text, pair, choices = row["sentence"], None, [row["option1"], row["option2"]]
        label = int(row["answer"]) - 1
    else:
        text, pair, choices = row.get("question") or row["question_stem"], None, row["choices"]["text"]
        label = row["choices"]["label"].index(row["answerKey"])
    return Example("", text, pair, tuple(choices), label)


def write_hub(hub: Path, count: int) -> None:
    """Write `count` rows of each task into a folder that lies as the hub does."""
    for name, (file, _) in FILES.items():
        (hub / file).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(make_hub_rows(name, count)).write_parquet(hub / file)


def ask_lm_eval(hub: Path, folder: Path, student: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Give lm-eval's samples of each task, in the order of the rows, by its own task files over the same Parquet."""
    for name, (file, described) in FILES.items():
        task = {
            "include": str(Path(lm_eval.__file__).parent / "tasks" / described),
            "task": f"local_{name}",
            "tag": None,
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(hub / file)}},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task))
    found = lm_eval.simple_evaluate(
        HFLM(pretrained=str(student), device="cpu", dtype="float32", batch_size=4),
        tasks=[f"local_{name}" for name in FILES],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    assert found is not None
    return {name: sorted(found["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"]) for name in FILES}


def check_parity(hub: Path, folder: Path, student: Path) -> None:
    """Hold each row's log-likelihoods, acc and acc_norm against lm-eval's own."""
    expected = ask_lm_eval(hub, folder, student)
    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    for name, (file, _) in FILES.items():
        rows = [make_example(name, row) for row in pl.read_parquet(hub / file).to_dicts()]
        ours = score_by_likelihood(model, tokenizer, find_template("lm-eval", name), "", rows, CPU)
        assert len(rows) == len(expected[name])
        for mine, theirs in zip(ours.likelihoods, expected[name], strict=True):
            logs = [response[0] for response in theirs["filtered_resps"]]
            np.testing.assert_allclose(mine, logs, atol=1e-3, rtol=1e-5, err_msg=f"{name}, row {theirs['doc_id']}")
        assert ours.acc.tolist() == [sample["acc"] for sample in expected[name]], name
        assert 0 < ours.acc.mean() < 1
        if name != "winogrande":  # which lm-eval has no acc_norm of
            assert ours.acc_norm.tolist() == [sample["acc_norm"] for sample in expected[name]], name
