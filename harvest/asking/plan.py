"""What a run would ask, worked out before anything is sent.

Every row of the task's splits gets one action. A row that says the same as one that is kept has its request key, so it
is found by a fingerprint; the keys of all others are computed, and no picture is drawn: a plan over hundreds of
thousands of rows takes seconds. It holds one byte a row, and of what is kept about 60 bytes a row.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from harvest.asking.select import Bools, Selection
from harvest.pictures import fetch_pictures
from harvest.teachers.base import Estimate, Teacher, sees_pictures
from shared.errors import DataError
from shared.example import Example
from shared.fingerprints import fingerprint_rows
from shared.keys import RequestKeys
from shared.schema import Status
from shared.shards import STATUSES, Kept
from shared.tasks import LoadedTask, make_examples

if TYPE_CHECKING:
    import polars as pl

Actions: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Digests: TypeAlias = np.ndarray[Any, np.dtype[np.bytes_]]

EVERY_SPLIT = "*"
FAILED, UNASKED = STATUSES.index(Status.FAILED), STATUSES.index(Status.UNASKED)


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

    def rows(self, loaded: LoadedTask, split: str, *actions: Action) -> Iterator[tuple[Example, int, Action]]:
        """The rows of a split that have one of `actions`, each with its draw; the source is read if there are any.

        Examples come in the source's order, and the draws of one after each other.
        """
        if not self.has(split, *actions):
            return
        start = 0
        for _, frame in loaded.frames([split], pictures=loaded.task.has_pictures):
            of_frame = self.actions[split][:, start : start + frame.height]
            start += frame.height
            wanted: Bools = np.isin(of_frame, actions)
            for place, example in _pick_examples(frame, np.logical_or.reduce(wanted, axis=0)):
                for draw in np.flatnonzero(wanted[:, place]).tolist():
                    yield example, draw, Action(of_frame[draw, place])


def make_plan(
    loaded: LoadedTask, teacher: Teacher, scope: Scope, kept: Mapping[str, Kept], *, estimate: bool = False
) -> Plan:
    """Choose every row's action. `kept` is what the teacher's folder holds, by split. Sends nothing."""
    planner = _Planner(loaded, teacher, scope, kept, estimate)
    starts = dict.fromkeys(scope.splits, 0)
    for split, frame in loaded.frames(scope.splits, pictures=loaded.task.has_pictures):
        for draw in range(scope.count_draws(split)):
            planner.choose(split, frame, starts[split], draw)
        starts[split] += frame.height
    return planner.finish()


class _Planner:
    """Chooses actions, one frame of a split and one draw at a time."""

    def __init__(
        self, loaded: LoadedTask, teacher: Teacher, scope: Scope, kept: Mapping[str, Kept], estimate: bool
    ) -> None:
        self._keys, self._teacher, self._scope, self._estimate = RequestKeys(teacher.recipe()), teacher, scope, estimate
        answers = {split: _drop_statuses(rows, scope.retry) for split, rows in kept.items()}
        self._known = [rows.request_keys[rows.statuses != UNASKED] for rows in answers.values()]
        self._chosen = {split: _choose_rows(loaded, split, scope) for split in scope.splits}
        self._actions = {
            split: np.full((scope.count_draws(split), len(mask)), Action.LEAVE, np.uint8)
            for split, mask in self._chosen.items()
        }
        self._finders = {
            split: [_Finder(answers.get(split), self._keys, teacher, draw) for draw in range(scope.count_draws(split))]
            for split in scope.splits
        }
        self._wishes = {split: _Wishes() for split in scope.splits}
        self._kept_counts = np.zeros(len(STATUSES), np.int64)
        self._first_failure: str | None = None

    def choose(self, split: str, frame: "pl.DataFrame", start: int, draw: int) -> None:
        """Choose the action of one draw of the examples of `frame`, whose first is number `start` of its split."""
        scope, wishes = self._scope, self._wishes[split]
        actions = self._actions[split][draw]
        rest = self._chosen[split][start : start + frame.height].copy()
        if sees_pictures(self._teacher):
            fetch_pictures(_list_places(frame, rest))
        found = self._finders[split][draw].find(frame, rest, include_unasked=not scope.asks(split))
        rest[found.rows] = False
        owned = scope.share.own(found.keys)
        actions[start + found.rows[owned]] = Action.KEEP
        self._kept_counts += np.bincount(found.statuses[owned], minlength=len(STATUSES))
        for place, example in _pick_examples(frame, rest):
            key, problem = request_key(self._keys, self._teacher, example, draw)
            if not scope.share.owns(key):
                continue
            if not scope.asks(split):
                actions[start + place] = Action.CARRY
            elif problem is not None:
                actions[start + place] = Action.FAIL
                self._first_failure = self._first_failure or problem
            else:
                wishes.places.append(draw * len(actions) + start + place)
                wishes.keys.extend(bytes.fromhex(key))
                if self._estimate:
                    wishes.add(self._teacher.estimate(example))

    def finish(self) -> Plan:
        """The plan: of the rows that would be asked, those that make the same request as another are copied."""
        total = np.zeros(len(fields(Estimate)))
        known = list(self._known)
        for split, wished in self._wishes.items():
            asked = np.frombuffer(wished.keys, "S32")
            is_new = _find_new(asked, known)
            flat = self._actions[split].reshape(-1)
            flat[np.frombuffer(wished.places, np.int64)] = np.where(is_new, Action.ASK, Action.COPY)
            known.append(asked[is_new])
            if self._estimate:
                total += np.frombuffer(wished.estimates).reshape(-1, len(total))[is_new].sum(axis=0)
        planned = {split: int(mask.sum()) * self._scope.count_draws(split) for split, mask in self._chosen.items()}
        kept = {status: int(rows) for status, rows in zip(STATUSES, self._kept_counts, strict=True) if rows}
        repainted = {
            split: [row for one in finders for row in one.repainted] for split, finders in self._finders.items()
        }
        estimated = _to_estimate(total) if self._estimate else None
        return Plan(self._actions, planned, kept, self._first_failure, estimated, repainted)


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The rows of a split that are to be asked unless an earlier row makes the same request, and their raw keys."""

    places: "array[int]" = field(default_factory=lambda: array("q"))
    keys: bytearray = field(default_factory=bytearray)
    estimates: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, one: Estimate) -> None:
        """Add the estimate of a row; an unknown price is NaN."""
        cost = math.nan if one.cost_usd is None else one.cost_usd
        self.estimates.extend((one.input_tokens, one.image_tokens, one.output_tokens, cost, one.bytes))


