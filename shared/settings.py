"""Options of a command from elsewhere than its command line: a file (--config) and the environment.

A flag wins over its variable, and that over the file. In the file an option has the name and the value that a recipe
gives it. Its variable is the prefix of the command and its flag: HARVEST_MAX_COST is --max-cost of `harvest`.
"""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.console import fail, say
from shared.errors import Error, UsageError
from shared.suggestions import find_near, hint
from shared.yaml_files import read_mapping

CONFIG = "config"  # the parameter


def reads_file(body: Callable[..., None]) -> Callable[..., None]:
    """Give a command body --config: the options it is called with, a dict by name, are those of the file, too.

    It goes between take_options and the body: what was given as a flag or a variable wins.
    """
    options, *own = inspect.signature(body).parameters.values()
    file = _File(frozenset(each.name for each in own))

    def run(given: dict[str, Any], *, config: _Content | None = None, **flags: Any) -> None:
        body(given if config is None else config.complete(given), **flags)

    flag = typer.Option(
        f"--{CONFIG}",
        metavar="FILE",
        is_eager=True,
        callback=file.read,
        help="A YAML file of the options by their names, as recipes have them. Flags win over it.",
    )
    added = inspect.Parameter(
        CONFIG, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, flag]
    )
    update_wrapper(run, body)
    del run.__wrapped__  # type: ignore[attr-defined]
    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    run.__signature__ = inspect.Signature([options, *kept, added])  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True, slots=True)
class _Content:
    """The options that a file gives, as they stand there."""

    context: typer.Context
    options: Mapping[str, Any]

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give them with what was `given` as a flag or a variable, which wins over them.

        What is among `given` because the parser was handed it from the file stands as it does there: a mapping, say.
        """
        return {**self.options, **{name: value for name, value in given.items() if not self._gave(name)}}

    def _gave(self, name: str) -> bool:
        source = self.context.get_parameter_source(name)
        return source is not None and source.name == "DEFAULT_MAP"


@dataclass(frozen=True, slots=True)
class _File:
    """What --config does. `own` are the parameters of the command's body beside its options."""

    own: frozenset[str]

    def read(self, context: typer.Context, path: str | None) -> _Content | None:
        """Give the options of the file; hand those of the body to the parser of flags.

        So it does with one that must be given, which the parser would miss. Raises typer.Exit, the message printed.
        """
        if context.resilient_parsing:  # the shell completes
            return None
        settable = [each for each in context.command.params if _is_settable(each)]
        _say_strange_variables(settable)
        if path is None:
            return None
        known = {_name_flag(each) if each.name in self.own else str(each.name): each for each in settable}
        try:
            content = read_mapping(Path(path), CONFIG)
            for name in content:
                if name not in known:
                    command = context.command_path
                    near = hint(str(name), known)
                    raise UsageError(f"{path}: {command} has no option {name}; {near}`{command} --help` shows them")
        except Error as error:
            raise fail(error) from None
        parsed = {name: each for name, each in known.items() if name in content}
        context.default_map = {
            str(each.name): _list(content[name]) if each.multiple else content[name]
            for name, each in parsed.items()
            if each.name in self.own or each.required
        }
        own = {
            name: _list(content[name]) if each.multiple and each.required else content[name]
            for name, each in parsed.items()
            if each.name not in self.own
        }
        return _Content(context, own)


def name_variables(command: Any, prefix: str, leave_out: Collection[str] = ()) -> None:
    """Let each flag of a click command, and of those in it, be given by an environment variable, too.

    Parameters of the names `leave_out` have none.
    """
    for inner in getattr(command, "commands", {}).values():
        name_variables(inner, prefix, leave_out)
    for each in command.params:
        if (_is_settable(each) or each.name == CONFIG) and each.name not in leave_out:
            each.envvar = _spell_variable(prefix, _name_flag(each))
            each.show_envvar = False  # --help would say it of each


def find_given(arguments: Sequence[str], names: Sequence[str], prefix: str) -> dict[str, Any]:
    """Find what arguments, environment and file say of the options `names`, before the other flags are known.

    Raises UsageError where the file cannot be read.
    """
    flags: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag.removeprefix("--") in (*names, CONFIG) and flag.startswith("--"):
            flags[flag[2:]] = value if equals else "".join(arguments[place + 1 : place + 2])
    variables = {name: os.environ.get(_spell_variable(prefix, name), "") for name in (*names, CONFIG)}
    path = flags.get(CONFIG) or variables[CONFIG]
    file = read_mapping(Path(path), CONFIG) if path else {}
    found = {name: flags.get(name) or variables[name] or file.get(name) for name in names}
    return {name: value for name, value in found.items() if value}


def _is_settable(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and parameter.name not in ("help", CONFIG)


def _name_flag(parameter: Any) -> str:
    """The name of an option by its flag: checkpoint_steps is --checkpoint-steps."""
    return str(max(parameter.opts, key=len)).removeprefix("--").replace("-", "_")


def _spell_variable(prefix: str, name: str) -> str:
    return f"{prefix}_{name.upper()}"


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _say_strange_variables(parameters: Sequence[Any]) -> None:
    """Say which variables of the environment are almost those of options: a cap that is misspelt is no cap.

    That is said with --quiet, too, which is parsed later.
    """
    variables = {str(each.envvar): _name_flag(each) for each in parameters if each.envvar}
    for variable, name in list(variables.items())[:1]:
        prefix = variable.removesuffix(name.upper())
        for strange in os.environ:
            if strange.startswith(prefix) and strange not in variables and strange != f"{prefix}{CONFIG.upper()}":
                for near in find_near(strange.removeprefix(prefix), variables.values()):
                    meant = f"{prefix}{near.upper()}"
                    say(f"the environment variable {strange} is no option of this command; did you mean {meant}?")
