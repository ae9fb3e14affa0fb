"""One import from the user's choice to sealed shards: what `harvest import` does."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from harvest.asking.commit import SHARD_BYTES
from harvest.asking.follow import Changes, describe_changes, find_changes
from harvest.asking.manifest import describe_folder
from harvest.chat.imported import IMPORTED
from harvest.importing.config import ImportConfig
from harvest.importing.files import OpenFile, join_recipes, open_files
from harvest.importing.kept import Cascade, open_cascade
from harvest.importing.staging import publish, stage
from harvest.job import load_choice
from harvest.looking.agreement import judge_folder
from harvest.looking.card import write_card
from shared.causes import count_causes
from shared.console import say, track
from shared.errors import DataError, LockedError, RecipeMismatchError, ShardError, UsageError
from shared.example import Example
from shared.keys import RequestKeys
from shared.remote_shards import refuse_stored
from shared.schema import Answer, Row, Status
from shared.shards import Manifest, TeacherFolder, load_manifest
from shared.shards.manifest import MANIFEST_NAME, check_name, check_recipe
from shared.suggestions import suggest
from shared.tasks import LoadedTask, make_examples
from shared.tasks.files import spell_name
from shared.tasks.tables import name_stem

CHUNK_BYTES = 32 << 20
CHUNK_ROWS = 4096
SHOWN_CAUSES = 5


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import came to; the object that `--json` prints.

    `rows` are those of the task's splits; of them `kept` were imported before, and `imported` are now with an answer,
    whole or not, by `statuses`. `missing` have none, and are carried unasked. `strangers` are rows of the files that
    are no row of the task. `failed` brought no whole answer, for `causes`. `cost_usd` is None: nobody knows it here.
    """

    task: str
    teacher: str
    folder: str
    source: str
    rows: int
    kept: int = 0
    asked: int = 0
    imported: int = 0
    missing: int = 0
    strangers: int = 0
    failed: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)
    matched_by: Mapping[str, str] = field(default_factory=dict)
    cost_usd: float | None = None
    seconds: float = 0.0
    agreement: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Import:
    """What is imported: `files` by split, or a cascade; `splits` are those whose rows are kept."""

    loaded: LoadedTask
    splits: Sequence[str]
    manifest: Manifest
    files: Mapping[str, OpenFile]
    cascade: Cascade | None
    vector_type: pa.DataType | None

    def iterate_chunks(self) -> Iterator[tuple[str, list[Example], list[Answer]]]:
        """Give the rows of all splits with their answers, some at a time."""
        source = self.cascade or next(iter(self.files.values())).rows
        size = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, source.row_bytes)))
        starts = dict.fromkeys(self.splits, 0)
        for split, frame in self.loaded.frames(self.splits):
            for part in frame.iter_slices(size):
                start, examples = starts[split], list(make_examples(part))
                starts[split] = stop = start + len(examples)
                if self.cascade is not None:
                    yield split, examples, self.cascade.read(examples)
                elif split in self.files:
                    yield split, examples, self.files[split].read(split, start, stop)
                else:
                    yield split, examples, [Answer(Status.UNASKED)] * len(examples)

    @property
    def strangers(self) -> int:
        """Rows of the files that are no row of the task."""
        return sum({id(file): file.matching.strangers for file in self.files.values()}.values())


def import_answers(config: ImportConfig) -> ImportReport:
    """Make a teacher folder of what the user has already. It is there as a whole, or not at all.

    The same import again changes nothing. Raises DataError, naming file and row, for what cannot be used;
    RecipeMismatchError where something else is kept under that name.
    """
    started = time.monotonic()
    loaded = load_choice(config.task)
    splits = _choose_splits(config, loaded)
    name = check_name("teacher", config.name or _name_teacher(config))
    if config.out is not None:
        refuse_stored(config.out, "harvest import")
    target = (config.out or Path("data") / loaded.task.name) / f"teacher={name}"
    with stage(target) as work, ExitStack() as stack:
        imported = _open(config, loaded, splits, name, work, stack)
        if _is_kept(target, imported):
            rows = sum(loaded.splits[split] for split in splits)
            return _report(imported, target, Counter(), Counter(), started, kept=rows)
        counts, causes = _write(imported, work)
        publish(work / "rows" / target.name, target)
    write_card(target.parent)
    return _report(imported, target, counts, causes, started)


def _choose_splits(config: ImportConfig, loaded: LoadedTask) -> Sequence[str]:
    for split in config.splits or ():
        if split not in loaded.splits:
            raise UsageError(f"{loaded.task.name} has no split {split!r}; {suggest(split, loaded.splits)}")
    return config.splits or tuple(loaded.splits)


def _name_teacher(config: ImportConfig) -> str:
    source = next(iter(config.files.values()))
    return spell_name(name_stem(Path(source).with_suffix("") if config.vectors else Path(source)))


