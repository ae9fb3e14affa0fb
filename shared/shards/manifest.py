"""The manifest of a teacher folder: what its shards are, and to which recipe they hold the answers."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Any

from shared.disk import check_own_path, check_readable_file, replace_file
from shared.errors import CorruptShardError, RecipeMismatchError, SchemaVersionError, ShardError, UsageError
from shared.keys import TOKENIZER, canonical_json
from shared.options import show_names
from shared.remote_shards import fetch_shards
from shared.schema import SCHEMA_VERSION, sum_costs
from shared.stores.mirror import MANIFEST_NAME as MANIFEST_NAME
from shared.suggestions import suggest

REMOVED = "removed"  # the split of answers whose rows are in the file no longer: paid for, kept, and learnt by nobody
_OWNER_KEY = b"harvest_distill.shard"  # in the metadata of a shard's Parquet file
_MAX_DEPTH = 64  # of a manifest's JSON
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Shard:
    """One sealed Parquet file. `path` is relative to the teacher folder.

    `cost_usd` is that of its rows, None where the price of any of them is not known.
    """

    path: str
    split: str
    rows: int
    bytes: int
    sha256: str
    cost_usd: float | None

    @property
    def id(self) -> str:
        """The id of the journal whose rows it holds. It survives a rewrite; the number before it does not."""
        return shard_id(self.path)


@dataclass(frozen=True, slots=True)
class Superseded:
    """Rows that were answered again later and left the shards. Their cost stays in the books."""

    rows: int = 0
    cost_usd: float | None = 0.0

    def add(self, other: "Superseded") -> "Superseded":
        """Both together."""
        return Superseded(self.rows + other.rows, sum_costs((self.cost_usd, other.cost_usd)))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a teacher folder holds.

    `kind` is "classification", "multilabel" (several labels a row), "regression", "choice" or "generation";
    `target_range` (low, high) belongs to a regression. `answer_rule` names the rule of shared.answers by which a
    written reply is judged, `max_reply_tokens` caps its length, and a manifest that an older version wrote has neither.
    `recipe` is all that changes any answer, as JSON. `planned` is the number of rows a split is to have. `retired` are
    the ids of shards whose rows were all superseded, kept so that a leftover of theirs is known for what it
    is.
    """

    task: str
    teacher: str
    kind: str
    labels: tuple[str, ...]
    metric: str
    recipe: Mapping[str, Any]
    source: str
    target_range: tuple[float, float] | None = None
    answer_rule: str | None = None
    max_reply_tokens: int | None = None
    planned: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    superseded: Superseded = Superseded()
    retired: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in the order in which they were sealed."""
        return tuple(shard for shard in self.shards if shard.split == split)

    @property
    def cost_usd(self) -> float | None:
        """Dollars of all sealed rows, superseded ones included; None where the price of one of them is not known."""
        return sum_costs((*(shard.cost_usd for shard in self.shards), self.superseded.cost_usd))

    @property
    def answers(self) -> int:
        """How many rows were ever sealed, superseded ones included."""
        return sum(shard.rows for shard in self.shards) + self.superseded.rows

    def sealed_ids(self) -> frozenset[str]:
        """Ids of all journals that were ever sealed: one that is still on disk was about to be dropped."""
        return frozenset((*(shard.id for shard in self.shards), *self.retired))


def shard_id(path: str | Path) -> str:
    """The id in a shard's file name, `part-<number>-<id>.parquet`."""
    return Path(path).stem.split("-", 2)[-1]


