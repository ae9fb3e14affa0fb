"""What a run would ask, worked out before anything is sent.

Every row of the task's splits gets one action. A row that says the same as one that is kept has its request key, so it
is found by a fingerprint; the keys of all others are computed, and no picture is drawn: a plan over hundreds of
thousands of rows takes seconds. In memory are two bytes a row; fingerprints and keys lie on disk where they are many
(shared.buckets), about 90 bytes a kept row, 24 a row of the source and 42 a row that is to be asked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from harvest.asking.find_kept import FAILED, UNASKED, Claims, Digests, KeptRows, Match, SourceRows
from harvest.asking.planned import PlannedRows
from harvest.asking.select import Bools, Selection
from harvest.asking.wishes import Estimates, Wishes, take_starts
from harvest.pictures import fetch_pictures
from harvest.teachers.base import Estimate, Teacher, sees_pictures
from shared.buckets import Buckets, join_buckets
from shared.console import Tracker, track
from shared.errors import DataError
from shared.example import Example
from shared.fingerprints import fingerprint_rows
from shared.keys import RequestKeys
from shared.schema import Status
from shared.shards import STATUSES, KeptPart
from shared.tasks import LoadedTask, make_examples

if TYPE_CHECKING:
    import polars as pl

Actions: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

EVERY_SPLIT = "*"
SHOWN_ROWS = 1_000_000  # from so many on a pass over them shows its progress
_ORDER = np.dtype([("hash", np.uint64), ("place", np.int64)])


class Action(IntEnum):
    """What a run does with one row of the source."""

    LEAVE = 0  # outside the limit, or another worker's
    KEEP = 1  # already answered
    ASK = 2
    COPY = 3  # says the same as a row that is kept or asked: takes that answer
    CARRY = 4  # of a split that is not asked: kept without an answer
    FAIL = 5  # cannot be asked; becomes a failed row that says why


@dataclass(frozen=True, slots=True)
class Share:
    """The part of all requests that one of several workers owns: `index` from 0."""

    index: int = 0
    count: int = 1

    def owns(self, key: str) -> bool:
        """Whether this worker asks the request; equal requests have one owner."""
        return int(key[:16], 16) % self.count == self.index

    def own(self, keys: Digests) -> Bools:
        """The same of raw keys, dtype S32."""
        mine: Bools = np.ascontiguousarray(keys).view(">u8").reshape(-1, 4)[:, 0] % self.count == self.index
        return mine


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a run is about.

    `limits` bounds the rows of a split, or under "*" of each; `asked` names the splits whose rows the teacher is asked
    about (None: all); kept rows whose status is in `retry` are asked again. `draws` is how many answers each of them
    is to have. `only` leaves out rows before the limits do (None: none).
    """

    splits: Sequence[str]
    limits: Mapping[str, int]
    asked: Sequence[str] | None = None
    retry: Sequence[Status] = ()
    share: Share = Share()
    draws: int = 1
    only: Selection | None = None

    def count_draws(self, split: str) -> int:
        """How many rows each example of `split` is to have: one where the teacher is not asked about it."""
        return self.draws if self.asks(split) else 1

    def asks(self, split: str) -> bool:
        """Whether the teacher is asked about the rows of `split`."""
        return self.asked is None or split in self.asked


