"""One harvest from the user's choice to sealed shards: what `harvest plan` and `harvest run` do."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from harvest.asking.engine import INTERRUPTED, Engine, Outcome
from harvest.asking.forecast import Forecast, make_forecast, measure
from harvest.asking.inflight import InFlightLog
from harvest.asking.plan import Action, Plan, Scope, find_first, make_plan, request_key
from harvest.config import HarvestConfig
from harvest.looking.card import write_card
from harvest.teachers.base import RemoteTeacher, Teacher
from harvest.teachers.onto import OntoAnswers
from harvest.teachers.registry import prepare_teacher
from shared.console import say, track
from shared.errors import UsageError
from shared.keys import RequestKeys
from shared.schema import Answer, Row
from shared.shards import Claim, Kept, Manifest, TeacherFolder, load_manifest, read_kept
from shared.shards.manifest import MANIFEST_NAME, check_recipe
from shared.tasks import LoadedTask, find_task, load_task


@dataclass(frozen=True, slots=True)
class Report:
    """What a plan or a run came to; the object that `--json` prints.

    `rows` are planned, of which `kept` were answered before, by status `kept_statuses`. Of the others a run asks
    `to_ask`, copies `to_copy` from rows that say the same, carries `to_carry` without an answer, and keeps `unaskable`
    as failed. `asked`, `failed`, `cost_usd` and `seconds` are this run's. `forecast` is a plan's: what `to_ask` will
    take.
    """

    task: str
    teacher: str
    folder: str
    source: str
    rows: int
    kept: int
    kept_statuses: Mapping[str, int]
    to_ask: int
    to_copy: int
    to_carry: int
    unaskable: int
    asked: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    stopped: str | None = None
    forecast: Forecast | None = None


def plan_harvest(config: HarvestConfig, probe: int | None = None) -> Report:
    """Work out what a run would ask, and what that will take. Reads only and sends nothing, unless told to `probe`.

    `probe` is how many of the rows are asked for real, spread over all of them and kept as any other, so that the
    forecast rests on them. Raises as Engine.run does.
    """
    started = time.monotonic()
    loaded, teacher, path, scope = _prepare(config)
    spent = Outcome()
    if probe is not None:
        with _open_folder(loaded, teacher, path, scope) as (folder, answer):
            plan = _plan_in(folder, loaded, teacher, scope)
            folder.plan(plan.planned)
            sample = plan.sample(probe - (answer is not None))
            spent = _run_engine(loaded, teacher, sample, folder, config.failure_limit, answer)
        write_card(path.parent)
        if spent.stopped == INTERRUPTED:
            raise KeyboardInterrupt
    kept: dict[str, Kept] = {}
    measured = None
    if (path / MANIFEST_NAME).exists():
        manifest = load_manifest(path)
        check_recipe(path, manifest, _describe(loaded, teacher))
        kept = {split: read_kept(path, manifest, split) for split in {*manifest.planned, *scope.splits}}
        measured = measure(path, manifest, teacher)
    plan = make_plan(loaded, teacher, scope, kept, estimate=True)
    report = _report(loaded, teacher, path, plan, spent, started)
    return replace(report, forecast=make_forecast(plan, teacher, measured))


def run_harvest(config: HarvestConfig) -> Report:
    """Ask what is not kept yet, and seal it. Resumes by itself; raises as Engine.run does."""
    started = time.monotonic()
    loaded, teacher, path, scope = _prepare(config)
    with _open_folder(loaded, teacher, path, scope) as (folder, answer):
        plan = _plan_in(folder, loaded, teacher, scope)
        folder.plan(plan.planned)
        _say_plan(plan, loaded)
        outcome = _run_engine(loaded, teacher, plan, folder, config.failure_limit, answer)
    write_card(path.parent)
    if outcome.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    return _report(loaded, teacher, path, plan, outcome, started)


def _plan_in(folder: TeacherFolder, loaded: LoadedTask, teacher: Teacher, scope: Scope) -> Plan:
    for note in folder.notes:
        say(note)
    kept = {split: folder.kept(split) for split in {*folder.manifest.planned, *scope.splits}}
    return make_plan(loaded, teacher, scope, kept)


def _run_engine(
    loaded: LoadedTask,
    teacher: Teacher,
    plan: Plan,
    folder: TeacherFolder,
    failure_limit: float,
    probed: Answer | None,
) -> Outcome:
    """Carry out a plan; the outcome counts the answer of the probe, if there was one, with it."""
    to_do = plan.count(Action.ASK, Action.COPY, Action.CARRY, Action.FAIL)
    with track(f"{teacher.name} on {loaded.task.name}", to_do) as tracker:
        engine = Engine(loaded, teacher, plan, folder, tracker, failure_limit)
        try:
            outcome = uvloop.run(engine.run())
        except asyncio.CancelledError:  # a second interrupt: it did not wait for what was in flight
            raise KeyboardInterrupt from None
    if probed is not None:
        outcome.asked += 1
        outcome.cost_usd += probed.cost_usd
    return outcome


@contextmanager
def _open_folder(
    loaded: LoadedTask, teacher: Teacher, path: Path, scope: Scope
) -> Iterator[tuple[TeacherFolder, Answer | None]]:
    """The teacher's folder, this worker's to write, claimed before anything is asked.

    Beside it the answer that a probe brought, if one was needed; the folder keeps it.
    """
    with Claim(path.parent, teacher.name, f"w{scope.share.index}") as claim:
        folder, answer = _open_claimed(loaded, teacher, claim, scope)
        with folder:
            yield folder, answer


def _open_claimed(
    loaded: LoadedTask, teacher: Teacher, claim: Claim, scope: Scope
) -> tuple[TeacherFolder, Answer | None]:
    def open_folder() -> TeacherFolder:
        return TeacherFolder.open(claim.path.parent, _describe(loaded, teacher), worker=claim.worker, claim=claim)

    if not isinstance(teacher, RemoteTeacher):
        return open_folder(), None
    # One worker finds out what was left open, from a row of the run; the others wait, and take it from the folder.
    # They wait also where they know it already: the manifest is there before the row that the probe paid for.
    with claim.hold_recipe():
        if not teacher.resolved:
            _adopt(teacher, claim.path)
        if teacher.resolved:
            return open_folder(), None
        found = find_first(loaded, teacher, scope)
        if found is None:
            raise UsageError("no row is to be asked, so there is none to find out with what the endpoint gives")
        split, example = found
        log = InFlightLog(claim.path, claim.worker)
        with closing(log), log.passing() as note, ExitStack() as undo:
            probe = uvloop.run(teacher.probe(example, note))
            for notice in probe.notices:
                say(notice)
            folder = undo.enter_context(open_folder())
            key, _ = request_key(RequestKeys(teacher.recipe()), teacher, example)
            folder.append(split, [Row(example, key, 0, probe.answer)])
            folder.commit()
            undo.pop_all()
        return folder, probe.answer


def _adopt(teacher: RemoteTeacher, folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists():
        teacher.adopt(load_manifest(folder).recipe)


def _prepare(config: HarvestConfig) -> tuple[LoadedTask, Teacher, Path, Scope]:
    """Everything that can be refused is refused here, before anything is asked."""
    build_teacher = prepare_teacher(config.teacher)
    choice = asdict(config.task)
    loaded = load_task(find_task(choice.pop("task"), **choice))
    say(f"{loaded.task.name}: {loaded.source}")
    for note in loaded.notes:
        say(f"  {note}")
    teacher = build_teacher(loaded.task)
    if config.onto is not None:
        teacher = OntoAnswers(teacher, config.onto, loaded.task)
    named = [
        *(config.splits or ()),
        *(config.asked or ()),
        *(split for split in config.limits if split != "*"),
    ]
    if unknown := [split for split in named if split not in loaded.splits]:
        raise UsageError(f"{loaded.task.name} has no split {unknown[0]!r}; it has: {', '.join(loaded.splits)}")
    scope = Scope(
        splits=tuple(config.splits or loaded.splits),
        limits=config.limits,
        asked=config.asked,
        retry=config.retry,
        share=config.share,
    )
    folder = (config.out or Path("data") / loaded.task.name) / f"teacher={teacher.name}"
    if isinstance(teacher, RemoteTeacher):
        _adopt(teacher, folder)
    return loaded, teacher, folder, scope


def _describe(loaded: LoadedTask, teacher: Teacher) -> Manifest:
    task = loaded.task
    return Manifest(
        task=task.name,
        teacher=teacher.name,
        kind=task.kind,
        labels=task.labels,
        target_range=task.target_range,
        metric=task.metric,
        recipe=teacher.recipe(),
        source=loaded.source,
    )


def _say_plan(plan: Plan, loaded: LoadedTask) -> None:
    kept, to_ask = plan.count(Action.KEEP), plan.count(Action.ASK)
    say(f"{sum(plan.planned.values()):,} rows planned, {kept:,} kept already, {to_ask:,} to ask the teacher")
    if unaskable := plan.count(Action.FAIL):
        say(f"{unaskable:,} rows cannot be asked and are kept as failed rows; the first: {plan.first_failure}")


def _report(loaded: LoadedTask, teacher: Teacher, folder: Path, plan: Plan, outcome: Outcome, started: float) -> Report:
    return Report(
        task=loaded.task.name,
        teacher=teacher.name,
        folder=str(folder),
        source=loaded.source,
        rows=sum(plan.planned.values()),
        kept=plan.count(Action.KEEP),
        kept_statuses={str(status): rows for status, rows in plan.kept.items()},
        to_ask=plan.count(Action.ASK),
        to_copy=plan.count(Action.COPY),
        to_carry=plan.count(Action.CARRY),
        unaskable=plan.count(Action.FAIL),
        asked=outcome.asked,
        failed=outcome.failed,
        cost_usd=outcome.cost_usd,
        seconds=time.monotonic() - started,
        stopped=outcome.stopped,
    )
