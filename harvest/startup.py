"""Ends the command with a clear sentence where another folder hides this project's package `shared`. Imported first.

`python -m` looks into the working directory before it looks at what is installed, and a user's own `shared/` may lie
there. The installed command does not look there. distill.startup does the same for the other stage, since neither can
import anything before this.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_shared() -> None:
    """Exit with code 1 and one sentence unless `shared` is the package that was installed with this one."""
    spec = find_spec("shared")
    places = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    if any(Path(place).resolve().parent == ROOT for place in places[:1]):
        return
    found = places[0] if places else "nothing" if spec is None else spec.origin
    sys.exit(
        f"error: {found} was found in place of harvest-distill's own package `shared`, because `python -m` looks into "
        "the working directory first: run the installed command instead (`harvest ...`)"
    )


check_shared()