@dataclass(frozen=True, slots=True)
class Plan:
    """The action of every row, by split: of shape (draws, examples), examples in the order of the source.

    `planned` is how many rows each split is to have, over all workers; `kept` counts the rows that are kept, by status;
    `first_failure` is one example of what cannot be asked. `repainted` are the kept rows, (id, draw) by split, whose
    answer is that to another picture: they are asked again. `estimate` is what all rows that are asked will about take
    together, where that was wished for.
    """

    actions: Mapping[str, Actions]
    planned: Mapping[str, int]
    kept: Mapping[Status, int]
    first_failure: str | None = None
    estimate: Estimate | None = None
    repainted: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)

    def sample(self, rows: int) -> "Plan":
        """The same with at most `rows` of the rows that are asked, spread evenly over all of them, and no other."""
        places = {split: np.flatnonzero(of_split.ravel() == Action.ASK) for split, of_split in self.actions.items()}
        total = sum(map(len, places.values()))
        picked = np.unique(np.linspace(0, total - 1, min(rows, total)).round().astype(np.int64))
        actions = {split: np.full_like(of_split, Action.LEAVE) for split, of_split in self.actions.items()}
        start = 0
        for split, own in places.items():
            mine = picked[(picked >= start) & (picked < start + len(own))] - start
            actions[split].reshape(-1)[own[mine]] = Action.ASK
            start += len(own)
        return replace(self, actions=actions)

    def count(self, *actions: Action) -> int:
        """How many rows have one of `actions`."""
        return sum(int(np.isin(of_split, actions).sum()) for of_split in self.actions.values())

    def has(self, split: str, *actions: Action) -> bool:
        """Whether a row of a split has one of `actions`."""
        return bool(np.isin(self.actions[split], actions).any())

    def rows(self, loaded: LoadedTask, split: str, *actions: Action) -> Iterator[tuple[PlannedRows, Iterator[Example]]]:
        """The rows of a split that have one of `actions`, some thousand at once; the source is read if there are any.

        They come in the source's order, and the draws of one after each other; beside the columns the same as examples.
        """
        if not self.has(split, *actions):
            return
        start = 0
        for _, frame in loaded.frames([split], pictures=loaded.task.has_pictures):
            of_frame = self.actions[split][:, start : start + frame.height]
            start += frame.height
            places, draws = np.nonzero(np.isin(of_frame, actions).T)
            if len(places):
                wanted = frame if np.array_equal(places, np.arange(frame.height)) else frame[places]
                columns = wanted.drop("pictures", strict=False)
                rows = PlannedRows(split, columns, draws.astype(np.int32), of_frame[draws, places])
                yield rows, make_examples(wanted)


def make_plan(
    loaded: LoadedTask,
    teacher: Teacher,
    scope: Scope,
    kept: Mapping[str, Iterable[KeptPart]],
    *,
    estimate: bool = False,
) -> Plan:
    """Choose every row's action. `kept` is what the teacher's folder holds, by split, read once. Sends nothing."""
    planner = _Planner(loaded, teacher, scope, estimate)
    for split, parts in kept.items():
        for part in parts:
            planner.note_kept(split, part)
    planner.find_kept()
    planner.choose_others()
    return planner.finish()


