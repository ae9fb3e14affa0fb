"""Rows with the teacher's top K as axolotl's `axolotl.integrations.kd.chat_template` reads them (at 067b021).

`messages` is the whole conversation; `logprobs` and `target_token_ids` are lists a place, K each, which axolotl lays
against the *end* of the row's tokens. Its trainer holds a place's hidden state against the same place's distribution,
so a place has that of the token after it. It masks a place by whether its own token is the assistant's: the first token
of a reply, whose distribution belongs to the last place of the prompt, is not learnt there. Places from the end token
on have the token that follows for certain: nobody asked the teacher for it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from distill.runs.formats.distillkit import LEAST
from distill.runs.formats.rows import Answered, AnsweredRows
from shared.errors import DataError, UsageError
from shared.topk import NO_TOKEN, TopK


def write_axolotl(rows: AnsweredRows, folder: Path) -> str:
    """Write train.jsonl; say what was written and what was left out. Raises DataError and UsageError."""
    tokenizer = rows.check_tokenizer()
    if not tokenizer.chat_template:
        raise UsageError("axolotl's rows are conversations, and the tokenizer has no chat template")
    taught = [each for each in rows.read("train") if each.top is not None and each.ids is not None]
    if not taught:
        raise DataError(f"{rows.folder} has no training row with reply_ids and a top K: axolotl learns from those")
    most = max(each.top.ids.shape[1] for each in taught if each.top is not None)
    count = 0
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for each in taught:
            row = _make_row(rows, tokenizer, each, most)
            if row is not None:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    left_out = len(taught) - count
    return (
        f"rows: train.jsonl {count:,}, K = {most}; {left_out:,} left out, whose chat template gives other tokens than "
        "the teacher said. datasets: type axolotl.integrations.kd.chat_template, field_messages messages, "
        "logprobs_field logprobs"
    )


def _make_row(rows: AnsweredRows, tokenizer: Any, answered: Answered, most: int) -> dict[str, Any] | None:
    """Make a row; None where the conversation's tokens are not the prompt's followed by those that were said."""
    rendered = rows.template.render(answered.example, rows.question)
    text = rendered.text or ""
    turns = (
        [{"role": "user", "content": text}] if rendered.messages is None else [t._asdict() for t in rendered.messages]
    )
    messages = [*turns, {"role": "assistant", "content": answered.completion}]
    before = _encode(tokenizer, turns, prompt=True)
    whole = _encode(tokenizer, messages, prompt=False)
    said = answered.ids or []
    if answered.top is None or whole[: len(before) + len(said)] != before + said:
        return None
    places = [_list_place(answered.top, place, most) for place in range(len(said))]
    following = [*whole[len(before) + len(said) :], tokenizer.eos_token_id]
    places += [(_repeat(token, most), [0.0] + [LEAST] * (most - 1)) for token in following]
    return {
        "messages": messages,
        "target_token_ids": [ids for ids, _ in places],
        "logprobs": [logprobs for _, logprobs in places],
    }


def _encode(tokenizer: Any, messages: list[dict[str, str]], *, prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _list_place(top: TopK, place: int, most: int) -> tuple[list[int], list[float]]:
    ids, logprobs = top.ids[place], top.logprobs[place]
    there = ids != NO_TOKEN
    missing = most - int(there.sum())
    return (
        ids[there].tolist() + _repeat(int(ids[0]), missing),
        np.maximum(logprobs[there], LEAST).astype(float).tolist() + [LEAST] * missing,
    )


def _repeat(token: int, count: int) -> list[int]:
    return [token] * count
