"""One harvest from the user's choice to sealed shards: what `harvest plan` and `harvest run` do."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harvest.asking.calibration import calibrate
from harvest.asking.engine import INTERRUPTED, Engine, Outcome
from harvest.asking.follow import (
    Changes,
    describe_changes,
    describe_repainted,
    drop_found,
    find_changes,
    follow_file,
    set_aside_repainted,
)
from harvest.asking.forecast import Forecast, make_forecast, measure
from harvest.asking.inflight import InFlightLog
from harvest.asking.interrupt import Interrupt, run_loop
from harvest.asking.manifest import make_manifest
from harvest.asking.pictures import keep_pictures
from harvest.asking.plan import EVERY_SPLIT, Action, Plan, Scope, find_first, make_plan, request_key
from harvest.asking.reserve import DiskReserve
from harvest.asking.select import Selection, Unsure, describe_unsure, find_unsure
from harvest.chat.imported import IMPORTED
from harvest.chat.prompts import use_letters
from harvest.config import NO_SPLIT, UNSURE_BELOW, HarvestConfig, TaskChoice, TeacherChoice
from harvest.looking.agreement import judge_folder
from harvest.looking.card import write_card
from harvest.teachers.base import (
    Remote,
    Teacher,
    find_draw_problem,
    find_maybe_billed,
    find_unanswered_cost,
    sees_pictures,
)
from harvest.teachers.batch.ledger import read_jobs
from harvest.teachers.batch.stored import StoredJobs
from harvest.teachers.kept_answers import KeptAnswers
from harvest.teachers.onto import OntoAnswers
from harvest.teachers.pool.make import make_pool
from harvest.teachers.pool.teacher import PoolTeacher
from harvest.teachers.registry import choose_entry, name_teacher, prepare_teacher
from shared.console import say, track
from shared.errors import RecipeMismatchError, UsageError
from shared.events import emit
from shared.keys import RequestKeys
from shared.log_files import LogFile, keep_log
from shared.schema import Answer, Row, Status, sum_costs
from shared.shards import Claim, KeptPart, Manifest, TeacherFolder, iterate_kept, load_manifest
from shared.shards.manifest import MANIFEST_NAME, REMOVED, check_name, check_recipe
from shared.shards.publish import open_written_folder
from shared.stores.address import find_store_address
from shared.stores.mirror import spell_place
from shared.suggestions import suggest
from shared.tasks import LoadedTask, find_task, load_task
from shared.tasks.task import Task

SHOWN_CAUSES = 5
LOGS = "logs"
# What is told of a report when a run has ended; the rest is for who asked for it.
TOLD = ("rows", "kept", "asked", "failed", "left", "cost_usd", "seconds", "stopped", "causes", "folder")


@dataclass(frozen=True, slots=True)
class Report:
    """What a plan or a run came to; the object that `--json` prints.

    `rows` are planned, in each of the `splits` so many, under `limits` by split ("*": each); of them `kept` were
    answered before, by status `kept_statuses`. Of the others a run asks `to_ask`, copies `to_copy` from rows that say
    the same, carries `to_carry` without an answer, and keeps `unaskable` as failed. `changed` counts the kept rows that
    follow the file: `relabelled`, `moved`, `removed`. `left` are those of `to_ask` that were not asked. `asked`,
    `failed`, `causes` (the most frequent reasons why a row has no whole answer, and its rows), `cost_usd` (None where a
    price is not known), `maybe_billed_usd` (what broken requests may cost beside that, at most) and `seconds` are this
    run's. `forecast` is a plan's: what `to_ask` will take. `agreement` is a run's: how many of all kept answers are
    right, as Agreement.describe gives it; None where none can be judged.
    """

    task: str
    teacher: str
    folder: str
    source: str
    rows: int
    splits: Mapping[str, int]
    limits: Mapping[str, int]
    kept: int
    kept_statuses: Mapping[str, int]
    to_ask: int
    to_copy: int
    to_carry: int
    unaskable: int
    changed: Mapping[str, int]
    left: int = 0
    asked: int = 0
    failed: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = 0.0
    maybe_billed_usd: float = 0.0
    seconds: float = 0.0
    stopped: str | None = None
    forecast: Forecast | None = None
    agreement: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Harvest:
    """What a choice came to: texts, teacher, the teacher's folder, the rows that it is about, and what may stop it.

    `pool` is the part of the teacher that hands requests to its replicas, where it has any.
    """

    loaded: LoadedTask
    teacher: Teacher
    pool: PoolTeacher | None
    path: Path
    scope: Scope
    failure_limit: float
    drain: float
    interrupt: Interrupt


def plan_harvest(
    config: HarvestConfig,
    probe: int | None = None,
    *,
    interrupt: Interrupt | None = None,
    only: Selection | None = None,
    loaded: LoadedTask | None = None,
) -> Report:
    """Work out what a run would ask, and what that will take. Reads only and sends nothing, unless told to `probe`.

    `probe` is how many of the rows are asked for real, spread over all of them and kept as any other, so that the
    forecast rests on them. `interrupt`, `only`, `loaded` and what is raised are as in run_harvest.
    """
    started = time.monotonic()
    with keep_log() as log, _prepare(config, interrupt, sends=probe is not None, only=only, loaded=loaded) as harvest:
        loaded, teacher, path, scope = harvest.loaded, harvest.teacher, harvest.path, harvest.scope
        if probe is not None and teacher.remote is not None and teacher.remote.deferred is not None:
            raise UsageError(
                "plan --probe asks at once, and --batch within a day: leave --batch out of this plan; the rows that it "
                "asks are kept for a run with --batch, too"
            )
        spent, changes = Outcome(), Changes()
        if probe is not None:
            with _open_folder(harvest, log) as (folder, answer):
                plan, changes = _plan_in(folder, harvest)
                folder.plan(plan.planned)
                spent = _run_engine(harvest, plan.sample(probe - (answer is not None)), folder, answer)
            write_card(path.parent)
            if spent.stopped == INTERRUPTED:
                raise KeyboardInterrupt
        kept: dict[str, Iterable[KeptPart]] = {}
        measured = None
        if (path / MANIFEST_NAME).exists():
            manifest = load_manifest(path)
            check_recipe(path, manifest, make_manifest(loaded, teacher))
            to_follow = find_changes(loaded, path, manifest)
            if to_follow != Changes():
                changes = to_follow
                say(f"{describe_changes(changes)}: with the next harvest run, which asks nobody about them again")
            kept = {split: iterate_kept(path, manifest, split) for split in _list_kept(manifest, scope)}
            measured = measure(path, manifest, teacher)
        plan = make_plan(loaded, teacher, scope, kept, estimate=True)
        if said := describe_repainted(plan.repainted):
            say(said)
        StoredJobs(path).fetch()
        if under_way := sum(job.state.keys for job in read_jobs(path)):
            say(f"{under_way:,} of these requests are in jobs that a run takes up (harvest status): they are paid once")
        left = plan.count(Action.ASK)
        report = _report(loaded, teacher, path, plan, scope.limits, spent, started, changes, left)
        return replace(report, forecast=make_forecast(plan, teacher, measured, config.pool.replicas or 1))


def run_harvest(
    config: HarvestConfig,
    *,
    interrupt: Interrupt | None = None,
    only: Selection | None = None,
    loaded: LoadedTask | None = None,
) -> Report:
    """Ask what is not kept yet, and seal it. Resumes by itself. The teacher ends with it.

    Runs in any thread, and in one that runs an event loop, as a notebook's does.

    `interrupt` tells it to stop: KeyboardInterrupt is raised once what was in flight has arrived and is kept. `only`
    says which rows it is about, beside the choice's limits. `loaded` are the choice's texts, where they were loaded
    before, as load_choice does. Else raises as Engine.run does.
    """
    started = time.monotonic()
    with keep_log() as log, _prepare(config, interrupt, sends=True, only=only, loaded=loaded) as harvest:
        with _open_folder(harvest, log) as (folder, answer):
            plan, changes = _plan_in(folder, harvest)
            folder.plan(plan.planned)
            fresh = _count_fresh(plan, answer)
            _say_plan(plan, harvest.loaded, sum(fresh.values()))
            outcome = _run_engine(harvest, plan, folder, answer)
            if not outcome.disk_full:
                drop_found(folder)
            if config.calibrate and outcome.stopped is None:
                run_loop(calibrate(harvest.teacher, harvest.path), harvest.interrupt)
        if not outcome.disk_full:
            write_card(harvest.path.parent)
        if outcome.stopped == INTERRUPTED:
            raise KeyboardInterrupt
        agreement = judge_folder(harvest.path)
        left = plan.count(Action.ASK) - outcome.asked
        about = (harvest.loaded, harvest.teacher, harvest.path, plan, harvest.scope.limits)
        report = _report(*about, outcome, started, changes, left, fresh)
        report = replace(report, agreement=None if agreement is None else agreement.describe())
        emit("finished", **{name: getattr(report, name) for name in TOLD})
        return report


def _plan_in(folder: TeacherFolder, harvest: _Harvest) -> tuple[Plan, Changes]:
    """Bring what is kept to the file as it is now, and choose what is done with each of its rows."""
    _say_notes(folder)
    changes = follow_file(folder, harvest.loaded)
    if changes != Changes():
        say(f"{describe_changes(changes)}. Nobody is asked about them again")
    kept = {split: folder.iterate_kept(split) for split in _list_kept(folder.manifest, harvest.scope)}
    plan = make_plan(harvest.loaded, harvest.teacher, harvest.scope, kept)
    if said := describe_repainted(plan.repainted):
        say(said)
    set_aside_repainted(folder, plan.repainted)
    return plan, changes


def _list_kept(manifest: Manifest, scope: Scope) -> set[str]:
    """The splits whose answers a plan looks at: also those that were set aside, whose text may be back."""
    return {*manifest.planned, *scope.splits, REMOVED}


def _run_engine(harvest: _Harvest, plan: Plan, folder: TeacherFolder, probed: Answer | None) -> Outcome:
    """Carry out a plan; the outcome counts the answer of the probe, if there was one, with it."""
    loaded, teacher = harvest.loaded, harvest.teacher
    to_do = plan.count(Action.ASK, Action.COPY, Action.CARRY, Action.FAIL)
    if harvest.pool is not None:
        harvest.pool.expect(plan.count(Action.ASK))
    with track(f"{teacher.name} on {loaded.task.name}", to_do) as tracker:
        stops = (harvest.failure_limit, harvest.interrupt, harvest.drain)
        engine = Engine(loaded, teacher, plan, folder, tracker, *stops)
        tracker.observe(engine.measure)
        try:
            outcome = run_loop(engine.run(), harvest.interrupt)
        except asyncio.CancelledError:  # it did not wait for what was in flight
            _say_kept(plan, engine.outcome)
            raise KeyboardInterrupt from None
    if outcome.stopped == INTERRUPTED:
        _say_kept(plan, outcome)
    if probed is not None:
        outcome.probed += 1
        outcome.cost_usd = sum_costs((outcome.cost_usd, probed.cost_usd))
    if unanswered := find_unanswered_cost(teacher):
        outcome.cost_usd = sum_costs((outcome.cost_usd, unanswered))
        say(f"${unanswered:.4g} of the cost was paid for rows that the end of the run cut: they are asked again, whole")
    return outcome


@contextmanager
def _open_folder(harvest: _Harvest, log: LogFile) -> Iterator[tuple[TeacherFolder, Answer | None]]:
    """Open the teacher's folder, this worker's to write, claimed before anything is asked.

    Beside it comes the answer that a probe brought, if one was needed; the folder keeps it. The log goes on from here.
    """
    with Claim(harvest.path.parent, harvest.teacher.name, f"w{harvest.scope.share.index}") as claim:
        log.open(_place_log(harvest))
        emit("started", command="harvest", task=harvest.loaded.task.name, teacher=harvest.teacher.name)
        folder, answer = _open_claimed(harvest, claim)
        with folder:
            try:
                yield folder, answer
            finally:
                _say_notes(folder)


def _place_log(harvest: _Harvest) -> Path:
    """Choose where a run's log lies: beside the teacher's folder, in which everything is a row's or counts rows."""
    share = harvest.scope.share
    worker = f"-{share.index + 1}of{share.count}" if share.count > 1 else ""
    return harvest.path.parent / LOGS / f"{harvest.teacher.name}{worker}.log"


