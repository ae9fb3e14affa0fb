"""Power losses in small: what a disk may hold after one, at every change of a folder, by what was synced before.

POSIX promises for a file what its last fsync covered, and for a name what the last fsync of its folder covered; the
rest may be there or not, or be zeros of the right length (ext4 and XFS have been seen to leave each). A recorder notes
both while a harvest runs, and rebuilds what each of those disks holds.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHANGES = ("replace", "unlink", "fsync", "pwrite", "ftruncate", "mkdir")
NAMES = ("synced", "all")  # of the names, what survives
CONTENTS = ("synced", "zeros", "all")  # of the files' bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """What the disk of a moment holds: `all` that was written and what was `synced`; and the rows acknowledged then.

    Folders and files by their path below the root; of a file the bytes that were synced and all that were written.
    """

    folders: dict[str, frozenset[str]]
    files: dict[str, dict[str, tuple[bytes, bytes]]]
    acked: tuple[tuple[str, int, int], ...]

    def rebuild(self, root: Path, names: str, contents: str) -> None:
        """Write what is left of it below `root`."""
        for folder in sorted(self.folders[names]):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for path, (synced, written) in self.files[names].items():
            content = written if contents == "all" else synced
            if contents == "zeros":
                content += bytes(max(len(written) - len(synced), 0))
            if (root / path).parent.is_dir():
                (root / path).write_bytes(content)


@dataclass(slots=True)
class Recorder:
    """Notes the moments of a folder. `ack` is to be called with each acknowledged row."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    _synced: dict[int, bytes] = field(default_factory=dict)  # by inode
    _names: dict[str, dict[str, int | None]] = field(default_factory=dict)  # of synced folders; None is a folder
    _acked: list[tuple[str, int, int]] = field(default_factory=list)
    _held: dict[int, int] = field(default_factory=dict)  # descriptors that keep an inode's number from being used again

    def ack(self, split: str, number: int, version: int) -> None:
        """Note that a row was acknowledged."""
        self._acked.append((split, number, version))

    @contextmanager
    def record(self) -> Iterator[None]:
        """Note a moment before each change that the block makes, and one at its end."""
        originals = {name: getattr(os, name) for name in CHANGES}
        with ExitStack() as undo:
            for name, original in originals.items():
                setattr(os, name, _Change(self, name, original))
                undo.callback(setattr, os, name, original)
            yield
            self.note()
        for descriptor in self._held.values():
            os.close(descriptor)

    def note(self) -> None:
        """Note what the disk holds now."""
        files = {}
        folders = set()
        for path in self.root.rglob("*"):
            name = str(path.relative_to(self.root))
            if path.is_dir():
                folders.add(name)
                continue
            self._hold(path)
            files[name] = self._read(path.stat().st_ino)
        kept, kept_folders = self._list_synced()
        self.moments.append(
            Moment(
                {"all": frozenset(folders), "synced": frozenset(kept_folders)},
                {"all": files, "synced": kept},
                tuple(self._acked),
            )
        )

    def sync(self, descriptor: int) -> None:
        """Note that a file's bytes, or a folder's names, are durable."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.root):
            return
        if path.is_dir():
            entries: dict[str, int | None] = {}
            for child in path.iterdir():
                entries[child.name] = None if child.is_dir() else self._hold(child)
            self._names[str(path.relative_to(self.root))] = entries
        else:
            self._hold(path)
            self._synced[path.stat().st_ino] = path.read_bytes()

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_RDONLY)
        return inode

    def _read(self, inode: int) -> tuple[bytes, bytes]:
        """What was synced of a file, and what was written, whatever its name is now."""
        descriptor = self._held[inode]
        return self._synced.get(inode, b""), os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def _list_synced(self) -> tuple[dict[str, tuple[bytes, bytes]], set[str]]:
        files: dict[str, tuple[bytes, bytes]] = {}
        folders: set[str] = set()
        waiting = ["."]
        while waiting:
            folder = waiting.pop()
            for name, inode in self._names.get(folder, {}).items():
                path = os.path.normpath(os.path.join(folder, name))
                if inode is None:
                    folders.add(path)
                    waiting.append(path)
                else:
                    files[path] = self._read(inode)
        return files, folders


class _Change:
    """A call of `os` that notes the moment before it. A sync is noted and not waited for."""

    def __init__(self, recorder: Recorder, name: str, original: Callable[..., Any]) -> None:
        self._recorder, self._name, self._original = recorder, name, original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._recorder.note()
        if self._name == "fsync":
            return self._recorder.sync(args[0])
        return self._original(*args, **kwargs)