def check_name(what: str, name: str) -> str:
    """Return `name` if it can stand in a folder's name. Raises UsageError naming `what` it is."""
    if not _FOLDER_NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r} cannot name a folder: use letters, digits and . _ + - only")
    return name


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return (json.dumps(asdict(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def hash_manifest(manifest: Manifest) -> str:
    """The sha256, in hexadecimal, of the manifest's canonical JSON, whatever the file's layout."""
    return sha256(canonical_json(asdict(manifest)).encode()).hexdigest()


def hash_recipe(manifest: Manifest) -> str:
    """The sha256, in hexadecimal, of the canonical JSON of all that changes an answer."""
    return sha256(canonical_json(manifest.recipe).encode()).hexdigest()


def stamp_owner(manifest: Manifest, split: str) -> dict[bytes, bytes]:
    """The metadata of a shard's Parquet file that says whose it is: the folder's task and teacher, recipe and split.

    Of the recipe without the tokenizer, which a folder may take over later.
    """
    recipe = {name: value for name, value in manifest.recipe.items() if name != TOKENIZER}
    owner = {
        "folder": f"{manifest.task}/teacher={manifest.teacher}",
        "recipe_sha256": sha256(canonical_json(recipe).encode()).hexdigest(),
        "split": split,
    }
    return {_OWNER_KEY: canonical_json(owner).encode()}


def find_foreign(metadata: Mapping[bytes, bytes] | None, manifest: Manifest, split: str) -> str | None:
    """What in a shard's metadata shows that it is another folder's; None of its own, and where it does not say."""
    stamp = (metadata or {}).get(_OWNER_KEY)
    if stamp is None:
        return None
    own = json.loads(stamp_owner(manifest, split)[_OWNER_KEY])
    try:
        said = json.loads(stamp)
        differing = [
            f"{name} {said.get(name)!r}, not {value!r}" for name, value in own.items() if said.get(name) != value
        ]
    except (ValueError, AttributeError, RecursionError):
        differing = ["what says whose it is cannot be read"]
    return "; ".join(differing) or None


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace `folder`'s manifest atomically and durably."""
    replace_file(folder / MANIFEST_NAME, encode_manifest(manifest))


def load_manifest(folder: Path) -> Manifest:
    """Read `folder`'s manifest. Its files may be links, as those of the Hugging Face hub's cache are.

    Raises ShardError if there is none, SchemaVersionError if a newer version wrote it, CorruptShardError if
    it is not a manifest.
    """
    path = folder / MANIFEST_NAME
    check_readable_file(path)
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        if _holds_rows(folder):
            raise CorruptShardError(
                f"{path} is missing, though the folder holds rows. Nothing was changed; put the manifest back"
            ) from None
        raise ShardError(f"{folder} holds no {MANIFEST_NAME}; fill it with: harvest run") from None
    manifest = decode_manifest(stored, path)
    for shard in manifest.shards:
        check_readable_file(folder / shard.path)
    return manifest


def decode_manifest(stored: bytes, path: Path | str) -> Manifest:
    """Read the bytes of a manifest, which lie at `path`: see load_manifest."""
    try:
        content = _decode(stored)
    except ValueError as error:
        raise CorruptShardError(
            f"{path} is not JSON ({error}). The shards beside it are untouched; restore it from a copy"
        ) from None
    try:
        version = int(content["schema_version"])
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{path} was written by a newer version of harvest-distill (schema {version}; this one "
                f"reads up to {SCHEMA_VERSION}): upgrade with pip install -U harvest-distill"
            )
        return _make_manifest(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptShardError(
            f"{path} is not a manifest ({_describe(error)}). The shards beside it are untouched; restore it from a copy"
        ) from None


def load_own_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder that is to be written: as load_manifest, and no file or folder of it is a link."""
    check_own_folder(folder)
    return load_manifest(folder)


def check_own_folder(folder: Path) -> None:
    """Raise CorruptShardError where a file or folder of `folder` is a link, whether or not it has a manifest.

    The journals of all workers are looked at, and the files beside them: whoever opens a folder may seal and remove
    another's journal, and a lock is written to.
    """
    patterns = ("split=*", "split=*/*.parquet", "journal/*", "journal/split=*/*")
    inside = (path for pattern in patterns for path in folder.glob(pattern))
    for path in (folder / MANIFEST_NAME, folder / "journal", *inside):
        check_own_path(path)


def _decode(content: bytes) -> Any:
    """Read JSON that a manifest can be. Raises ValueError for NaN, and for what is nested too deeply."""
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    layer = [value]
    for _ in range(_MAX_DEPTH):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return value
    raise ValueError("it is nested too deeply")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _make_manifest(content: Mapping[str, Any]) -> Manifest:
    """The manifest of decoded JSON, every field of its type, every path one of the folder's own.

    Raises KeyError, TypeError or ValueError (pydantic's own included) that says what is wrong.
    """
    if unknown := sorted(content.keys() - Manifest.__dataclass_fields__.keys()):
        raise ValueError(f"no manifest has a field {unknown[0]!r}")
    needed = {"task", "teacher", "target_range", "shards", "superseded", "retired"}
    if missing := sorted(needed - content.keys()):
        raise KeyError(missing[0])
    manifest: Manifest = _adapt().validate_python(content)
    try:
        check_name("teacher", manifest.teacher)
        for split in (*manifest.planned, *(shard.split for shard in manifest.shards)):
            check_name("split", split)
    except UsageError as error:
        raise ValueError(str(error)) from None
    for shard in manifest.shards:
        name = re.fullmatch(r"split=([^/]+)/part-[0-9]+-[A-Za-z0-9._+-]+\.parquet", shard.path)
        if name is None or name[1] != shard.split:
            raise ValueError(f"{shard.path!r} is no path of a shard of the split {shard.split} in this folder")
        if shard.rows < 0 or shard.bytes < 0 or re.fullmatch(r"[0-9a-f]{64}", shard.sha256) is None:
            raise ValueError(f"rows, bytes or sha256 of {shard.path} cannot be")
    paths = [shard.path for shard in manifest.shards]
    if len(set(paths)) < len(paths):
        raise ValueError("it names a shard twice")
    return manifest


@cache
def _adapt() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)


def _describe(error: Exception) -> str:
    """What is wrong, short: pydantic's errors have a list of it."""
    problems = getattr(error, "errors", None)
    if problems is None:
        return f"{type(error).__name__}: {error}"
    first = problems()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def check_recipe(folder: Path, kept: Manifest, wanted: Manifest) -> None:
    """Raise RecipeMismatchError, listing what differs, unless `kept` answers `wanted`'s questions.

    A tokenizer that only one of the two names is no difference.
    """
    before, now = (_flatten_identity(share_tokenizer(one, other)) for one, other in ((kept, wanted), (wanted, kept)))
    missing = object()
    differing = [key for key in sorted({*before, *now}) if before.get(key, missing) != now.get(key, missing)]
    if not differing:
        return
    advice = ""
    if "labels" in differing and kept.labels:  # older versions took them as they stood: 1.0, the numbers of classes
        advice = f". Labels that are read from a file are the folder's with --labels {quote(show_names(kept.labels))}"
    if any(key.startswith("recipe.pictures.") and key not in before for key in differing):
        advice += (
            ". Its rows were asked without their pictures, as older versions did: so they are with --no-pictures, and "
            "where the columns of texts and labels are named (--text-column, --label-column), for none are guessed then"
        )
    lines = "".join(f"\n  {key}: {_shorten(before, key)} in the folder, {_shorten(now, key)} now" for key in differing)
    raise RecipeMismatchError(
        f"{folder} holds the answers to another recipe:{lines}\nNothing was asked and nothing was changed. "
        f"Give this run its own folder with --name, or go back to the folder's recipe{advice}"
    )


def share_tokenizer(manifest: Manifest, other: Manifest) -> Manifest:
    """`manifest` with the tokenizer that the recipe of `other` names, where its own names none."""
    if TOKENIZER in manifest.recipe or TOKENIZER not in other.recipe:
        return manifest
    return replace(manifest, recipe={**manifest.recipe, TOKENIZER: other.recipe[TOKENIZER]})


def find_teachers(path: Path) -> list[Path]:
    """The teacher folders in data/<task>/, or that one teacher=<name>/; of an address, as fetch_shards has it.

    Raises ShardError if none is, and SourceError as fetch_shards does.
    """
    path = fetch_shards(path)
    if path.name.startswith("teacher=") or (path / MANIFEST_NAME).exists():
        found = [path] if path.is_dir() else []
    else:
        found = sorted(
            p for p in path.glob("teacher=*") if p.is_dir() and ((p / MANIFEST_NAME).exists() or _holds_rows(p))
        )
    if not found:
        raise ShardError(f"{path} holds no teacher's answers; make some with: harvest run, or check the path")
    return found


def choose_teacher(path: Path, teacher: str | None = None) -> Path:
    """The one teacher folder that `path` and `teacher` name. Raises ShardError if it is none or several."""
    found = find_teachers(path)
    if teacher is not None:
        found_names = [_teacher_of(p) for p in found]
        found = [p for p in found if _teacher_of(p) == teacher]
        if not found:
            raise ShardError(f"{path} holds no answers of teacher {teacher!r}; {suggest(teacher, found_names)}")
    if len(found) > 1:
        names = ", ".join(_teacher_of(p) for p in found)
        raise ShardError(
            f"{path} holds the answers of several teachers ({names}); name one of them, with --teacher or by its "
            f"folder: {found[0]}"
        )
    return found[0]


def _teacher_of(folder: Path) -> str:
    return folder.name.removeprefix("teacher=")


def _holds_rows(folder: Path) -> bool:
    return any(next(folder.glob(f), None) for f in ("split=*/*.parquet", "journal/split=*/*.arrows"))


def _flatten_identity(manifest: Manifest) -> dict[str, Any]:
    identity = {
        "task": manifest.task,
        "kind": manifest.kind,
        "labels": manifest.labels,
        "target_range": manifest.target_range,
        "recipe": manifest.recipe,
    }
    flat: dict[str, Any] = {}

    def visit(key: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                visit(f"{key}.{name}", item)
        else:
            flat[key] = value

    # Through JSON, because the folder's recipe came from there: a tuple is a list, a key is a string.
    for name, value in json.loads(canonical_json(identity)).items():
        visit(name, value)
    return flat


def _shorten(flat: Mapping[str, Any], key: str, width: int = 80) -> str:
    if key not in flat:
        return "absent"
    text = canonical_json(flat[key])
    return text if len(text) <= width else f"{text[: width - 3]}..."
