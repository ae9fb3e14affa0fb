"""The `pipeline` command: an experiment from its recipe to its table."""

from pathlib import Path
from typing import Annotated, Any

import typer

import distill.startup  # noqa: F401  (before anything of `shared`)
from distill.compare.flags import Images, Out, Overwrite
from distill.compare.plan import Comparison
from shared.console import AsJson, command, print_json
from shared.errors import require_extra
from shared.options import make_parameters, take_options

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ELSEWHERE = ("shards", "teacher", "name", "common", "variants")  # the recipe says them, or --set does


@app.callback()
def main_options() -> None:
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
    images: Images = None,
    out: Out = Path("runs"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Ask the teacher what is not kept yet, train what is not finished, and compare.

    Both stages go on from where they were when the same command is given again: no row is asked twice, and no student
    is trained twice.
    """
    from harvest.asking.interrupt import KeyboardInterrupts
    from pipelines.recipe import read_recipe
    from pipelines.runner import describe_result, make_experiment, print_result, run_experiment

    experiment = make_experiment(read_recipe(recipe), assignments or (), options)
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    result = run_experiment(experiment, out, images, overwrite, interrupt=KeyboardInterrupts())
    if as_json:
        print_json(describe_result(result))
    else:
        print_result(result)


def main() -> None:
    """Entry point of the `pipeline` command."""
    app()
