"""One comparison from the user's choice to its table: what `harvest compare` does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from harvest.asking.forecast import Amount
from harvest.asking.interrupt import Interrupt
from harvest.choosing.advice import advise
from harvest.choosing.candidates import Candidate, list_candidates
from harvest.choosing.config import CompareConfig
from harvest.choosing.measures import CascadeEstimate, Measures, Pair, compare_pairs, estimate_cascade, measure_teacher
from harvest.choosing.rows import TeacherAnswers, read_common_rows
from harvest.choosing.sample import Sample, find_sample
from harvest.job import Report
from shared.console import say, show_cost
from shared.errors import TeacherError, UsageError
from shared.schema import sum_costs
from shared.shards import choose_teacher, load_manifest, summarise_folder

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
class TeacherComparison:
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


def compare_teachers(config: CompareConfig, *, interrupt: Interrupt | None = None) -> TeacherComparison:
    """Ask each teacher about the same few rows, where it was not asked before, and hold the answers against each other.

    All is planned before anything is sent; the cap on the cost holds over all teachers together. What is answered is
    kept as any other row. Raises UsageError where the plan is dearer than the cap, and what run_harvest does.
    """
    candidates = list_candidates(config)
    sample = find_sample(config, candidates, interrupt)
    split = config.split if sample is None else sample.split
    reports = {} if sample is None else _ask(config, candidates, sample)
    folders = [one.folder or choose_teacher(Path(reports[one.name].folder)) for one in candidates]
    common = read_common_rows(folders, split)
    rows = common.teachers
    names = [one.name for one in candidates]
    measures = dict(zip(names, map(measure_teacher, rows), strict=True))
    whole = _forecast(candidates, folders, rows, sample)
    costs = {name: None if one.cost_usd is None else one.cost_usd.likely for name, one in whole.items()}
    pairs = compare_pairs(names, rows)
    cascades = _estimate_cascades(dict(zip(names, rows, strict=True)), costs, config.unsure_below)
    chosen, advice = advise(measures, pairs, costs, cascades) if common.is_sample else (None, [NO_SAMPLE])
    return TeacherComparison(
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


def _ask(config: CompareConfig, candidates: Sequence[Candidate], sample: Sample) -> dict[str, Report]:
    """Plan all, and then ask all, one after the other.

    A folder that has the rows already stays as it is, its plan of more rows included.
    """
    asked = [one for one in candidates if one.harvest is not None]
    left, reports = config.max_cost, _plan(config, asked, sample)
    for one in asked:
        if _has_all(reports[one.name]):
            continue
        report = reports[one.name] = sample.ask(one, left)
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


def _plan(config: CompareConfig, asked: Sequence[Candidate], sample: Sample) -> dict[str, Report]:
    """Say what the rows will cost. Raises UsageError where that is more than the cap, or the cap cannot be held."""
    total: float | None = 0.0
    reports = {}
    for one in asked:
        report = reports[one.name] = sample.plan(one, config.max_cost)
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
    candidates: Sequence[Candidate], folders: Sequence[Path], rows: Sequence[TeacherAnswers], sample: Sample | None
) -> dict[str, Whole]:
    """What the whole task takes of each: by its plan, or, of a folder that is kept, by its rows' mean cost."""
    whole: dict[str, Whole] = {}
    for one, folder in zip(candidates, folders, strict=True):
        if one.harvest is None or sample is None:
            continue
        report = sample.plan_whole(one.harvest)
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
    rows: Mapping[str, TeacherAnswers], costs: Mapping[str, float | None], below: float
) -> list[CascadeEstimate]:
    """Estimate the cascade of every cheaper teacher and a dearer one."""
    found = []
    for cheap, dear in permutations(rows, 2):
        first, second = costs[cheap], costs[dear]
        if first is not None and second is not None and first < second:
            one = estimate_cascade((cheap, dear), rows[cheap], rows[dear], below, (first, second))
            found += [] if one is None else [one]
    return found
