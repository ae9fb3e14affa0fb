"""The `distill` command."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

import distill.startup  # noqa: F401  (before anything of `shared`)
from distill.compare.flags import Images, Out, Overwrite
from distill.compare.plan import Comparison, make_comparison, read_plan
from distill.config import DistillConfig, StudentConfig, TrainingConfig, make_distill_config
from distill.decoding import parse_decoding
from distill.losses.registry import LOSSES
from distill.runs.listing import Sort
from distill.runs.trackers import check_trackers
from shared.console import AsJson, LogJson, Quiet, ShowVersion, command, print_json, print_result, run_app, say
from shared.errors import UsageError, require_extra
from shared.options import make_config, make_parameters, spell_flags, take_options
from shared.settings import name_variables, reads_file

Program: TypeAlias = Literal["lm-eval", "trl", "distillkit", "axolotl"]
TemplateName: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Of a student that writes: a template's name, or a YAML file; the run's own, unless given."),
]
MACHINE = [each for each in make_parameters(TrainingConfig) if each.name in ("device", "precision")]
TRUST = [each for each in make_parameters(StudentConfig) if each.name == "trust_remote_code"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main_options(show_version: ShowVersion = False) -> None:
    """Stage 2: train a text-only student from a shard folder. Opens no connection to a teacher.

    A flag can also be set by an environment variable: --student-lr by DISTILL_STUDENT_LR.
    """


@app.command()
@command
@take_options(make_parameters(DistillConfig))
@reads_file
def run(
    options: dict[str, Any],
    undistilled: Annotated[
        bool,
        typer.Option("--undistilled", help="Plain fine-tuning: the same as --loss none --alpha 0 --gamma 0."),
    ] = False,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the student between checkpoints; every five minutes, unless given.", min=1),
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option("--tracker", help="tensorboard, wandb or trackio: its curves go there, too; may be repeated."),
    ] = None,
    out: Out = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; <task>-<variant>-s<seed> unless given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    quiet: Quiet = False,
    log_json: LogJson = None,
    as_json: AsJson = False,
) -> None:
    """Train one student; write runs/<name>/ with metrics.json, student/ (which transformers loads), aligner and log.

    A run that was stopped goes on from its last checkpoint when the same command is given again.
    """
    spell = spell_flags(DistillConfig)
    config = make_distill_config(owner="distill run", spell=spell, undistilled=undistilled, **options)
    for problem in LOSSES.broken.values():
        say(problem)
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    check_trackers(trackers or ())
    find_shards(config.data.shards, config.data.teacher)
    from distill.run import run_distillation
    from distill.runs.next_step import suggest_use

    folder, metrics = run_distillation(config, out, name, overwrite, checkpoint_steps, trackers or ())
    if as_json:
        print_json({"run": str(folder), **metrics})
    else:
        test = "" if metrics["test"] is None else f", test {metrics['test']:.4f}"
        print_result(
            f"{folder}: {metrics['metric']} dev {metrics['dev_best']:.4f} (epoch {metrics['best_epoch']}; last "
            f"{metrics['dev_last']:.4f}){test}, {metrics['examples_per_second']:.0f} rows a second"
        )
        if ceiling := metrics["text_ceiling"]:
            most = ", ".join(f"{part} {bound:.4f}" for part, bound in ceiling.items())
            print_result(f"rows of the same text have different labels: by the text alone, accuracy is at most {most}")
        print_result(*suggest_use(folder, metrics))


@app.command()
@command
@take_options(make_parameters(Comparison, required=False, leave_out=["variants"]))
def compare(
    options: dict[str, Any],
    plan: Annotated[
        Path | None, typer.Argument(help="A YAML file: see docs/compare.md. Flags override its keys.")
    ] = None,
    images: Images = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    log_json: LogJson = None,
    as_json: AsJson = False,
) -> None:
    """Did the teacher help, or was it regularisation? Variants over seeds, with controls, tests and one HTML report.

    A comparison that was stopped goes on when the same command is given again: finished cells stay.
    """
    content = {} if plan is None else read_plan(plan)
    comparison = make_comparison(content, "the comparison" if plan is None else str(plan), **options)
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    find_shards(comparison.shards, comparison.teacher)
    from distill.compare.run import run_comparison
    from distill.compare.table import print_comparison

    folder, result = run_comparison(comparison, out, images, overwrite)
    if as_json:
        print_json({"comparison": str(folder), **result})
    else:
        print_comparison(folder, result)


@app.command("eval")
@command
@take_options([*MACHINE, *TRUST])
def evaluate(
    options: dict[str, Any],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/.")],
    shards: Annotated[Path | None, typer.Option(help="Score on these shards; those of the run, unless given.")] = None,
    split: Annotated[str, typer.Option(help="The split to score on.")] = "validation",
    template: TemplateName = None,
    decoding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="How a student that writes does so: greedy, minillm, llm-adapters, temperature=1, top_p=.9, beams=4, "
            "max_new_tokens=64, max_length=512, seeds=[1,2]; may be repeated. Rows of choices are scored by "
            "likelihood, unless given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained student again."""
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.runs.evaluate import evaluate_run

    trusts_code = options.pop("trust_remote_code", False)
    machine = make_config(TrainingConfig, options, "distill eval", spell_flags(TrainingConfig))
    try:
        chosen = parse_decoding(decoding) if decoding else None
    except ValueError as error:
        raise UsageError(f"distill eval: --decoding {' '.join(decoding or ())}: {error}") from None
    where = (machine.device, machine.precision)
    result = evaluate_run(run_folder, shards, split, *where, template, chosen, trusts_code=trusts_code)
    if as_json:
        print_json(result)
    else:
        print_result(f"{run_folder}: {describe_score(result)}")


