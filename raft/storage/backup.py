"""A backup file: one group's state at one moment, in one file, for another day and another cluster.

    offset  content
    0       file header: magic "MUFAKBAK", version, seed; then one BACKUP record:
                u64 wall clock in milliseconds, then group, node, software version and cluster, each as u8 length and
                UTF-8; the cluster is missing in older files
    n       from the record's end on a whole snapshot file, header included, as `snapshot_file.py` has it

Records are those of `record.py`: each has a checksum that is bound to its offset. The END record of the snapshot
tells a whole file from one that was cut short. The rule: check all of a backup before you use any of it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from raft.core.types import SnapshotMeta
from raft.storage.errors import CorruptSnapshot
from raft.storage.files import File, Files, RealFiles
from raft.storage.record import (
    BACKUP_MAGIC,
    FILE_HEADER_BYTES,
    RECORD_BYTES_MIN,
    SNAPSHOT_MAGIC,
    RecordType,
    SnapshotEnd,
    decode_file_header,
    encode_chunk,
    encode_end,
    encode_file_header,
    encode_meta,
    encode_record,
    read_record,
)
from raft.storage.snapshot_file import read_snapshot

#: Texts of the head: those that every version wrote, and all.
_TEXTS_MIN, _TEXTS_MAX = 3, 4
#: A backup's first record is no longer than this: a wall clock and the texts.
_HEAD_BYTES_MAX = FILE_HEADER_BYTES + RECORD_BYTES_MIN + 8 + _TEXTS_MAX * 256
_TAKEN = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class BackupHead:
    """Where a backup comes from."""

    #: Wall clock when it was taken, milliseconds since 1970.
    taken_ms: int
    group: str
    #: The node that it was taken at.
    node: str
    #: Of the software.
    version: str
    #: The cluster of the node; empty if it knew none, and in older files.
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup file holds, after all of it was checked."""

    path: Path
    head: BackupHead
    meta: SnapshotMeta
    end: SnapshotEnd

    @property
    def checksum(self) -> int:
        """CRC-32 of the state and of its index and term in the log."""
        return crc32(encode_meta(self.meta), self.end.checksum)


class BackupEncoder:
    """Makes the bytes of a backup piece by piece: `begin`, each `chunk`, `end`, in this order."""

    def __init__(self, head: BackupHead, meta: SnapshotMeta) -> None:
        self._head = head
        self._place = meta
        self._meta = encode_meta(meta)
        self._seed = crc32(self._meta)
        #: Offset of the next record in the snapshot file.
        self._offset = FILE_HEADER_BYTES
        self._chunks = self._size = self._checksum = 0

    def begin(self) -> bytes:
        body = _encode_head(self._head)
        seed = crc32(body)
        head = encode_record(RecordType.BACKUP, body, offset=FILE_HEADER_BYTES, durable=0, seed=seed)
        file_header = encode_file_header(BACKUP_MAGIC, seed=seed, meta=self._place)
        start = encode_file_header(SNAPSHOT_MAGIC, seed=self._seed, meta=self._place)
        return b"".join((file_header, head, start, self._record(RecordType.SNAPSHOT, self._meta)))

    def chunk(self, data: bytes) -> bytes:
        record = self._record(RecordType.CHUNK, encode_chunk(self._chunks, data))
        self._chunks, self._size = self._chunks + 1, self._size + len(data)
        self._checksum = crc32(data, self._checksum)
        return record

    def end(self) -> bytes:
        return self._record(RecordType.END, encode_end(SnapshotEnd(self._chunks, self._size, self._checksum)))

    def _record(self, type: RecordType, body: bytes) -> bytes:
        record = encode_record(type, body, offset=self._offset, durable=0, seed=self._seed)
        self._offset += len(record)
        return record


def verify_backup(path: Path, *, files: Files | None = None) -> Backup:
    """Check a whole backup file and say what it holds.

    Raises:
        CorruptSnapshot: it is damaged, cut short, or no backup.
        UnknownFormat: a newer version wrote it.
        OSError: it cannot be read.
    """
    file = (files or RealFiles()).open_readonly(path)
    try:
        head, start = _read_head(file, path)
        meta = end = None
        for part in read_snapshot(_Shifted(file, start), path):
            if isinstance(part, SnapshotMeta):
                meta = part
            elif isinstance(part, SnapshotEnd):
                end = part
        assert meta is not None and end is not None
        return Backup(path, head, meta, end)
    finally:
        file.close()


def backup_chunks(path: Path, *, files: Files | None = None) -> Iterator[bytes]:
    """The chunks of the state, from a file that `verify_backup` found whole. Raises as that does."""
    file = (files or RealFiles()).open_readonly(path)
    try:
        _, start = _read_head(file, path)
        for part in read_snapshot(_Shifted(file, start), path):
            if isinstance(part, bytes):
                yield part
    finally:
        file.close()


def _read_head(file: File, path: Path) -> tuple[BackupHead, int]:
    """Where the backup comes from, and the offset at which the snapshot file in it begins."""
    raw = file.read(0, _HEAD_BYTES_MAX)
    seed = decode_file_header(raw, BACKUP_MAGIC, str(path))
    if seed is None:
        raise CorruptSnapshot(str(path), 0, "not a backup file")
    record = read_record(raw, FILE_HEADER_BYTES, seed)
    if record is None or record.type != RecordType.BACKUP:
        raise CorruptSnapshot(str(path), FILE_HEADER_BYTES, "the head of the backup is damaged")
    return _decode_head(record.body, path), record.end


def _encode_head(head: BackupHead) -> bytes:
    texts = [text.encode()[:255] for text in (head.group, head.node, head.version, head.cluster)]
    return _TAKEN.pack(head.taken_ms) + b"".join(bytes((len(text),)) + text for text in texts)


def _decode_head(body: bytes, path: Path) -> BackupHead:
    try:
        texts: list[str] = []
        position = _TAKEN.size
        while len(texts) < _TEXTS_MIN or (len(texts) < _TEXTS_MAX and position < len(body)):
            end = position + 1 + body[position]
            texts.append(body[position + 1 : end].decode())
            position = end
        return BackupHead(_TAKEN.unpack_from(body)[0], *texts)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise CorruptSnapshot(str(path), FILE_HEADER_BYTES, f"the head of the backup: {error}") from None


class _Shifted:
    """The file that begins at `start` inside another one; for reading."""

    def __init__(self, file: File, start: int) -> None:
        self._file = file
        self._start = start

    def read(self, offset: int, size: int) -> bytes:
        return self._file.read(self._start + offset, size)

    def size(self) -> int:
        return self._file.size() - self._start
