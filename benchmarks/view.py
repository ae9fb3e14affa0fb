"""Seconds that the page of a large harvest takes: to open it, and for what its reader asks.

    python benchmarks/plan.py --build --rows 1111112 --folder big
    python benchmarks/view.py big/1111112/data/pairs/teacher=m

Reads a teacher folder as `harvest view --serve` does, in one process, and asks what the page asks: totals, the first
rows, those that cost most, those of one kind, a search through all texts. Then writes the file of `harvest view`.
Prints one JSON line; `megabytes` is the most memory that the process had.
"""

import argparse
import json
import resource
import time
from functools import partial
from pathlib import Path

from harvest.looking.view.config import ViewConfig
from harvest.looking.view.live import LiveView
from harvest.looking.view.page import write_page
from harvest.looking.view.rows import RowIndex

QUESTIONS: dict[str, dict[str, str]] = {
    "first rows": {},
    "most costly": {"sort": "cost", "down": "true"},
    "wrong, by mass on no label": {"verdict": "wrong", "sort": "mass", "down": "true"},
    "search": {"find": "no such text"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    seconds = {}
    started = time.perf_counter()
    view = LiveView(folder)
    seconds["open"] = time.perf_counter() - started
    asked = {name: partial(view.answer, "rows", question) for name, question in QUESTIONS.items()}
    for name, ask in {"totals": partial(view.answer, "summary", {}), **asked}.items():
        started = time.perf_counter()
        found = ask()
        seconds[name] = time.perf_counter() - started
        if name == "first rows":
            rows = found["total"]
    started = time.perf_counter()
    write_page(RowIndex(folder).look(), ViewConfig())
    seconds["the file, opened anew"] = time.perf_counter() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    print(json.dumps({"benchmark": "view", "rows": rows, "seconds": rounded, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