class _Planner:
    """Chooses actions: first of the rows that are kept, a bucket at a time, then of all others, a frame at a time."""

    def __init__(self, loaded: LoadedTask, teacher: Teacher, scope: Scope, estimate: bool) -> None:
        self._loaded, self._teacher, self._scope = loaded, teacher, scope
        self._request_key = partial(request_key, RequestKeys(teacher.recipe()), teacher)
        self._sees = sees_pictures(teacher)
        self._known = Buckets("S32")  # keys that have an answer
        self._kept_rows = {split: KeptRows(None if self._sees else self._request_key) for split in scope.splits}
        chosen = {split: _choose_rows(loaded, split, scope) for split in scope.splits}
        self._planned = {split: int(mask.sum()) * scope.count_draws(split) for split, mask in chosen.items()}
        self._open = {split: np.stack([mask] * scope.count_draws(split)) for split, mask in chosen.items()}
        self._actions = {split: np.full(rows.shape, Action.LEAVE, np.uint8) for split, rows in self._open.items()}
        self._claims = {split: [Claims(rows.shape[1]) for _ in rows] for split, rows in self._open.items()}
        self._kept_counts = np.zeros(len(STATUSES), np.int64)
        self._wishes, self._estimates = Wishes(), Estimates() if estimate else None
        self._repainted: dict[str, list[tuple[str, int]]] = {split: [] for split in scope.splits}
        self._first_failure: str | None = None

    def note_kept(self, split: str, part: KeptPart) -> None:
        """Take some of the rows that a split keeps."""
        if self._scope.retry:
            retried = [STATUSES.index(status) for status in self._scope.retry]
            part = part.select(~np.isin(part.kept.statuses, retried))
        keys = part.kept.request_keys[part.kept.statuses != UNASKED]
        self._known.add(keys, take_starts(keys))
        if split in self._kept_rows:
            self._kept_rows[split].add(part)

    def find_kept(self) -> None:
        """Find which rows of the source are kept; of pictures it remains to be seen whether they are the same."""
        splits = [split for split, rows in self._kept_rows.items() if len(rows)]
        source = {split: SourceRows() for split in splits}
        starts = dict.fromkeys(splits, 0)
        with self._track("looking for kept rows", splits) as tracker:
            for split, frame in self._loaded.frames(splits) if splits else ():
                start, end = starts[split], starts[split] + frame.height
                starts[split] = end
                rows = np.flatnonzero(self._open[split][0, start:end])
                if len(rows):
                    source[split].add(fingerprint_rows(frame)[rows], start + rows)
                tracker.advance(frame.height)
        for split in splits:
            for match in self._kept_rows.pop(split).find(source.pop(split), len(self._open[split])):
                if not self._scope.asks(split):
                    self._keep(split, match)
                else:
                    self._keep(split, match.select(match.statuses != UNASKED))

    def _keep(self, split: str, match: Match) -> None:
        if self._sees:
            self._claims[split][match.draw].add(match)
            return
        self._open[split][match.draw, match.places] = False
        owned = match.select(self._scope.share.own(match.keys))
        self._actions[split][match.draw, owned.places] = Action.KEEP
        self._kept_counts += np.bincount(owned.statuses, minlength=len(STATUSES))

    def choose_others(self) -> None:
        """Choose the actions of all rows that are not kept; the source is read if there are any."""
        splits = [split for split in self._scope.splits if self._open[split].any()]
        starts = dict.fromkeys(splits, 0)
        frames = self._loaded.frames(splits, pictures=self._loaded.task.has_pictures) if splits else ()
        with self._track("planning the others", splits) as tracker:
            for split, frame in frames:
                start, end = starts[split], starts[split] + frame.height
                starts[split] = end
                rest = self._open[split][:, start:end]
                if self._sees:
                    fetch_pictures(_list_places(frame, np.logical_or.reduce(rest, axis=0)))
                for draw, mask in enumerate(rest):
                    self._choose(split, frame, start, draw, mask)
                tracker.advance(frame.height)

    def _track(self, what: str, splits: Sequence[str]) -> AbstractContextManager[Tracker]:
        """Show how far a pass over the rows of some splits is, where they are so many that it takes a while."""
        rows = sum(self._loaded.splits[split] for split in splits)
        return track(what, rows if rows >= SHOWN_ROWS else 0)

    def _choose(self, split: str, frame: "pl.DataFrame", start: int, draw: int, mask: Bools) -> None:
        """Choose the action of one draw of the rows of `frame` that `mask` marks; the first is number `start`."""
        scope, actions = self._scope, self._actions[split][draw]
        number, places, keys = scope.splits.index(split), [], bytearray()
        claims = self._list_claims(split, draw, start, start + frame.height)
        for place, example in _pick_examples(frame, mask):
            key, problem = self._request_key(example, draw)
            kept_key, status = claims.get(place, ("", UNASKED))
            if kept_key and (problem is not None or key == kept_key):  # no picture that can be read says otherwise
                actions[start + place] = Action.KEEP if scope.share.owns(kept_key) else Action.LEAVE
                self._kept_counts[status] += scope.share.owns(kept_key)
                continue
            if kept_key and status not in (FAILED, UNASKED):
                self._repainted[split].append((example.sample_id, draw))
            if not scope.share.owns(key):
                continue
            if not scope.asks(split):
                actions[start + place] = Action.CARRY
            elif problem is not None:
                actions[start + place] = Action.FAIL
                self._first_failure = self._first_failure or problem
            else:
                places.append(draw * len(actions) + start + place)
                keys.extend(bytes.fromhex(key))
                if self._estimates is not None and self._estimates.wants(key):
                    self._estimates.add(key, number, places[-1], self._teacher.estimate(example))
        if places:
            self._wishes.add(number, places, keys)

    def _list_claims(self, split: str, draw: int, start: int, end: int) -> Mapping[int, tuple[str, int]]:
        """The kept keys and statuses of the rows of a frame whose pictures are to be compared, by number."""
        if not len(self._claims[split][draw]):
            return {}
        claims = self._claims[split][draw].take(start, end)
        keys = [bytes(key).ljust(32, b"\0").hex() for key in claims["key"]]
        places = (claims["place"] - start).tolist()
        return dict(zip(places, zip(keys, claims["status"].tolist(), strict=True), strict=True))

    def finish(self) -> Plan:
        """The plan: of the rows that would be asked, those that make the same request as another are copied."""
        flat = [self._actions[split].reshape(-1) for split in self._scope.splits]
        self._wishes.settle(self._known, flat, Action.ASK, Action.COPY)
        kept = {status: int(rows) for status, rows in zip(STATUSES, self._kept_counts, strict=True) if rows}
        plan = Plan(self._actions, self._planned, kept, self._first_failure, None, self._repainted)
        if self._estimates is None:
            return plan
        return replace(plan, estimate=self._estimates.sum_up(flat, Action.ASK, plan.count(Action.ASK)))


