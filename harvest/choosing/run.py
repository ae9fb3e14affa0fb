"""One comparison from the user's choice to its table: what `harvest compare` does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from harvest.asking.forecast import Amount
from harvest.asking.interrupt import Interrupt
from harvest.asking.select import select_labelled
from harvest.choosing.advice import advise
from harvest.choosing.candidates import Candidate, list_candidates
from harvest.choosing.config import CompareConfig
from harvest.choosing.measures import CascadeEstimate, Measures, Pair, compare_pairs, estimate_cascade, measure
from harvest.choosing.rows import Rows, read_common_rows
from harvest.job import Report, load_choice, plan_harvest, run_harvest
from harvest.teachers.registry import choose_entry
from shared.console import hush, say, show_cost
from shared.errors import TeacherError, UsageError
from shared.schema import sum_costs
from shared.shards import load_manifest, summarise_folder
from shared.suggestions import suggest
from shared.tasks.task import Task

NO_SAMPLE = (
    "These rows are no random sample: one of the teachers was asked about rows that were chosen for it, or about a "
    "part of the file, so the shares are those of these rows alone and nothing follows for all. harvest compare --task "
    "T --teacher FILE.yaml asks the same few rows of each."
)


@dataclass(frozen=True, slots=True)
class Whole:
    """What the whole task takes: dollars, with those that are spent already, and the minutes that are left.

    `cost_usd` is None where a price is not known, `minutes` where nothing is known of the pace.
    """

    cost_usd: Amount | None
    minutes: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to; the object that `--json` prints, by describe.

    `asked` and `spent_usd` are what this command sent, and what that cost (None: no price is known). `chosen` is the
    teacher that `advice` recommends, None where nothing tells which. `rule` is what judged the answers, and `is_sample`
    whether the rows are a random sample.
    """

    split: str | None
    rows: int
    is_sample: bool
    rule: str | None
    measures: Mapping[str, Measures]
    whole: Mapping[str, Whole]
    pairs: Sequence[Pair]
    cascades: Sequence[CascadeEstimate]
    chosen: str | None
    advice: Sequence[str]
    asked: int
    spent_usd: float | None

    def describe(self) -> dict[str, Any]:
        """All of it as JSON."""
        teachers = {
            name: {**asdict(one), "whole_task": asdict(self.whole[name])} for name, one in self.measures.items()
        }
        rest = {name: value for name, value in asdict(self).items() if name not in ("measures", "whole")}
        return {"teachers": teachers, **rest}


def compare_teachers(config: CompareConfig, *, interrupt: Interrupt | None = None) -> Comparison:
    """Ask each teacher about the same few rows, where it was not asked before, and hold the answers against each other.

    All is planned before anything is sent; the cap on the cost holds over all teachers together. What is answered is
    kept as any other row. Raises UsageError where the plan is dearer than the cap, and what run_harvest does.
    """
    candidates = list_candidates(config)
    split = _choose_split(config, candidates)
    reports = _ask(config, candidates, split, interrupt) if any(one.harvest for one in candidates) else {}
    folders = [one.folder or Path(reports[one.name].folder) for one in candidates]
    common = read_common_rows(folders, split)
    rows = common.teachers
    names = [one.name for one in candidates]
    measures = dict(zip(names, map(measure, rows), strict=True))
    whole = _forecast(candidates, folders, rows, interrupt)
    costs = {name: None if one.cost_usd is None else one.cost_usd.likely for name, one in whole.items()}
    pairs = compare_pairs(names, rows)
    cascades = _estimate_cascades(dict(zip(names, rows, strict=True)), costs, config.unsure_below)
    chosen, advice = advise(measures, pairs, costs, cascades) if common.is_sample else (None, [NO_SAMPLE])
    return Comparison(
        split=split,
        rows=len(rows[0]),
        is_sample=common.is_sample,
        rule=rows[0].rule,
        measures=measures,
        whole=whole,
        pairs=pairs,
        cascades=cascades,
        chosen=chosen,
        advice=advice,
        asked=sum(one.asked for one in reports.values()),
        spent_usd=sum_costs(one.cost_usd for one in reports.values()),
    )


def _choose_split(config: CompareConfig, candidates: Sequence[Candidate]) -> str | None:
    """The split whose rows are asked: train where it has known answers, or else the first that has; None: all kept."""
    asked = next((one.harvest for one in candidates if one.harvest is not None), None)
    if asked is None:
        return config.split
    loaded = load_choice(asked.task)
    _check_judged(loaded.task)
    _check_answers(candidates, loaded.task)
    if config.split is not None:
        if config.split not in loaded.splits:
            raise UsageError(
                f"{loaded.task.name} has no split {config.split!r}; {suggest(config.split, loaded.splits)}"
            )
        return config.split
    for split in sorted(loaded.splits, key=lambda name: name != "train"):
        if any(select_labelled(split, frame).any() for _, frame in loaded.frames([split])):
            return split
    raise UsageError(
        f"no row of {loaded.task.name} has a known answer, so nothing could say which teacher is right; name a label "
        "column, or label some rows"
    )


def _check_judged(task: Task) -> None:
    """Refuse a task of which nothing says when an answer is right, before anything is paid for."""
    if task.kind != "classification" and task.answer_rule is None:
        raise UsageError(
            f"{task.name} has {'numbers' if task.kind == 'regression' else 'texts'} as answers, and no rule that says "
            "which are right: harvest compare takes tasks with labels, or with an --answer-rule"
        )


