"""The files of each split of a user's folder, or of a data set of the hub."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from shared.errors import DataError, SourceError
from shared.hub_files import HubFolder, list_hub_files
from shared.sources import resolve_file
from shared.tasks.tables import is_table, name_stem

_SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "dev_seen"),
    "test": ("test", "test_seen"),
}
_ALL = "all"
_NO_ROWS = "dataset_infos.json"  # which the hub's own library wrote beside the rows
_SHOWN = 20
_CONVERTED = "@refs%2Fconvert%2Fparquet"


def find_splits(path: str) -> dict[str, str]:
    """The files of each split: `all` for a single file."""
    found = resolve_file(path)
    if isinstance(found, str):
        return {_ALL: path} if is_table(Path(path)) and "*" not in path else _find_hub_splits(list_hub_files(path))
    if not found.is_dir():
        return {_ALL: path}
    files = _list_tables(found)
    if not files and (found / "data").is_dir():  # as a data set of the hub lies there
        found = found / "data"
        files = _list_tables(found)
    splits = _group(str(found), files)
    if "train" not in splits:
        raise DataError(
            f"{found} has no train file; it has: {', '.join(files) or 'no readable file'}. "
            "Name the files train, validation and test, like train.csv"
        )
    return splits


def _list_tables(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file() and is_table(file))


def _group(folder: str, names: Sequence[str]) -> dict[str, str]:
    """The files of a folder by split: train.csv, or the hub's train-00000-of-00002.parquet."""
    splits: dict[str, str] = {}
    for split, known in _SPLIT_NAMES.items():
        mine = [Path(name) for name in names if _name_split(name) in known]
        kinds = {(_name_split(file.name), file.suffix) for file in mine}  # val-0 and dev-0 are two of one split
        if len(kinds) > 1 or (len(mine) > 1 and any("-" not in file.name for file in mine)):
            raise DataError(f"{folder} has more than one file for the {split} split: {', '.join(f.name for f in mine)}")
        if mine:
            first = mine[0].name
            splits[split] = f"{folder}/{first}" if len(mine) == 1 else f"{folder}/{_cover(first)}"
    return splits


def _name_split(name: str) -> str:
    return name_stem(Path(name)).partition("-")[0]


def _cover(name: str) -> str:
    return f"{name.partition('-')[0]}-*{Path(name).suffix}"


def _find_hub_splits(hub: HubFolder) -> dict[str, str]:
    """The splits of a folder of the hub, or of the files there that its pattern names.

    Files of a split lie in the folder itself, in `data`, or in a folder of the split's name. A pattern, or a folder of
    one file, without a train file is one split. Raises SourceError that says what there is.
    """
    tables = [name for name in hub.files if is_table(Path(name)) and PurePosixPath(name).name != _NO_ROWS]
    if "*" in hub.path:
        tables = [name for name in tables if fnmatchcase(name, hub.path)]
        folder = hub.path.rpartition("/")[0]
    else:
        folder = hub.path
    for place in (folder, f"{folder}/data".strip("/")):
        inside = _list_inside(tables, place)
        splits = _group(f"{hub.root}/{place}".rstrip("/"), inside) or _group_folders(hub.root, place, tables)
        if "train" in splits:
            return splits
    if "*" in hub.path and tables:
        return {_ALL: f"{hub.root}/{hub.path}"}
    inside = [name for name in tables if name.startswith(f"{folder}/".lstrip("/"))]
    if len(inside) == 1:
        return {_ALL: f"{hub.root}/{inside[0]}"}
    raise SourceError(_describe_missing(hub, inside))


def _list_inside(names: Iterable[str], folder: str) -> list[str]:
    """The names of the files that lie in the folder itself."""
    return [name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == folder]


def _group_folders(root: str, folder: str, names: Sequence[str]) -> dict[str, str]:
    """The splits whose files lie in folders of their names, as the hub converts them: default/train/0000.parquet."""
    splits = {}
    for split, known in _SPLIT_NAMES.items():
        places = {f"{folder}/{one}".strip("/"): one for one in known}
        mine = [place for place in places if _list_inside(names, place)]
        if len(mine) > 1:
            told = ", ".join(places[place] for place in mine)
            raise DataError(f"{root}/{folder}".rstrip("/") + f" has more than one folder for the {split} split: {told}")
        for place in mine:
            suffixes = {Path(name).suffix for name in _list_inside(names, place)}
            if len(suffixes) > 1:
                raise DataError(f"{root}/{place} has files of several kinds: {', '.join(sorted(suffixes))}; name one")
            splits[split] = f"{root}/{place}/*{suffixes.pop()}"
    return splits


def _describe_missing(hub: HubFolder, tables: Sequence[str]) -> str:
    """Why no split was found: sets of the repository to choose among, files to name, or nothing that can be read."""
    address = f"{hub.root}/{hub.path}".rstrip("/")
    sets = sorted({folder for name in tables if (folder := _find_set(name)) is not None})
    if sets:
        return f"{address} has several sets; name one, as {hub.root}/{sets[0]}. It has: {_show(sets)}"
    if tables:
        return f"{address} has no train file; name a file, as {hub.root}/{tables[0]}. It has: {_show(tables)}"
    if hub.files and not hub.path:
        return (
            f"{address} has no Parquet, JSON or CSV file. Where the hub converted it, this address says so: "
            f"{hub.root.partition('@')[0]}{_CONVERTED}"
        )
    return f"{address}: the data set has no such file or folder; it has: {_show(sorted(hub.files))}"


def _find_set(name: str) -> str | None:
    """The folder of the set whose train file `name` is; None of any other file."""
    folder, _, file = name.rpartition("/")
    if _name_split(file) == "train":
        return folder or None
    parent, _, split = folder.rpartition("/")
    return (parent or None) if split == "train" else None


def _show(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
