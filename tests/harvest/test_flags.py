"""The flags of `harvest plan` and `harvest run`: made from the configs, with their texts and their defaults."""

from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harvest.asking.plan import Share
from harvest.cli import app
from harvest.config import COMMON_OPTIONS, HarvestConfig, make_harvest_config
from harvest.flags import list_flags, make_config, make_context
from harvest.teachers.registry import ENTRIES, TeacherEntry, choose_entry, prepare_teacher
from shared.errors import UsageError
from shared.options import flatten, list_options
from shared.schema import Status
from shared.tasks import TASKS

# What must be given: a value for each option without a default.
NEEDED = {"task": "rte", "endpoint": "http://127.0.0.1:9/v1", "model": "m"}
ALL = [choose_entry(entry.name, {}) for entry in ENTRIES]
ALL += [entry.server for entry in ENTRIES if entry.server is not None]


def parse(arguments: list[str]) -> dict[str, Any]:
    """The options that a command is called with."""
    called: list[dict[str, Any]] = []

    def body(options: dict[str, Any]) -> None:
        called.append(options)

    context = make_context("run", body, arguments, None, {}, "HARVEST")
    context.command.invoke(context)
    (options,) = called
    return options


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.name}-{entry.teacher.split(':')[1]}")
def test_a_command_line_has_the_defaults_of_the_configs(entry: TeacherEntry) -> None:
    _, config_class = entry.load()
    listed = {one.name: one for one in list_options(config_class)}
    needed = {name for name, one in listed.items() if one.default is MISSING and name not in entry.defaults}
    needed |= {"endpoint"} & listed.keys()
    given: dict[str, Any] = {name: NEEDED[name] for name in {*needed, "task"}}
    options = parse(["--teacher", entry.name, *(f"--{name}={value}" for name, value in given.items())])
    if "endpoint" in given:  # which may be given several times
        given["endpoint"] = [given["endpoint"]]
    assert options == {"teacher": entry.name, **given}  # no flag brings a value of its own
    config = make_config(options)
    assert flatten(config) == flatten(make_harvest_config({"teacher": entry.name, **given}))
    for one in list_options(HarvestConfig):
        if one.name not in options and one.default is not MISSING and one.name != "teacher_options":
            assert flatten(config)[one.name] == flatten(HarvestConfig(config.task, config.teacher))[one.name]


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.name}-{entry.teacher.split(':')[1]}")
def test_every_option_of_every_teacher_has_a_flag_a_text_and_a_default_that_is_shown(entry: TeacherEntry) -> None:
    _, config_class = entry.load()
    flags = {parameter.name for parameter in list_flags(entry)}
    for one in list_options(config_class):
        assert one.option.help.strip(), one.name
        assert one.name in flags
    for one in list_options(HarvestConfig):
        assert one.option.help.strip(), one.name
    command = [
        "run",
        "--teacher",
        entry.name,
        *(["--endpoint", "http://h/v1"] if "endpoint" in flags else []),
        "--help",
    ]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "300"}).output
    for one in list_options(config_class):
        assert f" {one.flag} " in shown.replace(",", " ")
        default = entry.defaults.get(one.name, one.default)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert f"default: {default}" in shown
    for panel in ("Which rows", "A file of your own"):
        assert panel in shown
    assert shown.count(f"harvest run --teacher {entry.name}") >= 2  # two examples


def test_without_a_teacher_help_says_how_to_see_one() -> None:
    shown = " ".join(CliRunner().invoke(app, ["plan", "--help"]).output.split())
    assert "harvest plan --teacher NAME --help" in shown
    assert "llava" in shown
    assert "--limit" in shown
    assert "--rpm" not in shown


@pytest.mark.parametrize(
    ("arguments", "mapping"),
    [
        (["--limit", "5", "--limit", "train=2"], {"limit": {"*": 5, "train": 2}}),
        (["--limit", "5"], {"limit": 5}),
        (["--split", "train", "--split", "dev"], {"split": ["train", "dev"]}),
        (["--ask", "train"], {"ask": ["train"]}),
        (["--retry", "failed,refused", "--retry", "truncated"], {"retry": ["failed", "refused", "truncated"]}),
        (["--worker", "2/3"], {"worker": "2/3"}),
        (["--label-words", "a, b"], {"label_words": ["a", "b"]}),
        (["--labels", "a,b"], {"labels": ["a", "b"]}),
        (["--size", "336x400"], {"size": [336, 400]}),
        (["--body", '{"seed": 1}'], {"body": {"seed": 1}}),
        (["--keep-topk", "--max-requests", "2"], {"keep_topk": True, "max_requests": 2}),
        (["--out", "a,b", "--onto", "c"], {"out": "a,b", "onto": "c"}),
    ],
)
def test_a_command_line_and_a_recipe_say_the_same(arguments: list[str], mapping: dict[str, Any]) -> None:
    base = {"teacher": "endpoint", **NEEDED}
    config = make_config(parse([*(f"--{name}={value}" for name, value in base.items()), *arguments]))
    recipe = make_harvest_config({**base, **mapping})
    assert flatten(config) | {"teacher_options": None} == flatten(recipe) | {"teacher_options": None}
    recipes = [prepare_teacher(one.teacher)(TASKS["rte"]).recipe() for one in (config, recipe)]
    assert recipes[0] == recipes[1]


def test_what_a_mapping_says_is_read_as_what_it_is() -> None:
    config = make_harvest_config(
        {"task": "rte", "teacher": "reader", "size": [300, 300], "retry": ["failed"], "worker": "2/3", "out": "there"}
    )
    assert (config.retry, config.share, config.out) == ((Status.FAILED,), Share(1, 3), Path("there"))
    assert config.teacher.options == {"size": [300, 300]}
    nested = make_harvest_config({"task": "rte", "teacher": "reader", "teacher_options": {"size": [300, 300]}})
    assert nested.teacher == config.teacher


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"teacher": "reader"}, "harvest needs task"),
        ({"task": "rte", "teacher": "reader", "sise": 3}, r"has no option sise \(did you mean size\?\)"),
        ({"task": "rte", "teacher": "reader", "rpm": 3}, "the teacher reader has no option rpm.*endpoint has one"),
        ({"task": "rte", "teacher": "reader", "limit": {"train": 0}}, "a limit is 1 or more"),
        ({"task": "rte", "teacher": "reader", "limit": "train"}, "limit train: give a number of rows"),
        ({"task": "rte", "teacher": "reader", "failure_limit": 2}, "failure_limit is 2.0; it must be"),
        ({"task": "rte", "teacher": "reader", "retry": ["ok"]}, "retry ok: it can be truncated"),
        ({"task": "rte", "teacher": "reader", "size": "big"}, "size big: give WIDTHxHEIGHT"),
        ({"task": "rte", "teacher": "endpoint", "model": "m"}, "the teacher endpoint needs endpoint"),
    ],
)
def test_a_mapping_is_checked_by_name(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_harvest_config(mapping)


def test_no_teacher_has_an_option_of_the_name_of_a_common_one() -> None:
    for entry in ALL:
        assert not COMMON_OPTIONS.intersection(one.name for one in list_options(entry.load()[1]))
