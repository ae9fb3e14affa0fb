"""The `harvest` command: ask a teacher once, and keep what it said."""

import harvest.startup  # noqa: F401, I001  (before anything of `shared`)
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from harvest.looking.view.config import ViewConfig, make_view_config
from shared.console import (
    AsJson,
    LogJson,
    Quiet,
    ShowVersion,
    command,
    print_json,
    print_result,
    run_app,
    say,
    show_cost,
)
from shared.options import make_parameters, take_options
from shared.settings import name_variables

# What a command needs beyond typer is imported when it runs: `harvest --help` answers at once.

VARIABLES = "HARVEST"  # HARVEST_MODEL is --model

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main_options(show_version: ShowVersion = False) -> None:
    """Stage 1: ask a multimodal teacher about every text of a task, once, and keep its answers as Parquet shards.

    A flag can also be set by an environment variable: --max-cost by HARVEST_MAX_COST.
    """


Shards = Annotated[
    Path,
    typer.Argument(
        help="data/<task>, one teacher=<name> folder in it, hf://datasets/owner/name, or s3://bucket/data/<task>."
    ),
]


class HarvestCommand(TyperCommand):
    """A command whose flags are made when it is called: they are those of the teacher that is named, too."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the flags of the teacher among them, or those of a config class."""
        from harvest.flags import make_context, make_own_context

        name = str(self.name)
        body, config = _BODIES[name]
        if config is not None:
            return make_own_context(info_name or name, body, config, args, parent, extra, VARIABLES)
        return make_context(info_name or name, body, args, parent, extra, VARIABLES)


_BODIES: dict[str, tuple[Callable[..., None], str | None]] = {}


def takes_harvest_flags(body: Callable[..., None]) -> Callable[..., None]:
    """Register `body` as a HarvestCommand; it is called with the options that were given, before its own flags."""
    return takes_flags_of(body.__name__, None)(body)


