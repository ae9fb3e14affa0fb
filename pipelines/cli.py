"""The `pipeline` command: a recipe from harvest to table."""

from pathlib import Path
from typing import Annotated

import typer

from shared.console import command, print_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main_options() -> None:
    """Chain the two stages: harvest a teacher once, train students on what it said, compare them in one table."""


@app.command()
@command
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; pipelines/demo.yaml is one.")],
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="In place of the recipe's seeds; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Harvest what is not kept yet, then train every variant over every seed."""
    from pipelines.recipe import read_recipe
    from pipelines.runner import describe_result, print_result, run_recipe
    from shared.errors import require_extra

    checked = read_recipe(recipe)
    require_extra("distill", "torch", "transformers", "safetensors")
    result = run_recipe(checked, seeds)
    if as_json:
        print_json(describe_result(result))
    else:
        print_result(result)


def main() -> None:
    """Entry point of the `pipeline` command."""
    app()
