"""The rows that several teachers are asked about, and how each is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harvest.asking.interrupt import Interrupt
from harvest.asking.select import select_labelled
from harvest.choosing.candidates import Candidate
from harvest.choosing.config import CompareConfig
from harvest.config import HarvestConfig
from harvest.job import Report, load_choice, plan_harvest, run_harvest
from harvest.teachers.registry import choose_entry
from shared.console import hush
from shared.errors import UsageError
from shared.suggestions import suggest
from shared.tasks import LoadedTask
from shared.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows that all teachers are asked about: `limit` of those of a split whose right answers are known.

    The task is loaded once for all of them. What a plan would say a run says: plans say nothing.
    """

    loaded: LoadedTask
    split: str
    limit: int
    interrupt: Interrupt | None

    def plan(self, one: Candidate, most_usd: float | None) -> Report:
        """Plan to ask a candidate."""
        with hush():
            return plan_harvest(one.sample(self.split, self.limit, most_usd), **self._known, only=select_labelled)

    def ask(self, one: Candidate, most_usd: float | None) -> Report:
        """Ask a candidate."""
        return run_harvest(one.sample(self.split, self.limit, most_usd), **self._known, only=select_labelled)

    def plan_whole(self, harvest: HarvestConfig) -> Report:
        """Plan to ask a candidate about all of the task."""
        with hush():
            return plan_harvest(harvest, **self._known)

    @property
    def _known(self) -> dict[str, Any]:
        return {"interrupt": self.interrupt, "loaded": self.loaded}


def find_sample(config: CompareConfig, candidates: Sequence[Candidate], interrupt: Interrupt | None) -> Sample | None:
    """Choose the rows that are asked, of a task that can be judged; None where all teachers are folders."""
    task = next((one.harvest.task for one in candidates if one.harvest is not None), None)
    if task is None:
        return None
    loaded = load_choice(task)
    _check_judged(loaded.task)
    _check_answers(candidates, loaded.task)
    return Sample(loaded, _choose_split(loaded, config.split), config.limit, interrupt)


def _choose_split(loaded: LoadedTask, named: str | None) -> str:
    """Choose the split that is named, or else train where it has known answers, or else the first that has."""
    if named is not None:
        if named not in loaded.splits:
            raise UsageError(f"{loaded.task.name} has no split {named!r}; {suggest(named, loaded.splits)}")
        return named
    for split in sorted(loaded.splits, key=lambda name: name != "train"):
        if any(select_labelled(split, frame).any() for _, frame in loaded.frames([split])):
            return split
    raise UsageError(
        f"no row of {loaded.task.name} has a known answer, so nothing could say which teacher is right; name a label "
        "column, or label some rows"
    )


def _check_judged(task: Task) -> None:
    """Refuse a task of which nothing says when an answer is right, before anything is paid for."""
    if not task.has_labels and task.answer_rule is None:
        raise UsageError(
            f"{task.name} has {'numbers' if task.kind == 'regression' else 'texts'} as answers, and no rule that says "
            "which are right: harvest compare takes tasks with labels, or with an --answer-rule"
        )


def _check_answers(candidates: Sequence[Candidate], task: Task) -> None:
    """Refuse a teacher that gives nothing which could be right: vectors alone, say."""
    wanted = "label_logprobs" if task.has_labels else "reply"
    for one in candidates:
        if one.harvest is None or one.harvest.onto is not None:
            continue
        choice = one.harvest.teacher
        gives = choose_entry(choice.teacher, choice.options).gives
        if gives and wanted not in gives:
            what = "label probabilities" if wanted == "label_logprobs" else "replies"
            raise UsageError(f"the teacher {one.name} gives no {what}, so nothing of it can be right or wrong")
