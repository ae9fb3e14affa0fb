"""What a plan asks, keeps, copies and carries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harvest.asking.plan import Action, Plan, Scope, Share, hash_sample_id, make_plan, request_key
from harvest.teachers.base import Teacher
from shared import buckets
from shared.example import Example
from shared.fingerprints import FINGERPRINTED, fingerprint_rows
from shared.keys import RequestKeys
from shared.schema import Status
from shared.shards import STATUSES, Kept, KeptPart
from shared.tasks import LoadedTask, find_task, load_task
from tests.harvest.scripted_teacher import ScriptedTeacher


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedTask:
    """Six texts, two of which are equal, and one that cannot be asked; labels of two kinds."""
    texts = ["one", "two", "three", "two", "unaskable", "six"]
    for split in ("train", "validation"):
        frame = pl.DataFrame({"text": [f"{split} {t}" for t in texts], "label": ["a", "b"] * 3})
        frame.write_parquet(tmp_path / f"{split}.parquet")
    return load_task(find_task(str(tmp_path), text_column="text", label_column="label"))


def plan_for(loaded: LoadedTask, kept: dict[str, list[KeptPart]] | None = None, **scope: Any) -> Plan:
    whole: dict[str, Any] = {"splits": ("train",), "limits": {}}
    return make_plan(loaded, ScriptedTeacher(), Scope(**{**whole, **scope}), kept or {})


def keep(
    loaded: LoadedTask, split: str, rows: dict[int, Status], teacher: Teacher | None = None, draw: int = 0
) -> dict[str, list[KeptPart]]:
    """What a folder would keep if these rows of a split had ended so."""
    teacher = teacher or ScriptedTeacher()
    examples = list(loaded.examples(split))
    frame = pl.concat(frame for _, frame in loaded.frames([split]))
    keys = RequestKeys(teacher.recipe())
    kept = Kept(
        np.array([bytes.fromhex(request_key(keys, teacher, examples[row], draw)[0]) for row in rows], "S32"),
        fingerprint_rows(frame)[list(rows)],
        np.full(len(rows), draw, np.int32),
        np.array([STATUSES.index(status) for status in rows.values()], np.uint8),
    )
    return {split: [KeptPart(kept, frame.select(FINGERPRINTED)[list(rows)])]}


def test_new_rows_are_asked_equal_ones_copied_and_impossible_ones_fail(loaded: LoadedTask) -> None:
    plan = plan_for(loaded)
    assert plan.actions["train"][0].tolist() == [
        Action.ASK,
        Action.ASK,
        Action.ASK,
        Action.COPY,
        Action.FAIL,
        Action.ASK,
    ]
    assert plan.planned == {"train": 6}
    assert "cannot be asked" in str(plan.first_failure)


def test_kept_rows_are_left_alone_and_their_answer_serves_equal_rows(loaded: LoadedTask) -> None:
    plan = plan_for(loaded, keep(loaded, "train", {1: Status.OK, 5: Status.TRUNCATED}))
    assert plan.actions["train"][0][[1, 3, 5]].tolist() == [Action.KEEP, Action.COPY, Action.KEEP]


def test_a_failed_row_is_kept_until_its_status_is_retried(loaded: LoadedTask) -> None:
    kept = keep(loaded, "train", {0: Status.FAILED, 5: Status.OK})
    assert plan_for(loaded, kept).actions["train"][0][0] == Action.KEEP
    retried = plan_for(loaded, kept, retry=(Status.FAILED,)).actions["train"][0]
    assert retried[0] == Action.ASK
    assert retried[5] == Action.KEEP


def test_rows_of_a_split_that_is_not_asked_are_carried_and_asked_later(loaded: LoadedTask) -> None:
    first = plan_for(loaded, splits=("train", "validation"), asked=("train",))
    assert set(first.actions["validation"][0].tolist()) == {Action.CARRY}
    carried = keep(loaded, "validation", {0: Status.UNASKED, 1: Status.UNASKED})
    again = plan_for(loaded, carried, splits=("validation",), asked=())
    assert again.actions["validation"][0][:3].tolist() == [Action.KEEP, Action.KEEP, Action.CARRY]
    asked = plan_for(loaded, carried, splits=("validation",))
    assert asked.actions["validation"][0][:2].tolist() == [Action.ASK, Action.ASK]


def test_kept_rows_are_counted_by_status(loaded: LoadedTask) -> None:
    kept = keep(loaded, "train", {0: Status.OK, 1: Status.OK, 2: Status.FAILED, 3: Status.TRUNCATED})
    assert plan_for(loaded, kept).kept == {Status.OK: 2, Status.TRUNCATED: 1, Status.FAILED: 1}
    assert plan_for(loaded, kept, retry=(Status.FAILED,)).kept == {Status.OK: 2, Status.TRUNCATED: 1}


def test_a_row_whose_text_was_changed_is_asked(loaded: LoadedTask, tmp_path: Path) -> None:
    kept = keep(loaded, "train", dict.fromkeys(range(6), Status.OK))
    frame = pl.read_parquet(tmp_path / "train.parquet")
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("new")).otherwise("text").alias("text"))
    frame.write_parquet(tmp_path / "train.parquet")
    changed = load_task(find_task(str(tmp_path), text_column="text", label_column="label"))
    plan = plan_for(changed, kept)
    assert np.flatnonzero(plan.actions["train"][0] == Action.ASK).tolist() == [2]
    assert plan.count(Action.KEEP) == 5


def test_equal_texts_are_not_trusted_where_their_requests_have_changed(loaded: LoadedTask) -> None:
    """The recipe is the same and the code that makes requests is not: then every key is computed."""

    class Other(ScriptedTeacher):
        def content(self, example: Example) -> Mapping[str, Any]:
            return {"text": example.text.upper() if "three" in example.text else example.text, "version": 2}

    kept = keep(loaded, "train", dict.fromkeys(range(6), Status.OK), Other())
    assert plan_for(loaded, kept).count(Action.KEEP) == 0


def test_rows_of_an_action_are_found_again(loaded: LoadedTask) -> None:
    plan = plan_for(loaded, keep(loaded, "train", {1: Status.OK}))
    found = [
        (example.text, action)
        for rows, examples in plan.rows(loaded, "train", Action.FAIL, Action.COPY)
        for example, action in zip(examples, rows.actions, strict=True)
    ]
    assert found == [("train two", Action.COPY), ("train unaskable", Action.FAIL)]
    assert list(plan.rows(loaded, "train", Action.CARRY)) == []


def test_the_same_text_in_two_splits_is_asked_once(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        pl.DataFrame({"text": ["same", f"{split}"], "label": [0, 1]}).write_parquet(tmp_path / f"{split}.parquet")
    loaded = load_task(find_task(str(tmp_path), text_column="text", label_column="label"))
    plan = plan_for(loaded, splits=("train", "validation"))
    assert plan.actions["train"][0].tolist() == [Action.ASK, Action.ASK]
    assert plan.actions["validation"][0].tolist() == [Action.COPY, Action.ASK]


def test_a_larger_limit_contains_the_rows_of_a_smaller_one(tmp_path: Path) -> None:
    pl.DataFrame({"text": [f"text {i}" for i in range(500)], "label": [0, 1] * 250}).write_csv(tmp_path / "all.csv")
    loaded = load_task(find_task(str(tmp_path / "all.csv"), text_column="text", label_column="label"))
    rows = {
        limit: set(np.flatnonzero(plan_for(loaded, limits={"train": limit}).actions["train"][0])) for limit in (20, 50)
    }
    assert {limit: len(chosen) for limit, chosen in rows.items()} == {20: 20, 50: 50}
    assert rows[20] < rows[50]
    everywhere = plan_for(loaded, splits=("train", "test"), limits={"*": 5, "test": 3})
    assert everywhere.planned == {"train": 5, "test": 3}


def test_workers_share_out_all_rows_and_no_row_twice(loaded: LoadedTask) -> None:
    whole = plan_for(loaded).actions["train"][0]
    shares = [plan_for(loaded, share=Share(index, 3)).actions["train"][0] for index in range(3)]
    owners = np.sum([share != Action.LEAVE for share in shares], axis=0)
    assert owners.tolist() == [1] * len(whole)
    together = np.max(shares, axis=0)
    assert together.tolist() == whole.tolist()  # equal rows have one owner, who copies


def test_each_draw_is_a_row_and_those_that_are_kept_stay(loaded: LoadedTask) -> None:
    kept = keep(loaded, "train", {0: Status.OK, 1: Status.OK})
    plan = plan_for(loaded, kept, draws=2, splits=("train", "validation"), asked=("train",))
    first, second = plan.actions["train"]
    assert first.tolist() == plan_for(loaded, kept).actions["train"][0].tolist()
    assert second.tolist() == [Action.ASK, Action.ASK, Action.ASK, Action.COPY, Action.FAIL, Action.ASK]
    assert plan.actions["validation"].shape == (1, 6)
    assert plan.planned == {"train": 12, "validation": 6}
    found = [
        (example.text, draw)
        for rows, examples in plan.rows(loaded, "train", Action.ASK)
        for example, draw in zip(examples, rows.draws, strict=True)
    ]
    assert found[:4] == [("train one", 1), ("train two", 1), ("train three", 0), ("train three", 1)]
    assert plan.sample(3).count(Action.ASK) == 3


def plan_row_by_row(loaded: LoadedTask, kept: dict[str, dict[tuple[str, int], Status]], scope: Scope) -> dict[str, Any]:
    """What make_plan is to come to, without pictures: all texts are held, and rows looked at one by one."""
    teacher = ScriptedTeacher()
    keys = RequestKeys(teacher.recipe())
    rows = {split: list(loaded.examples(split)) for split in loaded.splits}
    held = {
        (split, example.sample_id, draw): (request_key(keys, teacher, example, draw)[0], status)
        for split, own in kept.items()
        for example in rows[split]
        for draw in range(2)
        if (status := own.get((example.sample_id, draw))) is not None and status not in scope.retry
    }
    known = {key for key, status in held.values() if status != Status.UNASKED}
    actions: dict[str, Any] = {}
    for split in scope.splits:
        limit = scope.limits.get(split, len(rows[split]))
        lowest = sorted(range(len(rows[split])), key=lambda row: hash_sample_id(rows[split][row].sample_id))[:limit]
        actions[split] = np.full((scope.count_draws(split), len(rows[split])), Action.LEAVE, np.uint8)
        for row in sorted(lowest):
            example = rows[split][row]
            for draw in range(scope.count_draws(split)):
                key, problem = request_key(keys, teacher, example, draw)
                _, status = held.get((split, example.sample_id, draw), (None, None))
                if not scope.share.owns(key):
                    action = Action.LEAVE
                elif status is not None and (status != Status.UNASKED or not scope.asks(split)):
                    action = Action.KEEP
                elif not scope.asks(split):
                    action = Action.CARRY
                elif problem is not None:
                    action = Action.FAIL
                else:
                    action = Action.COPY if key in known else Action.ASK
                    known.add(key)
                actions[split][draw, row] = action
    return actions


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_is_that_of_looking_at_one_row_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random rows with equal texts within and between splits, of which some are kept; in memory, and on disk."""
    monkeypatch.setattr(buckets, "BLOCK_BYTES", (200, 1 << 30)[seed // 3])
    random = np.random.default_rng(seed)
    words = [f"text {number}" if number % 7 else f"unaskable {number}" for number in range(60)]
    frame = pl.DataFrame({"text": [words[i] for i in random.integers(0, 60, 150)], "label": ["a", "b"] * 75})
    frame.write_csv(tmp_path / "rows.csv")
    loaded = load_task(find_task(str(tmp_path / "rows.csv"), text_column="text", label_column="label"))
    statuses = (Status.OK, Status.FAILED, Status.UNASKED)
    kept: dict[str, dict[tuple[str, int], Status]] = {}
    parts: dict[str, list[KeptPart]] = {}
    for split in loaded.splits:
        names = [example.sample_id for example in loaded.examples(split)]
        kept[split] = {}
        for draw in range(2):
            rows = {row: statuses[random.integers(3)] for row in range(len(names)) if random.random() < 0.4}
            if rows:
                kept[split] |= {(names[row], draw): status for row, status in rows.items()}
                parts.setdefault(split, []).extend(keep(loaded, split, rows, draw=draw)[split])
    scope = Scope(
        splits=tuple(loaded.splits),
        limits={"train": int(random.integers(1, 150))} if seed % 2 else {},
        asked=(None, ("train", "test"))[seed % 2],
        retry=((), (Status.FAILED,))[seed // 2 % 2],
        share=Share(seed % 3, 3) if seed % 3 else Share(),
        draws=1 + seed % 2,
    )
    plan = make_plan(loaded, ScriptedTeacher(), scope, parts, estimate=True)
    wanted = plan_row_by_row(loaded, kept, scope)
    assert {split: rows.tolist() for split, rows in plan.actions.items()} == {
        split: rows.tolist() for split, rows in wanted.items()
    }
    assert sum(plan.kept.values()) == plan.count(Action.KEEP)
