"""The `harvest` command: ask a teacher once, and keep what it said."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.console import command, print_json, results, say, show_cost
from shared.errors import UsageError

# What a command needs beyond typer is imported when it runs: `harvest --help` answers at once.

app = typer.Typer(
    help="Stage 1: ask a multimodal teacher about every text of a task, once, and keep its answers as Parquet shards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_TEACHER = "The teacher"
_PAINTING = "Text to image: diffusion"
_SPEECH = "Speech"
_ENDPOINT = "Endpoints: what is asked"
_PACE = "Endpoints: pace and money"
_FILE = "A file of your own"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Shards = Annotated[Path, typer.Argument(help="data/<task>, or one teacher=<name> folder in it.")]


def _option(help_text: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel=panel, **more)


def _harvest_flags(
    teacher: Annotated[str, _option("reader, endpoint, llava, ...: see `harvest teachers`.")],
    task: Annotated[str, _option("A task by name, or a Parquet, JSONL or CSV file (or folder) of your own.")],
    out: Annotated[Path | None, _option("Folder of the task's shards. Unless given, data/<task>.")] = None,
    name: Annotated[str | None, _option("Keep the answers under teacher=<name>. Unless given, the teacher's.")] = None,
    onto: Annotated[
        Path | None, _option("A teacher=<name> folder: its answers and this teacher's vectors make one row.")
    ] = None,
    split: Annotated[list[str] | None, _option("Only this split; may be repeated.")] = None,
    ask: Annotated[
        list[str] | None,
        _option("Ask only about this split and carry the others' rows unanswered; may be repeated."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        _option("At most N rows a split, or split=N; may be repeated. A larger limit contains a smaller one's rows."),
    ] = None,
    retry: Annotated[
        list[str] | None, _option("Ask again the kept rows that are failed, truncated, refused or unparsable.")
    ] = None,
    worker: Annotated[str, _option("K/N: own the Kth of N disjoint shares of the requests.")] = "1/1",
    failure_limit: Annotated[float, _option("Stop when more than this share of requests fails.", min=0, max=1)] = 0.5,
    as_json: AsJson = False,
    model: Annotated[str | None, _option("Model: a hub id, a path, or an endpoint's name for it.", _TEACHER)] = None,
    encoder: Annotated[
        str | None, _option("reader: of sentences. diffusion: of pictures. speech: of sound.", _TEACHER)
    ] = None,
    draw: Annotated[
        str | None, _option("What is sent as pictures: fields (the text), all (and the question), none.", _TEACHER)
    ] = None,
    size: Annotated[str | None, _option("Picture size, WIDTHxHEIGHT in pixels.", _TEACHER)] = None,
    vector: Annotated[
        str | None,
        _option(
            "vLLM: last or mean hidden state of the prompt, instead of an answer. diffusion: armada, latent, encoder.",
            _TEACHER,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None, _option("vLLM: an argument of vllm.LLM, NAME=VALUE; may be repeated.", _TEACHER)
    ] = None,
    lora: Annotated[str | None, _option("A LoRA on top of the model: hub id or folder.", _PAINTING)] = None,
    steps: Annotated[int | None, _option("Denoising steps.", _PAINTING)] = None,
    guidance: Annotated[float | None, _option("Classifier-free guidance scale; 1 or less: none.", _PAINTING)] = None,
    long_prompts: Annotated[
        str | None, _option("Prompts past the text encoder's window: chunk, refuse.", _PAINTING)
    ] = None,
    batch: Annotated[int | None, _option("Pictures painted at a time: memory for speed.", _PAINTING)] = None,
    dtype: Annotated[str | None, _option("auto, float32, float16, bfloat16.", _PAINTING)] = None,
    keep_images: Annotated[bool | None, _option("Keep the pictures beside the shards.", _PAINTING)] = None,
    vocoder: Annotated[str | None, _option("Makes sound of SpeechT5's spectrograms.", _SPEECH)] = None,
    speaker: Annotated[str | None, _option("Whose voice: a .npy file with an x-vector.", _SPEECH)] = None,
    endpoint: Annotated[str | None, _option("Base URL, with its /v1.", _ENDPOINT)] = None,
    api_key_env: Annotated[
        str | None, _option("Environment variable that holds the key. Unless given, the host's usual one.", _ENDPOINT)
    ] = None,
    dialect: Annotated[str | None, _option("auto, or the server's own: see docs/endpoints.md.", _ENDPOINT)] = None,
    scoring: Annotated[
        str | None, _option("How label probabilities are had: auto, or see docs/endpoints.md.", _ENDPOINT)
    ] = None,
    top_logprobs: Annotated[int | None, _option("Alternatives asked for each token.", _ENDPOINT)] = None,
    votes: Annotated[int | None, _option("Samples a row, where votes are the scoring.", _ENDPOINT)] = None,
    max_tokens: Annotated[int | None, _option("Longest reply, in tokens.", _ENDPOINT)] = None,
    temperature: Annotated[float | None, _option("Sampling temperature.", _ENDPOINT)] = None,
    keep_topk: Annotated[
        bool | None, _option("Keep the tokens' log-probabilities too, where the endpoint tells their ids.", _ENDPOINT)
    ] = None,
    body: Annotated[
        str | None,
        _option("JSON merged into each request: '{\"seed\": 1}'. A null removes a field.", _ENDPOINT),
    ] = None,
    concurrency: Annotated[int | None, _option("Most requests in flight.", _PACE)] = None,
    rpm: Annotated[float | None, _option("Most requests a minute.", _PACE)] = None,
    tpm: Annotated[float | None, _option("Most tokens a minute.", _PACE)] = None,
    attempts: Annotated[int | None, _option("Attempts of one request.", _PACE)] = None,
    connect_timeout: Annotated[float | None, _option("Seconds to wait for a connection.", _PACE)] = None,
    read_timeout: Annotated[float | None, _option("Seconds to wait for a reply.", _PACE)] = None,
    body_timeout: Annotated[
        float | None, _option("Seconds to wait for the rest of a reply that has begun.", _PACE)
    ] = None,
    patience: Annotated[
        float | None, _option("Seconds of 429 only, or of a silent vLLM, before it ends.", _PACE)
    ] = None,
    price_in: Annotated[float | None, _option("US dollars a million prompt tokens.", _PACE)] = None,
    price_out: Annotated[float | None, _option("US dollars a million completion tokens.", _PACE)] = None,
    max_cost: Annotated[float | None, _option("Stop before this many US dollars are spent.", _PACE)] = None,
    max_requests: Annotated[int | None, _option("Stop before more requests than this are sent.", _PACE)] = None,
    text_column: Annotated[str | None, _option("The text.", _FILE)] = None,
    text_pair_column: Annotated[str | None, _option("A second text.", _FILE)] = None,
    label_column: Annotated[str | None, _option("A class to predict.", _FILE)] = None,
    target_column: Annotated[str | None, _option("A number to predict.", _FILE)] = None,
    id_column: Annotated[str | None, _option("A name of each row that stays. Unless given, its number.", _FILE)] = None,
    label_words: Annotated[str | None, _option("What the teacher answers with, one a label: a,b,c", _FILE)] = None,
    question: Annotated[str | None, _option("What the teacher is asked.", _FILE)] = None,
) -> None:
    """The flags that `plan` and `run` share. Never called: only its signature is of use."""


def _takes_harvest_flags(body: Callable[..., None]) -> Callable[..., None]:
    """Make `body`, which takes a dict of flags by name, a function with the parameters of `_harvest_flags`.

    Further parameters of `body` stay flags of its own.
    """
    shared = inspect.signature(_harvest_flags)
    own = list(inspect.signature(body).parameters.values())[1:]

    def run(**flags: Any) -> None:
        body(flags, **{parameter.name: flags.pop(parameter.name) for parameter in own})

    update_wrapper(run, body)
    run.__annotations__ = _harvest_flags.__annotations__ | {parameter.name: parameter.annotation for parameter in own}
    run.__signature__ = shared.replace(parameters=[*shared.parameters.values(), *own])  # type: ignore[attr-defined]
    return run


@app.command()
@command
@_takes_harvest_flags
def plan(
    flags: dict[str, Any],
    probe: Annotated[
        int | None,
        _option("Ask this many of the rows for real, keep them, and extrapolate from what they took.", min=1),
    ] = None,
) -> None:
    """Say what `run` would ask, and what that takes: tokens, dollars, bytes, minutes. Only --probe sends anything."""
    from harvest.asking.interrupt import KeyboardInterrupts
    from harvest.job import plan_harvest

    report = plan_harvest(_make_config(flags), probe, interrupt=KeyboardInterrupts())
    _print_report(report, flags["as_json"])
    if report.stopped is not None:
        raise typer.Exit(1)


@app.command()
@command
@_takes_harvest_flags
def run(flags: dict[str, Any]) -> None:
    """Ask the teacher about every row that is not kept yet. Resumes by itself; an answered row is never asked again."""
    from harvest.asking.interrupt import KeyboardInterrupts
    from harvest.job import run_harvest

    report = run_harvest(_make_config(flags), interrupt=KeyboardInterrupts())
    _print_report(report, flags["as_json"])
    if report.stopped is not None:
        raise typer.Exit(1)


@app.command()
@command
def teachers(as_json: AsJson = False) -> None:
    """List the teachers: what each gives and needs, and what of that is not here."""
    from harvest.looking.listing import describe_teachers, print_teachers

    print_json(describe_teachers()) if as_json else print_teachers()


@app.command()
@command
def status(
    shards: Annotated[
        Path, typer.Argument(help="data/<task>, one teacher=<name> folder in it, or all of data/.")
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
        results.print(
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
    for line in lines:
        results.print(line, markup=False, soft_wrap=True)


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


_FILE_FLAGS = ("text_column", "text_pair_column", "label_column", "target_column", "id_column", "question")
_RUN_FLAGS = (
    "teacher",
    "task",
    "out",
    "onto",
    "name",
    "split",
    "ask",
    "limit",
    "retry",
    "worker",
    "failure_limit",
    "as_json",
)


def _make_config(flags: dict[str, Any]) -> Any:
    """The HarvestConfig that the flags of `plan` and `run` say.

    A flag that is neither the run's nor a file's is an option of the teacher, which refuses those that it has not.
    """
    from harvest.config import HarvestConfig, TaskChoice, TeacherChoice, parse_limits, parse_share, parse_statuses

    words = flags["label_words"]
    others = {*_RUN_FLAGS, *_FILE_FLAGS, "label_words"}
    options = {key: value for key, value in flags.items() if key not in others and value is not None}
    if "size" in options:
        options["size"] = _parse_size(options["size"])
    if "body" in options:
        options["body"] = _parse_body(options["body"])
    if "engine" in options:
        options["engine"] = _parse_settings("--engine", options["engine"])
    return HarvestConfig(
        task=TaskChoice(
            flags["task"],
            **{key: flags[key] for key in _FILE_FLAGS},
            label_words=None if words is None else [word.strip() for word in words.split(",")],
        ),
        teacher=TeacherChoice(flags["teacher"], flags["name"], options),
        out=flags["out"],
        onto=flags["onto"],
        splits=flags["split"],
        asked=flags["ask"],
        limits=parse_limits(flags["limit"] or ()),
        retry=parse_statuses(flags["retry"] or ()),
        share=parse_share(flags["worker"]),
        failure_limit=flags["failure_limit"],
    )


def _parse_size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size {text}: give WIDTHxHEIGHT in pixels, 512x512 say")
    return int(width), int(height)


def _parse_body(text: str) -> dict[str, Any]:
    import json

    try:
        body = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--body is not JSON ({error}); give an object: --body '{{\"seed\": 1}}'") from None
    if not isinstance(body, dict):
        raise UsageError(f"--body {text}: give a JSON object: --body '{{\"seed\": 1}}'")
    return body


def _parse_settings(flag: str, texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a mapping; a value is read as YAML: a number, true, or text."""
    import yaml

    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"{flag} {text}: give NAME=VALUE: {flag} tensor_parallel_size=2")
        settings[name.replace("-", "_")] = yaml.safe_load(value)
    return settings


def _print_report(report: Any, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(report))
        return
    kept = ", ".join(f"{rows:,} {status}" for status, rows in report.kept_statuses.items())
    lines = [f"{report.rows:,} rows planned, {report.kept:,} kept before{f' ({kept})' if kept else ''}"]
    if report.asked or report.forecast is None:
        lines.append(
            f"asked {report.asked:,}, failed {report.failed:,}, {show_cost(report.cost_usd)}, {report.seconds:.1f} s"
        )
    lines.append(
        f"to ask: {report.to_ask:,}; to copy from equal rows: {report.to_copy:,}; "
        f"to carry unanswered: {report.to_carry:,}"
    )
    if report.unaskable:
        lines.append(f"cannot be asked: {report.unaskable:,}")
    if report.forecast is not None:
        from harvest.asking.forecast import describe_forecast

        lines += describe_forecast(report.forecast)
    if report.stopped:
        lines.append(f"stopped: {report.stopped}. What was answered is kept; the same command goes on from there")
    for line in [*lines, report.folder]:
        results.print(line, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `harvest` command."""
    app()


if __name__ == "__main__":
    main()
