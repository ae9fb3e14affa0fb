"""Frozen config dataclasses from options that a user wrote: on a command line, or under a key of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

from shared.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)
else:
    Config = TypeVar("Config")


def make_config(
    config_class: "type[Config]", options: Mapping[str, Any], owner: str, spell: Callable[[str], str] = str
) -> "Config":
    """`config_class` made of `options`, each checked and converted by its field's type.

    `owner` is whose options they are, and `spell` turns a field's name into what the user writes. Raises UsageError
    that names the option: one that `owner` has not, one that is missing, or one of the wrong kind.
    """
    from pydantic import TypeAdapter, ValidationError

    known = {field.name: field for field in fields(config_class)}
    if unknown := [name for name in options if name not in known]:
        names = ", ".join(map(spell, sorted(known)))
        raise UsageError(f"{owner} has no option {spell(unknown[0])}; it has: {names}")
    missing = [
        name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING and name not in options
    ]
    if missing:
        raise UsageError(f"{owner} needs {', '.join(map(spell, missing))}")
    try:
        return TypeAdapter(config_class).validate_python(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        option = spell(str(problem["loc"][0])) if problem["loc"] else "an option"
        raise UsageError(f"{owner}: {option}: {problem['msg']}, not {problem['input']!r}") from None
