"""The flags of `harvest plan` and `harvest run`: those of every harvest, and those of the teacher that is named."""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer
import typer.main

from harvest.config import COMMON_OPTIONS, HarvestConfig, make_harvest_config
from harvest.teachers.registry import TeacherEntry, choose_entry, describe_unknown, find_teachers
from shared.console import command, fail
from shared.errors import Error, UsageError
from shared.options import list_options, make_parameters, take_options
from shared.settings import find_given, name_variables, reads_file

# Of the copy of click that typer has: its own in newer versions.
NoSuchOption: type[Exception] = import_module(typer.BadParameter.__module__).NoSuchOption


def make_context(
    name: str,
    body: Callable[..., None],
    arguments: list[str],
    parent: Any,
    more: dict[str, Any],
    prefix: str,
) -> Any:
    """Parse the arguments of a command whose flags depend on its --teacher; give the context that click runs.

    `body` is called with the options that were given, a dict by name, before its own flags. `prefix` is that of the
    environment variables. Raises typer.Exit, the message printed, for a teacher or an option that there is not.
    """
    try:
        entry = _find_entry(arguments, prefix)
        made = _make_command(name, body, entry, prefix)
    except Error as error:
        if not more.get("resilient_parsing"):  # else the shell completes, and there is nobody to tell
            raise fail(error) from None
        entry, made = None, _make_command(name, body, None, prefix)
    try:
        return made.make_context(name, list(arguments), parent, **more)
    except NoSuchOption as error:
        flag = error.option_name  # type: ignore[attr-defined]
        raise fail(UsageError(_refuse(flag, entry))) from None


def make_own_context(
    name: str,
    body: Callable[..., None],
    config: str,
    arguments: list[str],
    parent: Any,
    more: dict[str, Any],
    prefix: str,
) -> Any:
    """Do the same for a command whose flags are those of a config class, "module:class"."""
    module, _, class_name = config.partition(":")
    flags = make_parameters(getattr(import_module(module), class_name))
    app = typer.Typer(add_completion=False)
    app.command(name, help=inspect.getdoc(body))(command(take_options(flags)(reads_file(body))))
    made = typer.main.get_command(app)
    name_variables(made, prefix)
    return made.make_context(name, list(arguments), parent, **more)


def make_config(options: dict[str, Any]) -> HarvestConfig:
    """The HarvestConfig of the options that were given as flags."""
    entry = choose_entry(options["teacher"], options)
    spelled = {one.name: one.flag for config in (HarvestConfig, entry.load()[1]) for one in list_options(config)}
    return make_harvest_config(options, "harvest", lambda name: spelled.get(name, name))


def list_flags(entry: TeacherEntry | None) -> list[inspect.Parameter]:
    """The parameters of a command line with that teacher, or without any.

    Raises UsageError where the teacher has an option of a name that every harvest has.
    """
    flags = make_parameters(HarvestConfig, leave_out=("teacher_options",))
    if entry is None:
        return flags
    _, config_class = entry.load()
    if doubled := [one.name for one in list_options(config_class) if one.name in COMMON_OPTIONS]:
        raise UsageError(f"the teacher {entry.name} cannot be used: it has an option {doubled[0]}, as every harvest")
    return [*flags, *make_parameters(config_class, panel=f"The teacher {entry.name}", defaults=entry.defaults)]


def _find_entry(arguments: Sequence[str], prefix: str) -> TeacherEntry | None:
    """The entry of the teacher that the arguments, the environment or the file of --config name."""
    given = find_given(arguments, ("teacher", "endpoint"), prefix)
    return choose_entry(str(given["teacher"]), given) if "teacher" in given else None


def _make_command(name: str, body: Callable[..., None], entry: TeacherEntry | None, prefix: str) -> Any:
    app = typer.Typer(add_completion=False)
    described = command(take_options(list_flags(entry))(reads_file(body)))
    app.command(name, help=inspect.getdoc(body), epilog=_describe_use(name, entry))(described)
    made = typer.main.get_command(app)
    name_variables(made, prefix)
    return made


def _describe_use(name: str, entry: TeacherEntry | None) -> str:
    """What stands below the flags: how to see a teacher's, or two examples."""
    if entry is None:
        return (
            f"A teacher has options of its own: `harvest {name} --teacher NAME --help` shows them.\n\nTeachers: "
            f"{', '.join(find_teachers().entries)}"
        )
    teacher = f"harvest {name} --teacher {entry.name} {entry.requirements.given}".rstrip()
    lines = [
        "Examples:",
        f"{teacher} --task rotten_tomatoes --limit 100",
        f"{teacher} --task reviews.csv --text-column text --label-column label",
    ]
    if entry.server is not None:
        lines.append(f"With --endpoint URL it is asked there: `--teacher {entry.name} --endpoint URL --help`.")
    return "\n\n".join(lines)


def _refuse(flag: str, entry: TeacherEntry | None) -> str:
    name = flag.lstrip("-").replace("-", "_")
    if entry is None:
        return f"no --teacher was named, and harvest itself has no option {flag}: name the teacher that has it"
    listed = [*list_options(HarvestConfig), *list_options(entry.load()[1])]
    by_flag = {one.flag: one.name for one in listed}
    spelled = {one.name: one.flag for one in listed}
    return describe_unknown(
        entry, by_flag.get(flag, name), COMMON_OPTIONS, lambda one: spelled.get(one, f"--{one.replace('_', '-')}")
    )
