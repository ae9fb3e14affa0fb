"""The dataset card of a task's shards: a README.md that the Hugging Face hub reads as it is."""

from pathlib import Path

import yaml

from harvest.looking.agreement import describe_agreement, judge_folder
from shared.disk import lock_file, replace_file
from shared.markdown import escape_markdown, hide_place
from shared.schema import sum_costs
from shared.shards import Manifest, find_teachers, load_manifest
from shared.shards.manifest import REMOVED


def write_card(task_folder: Path) -> None:
    """Write `task_folder`/README.md from the manifests of all teachers below it. Workers may do so at the same time."""
    with lock_file(task_folder / ".card.lock"):
        manifests = {path: load_manifest(path) for path in find_teachers(task_folder)}
        replace_file(task_folder / "README.md", _make_card(task_folder, manifests).encode())


def _make_card(task_folder: Path, manifests: dict[Path, Manifest]) -> str:
    configs = [
        {
            "config_name": manifest.teacher,
            "data_files": [
                {"split": split, "path": f"{path.relative_to(task_folder)}/split={split}/*.parquet"}
                for split in _list_splits(manifest)
            ],
        }
        for path, manifest in manifests.items()
    ]
    header = yaml.safe_dump({"configs": configs}, sort_keys=False, allow_unicode=True, width=1000)
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
        "`reply`, `label_logprobs` (natural logs, one a label, with the rest of the probability in `residual_mass`), "
        "`raw`, and the bill. `manifest.json` beside the shards has the recipe and their hashes.",
        "",
    ]
    return "\n".join(lines)


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
