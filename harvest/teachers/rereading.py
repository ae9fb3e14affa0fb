"""What reads the kept `raw` of a teacher's rows again: found by the recipe alone, with no model and no network."""

from collections.abc import Mapping
from typing import Any

from harvest.chat.imported import IMPORTED, make_reader
from harvest.teachers.base import Reread
from harvest.teachers.registry import find_teacher
from shared.errors import UsageError


def find_reread(recipe: Mapping[str, Any]) -> Reread | None:
    """What reads the `raw` of a recipe's rows again; None where there is none to read: the answer is a vector, say.

    Rows that join a vector to another folder's answers (--onto) have the raw of the answers. Raises UsageError where no
    teacher here has made them.
    """
    while "onto" in recipe:
        recipe = recipe["onto"]["recipe"]
    name = recipe.get("teacher", "")
    if name == IMPORTED:
        reader = make_reader(recipe)
        return None if reader is None else reader.reread
    try:
        teacher, _ = find_teacher(name).load()
    except UsageError as error:
        raise UsageError(
            f"these answers are of a teacher {name!r}, and without it there is nothing to read again: {error}"
        ) from None
    make_reread = getattr(teacher, "make_reread", None)
    found: Reread | None = None if make_reread is None else make_reread(recipe)
    return found
