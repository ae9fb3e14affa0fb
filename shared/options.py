"""Options: each stands in one place, a field of a frozen config dataclass, with its text, its default and its checks.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class TrainingConfig:
        epochs: Annotated[int, Option("Passes over the training rows.", at_least=1)] = 10

        def __post_init__(self) -> None:
            check_options(self)

Flags and their help, recipes, flat mappings and error messages are made from such classes. A config class may be made
of others: the names that users write are flat, and unique over all of them.
"""

import csv
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache, reduce, update_wrapper
from io import StringIO
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from shared.errors import UsageError
from shared.keys import canonical_json
from shared.suggestions import suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Config = TypeVar("Config", bound=DataclassInstance)
else:
    Config = TypeVar("Config")

Compared = Literal["variant", "setting", "nothing"]


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of an option beside its type and its default: metadata of an `Annotated` field.

    `name` and `flag` are what a user writes, where that is not the field's name and --name. `above`, `at_least` and
    `at_most` bound a number, or each of several. `parse` makes the value of a text, or of the list of texts of a flag
    that is `repeated`; it raises ValueError that says what to give. `show` makes a default readable. `panel` is the
    group in --help. `complete` gives the names that a shell completes. `compared` says what two runs are to each other
    that differ in this option: two variants that can be held against each other, two settings that cannot, or nothing
    that matters.
    """

    help: str = ""
    name: str | None = None
    flag: str | None = None
    metavar: str | None = None
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    parse: Callable[[Any], Any] | None = None
    repeated: bool = False
    show: Callable[[Any], str] | None = None
    panel: str | None = None
    complete: Callable[[], Iterable[str]] | None = None
    compared: Compared = "setting"

    @property
    def bounds(self) -> str:
        """The bounds in words; empty without any."""
        words = (("more than", self.above), ("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


@dataclass(frozen=True, slots=True)
class Group:
    """Metadata of a field that holds a config of its own: the panel of its options in --help."""

    panel: str


@dataclass(frozen=True, slots=True)
class ListedOption:
    """An option of a config class: its flat `name`, the `path` of fields that leads to it, its type and its default.

    `default` is MISSING where a value must be given. `kind` is the type without metadata.
    """

    name: str
    path: tuple[str, ...]
    kind: Any
    option: Option
    default: Any
    panel: str | None

    @property
    def flag(self) -> str:
        """The flag that sets it."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def several(self) -> bool:
        """Whether its value is a tuple of any length, which several flags, or commas, make."""
        kind = _strip_none(self.kind)
        return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis

    @property
    def choices(self) -> tuple[str, ...]:
        """What it, or each of several, can be; empty where that is not a list."""
        kind = _strip_none(self.kind)
        if self.several:
            kind = get_args(kind)[0]
        if get_origin(kind) is Literal:
            return get_args(kind)
        return tuple(str(member.value) for member in kind) if _is_enum(kind) else ()

    def complete(self, incomplete: str) -> list[str]:
        """List the names that begin as `incomplete` does, for a shell."""
        names = self.choices if self.option.complete is None else self.option.complete()
        return [name for name in names if name.startswith(incomplete)]

    @property
    def shown_default(self) -> str:
        """The default as --help shows it; empty where it has none, or the help text says it."""
        if any(self.default is none for none in (MISSING, None, False)) or self.default in ((), (None,), {}, ""):
            return ""
        if self.option.show is not None:
            return self.option.show(self.default)
        plain = _make_plain(self.default)
        return ", ".join(map(str, plain)) if isinstance(plain, list) else str(plain)


# --- what a class has ---


@cache
def list_options(config_class: type) -> tuple[ListedOption, ...]:
    """List the options of a config class and of the config classes that it is made of, in order.

    Raises ValueError where two have the same name, which is a programming error.
    """
    found: list[ListedOption] = []
    hints = get_type_hints(config_class, include_extras=True)
    for field in fields(config_class):
        kind, metadata = _split_annotation(hints[field.name])
        option = next((each for each in metadata if isinstance(each, Option)), None)
        group = next((each for each in metadata if isinstance(each, Group)), None)
        if option is None and is_dataclass(kind):
            for inner in list_options(kind):  # type: ignore[arg-type]
                panel = inner.panel or (None if group is None else group.panel)
                path = (field.name, *inner.path)
                found.append(ListedOption(inner.name, path, inner.kind, inner.option, inner.default, panel))
            continue
        option = option or Option()
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found.append(ListedOption(option.name or field.name, (field.name,), kind, option, default, option.panel))
    names = [one.name for one in found]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{config_class.__name__} has two options of the name {doubled[0]}")
    return tuple(found)


def flatten(config: "DataclassInstance") -> dict[str, Any]:
    """Give the options of a config by their flat names, as plain values that JSON and YAML take."""
    return {one.name: _make_plain(reduce(getattr, one.path, config)) for one in list_options(type(config))}


