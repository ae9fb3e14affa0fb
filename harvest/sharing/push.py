"""Pushing a harvest: its sealed shards, manifests and card become a data set of the Hugging Face hub."""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.filesize import decimal

from harvest.looking.card import make_card
from harvest.sharing.contents import (
    Raw,
    check_secrets,
    check_whole,
    count_lost,
    count_raw,
    drop_raw,
    has_same_questions,
    list_shard_columns,
    seal_folder,
)
from shared.console import say
from shared.errors import ShardError, UsageError
from shared.hub import Repository, check_repository_name, commit_files, download_file, find_changed, open_repository
from shared.markdown import hide_place
from shared.remote_shards import refuse_stored
from shared.shards import Manifest, find_teachers, load_manifest
from shared.shards.manifest import MANIFEST_NAME, encode_manifest

_MANIFEST = re.compile(r"(teacher=[^/]+)/manifest\.json")
_SHARD = re.compile(r"(teacher=[^/]+)/split=[^/]+/part-[^/]+\.parquet")
_OWN_FILES = ("README.md", ".gitattributes")


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push came to; the object that `--json` prints.

    `rows`, `shards` and `bytes` are those of the data set, `raw_rows` the rows that have their raw reply there. `sent`
    and `removed` count the files that this push changed: none where all was there already.
    """

    repository: str
    address: str
    private: bool
    commit: str
    teachers: tuple[str, ...]
    rows: int
    shards: int
    bytes: int
    columns: int
    raw_rows: int
    sent: int
    removed: int


def push_harvest(
    path: Path | str,
    repo: str,
    *,
    public: bool = False,
    raw: Raw | None = None,
    choose_raw: Callable[[str], Raw] | None = None,
) -> PushReport:
    """Push data/<task>/, or one teacher's folder in it, to the data set `repo` of the hub, made if it is not there.

    The data set is private unless `public`. `raw` keeps or drops the replies as they came; where there are any and it
    is None, `choose_raw` is asked with a question. What waits in journals is sealed first. All is one commit, so that
    nobody reads half of it; a push that was cut off goes on when it is called again, and what is there is not sent
    again.

    Raises UsageError where `raw` is open and nobody can be asked, where the data set holds something else, another
    recipe's answers or rows that this folder has not; what shared.hub raises; CorruptShardError where `harvest verify`
    would find a problem. Then nothing was sent.
    """
    refuse_stored(path, "harvest push")
    check_repository_name(repo)
    path = Path(path)
    folders = find_teachers(path)
    for folder in folders:
        seal_folder(folder)
    check_whole(path)
    manifests = {folder: _hide_source(load_manifest(folder)) for folder in folders}
    if not any(manifest.shards for manifest in manifests.values()):
        raise ShardError(f"{path} has no row yet; fill it with: harvest run")
    for folder, manifest in manifests.items():
        check_secrets(folder, manifest)
    raw_rows = sum(count_raw(folder, manifest) for folder, manifest in manifests.items())
    keeps = not raw_rows or (raw or _choose_raw(path, raw_rows, choose_raw)) == "keep"
    with tempfile.TemporaryDirectory() as scratch:
        if not keeps:
            manifests = {
                Path(scratch, name): drop_raw(folder, manifest, Path(scratch, name))
                for folder, manifest in manifests.items()
                for name in [f"teacher={manifest.teacher}"]
            }
        return _send(repo, manifests, public=public, raw_rows=raw_rows if keeps else 0)


def _choose_raw(path: Path, rows: int, choose: Callable[[str], Raw] | None) -> Raw:
    question = (
        f"{path} keeps {rows:,} replies as they came (the column raw): all that the teacher's server said, its ids and "
        "what it says of your account too"
    )
    if choose is None:
        raise UsageError(
            f"{question}. Say --raw keep to send them along, or --raw drop to leave them out; nothing was sent"
        )
    return choose(question)


def _hide_source(manifest: Manifest) -> Manifest:
    """The manifest without the folders of this machine where its texts came from."""
    return replace(manifest, source=hide_place(manifest.source))


def _send(repo: str, manifests: Mapping[Path, Manifest], *, public: bool, raw_rows: int) -> PushReport:
    """Push teacher folders whose manifests are these, once they are known to follow what is there."""
    files: dict[str, Path | bytes] = {
        f"teacher={manifest.teacher}/{shard.path}": folder / shard.path
        for folder, manifest in manifests.items()
        for shard in manifest.shards
    }
    own = {f"teacher={manifest.teacher}": manifest for manifest in manifests.values()}
    files |= {f"{name}/{MANIFEST_NAME}": encode_manifest(manifest) for name, manifest in own.items()}
    files["README.md"] = make_card(manifests).encode()
    repository = open_repository(repo, "dataset", public=public)
    _check_follows(repository, own)
    removed = [name for name in repository.files if _SHARD.fullmatch(name) and name not in files]
    changed = find_changed(repository, files)
    shards = [shard for manifest in manifests.values() for shard in manifest.shards]
    report = PushReport(
        repository.id,
        repository.address,
        repository.private,
        repository.commit,
        tuple(manifest.teacher for manifest in manifests.values()),
        rows=sum(shard.rows for shard in shards),
        shards=len(shards),
        bytes=sum(shard.bytes for shard in shards),
        columns=max(len(list_shard_columns(*one)) for one in manifests.items()),
        raw_rows=raw_rows,
        sent=len(changed),
        removed=len(removed),
    )
    say(describe_push(report))
    replaced = [name for name in changed if name in repository.files and name.endswith(".parquet")]
    if replaced and not raw_rows:
        say(
            f"older commits of {repository.id} keep what its {len(replaced)} replaced shards had, raw replies perhaps: "
            "only a repository that is deleted forgets it"
        )
    first = next(iter(manifests.values()))
    message = f"{first.task}: {report.rows:,} rows of {', '.join(report.teachers)}"
    return replace(report, commit=commit_files(repository, files, removed, message).commit)


def describe_push(report: PushReport) -> str:
    """Say what goes where: rows, bytes, columns, who can read it."""
    raw = f"raw replies of {report.raw_rows:,} rows among them" if report.raw_rows else "no raw reply"
    what = f"{report.sent} files to send" if report.sent or report.removed else "all of it is there already"
    return (
        f"{report.address}, {'private' if report.private else 'PUBLIC'}: {report.rows:,} rows of "
        f"{', '.join(report.teachers)} in {report.shards} shards of {report.columns} columns, "
        f"{decimal(report.bytes)}, {raw}; {what}"
    )


def _check_follows(repository: Repository, own: Mapping[str, Manifest]) -> None:
    """Raise UsageError where pushing `own` teacher folders would mix with, or take away, what the data set holds."""
    wanted = "Push to another repository; nothing was sent"
    strange = [
        name
        for name in repository.files
        if name not in _OWN_FILES and not _MANIFEST.fullmatch(name) and not _SHARD.fullmatch(name)
    ]
    if strange:
        raise UsageError(f"{repository.address} holds {strange[0]}, which is no file of a harvest. {wanted}")
    there = {match[1] for name in repository.files if (match := _MANIFEST.fullmatch(name))}
    if others := sorted(there - own.keys()):
        raise UsageError(
            f"{repository.address} holds {others[0]}, too, which is not pushed now, and its card would lose it. Push "
            "the task's whole folder, with that in it, or push to another repository; nothing was sent"
        )
    for name in sorted(there):
        kept = load_manifest(download_file(repository, f"{name}/{MANIFEST_NAME}").parent)
        manifest = own[name]
        if not has_same_questions(kept, manifest):
            raise UsageError(f"{repository.address} holds, in {name}, the answers to another recipe. {wanted}")
        if lost := count_lost(kept, manifest):
            raise UsageError(
                f"{repository.address} holds, in {name}, {lost:,} rows that were never in this folder: they would be "
                f"taken away. {wanted}"
            )
