"""The list of teachers: what each gives and needs, and whether that is here."""

from collections.abc import Mapping
from typing import Any

from harvest.teachers.registry import TeacherEntry, choose_entry, find_teachers
from harvest.teachers.requirements import Requirements, find_missing_locally
from shared.console import results
from shared.printed_tables import print_table

_WORDS = {
    "embedding": "vector",
    "reply": "text",
    "label_logprobs": "logits",
    "topk_logprobs": "tokens' top K",
    "image": "picture",
}


def describe_teachers() -> Mapping[str, Any]:
    """By name: the columns that a teacher's rows fill, its needs, and what of them is missing here.

    The hub is not asked: a model that would have to come from there does not count as missing.
    """
    return {
        entry.name: {
            "gives": entry.gives,
            "needs": _describe_requirements(entry.requirements),
            "missing": find_missing_locally(entry.requirements),
            "model": entry.defaults.get(entry.requirements.weights or ""),
            "summary": entry.summary,
        }
        for entry in _list_entries()
    }


def print_teachers() -> None:
    """Print the same as a table; and what installed packages would bring, but for an error."""
    from rich.table import Table

    table = Table("teacher", "gives", "needs", "here")
    table.add_column("what it does", overflow="fold")
    for entry in _list_entries():
        table.add_row(
            entry.name,
            " ".join(_WORDS.get(name, name) for name in entry.gives),
            "\n".join([entry.requirements.given, _describe_requirements(entry.requirements)]).strip(),
            "no" if find_missing_locally(entry.requirements) else "yes",
            entry.summary,
        )
    print_table(table)
    for problem in find_teachers().broken.values():
        results.print(problem, markup=False, soft_wrap=True)
    results.print(
        "here: packages and GPU. Whether the model can be had is found out when the teacher is chosen.\n"
        "A vision-language model that a server of yours runs: --teacher llava --endpoint URL, say.",
        markup=False,
    )


def _list_entries() -> list[TeacherEntry]:
    """Each teacher as it would run here, where no endpoint is named."""
    return [choose_entry(name, {}) for name in find_teachers().entries]


def _describe_requirements(requirements: Requirements) -> str:
    return ", ".join(
        ([requirements.extra] if requirements.extra else [])
        + (["GPU"] if requirements.gpu else [])
        + [requirements.memory]
    )