def takes_flags_of(name: str, config: str | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do the same with the flags of a config class, "module:class", which is imported when the command is called."""

    def register(body: Callable[..., None]) -> Callable[..., None]:
        _BODIES[name] = body, config
        app.command(name, cls=HarvestCommand, help=inspect.getdoc(body))(lambda: None)
        return body

    return register


@takes_harvest_flags
def plan(
    options: dict[str, Any],
    probe: Annotated[
        int | None,
        typer.Option(help="Ask this many of the rows for real, keep them, and extrapolate from what they took.", min=1),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would ask, and what that takes: tokens, dollars, bytes, minutes. Only --probe sends anything."""
    from harvest.asking.interrupt import SignalInterrupts
    from harvest.flags import make_config
    from harvest.job import plan_harvest

    report = plan_harvest(make_config(options), probe, interrupt=SignalInterrupts())
    _print_report(report, as_json)
    if report.stopped is not None:
        raise typer.Exit(1)


@takes_harvest_flags
def run(options: dict[str, Any], quiet: Quiet = False, log_json: LogJson = None, as_json: AsJson = False) -> None:
    """Ask the teacher about every row that is not kept yet. Resumes by itself; an answered row is never asked again."""
    from harvest.asking.interrupt import SignalInterrupts
    from harvest.flags import make_config
    from harvest.job import run_harvest

    report = run_harvest(make_config(options), interrupt=SignalInterrupts())
    _print_report(report, as_json)
    if report.stopped is not None:
        raise typer.Exit(1)


@takes_flags_of("import", "harvest.importing.config:ImportConfig")
def import_(options: dict[str, Any], quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Make a teacher's folder of vectors, replies or probabilities that you have already. Asks nobody."""
    from dataclasses import asdict

    from harvest.importing.config import ImportConfig
    from harvest.importing.run import describe_import, import_answers
    from harvest.looking.agreement import describe_agreement
    from harvest.looking.next_step import suggest_training
    from shared.options import make_config, spell_flags

    report = import_answers(make_config(ImportConfig, options, "harvest import", spell_flags(ImportConfig)))
    if as_json:
        print_json(asdict(report))
        return
    print_result(*describe_import(report), *describe_agreement(report.agreement or {"splits": {}}), report.folder)
    print_result(f"next: {suggest_training(Path(report.folder))}")


@takes_flags_of("compare", "harvest.choosing.config:CompareConfig")
def compare(options: dict[str, Any], quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Ask several teachers about the same few rows with known answers, and say which to take for the whole task."""
    from harvest.asking.interrupt import SignalInterrupts
    from harvest.choosing.config import CompareConfig
    from harvest.choosing.run import compare_teachers
    from harvest.choosing.table import print_teacher_comparison
    from shared.options import make_config, spell_flags

    config = make_config(CompareConfig, options, "harvest compare", spell_flags(CompareConfig))
    comparison = compare_teachers(config, interrupt=SignalInterrupts())
    print_json(comparison.describe()) if as_json else print_teacher_comparison(comparison)


@app.command()
@command
def teachers(as_json: AsJson = False) -> None:
    """List the teachers: what each gives and needs, and what of that is not here."""
    from harvest.looking.listing import describe_teachers, print_teachers

    print_json(describe_teachers()) if as_json else print_teachers()


@takes_flags_of("tasks", "harvest.config:TaskSource")
def tasks(
    options: dict[str, Any],
    task: Annotated[
        str | None, typer.Argument(help="A task by name, a file with its columns, or a task in YAML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the known tasks; or check one, your own in YAML say: its rows are read and its prompt shown. Asks nobody."""
    if task is None:
        from harvest.looking.tasks import describe_tasks, print_tasks
        from shared.errors import UsageError

        if options:
            raise UsageError("options of a file are given with its path: harvest tasks FILE --text-column NAME")
        print_json(describe_tasks()) if as_json else print_tasks()
        return
    from dataclasses import asdict

    from harvest.config import TaskSource
    from harvest.looking.one_task import describe_task, print_task
    from shared.options import make_config, spell_flags

    source = make_config(TaskSource, options, "harvest tasks", spell_flags(TaskSource))
    described = describe_task(task, asdict(source))
    print_json(described) if as_json else print_task(described)


@app.command()
@command
def status(
    shards: Annotated[
        Path,
        typer.Argument(
            help="data/<task>, one teacher=<name> folder in it, all of data/, or hf://datasets/owner/name or s3://bucket/data."
        ),
    ] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Say what is kept, by teacher and split; what was spent; what failed and why."""
    from harvest.looking.status import print_status, read_status

    summaries = read_status(shards)
    print_json(summaries) if as_json else print_status(summaries)


@app.command()
@command
def verify(shards: Shards, as_json: AsJson = False) -> None:
    """Hold every shard against its manifest: hashes, schema, counts, doubled rows, torn journals."""
    from shared.shards import verify_shards

    verification = verify_shards(shards)
    if as_json:
        print_json(
            {
                "ok": verification.ok,
                "rows": verification.rows,
                "shards": verification.shards,
                "problems": list(verification.problems),
            }
        )
    else:
        for problem in verification.problems:
            say(problem)
        print_result(
            f"{'ok' if verification.ok else f'{len(verification.problems)} problems'}: "
            f"{verification.rows:,} rows in {verification.shards} shards"
        )
    if not verification.ok:
        raise typer.Exit(1)


@app.command()
@command
def reparse(
    shards: Shards,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Which teacher, where there are several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read the kept replies of an endpoint again, with the parser of this version. Asks nothing; the bill stays."""
    from dataclasses import asdict

    from harvest.looking.reparse import reparse

    report = reparse(shards, teacher)
    if as_json:
        print_json(asdict(report))
        return
    lines = [
        f"{report.rows:,} rows, {report.reread:,} replies read again, {report.changed:,} answers changed",
        *(f"  {rows:,} {change}" for change, rows in report.statuses.items()),
        "asked 0",
        report.folder,
    ]
    print_result(*lines)


@app.command()
@command
def show(
    shards: Shards,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Which teacher, where there are several.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which split. Unless given, the first.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows.")] = 3,
    sample_id: Annotated[str | None, typer.Option("--sample-id", help="One row by its id.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Write the pictures into this folder.")] = None,
) -> None:
    """Look at rows: the example, the picture that the teacher saw, its reply, its label distribution."""
    from harvest.looking.show import show_rows

    show_rows(shards, teacher, split, rows, sample_id, images)


@app.command()
@command
@take_options(make_parameters(ViewConfig))
def view(options: dict[str, Any], shards: Shards) -> None:
    """Look at rows in a browser: filter and sort them, pictures beside replies, right and wrong answers, the spend."""
    from harvest.looking.view.page import write_file
    from harvest.looking.view.server import serve_rows
    from shared.shards import choose_teacher

    config = make_view_config(options)
    folder = choose_teacher(shards, config.teacher)
    serve_rows(folder, config.port or 0) if config.serve else write_file(folder, config)


@app.command()
@command
def push(
    shards: Shards,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A data set of the hub: name, or owner/name.")],
    public: Annotated[bool, typer.Option("--public/--private", help="Let anybody read it.")] = False,
    raw: Annotated[
        Literal["keep", "drop"] | None,
        typer.Option(help="The teacher's replies as they came, in the column raw: send them too, or leave them out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Push sealed shards, manifest and card to the Hugging Face hub as a data set, with the token in HF_TOKEN.

    Private, unless told otherwise. A push that was cut off goes on when the same command is given again.
    """
    from dataclasses import asdict

    from harvest.sharing.push import push_harvest

    can_ask = sys.stdin.isatty() and not as_json
    report = push_harvest(shards, repo, public=public, raw=raw, choose_raw=_ask_raw if can_ask else None)
    print_json(asdict(report)) if as_json else print_result(f"{shards} is now {report.address}")


@app.command()
@command
def pull(
    repo: Annotated[
        str, typer.Argument(metavar="REPO", help="owner/name, or hf://datasets/owner/name[@revision][/teacher=<name>].")
    ],
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="data/<task>, unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a harvest that somebody pushed to a folder of one's own; `harvest run` there asks nothing that it holds."""
    from dataclasses import asdict

    from harvest.sharing.pull import pull_harvest

    report = pull_harvest(repo, folder)
    if as_json:
        print_json(asdict(report))
        return
    say(f"{report.rows:,} rows of {', '.join(report.teachers)}, verified; {report.copied} files were written")
    print_result(report.folder)


def _ask_raw(question: str) -> Literal["keep", "drop"]:
    say(question)
    return "keep" if typer.confirm("Send them too?", default=False, err=True) else "drop"


def _print_report(report: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(report))
        return
    print_result(*_describe_rows(report), *_describe_judgement(report), report.folder)
    answered = report.kept_statuses.get("ok", 0) + report.asked - report.failed
    if report.forecast is None and not report.left and _knows_all(report) and answered > 0:
        from harvest.looking.next_step import suggest_training

        print_result(f"next: {suggest_training(Path(report.folder))}")


def _knows_all(report: Any) -> bool:
    """Whether no planned row is another worker's."""
    known = report.kept + report.to_ask + report.to_copy + report.to_carry + report.unaskable
    return bool(known >= report.rows)


def _describe_rows(report: Any) -> list[str]:
    """What becomes of the planned rows, or became of them in a run."""
    from harvest.asking.plan import EVERY_SPLIT

    kept = ", ".join(f"{rows:,} {status}" for status, rows in report.kept_statuses.items())
    before = "kept" if report.forecast is not None and report.asked else "kept before"  # a probe's are among them
    lines = [f"{report.rows:,} rows planned, {report.kept:,} {before}{f' ({kept})' if kept else ''}"]
    if report.asked or report.forecast is None:
        lines.append(
            f"asked {report.asked:,}, failed {report.failed:,}, {show_cost(report.cost_usd)}, {report.seconds:.1f} s"
        )
    lines += [f"  {rows:,} x {cause}" for cause, rows in report.causes.items()]
    others = {"copied from equal rows": report.to_copy, "carried unanswered": report.to_carry}
    told = [f"{rows:,} {what}" for what, rows in others.items() if rows]
    if report.forecast is not None:
        lines.append("; ".join([f"to ask: {report.to_ask:,}", *told]))
    else:
        lines += ["; ".join(told)] if told and not report.stopped else []
        done = "nothing is left to ask" if _knows_all(report) else "nothing is left for this worker to ask"
        lines.append(f"left to ask: {report.left:,}" if report.left else done)
    if report.unaskable:
        lines.append(f"cannot be asked: {report.unaskable:,}")
    if len(report.splits) > 1 and (limit := report.limits.get(EVERY_SPLIT)) is not None:
        each = ", ".join(f"{split} {rows:,}" for split, rows in report.splits.items())
        lines.append(f"--limit {limit} is of each split: {each}")
    return lines


def _describe_judgement(report: Any) -> list[str]:
    """What the rest will take, how right the answers are, and why a run ended early."""
    lines: list[str] = []
    if report.forecast is not None:
        from harvest.asking.forecast import describe_forecast

        lines += describe_forecast(report.forecast)
    if report.agreement is not None:
        from harvest.looking.agreement import describe_agreement

        lines += describe_agreement(report.agreement)
    if report.stopped:
        lines.append(f"{report.stopped}. What was answered is kept; the same command goes on from there")
    return lines


def main() -> None:
    """Entry point of the `harvest` command."""
    # --teacher of commands that look at answers is the name these are kept under; HARVEST_TEACHER is what asks.
    run_app(app, partial(name_variables, prefix=VARIABLES, leave_out=("teacher",)))


if __name__ == "__main__":
    main()
