"""The part of a checkpoint that no process has as a whole: sharded tensors, as torch.distributed.checkpoint keeps them.

They lie in a folder, which any number of processes reads: each what it needs of any other's files.
"""

import shutil
from collections.abc import Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from distill.compute.processes import Processes
from distill.compute.sharding import is_sharded, make_part
from shared.disk import fsync_path

Sharded = dict[str, Tensor]  # by where they stand in the state


def take_out(state: Any, sharded: Sharded, place: str = "") -> Any:
    """Give a nested state with an empty tensor in place of each sharded one, of its shape; those go to `sharded`."""
    if isinstance(state, Mapping):
        return {name: take_out(each, sharded, f"{place}/{name}") for name, each in state.items()}
    if isinstance(state, Tensor) and is_sharded(state):
        sharded[place] = state
        return torch.empty(state.shape, dtype=state.dtype, device="meta")
    return state


def put_in(state: Any, sharded: Mapping[str, Tensor], place: str = "") -> Any:
    """Give a state that `take_out` gave with its tensors in their places again."""
    if isinstance(state, Mapping):
        return {name: put_in(each, sharded, f"{place}/{name}") for name, each in state.items()}
    return sharded.get(place, state) if isinstance(state, Tensor) else state


def write_shards(folder: Path, tensors: Sharded, processes: Processes) -> dict[str, str]:
    """Write sharded tensors to a new `folder`, each process its parts; give the digest of each file.

    All processes must call it together. Raises CheckpointException or OSError in all where it fails in one.
    """
    save(tensors, storage_writer=FileSystemWriter(folder), process_group=processes.talk)
    found: dict[str, str] = {}
    for part in processes.gather_objects(_read_digests(folder, processes)):
        if isinstance(part, OSError):
            raise part
        found |= part
    return found


def _read_digests(folder: Path, processes: Processes) -> dict[str, str] | OSError:
    """Read the digests of what this process has written; the first one makes the folder survive a power loss."""
    try:
        own = [path for path in sorted(folder.iterdir()) if path.name.startswith(f"__{processes.rank}_")]
        if processes.is_first:
            own.append(folder / ".metadata")
            for each in (folder, folder.parent, folder.parent.parent):
                fsync_path(each)
        return {path.name: _digest(path) for path in own}
    except OSError as error:
        return error


def find_damage(folder: Path, digests: Mapping[str, str], processes: Processes) -> str | None:
    """What shows that a folder is not what was written; None where it is. Processes look at files in turn, together."""
    found = None
    for name in sorted(digests)[processes.rank :: processes.count]:
        try:
            if _digest(folder / name) != digests[name]:
                found = f"is damaged: the bytes of {folder / name} are not those that were written"
        except OSError as error:
            found = f"lacks a part of it: {folder / name} cannot be read ({error.strerror})"
    return next((each for each in processes.gather_objects(found) if each is not None), None)


def read_shards(folder: Path, state: Any, processes: Processes) -> Any:
    """Read what `take_out` took of a state, of which each process gets its part, or the whole where none shares it."""
    places = dict(_list_empty(state))
    tensors: Sharded = {
        place: make_part(each.shape, each.dtype, processes.count)
        if processes.shards
        else torch.zeros(each.shape, dtype=each.dtype)
        for place, each in places.items()
    }
    alone = processes.count == 1
    load(tensors, storage_reader=FileSystemReader(folder), process_group=processes.talk, no_dist=alone)
    return put_in(state, tensors)


def clear_shards(folder: Path, kept: str | None) -> None:
    """Remove the folders of earlier checkpoints, and what a save that was broken off left, but for the one `kept`."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != kept:
            remove_shards(path)
    if kept is None:
        remove_shards(folder)


def remove_shards(folder: Path) -> None:
    """Remove the folder of a checkpoint that is not, or no longer, one."""
    shutil.rmtree(folder, ignore_errors=True)


def _list_empty(state: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Mapping):
        for name, each in state.items():
            yield from _list_empty(each, f"{place}/{name}")
    elif isinstance(state, Tensor) and state.is_meta:
        yield place, state


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