def _check_answers(candidates: Sequence[Candidate], task: Task) -> None:
    """Refuse a teacher that gives nothing which could be right: vectors alone, say."""
    wanted = "label_logprobs" if task.kind == "classification" else "reply"
    for one in candidates:
        if one.harvest is None or one.harvest.onto is not None:
            continue
        choice = one.harvest.teacher
        gives = choose_entry(choice.teacher, choice.options).gives
        if gives and wanted not in gives:
            what = "label probabilities" if wanted == "label_logprobs" else "replies"
            raise UsageError(f"the teacher {one.name} gives no {what}, so nothing of it can be right or wrong")


def _ask(
    config: CompareConfig, candidates: Sequence[Candidate], split: str | None, interrupt: Interrupt | None
) -> dict[str, Report]:
    """Plan all, and then ask all, one after the other.

    A folder that has the rows already stays as it is, its plan of more rows included.
    """
    assert split is not None
    asked = [one for one in candidates if one.harvest is not None]
    left, reports = config.max_cost, _plan(config, asked, split, interrupt)
    for one in asked:
        if _has_all(reports[one.name]):
            continue
        sample = one.sample(split, config.limit, left)
        report = reports[one.name] = run_harvest(sample, interrupt=interrupt, only=select_labelled)
        say(f"{one.name}: asked {report.asked:,}, failed {report.failed:,}, {show_cost(report.cost_usd)}")
        if report.stopped is not None:
            raise TeacherError(
                f"{one.name}: {report.stopped}. What was answered is kept, and is not asked again: raise --max-cost, "
                "or lower --limit, and give the same command"
            )
        if left is not None:
            left = _subtract(left, report)
    return reports


def _subtract(left: float, report: Report) -> float:
    """What is left of a cap. Of a teacher that says nothing of its price nothing is known: it had to have one."""
    spent = (report.cost_usd or 0.0) + report.maybe_billed_usd
    return max(left - spent, 1e-12)  # a cap is more than nothing; no request is as cheap as that


def _has_all(planned: Report) -> bool:
    """Whether each row that is planned is kept, and none is to follow the file."""
    to_do = (planned.to_ask, planned.to_copy, planned.to_carry, planned.unaskable, *planned.changed.values())
    return not any(to_do)


def _plan(
    config: CompareConfig, asked: Sequence[Candidate], split: str, interrupt: Interrupt | None
) -> dict[str, Report]:
    """Say what the rows will cost. Raises UsageError where that is more than the cap, or the cap cannot be held."""
    total: float | None = 0.0
    reports = {}
    for one in asked:
        sample = one.sample(split, config.limit, config.max_cost)
        with hush():
            report = reports[one.name] = plan_harvest(sample, interrupt=interrupt, only=select_labelled)
        assert report.forecast is not None
        cost = report.forecast.cost_usd
        likely = None if cost is None else cost.likely
        say(f"{one.name}: {report.rows:,} rows, {report.kept:,} kept, {report.to_ask:,} to ask, {show_cost(likely)}")
        total = sum_costs((total, likely if report.to_ask else 0.0))
        is_free = likely == 0 or not report.to_ask
        if config.max_cost is not None and not is_free and not one.has_cap:
            raise UsageError(f"--max-cost cannot be held for {one.name}: that teacher has no such option")
    say(f"all together: {show_cost(total)}")
    if config.max_cost is not None and total is not None and total > config.max_cost:
        raise UsageError(
            f"that is more than --max-cost {config.max_cost:g}: nothing was asked. Raise it, or lower --limit "
            f"{config.limit}"
        )
    return reports


def _forecast(
    candidates: Sequence[Candidate], folders: Sequence[Path], rows: Sequence[Rows], interrupt: Interrupt | None
) -> dict[str, Whole]:
    """What the whole task takes of each: by its plan, or, of a folder that is kept, by its rows' mean cost."""
    whole: dict[str, Whole] = {}
    for one, folder in zip(candidates, folders, strict=True):
        if one.harvest is None:
            continue
        with hush():
            report = plan_harvest(one.harvest, interrupt=interrupt)
        assert report.forecast is not None
        cost, spent = report.forecast.cost_usd, summarise_folder(folder).cost_usd
        together = None if cost is None or spent is None else _add(cost, spent)
        whole[one.name] = Whole(together, report.forecast.minutes, report.rows)
    most = max(
        [one.rows for one in whole.values()] + [sum(load_manifest(folder).planned.values()) for folder in folders]
    )
    for one, own in zip(candidates, rows, strict=True):
        if one.harvest is None:
            mean = float(own.cost_usd.mean())
            whole[one.name] = Whole(None if math.isnan(mean) else Amount(mean * most), None, most)
    return {one.name: whole[one.name] for one in candidates}


def _add(cost: Amount, spent: float) -> Amount:
    ends = [None if end is None else end + spent for end in (cost.low, cost.high)]
    return Amount(cost.likely + spent, *ends)


def _estimate_cascades(
    rows: Mapping[str, Rows], costs: Mapping[str, float | None], below: float
) -> list[CascadeEstimate]:
    """Estimate the cascade of every cheaper teacher and a dearer one."""
    found = []
    for cheap, dear in permutations(rows, 2):
        first, second = costs[cheap], costs[dear]
        if first is not None and second is not None and first < second:
            one = estimate_cascade((cheap, dear), rows[cheap], rows[dear], below, (first, second))
            found += [] if one is None else [one]
    return found