def spell_flags(config_class: type) -> Callable[[str], str]:
    """Give a function that turns an option's name into its flag, for messages about a command line."""
    flags = {one.name: one.flag for one in list_options(config_class)}
    return lambda name: flags.get(name, f"--{name.replace('_', '-')}")


# --- what a user gives ---


def make_config(
    config_class: "type[Config]", options: Mapping[str, Any], owner: str, spell: Callable[[str], str] = str
) -> "Config":
    """`config_class` made of `options` by their flat names, each converted by its type and checked.

    `owner` is whose options they are, and `spell` turns an option's name into what the user writes. Raises UsageError
    that names the option: one that `owner` does not have, one that is missing, or one that cannot be.
    """
    listed = {one.name: one for one in list_options(config_class)}
    for name in options:
        if name not in listed:
            raise UsageError(f"{owner} has no option {spell(name)}; {suggest(name, sorted(listed), spell)}")
    if missing := [one.name for one in listed.values() if one.default is MISSING and one.name not in options]:
        raise UsageError(f"{owner} needs {', '.join(map(spell, missing))}")
    values = {listed[name].path: _convert(listed[name], given, owner, spell(name)) for name, given in options.items()}
    return _build(config_class, values)


def check_options(config: "DataclassInstance") -> None:
    """Hold each option of `config` itself, not of a config in it, to its bounds and choices. Raises UsageError."""
    for one in list_options(type(config)):
        if len(one.path) == 1:
            _check(one, getattr(config, one.path[0]), one.name)


def check_json(value: Any, label: str) -> None:
    """Raise UsageError unless JSON in UTF-8 can hold `value`: a date, NaN or half a surrogate pair it cannot."""
    try:
        canonical_json(value).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{label} cannot be written as JSON: {error}") from None


def _convert(one: ListedOption, value: Any, owner: str, spelled: str) -> Any:
    from pydantic import ValidationError

    parse = one.option.parse
    if one.option.repeated and type(value) is int:
        value = str(value)  # of a recipe, whose YAML makes a number of the text: `limit: 100`
    texts = [value] if isinstance(value, str) else value
    try:
        if parse is not None and isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
            if one.option.repeated:
                value = parse(list(texts))
            elif isinstance(value, str):
                value = parse(value)
        elif one.several and isinstance(value, str | Path):
            value = _split_text(one, value)
    except ValueError as error:
        raise UsageError(f"{owner}: {spelled} {' '.join(texts)}: {error}") from None
    if one.choices:
        _check(one, tuple(value) if isinstance(value, list) else value, f"{owner}: {spelled}")
    try:
        converted = _adapt(one.kind).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"{owner}: {spelled}: {problem['msg']}, not {problem['input']!r}") from None
    _check(one, converted, f"{owner}: {spelled}")
    return converted


def _split_text(one: ListedOption, value: str | Path) -> list[str | Path]:
    """Make one value several: a text is several at its commas, but for paths, which may have commas themselves."""
    if isinstance(value, Path) or get_args(_strip_none(one.kind))[0] is Path:
        return [value]
    return [part.strip() for part in value.split(",")]


@cache
def _adapt(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _build(config_class: "type[Config]", values: Mapping[tuple[str, ...], Any]) -> "Config":
    """Build the config of values by path; a config in it whose options were all left out has its class's defaults."""
    hints = get_type_hints(config_class)
    own: dict[str, Any] = {}
    nested: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, value in values.items():
        if len(path) == 1:
            own[path[0]] = value
        else:
            nested.setdefault(path[0], {})[path[1:]] = value
    built = {name: _build(hints[name], inner) for name, inner in nested.items()}
    return config_class(**own, **built)


def _check(one: ListedOption, value: Any, label: str) -> None:
    if value is None:
        return
    option = one.option
    for item in value if isinstance(value, tuple) else (value,):
        if one.choices and item not in one.choices and getattr(item, "value", None) not in one.choices:
            raise UsageError(f"{label} is {item!r}; {suggest(str(item), map(str, one.choices), there='it can be')}")
        if isinstance(item, float) and not math.isfinite(item):  # no recipe, and no request, can hold it
            raise UsageError(f"{label} is {item}; it must be a finite number")
        if isinstance(item, str) and item != item.encode("utf-8", "replace").decode():
            raise UsageError(f"{label} is {item!r}; it must be text in UTF-8")
        if isinstance(item, str):  # a word in place of a number
            continue
        fits = (
            option.above is None or item > option.above,
            option.at_least is None or item >= option.at_least,
            option.at_most is None or item <= option.at_most,
        )
        if not all(fits):
            raise UsageError(f"{label} is {item}; it must be {option.bounds}")


# --- flags ---


def make_parameters(
    config_class: type,
    *,
    panel: str | None = None,
    leave_out: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    required: bool = True,
) -> list[inspect.Parameter]:
    """Make a keyword parameter for each option, by its flat name, as typer takes it; those in `leave_out` have no flag.

    A flag that is not given is None, so a command line holds no default of its own: the config's holds, and --help
    shows it. `panel` is for options that are in no group. An option without a default is a flag that must be given,
    unless `required` is false: then something else may give it, a file say. `defaults` stand in for those of the class:
    whoever makes the config gives them to it too.
    """
    replaced = defaults or {}
    listed = [replace(one, default=replaced.get(one.name, one.default)) for one in list_options(config_class)]
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required and one.default is MISSING else None,
            annotation=_annotate(one, panel, required),
        )
        for one in listed
        if one.name not in leave_out
    ]


