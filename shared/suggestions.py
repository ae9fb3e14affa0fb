"""Says what a name that is not known could have meant: the nearest one, and all that there are."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def suggest(
    name: str, names: Iterable[str], spell: Callable[[str], str] = str, there: str = "it has:", most: int = 1
) -> str:
    """Say what else could be meant by a name that is not among `names`, and all of them.

    `there` stands before all of them, `spell` makes of a name what the user writes, and up to `most` near ones are
    given.
    """
    known = list(names)
    return f"{hint(name, known, spell, most)}{there} {', '.join(map(spell, known)) or 'none'}"


def hint(name: str, names: Iterable[str], spell: Callable[[str], str] = str, most: int = 1) -> str:
    """Ask whether a near one of `names` was meant, with a blank behind the question; nothing where none is near."""
    near = find_near(name, names, most)
    return f"did you mean {' or '.join(map(spell, near))}? " if near else ""


def find_near(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Find the nearest of `names`: by spelling without regard to case, or else those that begin alike."""
    spelled = {known.lower(): known for known in names}
    given = name.lower()
    near = get_close_matches(given, spelled, most)
    near += [known for known in spelled if known not in near and given and known.startswith(given)]
    return [spelled[known] for known in near[:most]]
