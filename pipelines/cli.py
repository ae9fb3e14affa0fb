"""The `pipeline` command: an experiment from its recipe to its table."""

from pathlib import Path
from typing import Annotated

import typer

from shared.console import command, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main_options() -> None:
    """Chain the two stages: harvest a teacher once, train students on what it said, compare them."""


@app.command()
@command
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; pipelines/demo.yaml is one.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="In place of what the recipe says: an option of every student; or harvest.NAME=VALUE, an option of "
            "the harvest; or compare.NAME=VALUE, a key of the comparison. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="In place of the recipe's seeds; may be repeated.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Students trained side by side; one a core, unless given.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Pictures of the test rows, as harvest show --images writes them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train students of other settings again, in place of an error.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
    ] = False,
) -> None:
    """Ask the teacher what is not kept yet, train what is not finished, and compare.

    Both stages go on from where they were when the same command is given again: no answer is asked and no student is
    trained twice.
    """
    from harvest.asking.interrupt import KeyboardInterrupts
    from pipelines.recipe import read_recipe
    from pipelines.runner import describe_result, make_experiment, print_result, run_experiment
    from shared.errors import require_extra

    given = {"seeds": seeds, "workers": workers}
    changes = {key: value for key, value in given.items() if value is not None}
    experiment = make_experiment(read_recipe(recipe).assign(assignments or ()), changes)
    require_extra("distill", "torch", "transformers", "safetensors", "scipy")
    result = run_experiment(experiment, out, images, overwrite, interrupt=KeyboardInterrupts())
    if as_json:
        print_json(describe_result(result))
    else:
        print_result(result)


def main() -> None:
    """Entry point of the `pipeline` command."""
    app()
