"""Rows with the teacher's top K as DistillKit's offline teacher reads them (arcee-ai/DistillKit at a61c2e7).

A place of a row holds the distribution of the token after it: `compressed_logprobs`, here K float32 numbers as bytes,
and `bytepacked_indices`, K ids of ceil(log2 d) bits each, the highest bit first. A row ends before its last token,
whose successor nobody knows, as DistillKit's own capture ends it. `labels` are -100 before the prompt's last token,
which is where the first token of the reply is learnt. DistillKit has no place for the tail: its option
missing_probability_handling symmetric_uniform takes it to be one bucket.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from distill.data.columns import Array
from distill.data.dialogues import make_encoder
from distill.runs.formats.rows import Answered, AnsweredRows
from shared.errors import DataError
from shared.topk import NO_TOKEN, TopK

LONGEST = 1 << 20  # tokens: DistillKit cuts rows itself
LEAST = -1e4  # of a token that is not there; minus infinity times a probability of 0 is no number
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int64())),
        ("labels", pa.list_(pa.int64())),
        ("attention_mask", pa.list_(pa.int64())),
        ("compressed_logprobs", pa.list_(pa.list_(pa.uint8()))),
        ("bytepacked_indices", pa.list_(pa.list_(pa.uint8()))),
    ]
)


def write_distillkit(rows: AnsweredRows, folder: Path) -> str:
    """Write train.parquet, padded to its longest row, and distillkit.yaml; say what was written. Raises DataError."""
    tokenizer = rows.check_tokenizer()
    read = rows.read("train")
    taught = [each for each in read if each.top is not None and each.ids and len(each.top.ids) == len(each.ids)]
    encoder = make_encoder(tokenizer, LONGEST, (tokenizer.eos_token_id,))
    prompts = encoder.encode_prompts([rows.write_prompt(each.example) for each in taught])
    if not taught:
        raise DataError(f"{rows.folder} has no training row with reply_ids and a top K: DistillKit learns from those")
    vocabulary = max(len(tokenizer.get_vocab()), max(tokenizer.get_vocab().values()) + 1)
    most = max(each.top.ids.shape[1] for each in taught if each.top is not None)
    width = max(len(prompt) + len(each.ids or ()) - 1 for prompt, each in zip(prompts, taught, strict=True))
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    written = [
        _make_row(prompt, each, most, width, vocabulary, pad_id) for prompt, each in zip(prompts, taught, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(written, schema=SCHEMA), folder / "train.parquet")
    (folder / "distillkit.yaml").write_text(yaml.safe_dump(_make_config(vocabulary, most), sort_keys=False))
    return (
        f"rows: train.parquet {len(written):,} of {width:,} tokens, K = {most}; put your models into distillkit.yaml, "
        "and run there: distillkit distillkit.yaml"
    )


def _make_config(vocabulary: int, most: int) -> dict[str, Any]:
    return {
        "project_name": None,
        "model": "the student: a hub id or a folder",
        "output_path": "the folder for what is trained",
        "dataset": {"train_dataset": {"repo_id": ".", "split": "train"}, "prepacked": True},
        "teacher": {
            "kind": "dataset",
            "logprob_compressor": {
                "d": vocabulary,
                "k": most,
                "exact_k": most,
                "exact_dtype": "float32",
                "polynomial_terms": None,
                "residual_bins": [],
                "delta_encoding": False,
                "error_diffusion": False,
            },
        },
        "loss_functions": [
            {"function": "cross_entropy", "weight": 0.5},
            {"function": "kl", "weight": 0.5, "missing_probability_handling": "symmetric_uniform"},
        ],
        "training_args": {"per_device_train_batch_size": 1},
    }


def _make_row(
    prompt: list[int], answered: Answered, most: int, width: int, vocabulary: int, pad_id: int
) -> dict[str, Any]:
    assert answered.top is not None
    reply = answered.ids or []
    ids, before = [*prompt, *reply[:-1]], len(prompt) - 1
    after = width - len(ids)
    logprobs, indices = _pack(answered.top, most, vocabulary)
    no_logprobs, no_indices = np.zeros(logprobs.shape[1], np.uint8), np.zeros(indices.shape[1], np.uint8)
    return {
        "input_ids": ids + [pad_id] * after,
        "labels": [-100] * before + ids[before:] + [-100] * after,
        "attention_mask": [1] * len(ids) + [0] * after,
        "compressed_logprobs": [no_logprobs] * before + list(logprobs) + [no_logprobs] * after,
        "bytepacked_indices": [no_indices] * before + list(indices) + [no_indices] * after,
    }


def _pack(top: TopK, most: int, vocabulary: int) -> tuple[Array, Array]:
    """Give the bytes of each place's log-probabilities and ids, uint8 (n, 4 K) and (n, ceil(K bits / 8))."""
    missing = most - top.ids.shape[1]
    ids = np.pad(top.ids, ((0, 0), (0, missing)), constant_values=NO_TOKEN)
    logprobs = np.pad(top.logprobs, ((0, 0), (0, missing)), constant_values=-np.inf)
    logprobs = np.where(ids == NO_TOKEN, LEAST, np.maximum(logprobs, LEAST)).astype("<f4")
    bits = math.ceil(math.log2(vocabulary))
    places = np.arange(bits - 1, -1, -1)
    flat = (np.where(ids == NO_TOKEN, 0, ids)[:, :, None] >> places & 1).astype(np.uint8).reshape(len(ids), -1)
    return logprobs.view(np.uint8).reshape(len(ids), -1), np.packbits(flat, axis=1)


def unpack(logprobs: Array, indices: Array, most: int, vocabulary: int) -> tuple[Array, Array]:
    """Read a place's bytes back: its ids, int64 (K,), and log-probabilities, float32 (K,)."""
    bits = math.ceil(math.log2(vocabulary))
    flat = np.unpackbits(np.asarray(indices, np.uint8))[: most * bits].reshape(most, bits).astype(np.int64)
    return flat @ (1 << np.arange(bits - 1, -1, -1)), np.asarray(logprobs, np.uint8).view("<f4")