def _say_notes(folder: TeacherFolder) -> None:
    for note in folder.take_notes():
        say(note)


def _open_claimed(harvest: _Harvest, claim: Claim) -> tuple[TeacherFolder, Answer | None]:
    remote = harvest.teacher.remote
    if remote is None:
        return _open_as_described(harvest, claim), None
    # One worker finds out what was left open, from a row of the run; the others wait, and take it from the folder.
    # They wait also where they know it already: the manifest is there before the row that the probe paid for.
    with claim.hold_recipe():
        _adopt(remote, claim.path)
        # A folder whose recipe was not taken over refuses this one, whatever a probe would find.
        if remote.resolved or (claim.path / MANIFEST_NAME).exists():
            return _open_as_described(harvest, claim), None
        return _open_with_probe(harvest, remote, claim)


def _open_as_described(harvest: _Harvest, claim: Claim) -> TeacherFolder:
    manifest = make_manifest(harvest.loaded, harvest.teacher)
    return TeacherFolder.open(claim.path.parent, manifest, worker=claim.worker, claim=claim)


def _open_with_probe(harvest: _Harvest, remote: Remote, claim: Claim) -> tuple[TeacherFolder, Answer]:
    """Find out, by one row that is then kept, what the recipe leaves open; open the folder of what was found."""
    found = find_first(harvest.loaded, harvest.teacher, harvest.scope)
    if found is None:
        raise UsageError("no row is to be asked, so there is none to find out with what the endpoint gives")
    split, example = found
    log = InFlightLog(claim.path, claim.worker)
    with closing(log), log.passing() as note, ExitStack() as undo:
        with closing(DiskReserve(claim.path, claim.worker)):  # there is room for what the probe pays for
            probe = run_loop(remote.probe(example, note), harvest.interrupt)
        folder = undo.enter_context(_open_as_described(harvest, claim))
        keep_pictures(folder.path, probe.pictures)
        key, _ = request_key(RequestKeys(harvest.teacher.recipe()), harvest.teacher, example)
        folder.append(split, [Row(example, key, 0, probe.answer)])
        folder.commit()
        for notice in probe.notices:
            say(notice)
        undo.pop_all()
    return folder, probe.answer


