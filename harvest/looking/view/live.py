"""What a page on loopback asks about a folder, answered from its newest state; several threads may ask at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import polars as pl

from harvest.looking.view.config import RowQuery
from harvest.looking.view.describe import describe_pictures, describe_rows
from harvest.looking.view.page import make_page
from harvest.looking.view.rows import RowIndex, Snapshot
from harvest.looking.view.select import select_lines
from harvest.looking.view.summary import summarise
from shared.errors import CorruptShardError, UsageError
from shared.options import make_config

LOOK_SECONDS = 2.0  # at least, from one look at the folder to the next


class LiveView:
    """Answers what a page asks: its rows, its totals, the pictures of a row."""

    def __init__(self, folder: Path) -> None:
        self._index = RowIndex(folder)
        self._lock = Lock()
        self._snapshot = self._index.look()
        self._looked = time.monotonic()
        self._summary: tuple[Snapshot, dict[str, Any]] | None = None
        self._selected: tuple[Snapshot, RowQuery, pl.DataFrame] | None = None
        self._answers: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "rows": self._find_rows,
            "summary": self._summarise,
            "pictures": self._draw_pictures,
        }

    def answer(self, name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Answer "rows" (see RowQuery), "summary" or "pictures" (of an id, a split and a draw), as JSON.

        Raises UsageError for anything else, and for parameters that cannot be.
        """
        if name not in self._answers:
            raise UsageError(f"a page asks for {', '.join(self._answers)}, not for {name}")
        try:
            return self._answers[name](parameters)
        except CorruptShardError:  # a harvest that goes on has replaced a file since the last look
            self._looked = -LOOK_SECONDS
            return self._answers[name](parameters)

    def write_page(self) -> bytes:
        """The page without a row in it: its script asks for them here."""
        snapshot = self._look()
        data = {"summary": self._summarise({}), "rows": [], "size": "all rows", "live": True}
        return make_page(snapshot, data, connects="'self'")

    def _look(self) -> Snapshot:
        with self._lock:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._snapshot = self._index.look()
                self._looked = time.monotonic()
            return self._snapshot

    def _summarise(self, _: Mapping[str, str]) -> dict[str, Any]:
        snapshot, kept = self._look(), self._summary
        if kept is None or kept[0] is not snapshot:
            kept = self._summary = (snapshot, {**summarise(snapshot), "version": snapshot.version})
        return kept[1]

    def _find_rows(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The rows that a query asks for, and how many pass its filters. Turning pages selects only once."""
        query = make_config(RowQuery, parameters, "the page")
        snapshot, kept, asked = self._look(), self._selected, replace(query, first=0)
        if kept is None or kept[0] is not snapshot or kept[1] != asked:
            kept = self._selected = (snapshot, asked, select_lines(snapshot, query))
        lines = kept[2]
        return {"rows": describe_rows(snapshot, lines.slice(query.first, query.count)), "total": lines.height}

    def _draw_pictures(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        snapshot = self._look()
        try:
            sample_id, split, draw = parameters["id"], parameters["split"], int(parameters["draw"])
        except (KeyError, ValueError):
            raise UsageError("pictures are those of an id, a split and a draw") from None
        lines = snapshot.rows.filter(sample_id=sample_id, split=split, draw=draw)
        if not lines.height:
            raise UsageError("there is no such row any more")
        return describe_pictures(snapshot, snapshot.read(lines.head(1))[0])
