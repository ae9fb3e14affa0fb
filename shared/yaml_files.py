"""Reads the YAML files that say what a command does: recipes, plans of comparisons, configs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import UsageError


def read_mapping(path: Path, what: str) -> Mapping[Any, Any]:
    """Read the mapping in a YAML file; `what` says in a word what such a file is.

    Raises UsageError that names the file where there is none, or it is not YAML, or holds no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {what} {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not a YAML file that can be read: {error}") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} is not a {what}: it has no keys")
    return content
