"""One harvest from the user's choice to sealed shards: what `harvest plan` and `harvest run` do."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from harvest.card import write_card
from harvest.config import HarvestConfig
from harvest.engine import INTERRUPTED, Engine
from harvest.inflight import InFlightLog
from harvest.onto import OntoAnswers
from harvest.plan import Action, Plan, Scope, find_first, make_plan, request_key
from harvest.teachers.base import RemoteTeacher, Teacher
from harvest.teachers.registry import prepare_teacher
from shared.console import say, track
from shared.errors import UsageError
from shared.keys import RequestKeys
from shared.row import Answer, Row
from shared.shards import Claim, Kept, Manifest, TeacherFolder, load_manifest, read_kept
from shared.shards.manifest import MANIFEST_NAME, check_recipe
from shared.tasks import LoadedTask, find_task, load_task


@dataclass(frozen=True, slots=True)
class Report:
    """What a plan or a run came to; the object that `--json` prints.

    `rows` are planned, of which `kept` were answered before. Of the others a run asks `to_ask`, copies `to_copy` from
    rows that say the same, carries `to_carry` without an answer, and keeps `unaskable` as failed. `asked`, `failed`,
    `cost_usd` and `seconds` are this run's.
    """

    task: str
    teacher: str
    folder: str
    source: str
    rows: int
    kept: int
    to_ask: int
    to_copy: int
    to_carry: int
    unaskable: int
    asked: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    stopped: str | None = None


def plan_harvest(config: HarvestConfig) -> Report:
    """Work out what a run would ask. Reads only, sends nothing."""
    started = time.monotonic()
    loaded, teacher, folder, scope = _prepare(config)
    wanted = _describe(loaded, teacher)
    kept: dict[str, Kept] = {}
    if (folder / MANIFEST_NAME).exists():
        manifest = load_manifest(folder)
        check_recipe(folder, manifest, wanted)
        kept = {split: read_kept(folder, manifest, split) for split in {*manifest.planned, *scope.splits}}
    plan = make_plan(loaded, teacher, scope, kept)
    return _report(loaded, teacher, folder, plan, seconds=time.monotonic() - started)


def run_harvest(config: HarvestConfig) -> Report:
    """Ask what is not kept yet, and seal it. Resumes by itself; raises as Engine.run does."""
    started = time.monotonic()
    loaded, teacher, path, scope = _prepare(config)
    with _open_folder(loaded, teacher, path, scope) as (folder, probed):
        for note in folder.notes:
            say(note)
        kept = {split: folder.kept(split) for split in {*folder.manifest.planned, *scope.splits}}
        plan = make_plan(loaded, teacher, scope, kept)
        folder.plan(plan.planned)
        _say_plan(plan, loaded)
        to_do = plan.count(Action.ASK, Action.COPY, Action.CARRY, Action.FAIL)
        with track(f"{teacher.name} on {loaded.task.name}", to_do) as tracker:
            engine = Engine(loaded, teacher, plan, folder, tracker, config.failure_limit)
            try:
                outcome = uvloop.run(engine.run())
            except asyncio.CancelledError:  # a second interrupt: it did not wait for what was in flight
                raise KeyboardInterrupt from None
    write_card(path.parent)
    if outcome.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    return _report(
        loaded,
        teacher,
        path,
        plan,
        asked=outcome.asked + (probed is not None),
        failed=outcome.failed,
        cost_usd=outcome.cost_usd + (probed.cost_usd if probed is not None else 0.0),
        seconds=time.monotonic() - started,
        stopped=outcome.stopped,
    )


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

    if not isinstance(teacher, RemoteTeacher) or teacher.resolved:
        return open_folder(), None
    # One worker finds out what was left open, from a row of the run; the others wait, and take it from the folder.
    with claim.hold_recipe():
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


def _report(loaded: LoadedTask, teacher: Teacher, folder: Path, plan: Plan, **of_run: object) -> Report:
    return Report(
        task=loaded.task.name,
        teacher=teacher.name,
        folder=str(folder),
        source=loaded.source,
        rows=sum(plan.planned.values()),
        kept=plan.count(Action.KEEP),
        to_ask=plan.count(Action.ASK),
        to_copy=plan.count(Action.COPY),
        to_carry=plan.count(Action.CARRY),
        unaskable=plan.count(Action.FAIL),
        **of_run,  # type: ignore[arg-type]
    )