def _adopt(remote: Remote, folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists():
        remote.adopt(load_manifest(folder).recipe)


@contextmanager
def _prepare(
    config: HarvestConfig,
    interrupt: Interrupt | None,
    *,
    sends: bool,
    only: Selection | None,
    loaded: LoadedTask | None,
) -> Iterator[_Harvest]:
    """Make of a choice what carries it out; the teacher ends with the block. `sends` is whether anything is asked.

    Everything that can be refused is refused here, before anything is asked.
    """
    interrupt = interrupt or Interrupt()
    build_teacher = prepare_teacher(config.teacher)
    loaded = loaded or load_choice(config.task)
    scope = _choose_scope(config, loaded, only)
    folder = config.out or Path("data") / loaded.task.name
    if (address := find_store_address(folder)) is not None:
        folder = open_written_folder(folder)
        if sends:
            say(f"  answers go to {address}; until they are uploaded they are kept in {folder}")
    task = use_letters(loaded.task) if config.letters else loaded.task
    if config.calibrate:
        _check_calibration(config.teacher, task)
    teacher = _make_teacher(config.teacher, build_teacher, task, folder)
    try:
        pool = make_pool(teacher, config.teacher, task, config.pool)
        teacher = pool or teacher
        if config.onto is not None:
            teacher = OntoAnswers(teacher, config.onto, loaded.task)
        if loaded.task.has_pictures and not sees_pictures(teacher):
            say(
                f"  the teacher {teacher.name} is shown no picture of these rows, but their texts alone: encoder, "
                "vllm, transformers and endpoint see them, unless they are told --no-pictures or their model sees none"
            )
        if config.draws > 1 and (problem := find_draw_problem(teacher)) is not None:
            raise UsageError(f"--draws {config.draws}: all would be alike, for {problem}")
        path = folder / f"teacher={check_name('teacher', teacher.name)}"
        if (path / MANIFEST_NAME).exists() and load_manifest(path).recipe.get("teacher") == IMPORTED:
            raise RecipeMismatchError(
                f"{path} holds answers that were imported, and none is asked to go beside them; nothing was changed. "
                "Give this run its own folder with --name"
            )
        if teacher.remote is not None:
            if sends:
                teacher.remote.check_access()
            _adopt(teacher.remote, path)
        yield _Harvest(loaded, teacher, pool, path, scope, config.failure_limit, config.drain, interrupt)
    finally:
        run_loop(teacher.aclose(), interrupt)


def _check_calibration(choice: TeacherChoice, task: Task) -> None:
    """Refuse to calibrate what has no label scores, or is paid for."""
    gives = choose_entry(choice.teacher, choice.options).gives
    if task.kind != "classification" or "label_logprobs" not in gives or "endpoint" in choice.options:
        raise UsageError(
            f"--calibrate: {choice.teacher} on {task.name} has no label scores that are computed here; it is of use "
            "with --teacher transformers or vllm, and a task with labels"
        )


def load_choice(choice: TaskChoice) -> LoadedTask:
    """Find and check the texts that a user chose, and say where they are from."""
    options = asdict(choice)
    loaded = load_task(find_task(options.pop("task"), **options))
    say(f"{loaded.task.name}: {loaded.source}")
    for note in loaded.notes:
        say(f"  {note}")
    return loaded


def _make_teacher(choice: TeacherChoice, build: Callable[..., Teacher], task: Task, folder: Path) -> Teacher:
    """Make the teacher; under the name of its kind where a folder of that name holds answers of the same model.

    So older versions named it, and what it was paid for is not asked again.
    """
    teacher = build(task)
    older = folder / f"teacher={choice.teacher}"
    if choice.name is not None or teacher.name == choice.teacher or not (older / MANIFEST_NAME).exists():
        return teacher
    kept, recipe = load_manifest(older).recipe, teacher.recipe()
    if any(kept.get(key) != recipe.get(key) for key in ("teacher", "model")):
        return teacher
    return build(task, name=choice.teacher)


def _choose_scope(config: HarvestConfig, loaded: LoadedTask, only: Selection | None) -> Scope:
    """The rows that a choice is about. Raises UsageError for a split that the task has not."""
    asked = () if config.asked == (NO_SPLIT,) else config.asked
    named = [
        *(config.splits or ()),
        *(asked or ()),
        *(split for split in config.limits if split != EVERY_SPLIT),
    ]
    if unknown := [split for split in named if split not in loaded.splits]:
        raise UsageError(f"{loaded.task.name} has no split {unknown[0]!r}; {suggest(unknown[0], loaded.splits)}")
    splits = tuple(config.splits or loaded.splits)
    if config.escalate is not None:
        only = _find_unsure(config, config.escalate, loaded, splits)
    return Scope(
        splits=splits,
        limits=config.limits,
        asked=asked,
        retry=config.retry,
        share=config.share,
        draws=config.draws,
        only=only,
    )


def _find_unsure(config: HarvestConfig, folder: Path, loaded: LoadedTask, splits: Sequence[str]) -> Unsure:
    """The rows that a cheaper teacher is unsure of. Raises UsageError where it answers another task, or no row."""
    kept = KeptAnswers(folder, loaded.task)
    if kept.manifest.teacher == name_teacher(config.teacher):
        raise UsageError(f"--escalate {folder}: that is this teacher's own folder; name that of a cheaper one")
    below = UNSURE_BELOW if config.unsure_below is None else config.unsure_below
    unsure = find_unsure(kept.folder, kept.manifest, splits, below)
    say(describe_unsure(unsure, kept.folder, below))
    if not unsure.asked:
        raise UsageError(
            f"--escalate {folder}: it keeps no answer to a row of {', '.join(splits)}; finish that harvest"
        )
    return unsure


def _count_fresh(plan: Plan, probed: Answer | None) -> Counter[Status]:
    """Count by status the rows that the plan finds kept, and that this run itself has asked: that of the probe."""
    return Counter() if probed is None or not plan.kept.get(probed.status) else Counter([probed.status])


def _say_plan(plan: Plan, loaded: LoadedTask, fresh: int) -> None:
    kept, to_ask = plan.count(Action.KEEP) - fresh, plan.count(Action.ASK) + fresh
    say(f"{sum(plan.planned.values()):,} rows planned, {kept:,} kept already, {to_ask:,} to ask the teacher")
    if unaskable := plan.count(Action.FAIL):
        say(f"{unaskable:,} rows cannot be asked and are kept as failed rows; the first: {plan.first_failure}")


def _say_kept(plan: Plan, outcome: Outcome) -> None:
    """Say of a run that was interrupted how many answers are kept, and how many rows the next one asks."""
    kept, left = plan.count(Action.KEEP) + outcome.asked, plan.count(Action.ASK) - outcome.asked
    planned = sum(plan.planned.values())
    said = f"{kept:,} of {planned:,} planned rows are kept, {outcome.asked:,} of them from this run"
    say(f"{said}; {left:,} are left to ask")


def _report(
    loaded: LoadedTask,
    teacher: Teacher,
    folder: Path,
    plan: Plan,
    limits: Mapping[str, int],
    outcome: Outcome,
    started: float,
    changes: Changes,
    left: int,
    fresh: Mapping[Status, int] = MappingProxyType({}),
) -> Report:
    kept = {status: rows - fresh.get(status, 0) for status, rows in plan.kept.items()}
    return Report(
        task=loaded.task.name,
        teacher=teacher.name,
        folder=spell_place(folder),
        source=loaded.source,
        rows=sum(plan.planned.values()),
        splits=dict(plan.planned),
        limits=dict(limits),
        kept=plan.count(Action.KEEP) - sum(fresh.values()),
        kept_statuses={str(status): rows for status, rows in kept.items() if rows},
        to_ask=plan.count(Action.ASK) + sum(fresh.values()),
        to_copy=plan.count(Action.COPY),
        to_carry=plan.count(Action.CARRY),
        unaskable=plan.count(Action.FAIL),
        changed=asdict(changes),
        left=left,
        asked=outcome.asked + outcome.probed,
        failed=outcome.failed,
        causes=dict(outcome.causes.most_common(SHOWN_CAUSES)),
        cost_usd=outcome.cost_usd,
        maybe_billed_usd=find_maybe_billed(teacher),
        seconds=time.monotonic() - started,
        stopped=outcome.stopped,
    )