def take_options(
    parameters: Sequence[inspect.Parameter],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command body flags: it is called with the options that were given, a dict by name, before its own flags.

    `parameters` are those of `make_parameters`. The body's other parameters stay flags of its own.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        taken = [parameter.name for parameter in parameters]
        own = list(inspect.signature(body).parameters.values())[1:]

        def run(**flags: Any) -> None:
            given = {name: flags.pop(name) for name in taken}
            body({name: value for name, value in given.items() if value is not None}, **flags)

        update_wrapper(run, body)
        together = [*parameters, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)]
        run.__annotations__ = {each.name: each.annotation for each in together}
        run.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
        return run

    return decorate


def _annotate(one: ListedOption, panel: str | None, required: bool) -> Any:
    import typer
    from rich.markup import escape

    option = one.option
    kind: Any = _strip_none(one.kind)
    if option.parse is not None:
        kind = list[str] if option.repeated else str
    elif one.several:
        kind = list[str if one.choices else _strip_none(get_args(kind)[0])]  # type: ignore[misc]
    elif get_origin(kind) is Literal and not all(isinstance(choice, str) for choice in get_args(kind)):
        kind = type(get_args(kind)[0])
    notes = [f"default: {one.shown_default}"] if one.shown_default else []
    notes += [option.bounds] if option.bounds else []
    notes += [f"each {', '.join(one.choices)}"] if one.several and one.choices and option.parse is None else []
    note = f" [dim]{escape('[' + '; '.join(notes) + ']')}[/dim]" if notes else ""
    both = kind is bool and one.default is not False  # to say no to what is so unless said
    flag = typer.Option(
        f"{one.flag}/--no-{one.flag.removeprefix('--')}" if both else one.flag,
        help=f"{escape(option.help)}{note}".strip(),
        metavar=option.metavar,
        rich_help_panel=one.panel or panel,
        show_default=False,
        autocompletion=one.complete if option.complete or (one.several and one.choices) else None,
    )
    return Annotated[kind if required and one.default is MISSING else kind | None, flag]


# --- texts that are values ---


def parse_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT in pixels. Raises ValueError that says so."""
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise ValueError("give WIDTHxHEIGHT in pixels: 512x512")
    return int(width), int(height)


def show_size(size: tuple[int, int]) -> str:
    """Write a size as `parse_size` reads it."""
    return f"{size[0]}x{size[1]}"


def parse_bytes(text: str) -> int:
    """Read a number of bytes with a unit or without: 512MB is 512 million, 1GiB 1024 x 1024 x 1024.

    Raises ValueError that says so.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ValueError("give bytes: 512MB, 2GB, 1GiB") from None


def show_bytes(count: int) -> str:
    """Write a number of bytes as `parse_bytes` reads it."""
    return f"{count}B" if count % 10**6 else f"{count // 10**6}MB"


def parse_names(text: str) -> list[str]:
    """Read names with commas between them; one that holds a comma stands in quotes: 'happy,"sad, or angry"'.

    Raises ValueError that says so.
    """
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise ValueError(
            "give names with commas between them; one that holds a comma, a quote or a line break stands in quotes, "
            f'and its own quotes are doubled: \'happy,"sad, or ""blue"""\' ({error})'
        ) from None
    return [name.strip() for name in names] or [""]


def show_names(names: Sequence[str]) -> str:
    """Write names as `parse_names` reads them."""
    line = StringIO()
    csv.writer(line).writerow(names)
    return line.getvalue().removesuffix("\r\n")


def parse_json_object(text: str) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError that says so."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is not JSON ({error}); give an object: '{{\"seed\": 1}}'") from None
    if not isinstance(value, dict):
        raise ValueError("give a JSON object: '{\"seed\": 1}'")
    return value


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE texts as a mapping. Raises ValueError that says so."""
    return dict(map(parse_assignment, texts))


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value read as YAML reads it: a number, true, a list, or text. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError("give NAME=VALUE")
    return name, parse_value(value)


def parse_value(text: str) -> Any:
    """Read a number, true, null, a list or text, as YAML does; what is no YAML is text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


# --- types ---


def _split_annotation(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        return annotation.__origin__, annotation.__metadata__
    return annotation, ()


def _strip_none(kind: Any) -> Any:
    """Give the one type of `type | None`; any other type as it is."""
    if get_origin(kind) in (Union, UnionType):
        others = [each for each in get_args(kind) if each is not NoneType]
        return others[0] if len(others) == 1 else kind
    return kind


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _make_plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _make_plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_make_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _make_plain(asdict(value))
    return value
