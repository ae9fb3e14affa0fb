"""The journal: an Arrow IPC stream of rows that are not sealed yet, one file a split and worker.

A journal is an append-only file: the schema message, then one record batch message a group of rows. There is
no end-of-stream marker, so a file that is re-opened goes on where its last whole message ends. Every message
carries the CRC-32 of its own bytes (a batch as IPC custom metadata, the schema as its own metadata; a schema that an
older version wrote has none): after a power loss a file may have its full length and zeros inside, which the framing
alone would take for rows. Any Arrow reader can read a journal as a plain stream.

Framing: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa

from shared.disk import check_own_path, check_readable_file, explain_disk_errors, fsync_path, make_folder
from shared.errors import CorruptShardError, DiskError, ShardError

_CONTINUATION = b"\xff\xff\xff\xff"
_PREFIX_BYTES = 8  # continuation marker and length of the metadata
_SEARCH_BYTES = 1 << 20
_ID_KEY = b"harvest_distill.journal"
_CHECKSUM_KEY = "checksum"
_CHECKSUM_MARK = b"crc32:"
_CHECKSUM_BLANK = b"crc32:00000000"


class JournalReader:
    """Reads one journal, batch by batch, past whatever a crash has left in it.

    `schema` is None where not even a whole schema message is there: a journal that never held a row. After
    the reader was iterated to its end, `end` is the offset past the last whole message, `torn` the bytes
    after it (never acknowledged), and `damaged` the bytes skipped before it (bit rot, or blocks that a power
    loss zeroed).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema: pa.Schema | None = None
        self.id = ""
        self.end = 0
        self.damaged = 0
        check_readable_file(path)
        self._file = pa.OSFile(str(path))
        self._size: int = self._file.size()
        message = self._read_message(0)
        if message is not None and message.type == "schema" and _is_as_written(message):
            try:
                self.schema = pa.ipc.read_schema(message)
                if (
                    not (self.schema.metadata or {})
                    .get(_CHECKSUM_KEY.encode(), _CHECKSUM_MARK)
                    .startswith(_CHECKSUM_MARK)
                ):
                    raise ValueError("what makes its checksum known is damaged")
                self.id = (self.schema.metadata or {}).get(_ID_KEY, b"").decode()
                self.end = self._file.tell()
            except (pa.ArrowException, OSError, ValueError):  # of an older version, whose schema has no checksum
                self.schema, self.id = None, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    @property
    def is_beginning(self) -> bool:
        """Whether the file is no more than the beginning of a first message: its writer was killed as it wrote it."""
        self._file.seek(0)
        prefix = self._file.read(_PREFIX_BYTES)
        if len(prefix) < _PREFIX_BYTES:
            return bool(_CONTINUATION.startswith(prefix[:4]))
        length = int.from_bytes(prefix[4:], "little", signed=True)
        return bool(prefix[:4] == _CONTINUATION and length > self._size - _PREFIX_BYTES and length < _SEARCH_BYTES)

    @property
    def torn(self) -> int:
        """Bytes after the last whole message."""
        return self._size - self.end

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The whole batches, in the order in which they were appended.

        Raises CorruptShardError if there are some, and no schema before them.
        """
        if self.schema is None and self._find_batch(0) is not None:
            raise CorruptShardError(
                f"{self.path} is damaged at its start, though it holds rows that may have been acknowledged. Nothing "
                f"was changed; restore it from a copy, or move it away (mv '{self.path}' '{name_aside(self.path)}') to "
                "have its rows asked again"
            )
        offset: int | None = self.end
        while self.schema is not None and offset is not None and offset < self._size:
            message = self._read_message(offset)
            if message is None or not _has_checksum(message):
                offset = self._find_batch(offset + 1)
                continue
            self.damaged += offset - self.end
            self.end = offset = self._file.tell()
            yield pa.ipc.read_record_batch(message, self.schema)

    def _read_message(self, offset: int) -> pa.ipc.Message | None:
        self._file.seek(offset)
        prefix = self._file.read(_PREFIX_BYTES)
        if len(prefix) < _PREFIX_BYTES or prefix[:4] != _CONTINUATION:
            return None
        # Looked at before Arrow sees it: a length out of garbage must not be allocated.
        if not 0 < int.from_bytes(prefix[4:], "little", signed=True) <= self._size - offset - _PREFIX_BYTES:
            return None
        self._file.seek(offset)
        try:
            return pa.ipc.read_message(self._file)
        except (pa.ArrowException, OSError, EOFError):
            return None

    def _find_batch(self, offset: int) -> int | None:
        """Where the next whole batch at or after `offset` begins. Messages begin at multiples of 8 bytes."""
        start: int
        for start in range(-(-offset // 8) * 8, self._size, _SEARCH_BYTES):
            self._file.seek(start)
            block: bytes = self._file.read(_SEARCH_BYTES)
            at = block.find(_CONTINUATION)
            while at != -1:
                if at % 8 == 0:
                    message = self._read_message(start + at)
                    if message is not None and _has_checksum(message):
                        return start + at
                at = block.find(_CONTINUATION, at + 1)
        return None


class Journal:
    """Appends batches to one journal file. Made by Journal.open; closed by its owner."""

    def __init__(self, path: Path, descriptor: int, schema: pa.Schema, identity: str, end: int) -> None:
        self.path = path
        self.id = identity
        self.dropped = 0  # bytes of a torn tail that opening removed
        self.damaged = 0  # bytes inside that cannot be read
        self._schema = schema
        self._descriptor = descriptor
        self._end = end
        self._synced = -1
        self._broken = False

    @classmethod
    def open(cls, path: Path, schema: pa.Schema) -> Self:
        """Open or create the journal `path` of rows of `schema`; a torn tail is cut off: see `dropped`.

        Raises ShardError if it holds rows of another schema, CorruptShardError if its start is damaged or it is a link.
        """
        check_own_path(path)
        make_folder(path.parent)
        end, dropped, damaged, identity = 0, 0, 0, ""
        if path.exists():
            with JournalReader(path) as reader:
                if reader.schema is not None:
                    check_schema(path, reader.schema, schema)
                    identity = reader.id
                for _ in reader:
                    pass
                end, dropped, damaged = reader.end, reader.torn, reader.damaged
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        identity = identity or f"{path.stem}-{uuid.uuid4().hex[:12]}"
        blank = {_ID_KEY: identity.encode(), _CHECKSUM_KEY.encode(): _CHECKSUM_BLANK}
        stamped = schema.with_metadata({**(schema.metadata or {}), **blank})
        journal = cls(path, descriptor, stamped, identity, end)
        journal.dropped, journal.damaged = dropped, damaged
        try:
            if dropped:
                os.ftruncate(descriptor, end)
            if not end:
                journal._write(_stamp(bytearray(stamped.serialize().to_pybytes())))
                journal.sync()
                fsync_path(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._end

    def append(self, batch: pa.RecordBatch) -> None:
        """Write one batch. It is not acknowledged before `sync` has returned.

        Raises DiskError if the disk refuses it; what was appended before stays whole.
        """
        self._write(_encode_batch(batch, self._schema))

    def sync(self) -> None:
        """Return when all that was appended survives a power loss. Raises DiskError if it may not."""
        self._check_usable()
        end = self._end
        if self._synced == end:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            # The kernel may have dropped the pages that it could not write: a second fsync would lie.
            self._broken = True
            raise DiskError(
                f"the disk did not confirm the last rows of {self.path} ({error}). What was acknowledged "
                "before is safe; check the disk, then run the same command again"
            ) from error
        self._synced = end

    def close(self) -> None:
        """Close the file. Does not sync."""
        os.close(self._descriptor)
        self._broken = True

    def _check_usable(self) -> None:
        if self._broken:
            raise DiskError(
                f"{self.path} cannot be written any more after an earlier error; run the same command again"
            )

    def _write(self, content: bytes) -> None:
        self._check_usable()
        written = 0
        with explain_disk_errors(self.path):
            try:
                while written < len(content):
                    written += os.pwrite(self._descriptor, content[written:], self._end + written)
            except OSError:
                self._broken = True
                os.ftruncate(self._descriptor, self._end)
                self._broken = False
                raise
        self._end += written


def check_schema(path: Path, found: pa.Schema, expected: pa.Schema) -> None:
    """Raise ShardError, naming the columns that differ, unless a file's schema is the expected one."""
    if found.equals(expected):
        return
    names = [
        name
        for name in dict.fromkeys((*expected.names, *found.names))
        if name not in found.names or name not in expected.names or not found.field(name).equals(expected.field(name))
    ]
    what = f"columns that differ: {', '.join(names)}" if names else "their order differs"
    raise ShardError(
        f"{path} holds rows of another layout ({what}). Nothing was changed; finish that run with the "
        "version and the recipe that began it, or give this run another folder with --name"
    )


