"""The `pipeline` command: an experiment, or a table of them, from its recipe to its figures."""

from pathlib import Path
from typing import Annotated, Any

import typer

import distill.startup  # noqa: F401  (before anything of `shared`)
from distill.compare.flags import Images, Out, Overwrite
from distill.compare.plan import Comparison
from shared.console import AsJson, LogJson, Quiet, ShowVersion, command, print_json, run_app
from shared.errors import require_extra
from shared.options import make_parameters, take_options

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

ELSEWHERE = ("shards", "teacher", "name", "common", "variants")  # the recipe says them, or --set does


@app.callback()
def main_options(show_version: ShowVersion = False) -> None:
    """Chain the two stages: harvest a teacher once, train students on what it said, compare them."""


@app.command()
@command
@take_options(make_parameters(Comparison, required=False, leave_out=ELSEWHERE))
def run(
    options: dict[str, Any],
    recipe: Annotated[Path, typer.Argument(help="A YAML file: see docs/compare.md. Flags override its keys.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of all runs, as `distill run` has it; or harvest.NAME=VALUE, an option of the harvest. "
            "May be repeated.",
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task of a table; may be repeated.")
    ] = None,
    students: Annotated[
        list[str] | None, typer.Option("--student", help="Only this student of a table; may be repeated.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is left to ask and to train, and do neither.")] = False,
    images: Images = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    log_json: LogJson = None,
    as_json: AsJson = False,
) -> None:
    """Ask the teacher what is not kept yet, train what is not finished, and compare.

    Both stages go on from where they were when the same command is given again: no row is asked twice, and no student
    is trained twice.
    """
    from harvest.asking.interrupt import SignalInterrupts
    from pipelines.plan import describe_plan, make_plan, print_plan
    from pipelines.recipe import read_recipe
    from pipelines.work import make_work

    work = make_work(read_recipe(recipe), assignments or (), options, tasks or (), students or ())
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    if plan:
        made = make_plan(work.experiments, work.locate(out), interrupt=SignalInterrupts())
        print_json(describe_plan(made)) if as_json else print_plan(made)
        return
    done = work.run(out, images, overwrite, SignalInterrupts())
    print_json(done.describe()) if as_json else done.show()


def main() -> None:
    """Entry point of the `pipeline` command."""
    run_app(app)
