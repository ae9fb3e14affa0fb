"""The five instruction sets of ARMADA (arXiv:2603.10877), as MiniLLM has them (arXiv:2306.08543, microsoft/LMOps).

Columns and splits are those of the JSONL files in MiniLLM/{dolly, self-inst, Vicuna, sinst, uinst} on the hub. Of S-NI
and UNI it is the part whose references have eleven words or more that is scored, and of UNI its first 2,000 rows.
"""

from collections.abc import Mapping

from shared.tasks.task import Source, Task

_HUB = "hf://datasets/MiniLLM"
_REPLY_TOKENS = 512  # MiniLLM's limit of prompt and reply together


def _instructions(
    name: str, splits: Mapping[str, str], rows: Mapping[str, tuple[int, int | None]] | None = None
) -> Task:
    source = Source(
        splits={split: f"{_HUB}/{file}" for split, file in splits.items()},
        rows=rows or {},
        text="{instruction}",
        text_pair="{input}",
        optional=("input",),
        target_text="output",
        drop_empty=True,
    )
    return Task(name=name, kind="generation", metric="rouge_l", max_reply_tokens=_REPLY_TOKENS, sources=(source,))


INSTRUCTIONS = (
    _instructions(
        "dolly",
        {"train": "dolly/raw.jsonl", "validation": "dolly/raw.jsonl", "test": "dolly/valid.jsonl"},
        {"train": (1_000, None), "validation": (0, 1_000)},
    ),
    _instructions("self_inst", {"test": "self-inst/valid.jsonl"}),
    _instructions("vicuna", {"test": "Vicuna/valid.jsonl"}),
    _instructions("s_ni", {"test": "sinst/11_/valid.jsonl"}),
    _instructions("uni", {"test": "uinst/11_/valid.jsonl"}, {"test": (0, 2_000)}),
)