def strip_id(schema: pa.Schema) -> pa.Schema:
    """The schema of a journal's rows, without the journal's own id and checksum."""
    own = (_ID_KEY, _CHECKSUM_KEY.encode())
    return schema.with_metadata({key: value for key, value in (schema.metadata or {}).items() if key not in own})


def name_aside(path: Path) -> Path:
    """Where a damaged journal is put: no command reads a file of that name."""
    return path.with_name(f"{path.name}.damaged")


def put_aside(path: Path) -> str | None:
    """Move a journal that cannot be begun to be read out of the way; say so, or None where there is no need.

    It holds no row that can be read: those that it may have held will be asked again, and the file stays. One that is
    only the beginning of a first message never held any, and is left to be overwritten. Raises CorruptShardError, and
    moves nothing, where whole rows stand behind the damage.
    """
    with JournalReader(path) as reader:
        if reader.schema is not None or not reader.size or reader.is_beginning:
            return None
        for _ in reader:
            pass
        size = reader.size
    target = name_aside(path)
    number = 1
    while target.exists():
        number += 1
        target = name_aside(path).with_name(f"{name_aside(path).name}-{number}")
    os.replace(path, target)
    fsync_path(path.parent)
    return (
        f"{path} is damaged from its start, {size} bytes without a whole row: it is {target.name} now, and not read; "
        "rows that it held will be asked again"
    )


