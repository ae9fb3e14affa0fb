"""What a run would ask, worked out before anything is sent.

Every row of the task's splits gets one action. Keys are computed, never rendered pictures, so that a plan over hundreds
of thousands of rows takes seconds; it holds one byte a row, and 64 bytes a row while a split is worked out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any

import numpy as np

from harvest.teachers.base import Teacher
from shared.errors import DataError
from shared.example import Example
from shared.keys import RequestKeys
from shared.row import Status
from shared.shards import STATUSES, Kept, identify_row
from shared.tasks import LoadedTask

Actions = np.ndarray[Any, np.dtype[np.uint8]]
Digests = np.ndarray[Any, np.dtype[np.bytes_]]

EVERY_SPLIT = "*"
UNASKED = STATUSES.index(Status.UNASKED)


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


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a run is about.

    `limits` bounds the rows of a split, or under "*" of each; `asked` names the splits whose rows the teacher is asked
    about (None: all); kept rows whose status is in `retry` are asked again.
    """

    splits: Sequence[str]
    limits: Mapping[str, int]
    asked: Sequence[str] | None = None
    retry: Sequence[Status] = ()
    share: Share = Share()

    def asks(self, split: str) -> bool:
        """Whether the teacher is asked about the rows of `split`."""
        return self.asked is None or split in self.asked


@dataclass(frozen=True, slots=True)
class Plan:
    """The action of every row, by split, in the order of the source.

    `planned` is how many rows each split is to have, over all workers; `first_failure` one example of what cannot be
    asked.
    """

    actions: Mapping[str, Actions]
    planned: Mapping[str, int]
    first_failure: str | None = None

    def count(self, *actions: Action) -> int:
        """How many rows have one of `actions`."""
        return sum(int(np.isin(of_split, actions).sum()) for of_split in self.actions.values())


def make_plan(loaded: LoadedTask, teacher: Teacher, scope: Scope, kept: Mapping[str, Kept]) -> Plan:
    """Choose every row's action. `kept` is what the teacher's folder holds, by split. Sends nothing."""
    keys = RequestKeys(teacher.recipe())
    answers = {split: _drop_statuses(rows, scope.retry) for split, rows in kept.items()}
    known = [rows.request_keys[rows.statuses != UNASKED] for rows in answers.values()]
    actions: dict[str, Actions] = {}
    planned: dict[str, int] = {}
    first_failure = None
    for split in scope.splits:
        chosen = _choose_rows(loaded, split, scope.limits.get(split, scope.limits.get(EVERY_SPLIT)))
        planned[split] = int(chosen.sum())
        places: list[int] = []
        wishes = bytearray()
        digests = bytearray()
        identities = bytearray()
        for place, example in enumerate(loaded.examples(split)):
            if not chosen[place]:
                continue
            key, problem = request_key(keys, teacher, example)
            if not scope.share.owns(key):
                continue
            places.append(place)
            digests += bytes.fromhex(key)
            identities += identify_row(example.sample_id, 0)
            if not scope.asks(split):
                wishes.append(Action.CARRY)
            elif problem is None:
                wishes.append(Action.ASK)
            else:
                wishes.append(Action.FAIL)
                first_failure = first_failure or problem
        row_actions = _decide(
            np.array(wishes, np.uint8),
            np.frombuffer(digests, "S32"),
            np.frombuffer(identities, "S16"),
            answers.get(split),
            known,
        )
        known.append(np.frombuffer(digests, "S32")[row_actions == Action.ASK])
        actions[split] = np.full(len(chosen), Action.LEAVE, np.uint8)
        actions[split][places] = row_actions
    return Plan(actions, planned, first_failure)


def find_first(loaded: LoadedTask, scope: Scope) -> Example | None:
    """The first row that a run would ask about, were nothing kept; None where it asks about none."""
    for split in scope.splits:
        if scope.asks(split):
            chosen = _choose_rows(loaded, split, scope.limits.get(split, scope.limits.get(EVERY_SPLIT)))
            for place, example in enumerate(loaded.examples(split)):
                if chosen[place]:
                    return example
    return None


def request_key(keys: RequestKeys, teacher: Teacher, example: Example) -> tuple[str, str | None]:
    """The key of an example's request; and, where the teacher cannot be asked it, why not."""
    try:
        return keys.key(teacher.content(example)), None
    except DataError as error:
        texts = {"text": example.text, "text_pair": example.text_pair, "choices": example.choices}
        return keys.key({"unaskable": texts}), str(error)


def _choose_rows(loaded: LoadedTask, split: str, limit: int | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows of a split a limit lets in: those whose sample id hashes lowest.

    That is a random sample, the same in every run, and a larger limit contains the rows of a smaller one: what was paid
    for stays useful.
    """
    rows = loaded.splits[split]
    if limit is None or limit >= rows:
        return np.ones(rows, np.bool_)
    hashes = np.fromiter(
        (int.from_bytes(blake2b(e.sample_id.encode(), digest_size=8).digest()) for e in loaded.examples(split)),
        np.uint64,
        rows,
    )
    chosen = np.zeros(rows, np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:limit]] = True
    return chosen


def _drop_statuses(kept: Kept, statuses: Sequence[Status]) -> Kept:
    stays = ~np.isin(kept.statuses, [STATUSES.index(status) for status in statuses])
    return Kept(kept.request_keys[stays], kept.identities[stays], kept.statuses[stays])


def _decide(wishes: Actions, keys: Digests, identities: Digests, answers: Kept | None, known: list[Digests]) -> Actions:
    """What is kept is left alone; of the rest, a request that an earlier row makes is copied from it."""
    decided = wishes.copy()
    rows = _join(identities, keys)
    if answers is not None:
        kept_rows = _join(answers.identities, answers.request_keys)
        answered = np.isin(rows, kept_rows[answers.statuses != UNASKED])
        carried = (wishes == Action.CARRY) & np.isin(rows, kept_rows)
        decided[answered | carried] = Action.KEEP
    asked = np.flatnonzero(decided == Action.ASK)
    _, first = np.unique(keys[asked], return_index=True)
    is_new = np.zeros(len(asked), np.bool_)
    is_new[first] = True
    for earlier in known:
        is_new &= ~np.isin(keys[asked], earlier)
    decided[asked[~is_new]] = Action.COPY
    return decided


def _join(identities: Digests, keys: Digests) -> Digests:
    """One entry a row of identity and key, 48 bytes."""
    joined = np.empty(len(keys), [("identity", "S16"), ("key", "S32")])
    joined["identity"], joined["key"] = identities, keys
    return joined.view("S48")