def _to_estimate(values: "np.ndarray[Any, np.dtype[np.float64]]") -> Estimate:
    tokens, image_tokens, output_tokens, cost, size = values.tolist()
    return Estimate(tokens, image_tokens, output_tokens, None if math.isnan(cost) else cost, size)


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
    rows = loaded.splits[split]
    limit = scope.limits.get(split, scope.limits.get(EVERY_SPLIT))
    wanted = np.ones(rows, np.bool_)
    if scope.only is not None and rows:
        wanted = np.concatenate([scope.only(split, frame) for _, frame in loaded.frames([split])])
    if limit is None or limit >= wanted.sum():
        return wanted
    sample_ids = (sample_id for _, frame in loaded.frames([split]) for sample_id in frame["sample_id"].to_list())
    hashes = np.fromiter(map(hash_sample_id, sample_ids), np.uint64, rows)
    chosen = np.zeros(rows, np.bool_)
    order = np.argsort(hashes, kind="stable")
    chosen[order[wanted[order]][:limit]] = True
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


def _drop_statuses(kept: Kept, statuses: Sequence[Status]) -> Kept:
    if not statuses:
        return kept
    stays = ~np.isin(kept.statuses, [STATUSES.index(status) for status in statuses])
    return kept.select(stays)


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of a frame that are kept, by number, and their request keys and statuses."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    keys: Digests
    statuses: np.ndarray[Any, np.dtype[np.uint8]]