@app.command()
@command
@take_options(TRUST)
def export(
    options: dict[str, Any],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/, or with --to data/<task>/.")],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    to: Annotated[
        Program | None,
        typer.Option(help="Write rows for this program instead of the student; RUN may be data/<task>/ then."),
    ] = None,
    template: TemplateName = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Of --to: the model whose tokenizer and chat template are taken; the run's, unless given."),
    ] = None,
) -> None:
    """Write a trained student as one model folder: merged weights, tokenizer, card. transformers alone loads it.

    With --to, write the teacher's rows instead: for lm-eval the test rows as a task, for trl prompts and completions,
    for distillkit and axolotl the teacher's top K, too.
    """
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.runs.export import export_rows, export_run

    trusts_code = options.get("trust_remote_code", False)
    if to is not None:
        if trusts_code:
            raise UsageError("--trust-remote-code is for the student: --to writes rows, and opens none")
        print_result(f"{target}: {export_rows(run_folder, target, to, template, tokenizer)}")
        return
    if template is not None or tokenizer is not None:
        raise UsageError("--template and --tokenizer are for rows: name the program with --to, too")
    export_run(run_folder, target, trusts_code=trusts_code)
    print_result(f"{target}: loads with from_pretrained of transformers' AutoModel classes")


@app.command()
@command
@take_options(TRUST)
def push(
    options: dict[str, Any],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="runs/<name>/.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A model repository of the hub: name, or owner/name.")],
    public: Annotated[
        bool, typer.Option("--public/--private", help="Let anybody read it. Private unless given; that stays so.")
    ] = False,
) -> None:
    """Export a trained student, with its card, to the Hugging Face hub, with the token in HF_TOKEN.

    Private, unless told otherwise. A push that was cut off goes on when the same command is given again.
    """
    require_extra("distill", "torch", "transformers", "safetensors")
    from distill.runs.export import push_run

    address = push_run(run_folder, repo, public=public, trusts_code=options.get("trust_remote_code", False))
    print_result(f"{run_folder} is now {address}")


@app.command("list")
@command
def list_(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder of runs, or one run's.")] = Path("runs"),
    sort: Annotated[Sort, typer.Option(help="The column that orders them: newest, best, fastest first.")] = "when",
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page, too: sortable, curves beside each other.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, those that go on or were stopped among them: scores, seconds, when. Reads only."""
    from distill.runs.list_page.page import write_list
    from distill.runs.listing import list_runs
    from distill.runs.printed_list import print_runs

    listing = list_runs(runs, sort)
    if page is not None:
        write_list(listing, runs, page)
    print_json(listing.describe()) if as_json else print_runs(listing)
    if page is not None and not as_json:
        print_result(f"{page}: {len(listing.runs):,} runs")


def find_shards(shards: Sequence[Path], teacher: str | None) -> None:
    """Raise ShardError for a folder that holds no teacher's answers: before torch is imported, which takes seconds."""
    from shared.shards.manifest import choose_teacher, load_manifest

    for number, path in enumerate(shards):
        load_manifest(choose_teacher(path, None if number else teacher))


def describe_score(result: Mapping[str, Any]) -> str:
    """Say what `distill eval` found."""
    interval = result.get("interval")
    between = "" if interval is None else f" (95 %: {interval[0]:.4f} to {interval[1]:.4f})"
    normed = "" if "acc_norm" not in result else f", acc_norm {result['acc_norm']:.4f}"
    how = "" if "decoding" not in result else f", {result['decoding']}; replies in {result['replies']}"
    rows = f"{result['rows']:,} rows of {result['split']}"
    if result.get("labels_from") == "teacher":
        rows += ": no row has a label, and this is agreement with the teacher"
    overlap = result.get("overlap")
    seen = "" if overlap is None else f"\n{overlap['said']}"
    return f"{result['metric']} {result['score']:.4f}{between}{normed} on {rows}{how}{seen}"


def main() -> None:
    """Entry point."""
    run_app(app, partial(name_variables, prefix="DISTILL"))


if __name__ == "__main__":
    main()