def find_first(loaded: LoadedTask, teacher: Teacher, scope: Scope) -> tuple[str, Example] | None:
    """The split and the first row that a run would ask about, were nothing kept; None where it asks about none."""
    for split in scope.splits:
        if scope.asks(split):
            chosen = _choose_rows(loaded, split, scope)
            for place, example in enumerate(loaded.examples(split)):
                if chosen[place]:
                    with suppress(DataError):  # a row that cannot be asked shows nothing
                        teacher.content(example)
                        return split, example
    return None


def request_key(keys: RequestKeys, teacher: Teacher, example: Example, draw: int = 0) -> tuple[str, str | None]:
    """The key of one draw of an example's request; and, where the teacher cannot be asked it, why not."""
    said = {} if example.messages is None else {"messages": [message._asdict() for message in example.messages]}
    try:
        return keys.key({**teacher.content(example), **said}, draw), None
    except DataError as error:
        texts = {"text": example.text, "text_pair": example.text_pair, "choices": example.choices, **said}
        return keys.key({"unaskable": texts}, draw), str(error)


def hash_sample_id(sample_id: str) -> int:
    """64 bits that decide which rows of a split a limit lets in: those for which they are lowest."""
    return int.from_bytes(blake2b(sample_id.encode(), digest_size=8).digest())


def _choose_rows(loaded: LoadedTask, split: str, scope: Scope) -> Bools:
    """Which rows of a split its selection and its limit let in: of those selected, those whose sample id hashes lowest.

    That is a random sample, the same in every run, and a larger limit contains the rows of a smaller one: what was paid
    for stays useful.
    """
    rows_of_split = loaded.splits[split]
    limit = scope.limits.get(split, scope.limits.get(EVERY_SPLIT))
    wanted = np.ones(rows_of_split, np.bool_)
    if scope.only is not None and rows_of_split:
        wanted = np.concatenate([scope.only(split, frame) for _, frame in loaded.frames([split])])
    if limit is None or limit >= wanted.sum():
        return wanted
    hashed, start = Buckets(_ORDER), 0
    for _, frame in loaded.frames([split]):
        rows = np.flatnonzero(wanted[start : start + frame.height])
        records = np.empty(len(rows), _ORDER)
        sample_ids = frame["sample_id"][rows.tolist()].to_list()
        records["hash"] = np.fromiter(map(hash_sample_id, sample_ids), np.uint64, len(rows))
        records["place"] = start + rows
        hashed.add(records, records["hash"])
        start += frame.height
    chosen = np.zeros(rows_of_split, np.bool_)
    for (records,) in join_buckets(hashed):  # the lowest hashes first
        places = records["place"][np.argsort(records["hash"], kind="stable")][:limit]
        chosen[places] = True
        limit -= len(places)
    return chosen


def _pick_examples(frame: "pl.DataFrame", mask: Bools) -> Iterator[tuple[int, Example]]:
    """The examples of a frame's rows where `mask` is true, each with its number in the frame."""
    import polars as pl

    places = np.flatnonzero(mask).tolist()
    return zip(places, make_examples(frame.filter(pl.Series(mask))), strict=True) if places else iter(())


def _list_places(frame: "pl.DataFrame", mask: Bools) -> list[str]:
    """Where the pictures lie of a frame's rows where `mask` is true; a place of each."""
    import polars as pl

    pictures = frame.filter(pl.Series(mask))["pictures"].explode().drop_nulls()
    return pictures.struct.field("place").to_list() if len(pictures) else []
