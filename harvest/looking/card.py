"""The dataset card of a task's shards: a README.md that the Hugging Face hub reads as it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harvest.looking.agreement import describe_agreement, judge_folder
from shared.console import say
from shared.disk import lock_file, replace_file
from shared.markdown import escape_markdown, hide_place
from shared.schema import sum_costs
from shared.shards import Manifest, find_teachers, load_manifest
from shared.shards.manifest import REMOVED
from shared.shards.publish import publish_file, read_published
from shared.stores.places import find_written_address

_CATEGORIES = {"generation": "text-generation", "choice": "multiple-choice"}
_SIZES = (  # the hub's own names
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)


def write_card(task_folder: Path) -> None:
    """Write `task_folder`/README.md from the manifests of all teachers below it. Workers may do so at the same time.

    One that is no such card stays as it is: a folder that somebody names may be that of a project.
    """
    card = task_folder / "README.md"
    with lock_file(task_folder / ".card.lock"):
        found = read_published(card)
        if found is not None and not re.match(r"---\n(?:.*\n)*?configs:", found.decode("utf-8", "replace")):
            say(f"{find_written_address(card) or card} is no card of a harvest, and stays as it is")
            return
        manifests = {path: load_manifest(path) for path in find_teachers(task_folder)}
        replace_file(card, make_card(manifests).encode())
    publish_file(card)


def make_card(manifests: Mapping[Path, Manifest]) -> str:
    """Make the card of one task's teachers: their folders, in which the shards lie, with their manifests."""
    header = yaml.safe_dump(_describe_data_set(manifests), sort_keys=False, allow_unicode=True, width=1000)
    first = next(iter(manifests.values()))
    lines = ["---", header.rstrip(), "---", "", f"# {escape_markdown(first.task)}: a teacher's answers", ""]
    lines.append(f"Texts: {escape_markdown(hide_place(first.source))}. {_describe_answers(first)}")
    for path, manifest in manifests.items():
        lines += [
            "",
            f"## {manifest.teacher}",
            "",
            "| split | rows | of planned | dollars |",
            "|---|---:|---:|---:|",
        ]
        for split in _list_splits(manifest):
            shards = manifest.shards_of(split)
            rows, cost = sum(s.rows for s in shards), sum_costs(s.cost_usd for s in shards)
            dollars = "unknown" if cost is None else f"{cost:.4f}"
            lines.append(f"| {split} | {rows:,} | {manifest.planned.get(split, rows):,} | {dollars} |")
        if (agreement := judge_folder(path, manifest)) is not None:
            lines += ["", *(f"- {escape_markdown(line)}" for line in describe_agreement(agreement.describe()))]
    lines += [
        "",
        "A row is one example with the teacher's answer to it: its text and label, `embedding` (the teacher's vector), "
        "`reply`, `label_logprobs` (natural logs, one a label, with the rest of the probability in `residual_mass`; of "
        "several labels a row, each its label's own probability), `raw`, and the bill. "
        "`manifest.json` beside the shards has the recipe and their hashes.",
        "",
        "Licence: not settled here; those of the texts and of the teacher's answers apply.",
        "",
    ]
    return "\n".join(lines)


def _describe_data_set(manifests: Mapping[Path, Manifest]) -> dict[str, Any]:
    """The card's metadata: each teacher is a config, the first of several the one that is read unless another is named.

    Source: https://huggingface.co/docs/hub/datasets-cards and datasets-manual-configuration.
    """
    first, *others = manifests.values()
    rows = sum(shard.rows for manifest in manifests.values() for shard in manifest.shards)
    configs: list[dict[str, Any]] = [
        {
            "config_name": manifest.teacher,
            "data_files": [
                {
                    "split": re.sub(r"[^A-Za-z0-9_]", "_", split),
                    "path": f"teacher={manifest.teacher}/split={split}/*.parquet",
                }
                for split in _list_splits(manifest)
            ],
        }
        for manifest in manifests.values()
    ]
    if others:
        configs[0]["default"] = True
    return {
        "tags": ["harvest-distill", "knowledge-distillation"],
        "task_categories": [_CATEGORIES.get(first.kind, "text-classification")],
        "size_categories": [next((name for most, name in _SIZES if rows < most), "1B<n<10B")],
        "configs": configs,
    }


def _describe_answers(manifest: Manifest) -> str:
    if manifest.kind == "choice":
        return "Answers: each row's own choices."
    if manifest.kind == "generation":
        return "Answers: free text."
    return f"Labels: {', '.join(map(escape_markdown, manifest.labels)) or 'a number'}."


def _list_splits(manifest: Manifest) -> list[str]:
    return sorted({shard.split for shard in manifest.shards} - {REMOVED}, key=_split_order)


def _split_order(split: str) -> tuple[int, str]:
    known = ("train", "validation", "test")
    return (known.index(split) if split in known else len(known), split)
