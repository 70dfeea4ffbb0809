"""One snapshot file: writing it in chunks, reading it back with every check.

A file is the header, a SNAPSHOT record with the meta, numbered CHUNK records, and END. `record.py` draws the records.
`snapshots.py` knows which files there are and which of them counts.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from raft.core.types import SnapshotMeta
from raft.storage.errors import CorruptSnapshot
from raft.storage.files import File, Files, ReadableFile
from raft.storage.record import (
    FILE_HEADER_BYTES,
    RECORD_BYTES_MIN,
    SNAPSHOT_MAGIC,
    MalformedBody,
    Record,
    RecordType,
    SnapshotEnd,
    decode_chunk,
    decode_end,
    decode_file_header,
    decode_meta,
    encode_chunk,
    encode_end,
    encode_file_header,
    encode_meta,
    encode_record,
    read_record,
    record_length,
)

#: Records are gathered into writes of about this size, and read in pieces of it.
BLOCK_BYTES = 256 * 1024
#: A snapshot that is being written is synced after this many bytes, so that its last sync does not delay the log's.
SYNC_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot file holds, after all of it was checked."""

    path: Path
    meta: SnapshotMeta
    end: SnapshotEnd
    #: Size of the file, bytes.
    size: int

    @property
    def id(self) -> str:
        """Names exactly these bytes: index and term in the log, size of the file and checksum of the content."""
        return f"{self.meta.index:x}-{self.meta.term:x}-{self.size:x}-{self.end.checksum:08x}"


class SnapshotReader:
    """An open snapshot file, for sending it. It stays readable after the file was removed."""

    def __init__(self, file: File, info: SnapshotInfo) -> None:
        self._file = file
        self.id = info.id
        self.meta = info.meta
        #: Bytes of the file.
        self.size = info.size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; empty at the end."""
        return self._file.read(offset, size)

    def close(self) -> None:
        self._file.close()


def write_snapshot(file: File, meta: SnapshotMeta, chunks: Iterable[bytes]) -> None:
    """Write everything that a snapshot file holds; the caller syncs the end of it."""
    body = encode_meta(meta)
    writer = _Writer(file, meta, seed=crc32(body))
    writer.add(RecordType.SNAPSHOT, body)
    number = size = checksum = 0
    for chunk in chunks:
        writer.add(RecordType.CHUNK, encode_chunk(number, chunk))
        number, size, checksum = number + 1, size + len(chunk), crc32(chunk, checksum)
    writer.add(RecordType.END, encode_end(SnapshotEnd(number, size, checksum)))
    writer.flush()


class _Writer:
    """Gathers records into blocks, and syncs from time to time."""

    def __init__(self, file: File, meta: SnapshotMeta, *, seed: int) -> None:
        self._file = file
        self._seed = seed
        self._pending = [encode_file_header(SNAPSHOT_MAGIC, seed=seed, meta=meta)]
        #: Offsets in the file: where the pending records begin, where the next record goes, and what is synced.
        self._start, self._end, self._synced = 0, FILE_HEADER_BYTES, 0

    def add(self, type: RecordType, body: bytes) -> None:
        record = encode_record(type, body, offset=self._end, durable=0, seed=self._seed)
        self._pending.append(record)
        self._end += len(record)
        if self._end - self._start >= BLOCK_BYTES:
            self.flush()
        if self._start - self._synced >= SYNC_BYTES:
            self._file.sync()
            self._synced = self._start

    def flush(self) -> None:
        self._file.write(self._start, b"".join(self._pending))
        self._start, self._pending = self._end, []


def read_snapshot(file: ReadableFile, path: Path) -> Iterator[SnapshotMeta | bytes | SnapshotEnd]:
    """Read and check a snapshot file in order: its meta first, then each chunk, then its end.

    Raises:
        CorruptSnapshot: something does not read back as it was written.
        UnknownFormat: a newer version wrote it.
    """
    seed = decode_file_header(file.read(0, FILE_HEADER_BYTES), SNAPSHOT_MAGIC, str(path))
    if seed is None:
        raise CorruptSnapshot(str(path), 0, "not a snapshot file")
    number = size = checksum = 0
    meta = None
    at = 0
    try:
        for record in _read_records(file, path, seed):
            at = record.offset
            if meta is None:
                meta = decode_meta(_expect(record, RecordType.SNAPSHOT))
                yield meta
            elif record.type == RecordType.END:
                end = decode_end(record.body)
                if end != (number, size, checksum) or record.end != file.size():
                    raise MalformedBody("the end does not fit what comes before or after it")
                yield end
                return
            else:
                found, data = decode_chunk(_expect(record, RecordType.CHUNK))
                if found != number:
                    raise MalformedBody(f"chunk {found} where {number} should be")
                number, size, checksum = number + 1, size + len(data), crc32(data, checksum)
                yield data
    except MalformedBody as error:
        raise CorruptSnapshot(str(path), at, str(error)) from None


def inspect(files: Files, path: Path) -> SnapshotInfo:
    """Check a whole snapshot file and say what it holds.

    Raises:
        CorruptSnapshot: it is damaged.
        UnknownFormat: a newer version wrote it.
        OSError: it is not there, or cannot be read.
    """
    file = files.open_readonly(path)
    try:
        meta = end = None
        for part in read_snapshot(file, path):
            if isinstance(part, SnapshotMeta):
                meta = part
            elif isinstance(part, SnapshotEnd):
                end = part
        assert meta is not None and end is not None
        return SnapshotInfo(path, meta, end, file.size())
    finally:
        file.close()


def intact_bytes(file: File, path: Path) -> int:
    """Length of the prefix of a snapshot file whose records are intact; 0 if even the header is not."""
    seed = decode_file_header(file.read(0, FILE_HEADER_BYTES), SNAPSHOT_MAGIC, str(path))
    position = 0
    if seed is not None:
        with contextlib.suppress(CorruptSnapshot):
            for record in _read_records(file, path, seed):
                position = record.end
    return position


def _expect(record: Record, type: RecordType) -> bytes:
    """The body of a record that must be of this type."""
    if record.type != type:
        raise MalformedBody(f"a record of type {record.type} where a {type.name} should be")
    return record.body


def _read_records(file: ReadableFile, path: Path, seed: int) -> Iterator[Record]:
    """The records of a file, read in blocks. It ends only by an error: the caller decides what may come after the END
    record."""
    position, start, block = FILE_HEADER_BYTES, 0, b""
    size = file.size()
    while True:
        at = position - start
        if at + RECORD_BYTES_MIN > len(block):
            start, block, at = position, file.read(position, BLOCK_BYTES), 0
        length = record_length(block, at)
        if length > len(block) - at and position + length <= size:
            start, block, at = position, file.read(position, max(length, BLOCK_BYTES)), 0
        record = read_record(block, at, seed, base=start) if length else None
        if record is None:
            raise CorruptSnapshot(str(path), position, "a record is damaged or missing")
        yield record
        position = record.end
