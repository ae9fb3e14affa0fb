"""The `harvest` command: ask a teacher once, and keep what it said."""

from pathlib import Path
from typing import Annotated, Any

import typer

from shared.console import command, print_json, results, say
from shared.errors import UsageError

# What a command needs beyond typer is imported when it runs: `harvest --help` answers at once.

app = typer.Typer(
    help="Stage 1: ask a multimodal teacher about every text of a task, once, and keep its answers as Parquet shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_TEACHER = "The teacher"
_ENDPOINT = "The teacher: endpoints"
_FILE = "A file of your own"

TeacherName = Annotated[
    str, typer.Option("--teacher", help="reader, encoder, endpoint, llava: see `harvest teachers`.")
]
TaskName = Annotated[str, typer.Option("--task", help="A task by name, or a Parquet, JSONL or CSV file of your own.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the task's shards. [default: data/<task>]")]
Name = Annotated[
    str | None, typer.Option("--name", help="Keep the answers under teacher=<name>. [default: the teacher]")
]
Split = Annotated[list[str] | None, typer.Option("--split", help="Only this split; may be repeated.")]
Ask = Annotated[
    list[str] | None,
    typer.Option("--ask", help="Ask only about this split and carry the others' rows unanswered; may be repeated."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", help="At most N rows a split, or split=N; may be repeated. A larger limit adds rows."),
]
Retry = Annotated[
    list[str] | None,
    typer.Option("--retry", help="Ask again the kept rows that are failed, truncated, refused or unparsable."),
]
Worker = Annotated[str, typer.Option("--worker", help="K/N: own the Kth of N disjoint shares of the requests.")]
FailureLimit = Annotated[
    float,
    typer.Option("--failure-limit", min=0, max=1, help="Stop when more than this share of requests fails."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

Model = Annotated[
    str | None, typer.Option("--model", help="Model: a hub id, a path, or a name.", rich_help_panel=_TEACHER)
]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="Sentence encoder of `reader`: hub id, path or pkg://.", rich_help_panel=_TEACHER),
]
Size = Annotated[
    str | None, typer.Option("--size", help="Picture size, WIDTHxHEIGHT in pixels.", rich_help_panel=_TEACHER)
]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Base URL, with its /v1.", rich_help_panel=_ENDPOINT)]
Image = Annotated[
    bool | None,
    typer.Option("--image/--no-image", help="Draw the text as a picture.", rich_help_panel=_ENDPOINT),
]

TextColumn = Annotated[str | None, typer.Option("--text-column", rich_help_panel=_FILE)]
TextPairColumn = Annotated[str | None, typer.Option("--text-pair-column", rich_help_panel=_FILE)]
LabelColumn = Annotated[str | None, typer.Option("--label-column", rich_help_panel=_FILE)]
TargetColumn = Annotated[
    str | None,
    typer.Option("--target-column", help="A number to predict: regression.", rich_help_panel=_FILE),
]
IdColumn = Annotated[str | None, typer.Option("--id-column", rich_help_panel=_FILE)]
LabelWords = Annotated[
    str | None,
    typer.Option("--label-words", help="What the teacher answers with, one a label: a,b,c", rich_help_panel=_FILE),
]
Question = Annotated[str | None, typer.Option("--question", help="What the teacher is asked.", rich_help_panel=_FILE)]

Shards = Annotated[Path, typer.Argument(help="data/<task>, or one teacher=<name> folder in it.")]


@app.command()
@command
def plan(
    teacher: TeacherName,
    task: TaskName,
    out: Out = None,
    name: Name = None,
    split: Split = None,
    ask: Ask = None,
    limit: Limit = None,
    retry: Retry = None,
    worker: Worker = "1/1",
    model: Model = None,
    encoder: Encoder = None,
    size: Size = None,
    endpoint: Endpoint = None,
    image: Image = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    target_column: TargetColumn = None,
    id_column: IdColumn = None,
    label_words: LabelWords = None,
    question: Question = None,
    as_json: AsJson = False,
) -> None:
    """Say what `run` would ask: rows, those kept already, those to ask. Sends nothing."""
    from harvest.job import plan_harvest

    _print_report(plan_harvest(_make_config(locals())), as_json)


@app.command()
@command
def run(
    teacher: TeacherName,
    task: TaskName,
    out: Out = None,
    name: Name = None,
    split: Split = None,
    ask: Ask = None,
    limit: Limit = None,
    retry: Retry = None,
    worker: Worker = "1/1",
    failure_limit: FailureLimit = 0.5,
    model: Model = None,
    encoder: Encoder = None,
    size: Size = None,
    endpoint: Endpoint = None,
    image: Image = None,
    text_column: TextColumn = None,
    text_pair_column: TextPairColumn = None,
    label_column: LabelColumn = None,
    target_column: TargetColumn = None,
    id_column: IdColumn = None,
    label_words: LabelWords = None,
    question: Question = None,
    as_json: AsJson = False,
) -> None:
    """Ask the teacher about every row that is not kept yet. Resumes by itself; an answered row is never asked again."""
    from harvest.job import run_harvest

    report = run_harvest(_make_config(locals()))
    _print_report(report, as_json)
    if report.stopped is not None:
        raise typer.Exit(1)


@app.command()
@command
def teachers(as_json: AsJson = False) -> None:
    """List the teachers: what each gives and needs."""
    from rich.table import Table

    from harvest.teachers.registry import ENTRIES

    if as_json:
        print_json({entry.name: {"gives": entry.gives, "needs": entry.needs} for entry in ENTRIES})
        return
    table = Table("teacher", "gives", "needs", "what it does")
    for entry in ENTRIES:
        table.add_row(entry.name, ", ".join(entry.gives), entry.needs, entry.summary)
    results.print(table)


@app.command()
@command
def status(
    shards: Annotated[
        Path, typer.Argument(help="data/<task>, one teacher=<name> folder in it, or all of data/.")
    ] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Say what is kept, by teacher and split; what was spent; what failed and why."""
    from harvest.status import print_status, read_status

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
        results.print(
            f"{'ok' if verification.ok else f'{len(verification.problems)} problems'}: "
            f"{verification.rows:,} rows in {verification.shards} shards"
        )
    if not verification.ok:
        raise typer.Exit(1)


@app.command()
@command
def show(
    shards: Shards,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Which teacher, where there are several.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which split. [default: the first]")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows.")] = 3,
    sample_id: Annotated[str | None, typer.Option("--sample-id", help="One row by its id.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Write the pictures into this folder.")] = None,
) -> None:
    """Look at rows: the example, the picture that the teacher saw, its reply, its label distribution."""
    from harvest.show import show_rows

    show_rows(shards, teacher, split, rows, sample_id, images)


def _make_config(flags: dict[str, Any]) -> Any:
    """The HarvestConfig that the flags of `plan` and `run` say."""
    from harvest.config import (
        HarvestConfig,
        TaskChoice,
        TeacherChoice,
        parse_limits,
        parse_share,
        parse_statuses,
    )

    file_flags = ("text_column", "text_pair_column", "label_column", "target_column", "id_column", "question")
    words = flags["label_words"]
    options = {key: flags[key] for key in ("model", "encoder", "endpoint", "image") if flags[key] is not None}
    if flags["size"] is not None:
        options["size"] = _parse_size(flags["size"])
    return HarvestConfig(
        task=TaskChoice(
            flags["task"],
            **{key: flags[key] for key in file_flags},
            label_words=None if words is None else [word.strip() for word in words.split(",")],
        ),
        teacher=TeacherChoice(flags["teacher"], flags["name"], options),
        out=flags["out"],
        splits=flags["split"],
        asked=flags["ask"],
        limits=parse_limits(flags["limit"] or ()),
        retry=parse_statuses(flags["retry"] or ()),
        share=parse_share(flags["worker"]),
        failure_limit=flags.get("failure_limit", 0.5),
    )


def _parse_size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size {text}: give WIDTHxHEIGHT in pixels, 512x512 say")
    return int(width), int(height)


def _print_report(report: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(report))
        return
    lines = [
        f"{report.rows:,} rows planned, {report.kept:,} kept before",
        f"to ask: {report.to_ask:,}; to copy from equal rows: {report.to_copy:,}; "
        f"to carry unanswered: {report.to_carry:,}",
    ]
    if report.unaskable:
        lines.append(f"cannot be asked: {report.unaskable:,}")
    if report.asked or report.seconds:
        lines.append(
            f"asked {report.asked:,}, failed {report.failed:,}, ${report.cost_usd:.4f}, {report.seconds:.1f} s"
        )
    if report.stopped:
        lines.append(f"stopped: {report.stopped}. What was answered is kept; the same command goes on from there")
    for line in [*lines, report.folder]:
        results.print(line, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `harvest` command."""
    app()


if __name__ == "__main__":
    main()
