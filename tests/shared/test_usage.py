"""What is said of a value that a flag does not take."""

from pathlib import Path
from typing import Annotated

import pytest
import typer

from shared.usage import describe_usage_error

APP = typer.Typer()


@APP.command()
def read(file: Annotated[Path, typer.Option(exists=True)] = Path(), rate: float = 0.0, rows: int = 1) -> None:
    """Take a file, a number and a whole number."""


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--file", "number.csv", "'number.csv' does not exist"),
        ("--rate", "integer", "give a number"),
        ("--rows", "float", "give a whole number"),
    ],
)
def test_a_value_that_is_called_like_a_kind_is_not_taken_for_one(flag: str, value: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        typer.main.get_command(APP).make_context("read", [flag, value])
    assert said in describe_usage_error(raised.value)