def _open(
    config: ImportConfig, loaded: LoadedTask, splits: Sequence[str], name: str, work: Path, stack: ExitStack
) -> _Import:
    cascade = None
    files: dict[str, OpenFile] = {}
    if config.folders:
        cascade = open_cascade(config.folders, loaded.task)
        stack.callback(cascade.close)
        recipe, kind = dict(cascade.describe()), cascade.vector_type
    else:
        files = open_files(config, loaded, splits, work)
        recipe = join_recipes(files.items(), len(config.files) == 1)
        kind = next(iter(files.values())).vector_type
        for one in {id(file): file for file in files.values()}.values():
            say(f"rows are matched by {one.matching.by}")
    manifest = describe_folder(loaded, name, {"teacher": IMPORTED, **recipe})
    manifest = replace(manifest, planned={split: loaded.splits[split] for split in splits})
    return _Import(loaded, splits, manifest, files, cascade, kind)


def _is_kept(target: Path, imported: _Import) -> bool:
    """Whether the same import is there already. Raises ShardError where something else is."""
    if not (target / MANIFEST_NAME).exists():
        if target.exists() and any(target.iterdir()):
            raise ShardError(f"{target} is there without a {MANIFEST_NAME}: look what it holds, or give another --name")
        return False
    kept = load_manifest(target)
    if kept.recipe.get("teacher") != IMPORTED:
        raise RecipeMismatchError(
            f"{target} holds answers that were harvested; nothing was changed. Give this import another --name"
        )
    check_recipe(target, kept, imported.manifest)
    changes = find_changes(imported.loaded, target, kept)
    if dict(kept.planned) != dict(imported.manifest.planned) or changes != Changes():
        why = f" ({said})" if (said := describe_changes(changes)) else ""
        raise ShardError(
            f"{target} was imported from the same file for other rows of {kept.task}{why}; nothing was changed. Import "
            "it under another --name, or remove that folder first"
        )
    return True


def _write(imported: _Import, work: Path) -> tuple[Counter[str], Counter[str]]:
    """Write all rows, sealed; count them by status, and those without a whole answer by why.

    Raises DataError where none has a whole answer.
    """
    statuses: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    keys = RequestKeys(imported.manifest.recipe)
    manifest, total = imported.manifest, sum(imported.manifest.planned.values())
    with (
        TeacherFolder.open(work / "rows", manifest, vector_type=imported.vector_type) as folder,
        track(f"importing {manifest.teacher}", total) as tracker,
    ):
        for split, examples, answers in imported.iterate_chunks():
            folder.append(
                split,
                [
                    Row(example, keys.key({"split": split, "sample_id": example.sample_id}), 0, answer)
                    for example, answer in zip(examples, answers, strict=True)
                ],
            )
            statuses.update(str(answer.status) for answer in answers)
            count_causes(causes, (f"{one.status}: {one.error}" for one in answers if one.error is not None))
            if folder.unsealed_bytes(split) >= SHARD_BYTES:
                folder.seal(split)
            tracker.advance(len(examples))
        folder.seal()
    if not statuses[Status.OK]:
        why = "; ".join(f"{rows:,} x {cause}" for cause, rows in causes.most_common(SHOWN_CAUSES))
        raise DataError(f"no row has a whole answer, so nothing was kept: {why or 'all are empty'}")
    return statuses, causes


def _report(
    imported: _Import, target: Path, statuses: Counter[str], causes: Counter[str], started: float, kept: int = 0
) -> ImportReport:
    agreement = None
    with suppress(LockedError):
        agreement = judge_folder(target)
    rows, missing = sum(imported.manifest.planned.values()), statuses[Status.UNASKED]
    return ImportReport(
        task=imported.manifest.task,
        teacher=imported.manifest.teacher,
        folder=str(target),
        source=imported.manifest.source,
        rows=rows,
        kept=kept,
        imported=0 if kept else rows - missing,
        missing=missing,
        strangers=imported.strangers,
        failed=sum(statuses.values()) - missing - statuses[Status.OK],
        statuses={status: count for status, count in statuses.items() if count},
        causes=dict(causes.most_common(SHOWN_CAUSES)),
        matched_by={split: file.matching.by for split, file in imported.files.items()},
        cost_usd=None,
        seconds=time.monotonic() - started,
        agreement=None if agreement is None else agreement.describe(),
    )


def describe_import(report: ImportReport) -> list[str]:
    """The report as lines for a person."""
    if report.kept:
        lines = [f"{report.kept:,} rows are kept from this import already: nothing was changed"]
    else:
        lines = [f"{report.imported:,} of {report.rows:,} rows imported"]
        lines[0] += f", {report.failed:,} of them without a whole answer" if report.failed else ""
    lines += [f"  {rows:,} x {cause}" for cause, rows in report.causes.items()]
    if report.missing:
        lines.append(f"{report.missing:,} rows of the task are in no file: they are kept unasked, and teach nothing")
    if report.strangers:
        lines.append(f"{report.strangers:,} rows of the files are no row of the task, and were left out")
    return lines