def _encode_batch(batch: pa.RecordBatch, schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, schema)
    writer.write_batch(batch, custom_metadata={_CHECKSUM_KEY: _CHECKSUM_BLANK.decode()})
    length = sink.tell()  # taken before closing, which writes an end-of-stream marker
    writer.close()
    return _stamp(bytearray(memoryview(sink.getvalue())[schema.serialize().size : length]))


def _stamp(message: bytearray) -> bytes:
    """A message whose checksum is filled in."""
    checksum = zlib.crc32(memoryview(message)[_PREFIX_BYTES:])
    at = message.index(_CHECKSUM_BLANK)
    message[at : at + len(_CHECKSUM_BLANK)] = b"%s%08x" % (_CHECKSUM_MARK, checksum)
    return bytes(message)


def _is_as_written(message: pa.ipc.Message) -> bool:
    """Whether a schema message's bytes are those that were written; true of one without a checksum."""
    metadata = bytearray(message.metadata)
    at = metadata.find(_CHECKSUM_MARK)
    if at < 0:
        return True
    value = bytes(metadata[at + len(_CHECKSUM_MARK) : at + len(_CHECKSUM_BLANK)])
    metadata[at : at + len(_CHECKSUM_BLANK)] = _CHECKSUM_BLANK
    return value == b"%08x" % zlib.crc32(metadata)


def _has_checksum(message: pa.ipc.Message) -> bool:
    """Whether `message` is a record batch whose bytes are those that were written."""
    if message.type != "record batch":
        return False
    metadata = bytearray(message.metadata)
    at = metadata.find(_CHECKSUM_MARK)
    value = bytes(metadata[at + len(_CHECKSUM_MARK) : at + len(_CHECKSUM_BLANK)])
    metadata[at : at + len(_CHECKSUM_BLANK)] = _CHECKSUM_BLANK
    return at >= 0 and value == b"%08x" % zlib.crc32(message.body, zlib.crc32(metadata))
