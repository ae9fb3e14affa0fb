"""What a user wrote becomes a config, or is refused by name; flags and their help are made from the config."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from shared.errors import UsageError
from shared.options import (
    Group,
    Option,
    check_options,
    flatten,
    list_options,
    make_config,
    make_parameters,
    parse_assignments,
    parse_bytes,
    parse_json_object,
    parse_names,
    parse_size,
    show_bytes,
    show_names,
    show_size,
    spell_flags,
    take_options,
)


@dataclass(frozen=True, slots=True)
class Config:
    model: str
    size: tuple[int, int] = (1, 2)
    rate: float | None = None


def test_options_are_checked_and_converted_by_type() -> None:
    assert make_config(Config, {"model": "m", "size": [3, "4"], "rate": 1}, "it") == Config("m", (3, 4), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "m", "sise": 1},
            "the teacher t has no option --sise; did you mean --size[?] it has: --model, --rate, --size",
        ),
        ({"model": "m", "zzz": 1}, "the teacher t has no option --zzz; it has: --model, --rate, --size"),
        ({"size": (1, 2)}, "the teacher t needs --model"),
        ({"model": "m", "rate": "fast"}, "the teacher t: --rate: .*not 'fast'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(Config, options, "the teacher t", lambda name: f"--{name}")


class Draw(StrEnum):
    NONE = "none"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    model: Annotated[str, Option("A model.", name="student")] = "tiny"
    rank: Annotated[int | None, Option("A rank.", name="lora_rank", flag="--lora", metavar="RANK", at_least=1)] = None
    rate: Annotated[float, Option("A rate.", above=0, at_most=1, compared="nothing")] = 0.5
    parts: Annotated[tuple[Literal["head", "body"], ...], Option("Which parts.")] = ()
    draw: Annotated[Draw, Option("What is drawn.")] = Draw.NONE
    frozen: Annotated[bool, Option("Whether it learns.")] = False
    padded: Annotated[bool, Option("Whether it is padded.")] = True

    def __post_init__(self) -> None:
        check_options(self)
        if self.frozen and self.rank is not None:
            raise UsageError("frozen goes without lora_rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    shards: Annotated[tuple[Path, ...], Option("Folders.")]
    size: Annotated[
        tuple[int, int], Option("A size.", parse=parse_size, show=show_size, metavar="WIDTHxHEIGHT", at_least=1)
    ] = (512, 512)
    memory: Annotated[int, Option("Bytes.", parse=parse_bytes, show=show_bytes, at_least=1)] = 512_000_000
    engine: Annotated[Mapping[str, Any], Option("Settings.", parse=parse_assignments, repeated=True)] = field(
        default_factory=dict
    )
    body: Annotated[Mapping[str, Any], Option("JSON.", parse=parse_json_object)] = field(default_factory=dict)
    student: Annotated[Student, Group("The student")] = Student()


def test_a_config_of_configs_is_made_of_flat_names_and_given_back_by_them() -> None:
    options = {"shards": ["a", "b"], "student": "big", "lora_rank": "4", "parts": "head, body", "size": [3, 4]}
    config = make_config(Whole, options, "it")
    assert config == Whole(
        shards=(Path("a"), Path("b")), size=(3, 4), student=Student(model="big", rank=4, parts=("head", "body"))
    )
    flat = flatten(config)
    assert {name: flat[name] for name in ("shards", "student", "parts", "draw")} == {
        "shards": ["a", "b"],
        "student": "big",
        "parts": ["head", "body"],
        "draw": "none",
    }
    assert make_config(Whole, flat, "it") == config


def test_bytes_are_read_with_a_unit_or_without_and_shown_as_they_are_read() -> None:
    texts = {"512MB": 512 * 10**6, "1.5 GB": 15 * 10**8, "1GiB": 2**30, "4096": 4096}
    assert {text: make_config(Whole, {"shards": ["a"], "memory": text}, "it").memory for text in texts} == texts
    assert make_config(Whole, {"shards": ["a"], "memory": 7}, "it").memory == 7  # of a recipe
    assert [parse_bytes(show_bytes(count)) for count in texts.values()] == [*texts.values()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": 0}, "it: lora_rank is 0; it must be at least 1"),
        ({"rate": 0}, "it: rate is 0.0; it must be more than 0 and at most 1"),
        ({"rate": float("nan")}, "rate is nan; it must be a finite number"),
        ({"student": "\udcff"}, "it: student is .*; it must be text in UTF-8"),
        ({"parts": "head,leg"}, "it: parts is 'leg'; it can be head, body"),
        ({"draw": "some"}, "it: draw is 'some'; it can be none, all"),
        ({"size": "3by4"}, "it: size 3by4: give WIDTHxHEIGHT in pixels"),
        ({"memory": "much"}, "it: memory much: give bytes: 512MB"),
        ({"memory": "0MB"}, "it: memory is 0; it must be at least 1"),
        ({"size": (0, 4)}, "it: size is 0; it must be at least 1"),
        ({"engine": ["a"]}, "it: engine a: give NAME=VALUE"),
        ({"body": "[1]"}, "give a JSON object"),
        ({"body": "{"}, "this is not JSON"),
        ({"frozen": True, "lora_rank": 1}, "frozen goes without lora_rank"),
        ({"lora_rnak": 1}, "it has no option lora_rnak; did you mean lora_rank"),
    ],
)
def test_every_check_names_the_option_in_one_wording(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(Whole, {"shards": ["a"], **options}, "it")


def test_a_config_that_is_made_directly_is_held_to_the_same_bounds() -> None:
    with pytest.raises(UsageError, match=r"^rate is 2; it must be more than 0 and at most 1$"):
        Student(rate=2)
    with pytest.raises(UsageError, match=r"^parts is 'leg'; it can be head, body$"):
        Student(parts=("leg",))  # type: ignore[arg-type]


def test_two_options_of_one_name_are_a_mistake_of_the_program() -> None:
    @dataclass(frozen=True, slots=True)
    class Doubled:
        rate: float = 1.0
        student: Student = Student()

    with pytest.raises(ValueError, match="two options of the name rate"):
        list_options(Doubled)


def make_app(seen: list[Any]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @take_options(make_parameters(Whole, panel="The rest", leave_out=["body"]))
    def run(options: dict[str, Any], name: Annotated[str, typer.Option(help="A name.")] = "n") -> None:
        seen.append((make_config(Whole, options, "run", spell_flags(Whole)), name))

    return app


def test_flags_are_made_from_the_config_and_what_is_not_given_keeps_its_default() -> None:
    seen: list[Any] = []
    app, runner = make_app(seen), CliRunner()
    assert runner.invoke(app, ["--shards", "a"]).exit_code == 0
    assert seen.pop() == (Whole(shards=(Path("a"),)), "n")
    flags = ["--shards", "a", "--shards", "b", "--lora", "3", "--parts", "head", "--parts", "body", "--draw", "all"]
    flags += ["--size", "3x4", "--engine", "n=2", "--engine", "on=true", "--name", "m"]
    result = runner.invoke(app, flags)
    assert result.exit_code == 0, result.output
    student = Student(rank=3, parts=("head", "body"), draw=Draw.ALL)
    wanted = Whole(shards=(Path("a"), Path("b")), size=(3, 4), engine={"n": 2, "on": True}, student=student)
    assert seen.pop() == (wanted, "m")
    refused = runner.invoke(app, ["--shards", "a", "--lora", "0"])
    assert str(refused.exception) == "run: --lora is 0; it must be at least 1"
    assert runner.invoke(app, []).exit_code == 2, "what has no default must be given"
    assert runner.invoke(app, ["--shards", "a", "--body", "{}"]).exit_code == 2, "what is left out has no flag"


def test_help_shows_texts_defaults_bounds_and_groups() -> None:
    text = CliRunner().invoke(make_app([]), ["--help"], env={"COLUMNS": "140", "TERM": "dumb"}).output
    rate = "A rate. [default: 0.5; more than 0 and at most 1]"
    for part in ("The student", "The rest", rate, "--frozen", "--no-padded"):
        assert part in text
    assert "[default: 512x512; at least 1]" in text


def test_parameters_have_no_default_of_their_own() -> None:
    for parameter, one in zip(make_parameters(Whole), list_options(Whole), strict=True):
        assert parameter.name == one.name
        assert parameter.default is (inspect.Parameter.empty if one.name == "shards" else None)


@pytest.mark.parametrize(
    "names", [["a", "b"], ["happy", "sad, or angry"], ['"great" movie', "b"], ["two\nlines", "b"], ["1"], [""]]
)
def test_names_are_read_as_they_are_shown(names: list[str]) -> None:
    assert parse_names(show_names(names)) == names


@pytest.mark.parametrize("text", ['"great" movie,b', '"a,b', "a\nb"])
def test_names_that_are_not_well_quoted_are_refused_with_the_way_to_write_them(text: str) -> None:
    with pytest.raises(ValueError, match="stands in quotes, and its own quotes are doubled"):
        parse_names(text)
