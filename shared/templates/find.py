"""Find a template: those that are known, and a user's own YAML files."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateSyntaxError

from shared.errors import UsageError
from shared.suggestions import suggest
from shared.templates.template import Template, compile_text

_KNOWN = ("llm-adapters", "alpaca", "chat", "lm-eval", "none")
_KEYS = tuple(one.name for one in fields(Template) if one.name != "name")


def find_template(name_or_path: str, task: str = "") -> Template:
    """Find a template by its name, or by the path of a YAML file, with the texts that it has for `task`.

    Raises UsageError for a name that is not known, and for a file that is no template.
    """
    if name_or_path in TEMPLATES:
        return TEMPLATES[name_or_path].for_task(task)
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return load_template(path).for_task(task)
    raise UsageError(
        f"there is no template {name_or_path!r}; {suggest(name_or_path, TEMPLATES, there='there are:')}. "
        "A YAML file of your own is a template too: give its path"
    )


def load_template(path: Path) -> Template:
    """Read a template from a YAML file. Raises UsageError that names the file and what is wrong in it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"the template {path} cannot be read: {error}") from error
    checked = _check_texts(content, str(path))
    if "prompt" not in checked:
        raise UsageError(f"the template {path} has no prompt; a template is a mapping of {', '.join(_KEYS)}")
    for task, texts in checked.get("tasks", {}).items():
        checked["tasks"][task] = _check_texts(texts, f"{path}, tasks, {task}")
    return Template(path.stem, **checked)


def _check_texts(content: Any, where: str) -> dict[str, Any]:
    """The keys of a template, each of its type, and each text one that Jinja reads."""
    if not isinstance(content, Mapping):
        raise UsageError(f"the template {where} is not a mapping of {', '.join(_KEYS)}")
    for key, value in content.items():
        if key not in _KEYS:
            raise UsageError(
                f"the template {where} has a key {key!r}, which there is not; "
                f"{suggest(str(key), _KEYS, there='it may have')}"
            )
        kind = {"chat": bool, "tasks": dict}.get(key, str)
        if not isinstance(value, kind):
            raise UsageError(f"the template {where}: {key} is {value!r}, not a {kind.__name__}")
        if isinstance(value, str) and key != "system":
            _check_syntax(value, f"{where}, {key}")
    return dict(content)


def _check_syntax(text: str, where: str) -> None:
    try:
        compile_text(text)
    except TemplateSyntaxError as error:
        raise UsageError(f"the template {where}, line {error.lineno}: {error.message}") from error


TEMPLATES: Mapping[str, Template] = {name: load_template(Path(__file__).with_name(f"{name}.yaml")) for name in _KNOWN}