class _Finder:
    """Finds the rows of frames of which a split keeps one draw.

    Under one recipe the key of a request follows from the row's texts, so equal texts have the kept row's key. One row
    a frame is computed to make sure; where that says otherwise (the code that makes requests was changed), all are.
    Where the teacher sees pictures all are: the same texts may stand beside another picture. `repainted` are the rows,
    (id, draw), of which that is so. A picture that cannot be read says nothing against the answer that is kept.
    """

    def __init__(self, kept: Kept | None, keys: RequestKeys, teacher: Teacher, draw: int) -> None:
        self._keys, self._teacher, self._draw = keys, teacher, draw
        self._sees = sees_pictures(teacher)
        self.repainted: list[tuple[str, int]] = []
        if kept is None:
            none = np.zeros(0, np.uint64)
            kept = Kept(none.view("S32"), none.reshape(0, 2), none.view(np.int32), none.view(np.uint8))
        kept = kept.select(kept.draws == draw)
        self._kept = kept.select(np.argsort(kept.fingerprints[:, 0], kind="stable"))
        self._sorted = np.ascontiguousarray(self._kept.fingerprints[:, 0])

    def find(self, frame: "pl.DataFrame", chosen: Bools, *, include_unasked: bool) -> _Found:
        """The rows of `frame` among `chosen` that are kept: answered, or carried along unasked where that is meant."""
        fingerprints = fingerprint_rows(frame)
        at = np.searchsorted(self._sorted, fingerprints[:, 0])
        at[at == len(self._sorted)] = 0
        equal = chosen.copy()
        if len(self._sorted):
            equal &= (self._kept.fingerprints[at] == fingerprints).all(axis=1)
            equal &= include_unasked | (self._kept.statuses[at] != UNASKED)
        else:
            equal[:] = False
        rows = np.flatnonzero(equal)
        if len(rows) and (self._sees or not self._has_key(frame, rows[:1], at).all()):
            has_key = self._has_key(frame, rows, at)
            if self._sees:
                answered = ~np.isin(self._kept.statuses[at[rows]], (FAILED, UNASKED))
                self.repainted += [
                    (name, self._draw) for name in frame["sample_id"][rows[~has_key & answered].tolist()]
                ]
            rows = rows[has_key]
        places = at[rows]
        return _Found(rows, self._kept.request_keys[places], self._kept.statuses[places])

    def _has_key(self, frame: "pl.DataFrame", rows: "np.ndarray[Any, np.dtype[np.int64]]", at: Any) -> Bools:
        """Whether the kept rows of `rows` have the keys that are computed for them."""
        examples = list(make_examples(frame[rows.tolist()]))
        requests = [request_key(self._keys, self._teacher, example, self._draw) for example in examples]
        computed = np.frombuffer(b"".join(bytes.fromhex(key) for key, _ in requests), "S32")
        has_key: Bools = computed == self._kept.request_keys[at[rows]]
        if self._sees:
            has_key |= [problem is not None for _, problem in requests]
        return has_key


def _find_new(keys: Digests, known: Sequence[Digests]) -> Bools:
    """Which of `keys` come for the first time, and are in none of `known`."""
    import polars as pl

    # Eight bytes tell nearly all keys apart, and are compared at a hundredth of the price; the others are, in whole.
    starts = pl.Series(_take_starts(keys))
    alike = np.flatnonzero(starts.is_duplicated().to_numpy())
    is_new = np.ones(len(keys), np.bool_)
    is_new[alike] = False
    is_new[alike[np.unique(keys[alike], return_index=True)[1]]] = True
    for earlier in known:
        maybe = is_new & starts.is_in(pl.Series(_take_starts(earlier)).implode()).to_numpy()
        if maybe.any():
            is_new[maybe] = ~np.isin(keys[maybe], earlier)
    return is_new


def _take_starts(keys: Digests) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 4)[:, 0]
