"""Says in one line what is wrong with a command line that was refused while it was parsed, and what to type next."""

import re
from typing import Any

from shared.suggestions import hint, suggest

_CHOICE = re.compile(r"(?:Value error, )?'(?P<given>.*?)' is not one of (?P<choices>'.*')\.?", re.DOTALL)
_COMMAND = re.compile(r"No such command '(?P<name>.*?)'", re.DOTALL)
_VALUELESS = re.compile(r"Option '(?P<flag>.*?)' requires an argument")
# What a flag takes, as the message about a value says it; the value itself may be the word.
_KIND = re.compile(r"(?:is not|should be) a valid (integer|float|number)\b")
_KINDS = {"integer": "give a whole number", "float": "give a number", "number": "give a number"}


def describe_usage_error(error: Any) -> str:
    """Describe what click raised for a command line: which flag of which command, what it takes, where help is.

    Typer may have a click of its own, so an error is told by what it carries and not by its class.
    """
    message = " ".join(error.format_message().split())
    if valueless := _VALUELESS.match(message):
        return f"{valueless['flag']} needs a value behind it"
    if error.ctx is None:
        return message
    command, path = error.ctx.command, error.ctx.command_path
    helped = f"`{path} --help` shows them"
    if type(error).__name__ == "NoSuchOption":
        flags = [flag for each in command.params for flag in (*each.opts, *each.secondary_opts)]
        return f"{path} has no option {error.option_name}; {hint(error.option_name, flags)}{helped}"
    if unknown := _COMMAND.match(message):
        return f"{path} has no command {unknown['name']}; {suggest(unknown['name'], command.commands)}"
    parameter = getattr(error, "param", None)
    if parameter is None:
        return f"{path}: {message[:1].lower()}{message[1:].rstrip('.')}; `{path} --help` shows how it is used"
    name = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar or parameter.name.upper()
    if type(error).__name__ == "MissingParameter":
        about = re.split(r";|\. | \[", parameter.help or "")[0].rstrip(".")
        return f"{path} needs {name}{f' ({about})' if about else ''}; `{path} --help` shows all"
    return f"{path}: {name}: {_describe_value(error.message)}"


def _describe_value(message: str) -> str:
    """What a flag takes, by the message about a value that it does not take."""
    if choice := _CHOICE.fullmatch(message):
        known = re.findall(r"'(.*?)'", choice["choices"])
        return f"{choice['given']!r} is none of its values; {suggest(choice['given'], known, there='it can be')}"
    if kind := _KIND.search(message):
        return _KINDS[kind[1]]
    return message.removeprefix("Value error, ").replace("Input should be", "it must be")
