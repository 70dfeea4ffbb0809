"""How one record looks on disk, in the log and in snapshot files. DESIGN.md tells the whole format.

    offset  size  field
    0       2     mark      "MR": never blank, so the first byte tells a record from zero-filled space
    2       1     type      a RecordType
    3       1     kind      of an entry (EntryKind), else 0
    4       4     length    of the whole record, mark to checksum
    8       4     durable   all bytes of this file before this offset were durable when the record was written
    12      n     body      by type, below
    12+n    4     checksum  CRC-32 of all before it, begun from the file's seed plus the record's offset, so that a
                            record of another file or another offset fails

    type          body
    SEGMENT       u64 sequence, u64 length of the segment before, u64 index and u64 term of the log's last entry
    HARD_STATE    u64 term, vote (UTF-8)
    ENTRY         u64 index, u64 term, u64 time_ms, data
    SNAPSHOT      u64 index, u64 term, u64 time_ms, configuration: u16 voters, u16 learners, then each id as u8
                  length and UTF-8; then, if any of the following is known, u16 addresses, u16 incarnations,
                  then of each the id and the value, both as u8 length and UTF-8; then, if the life or the lease
                  is known, the life as u8 length and UTF-8; then, if the group agreed on it, u32 lease_ms
    RESET         like SNAPSHOT; every entry before it is void
    SEAL          empty
    CHUNK         u64 number from 0, bytes of the snapshot
    END           u64 number of chunks, u64 bytes in them, u32 CRC-32 of all those bytes in a row
    BACKUP        where a backup comes from (backup.py)

Integers are little-endian and unsigned. Every file starts with 16 bytes of header, and records follow it:

    0       8     magic     "MUFAKWAL", "MUFAKSNP" or "MUFAKBAK"
    8       4     version   of the format: 2 if its SNAPSHOT record has a life or a lease, else 1
    12      4     seed      of the checksums in this file: in a log by chance, so that no data can forge a record;
                            in a snapshot the CRC-32 of its SNAPSHOT body, so that equal snapshots are equal files

`durable` tells a torn tail from damage. A batch is written in one go and synced before the next begins. So a record
whose `durable` is after a damaged place proves that the place was once intact: a power loss cannot have done that.
Without such a proof the place belongs to the last batch, and nobody was told that it is safe.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from raft.core.types import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from raft.storage.errors import UnknownFormat

Pairs = tuple[tuple[str, str], ...]


class RecordType(IntEnum):
    """The numbers are on disk: never reuse one."""

    SEGMENT = 1
    HARD_STATE = 2
    ENTRY = 3
    SNAPSHOT = 4
    RESET = 5
    SEAL = 6
    CHUNK = 7
    END = 8
    BACKUP = 9


class Record(NamedTuple):
    """A record as it was read."""

    offset: int
    #: Offset of the first byte after it.
    end: int
    type: int
    kind: int
    durable: int
    body: bytes


class MalformedBody(ValueError):
    """The checksum is right, but the body does not parse: no version of this code wrote it."""


MARK = b"MR"
LOG_MAGIC = b"MUFAKWAL"
SNAPSHOT_MAGIC = b"MUFAKSNP"
BACKUP_MAGIC = b"MUFAKBAK"
#: The newest version that this code writes. It reads this version and every earlier one.
FORMAT_VERSION = 2

_FILE_HEADER = struct.Struct("<8sII")
FILE_HEADER_BYTES = _FILE_HEADER.size
_HEADER = struct.Struct("<2sBBII")
_CHECKSUM = struct.Struct("<I")
_ENTRY = struct.Struct("<QQQ")
#: Header and fixed part of an entry's body, packed together: one call less for each entry.
_ENTRY_RECORD = struct.Struct(_HEADER.format + _ENTRY.format[1:])
_SEGMENT = struct.Struct("<QQQQ")
_TERM = struct.Struct("<Q")
_META = struct.Struct("<QQQHH")
_PAIRS = struct.Struct("<HH")
_LEASE = struct.Struct("<I")
_CHUNK = struct.Struct("<Q")
_END = struct.Struct("<QQI")

RECORD_BYTES_MIN = _HEADER.size + _CHECKSUM.size
_CHECKSUM_BYTES = _CHECKSUM.size
_ENTRY_RECORD_BYTES = _ENTRY_RECORD.size
_ENTRY_OVERHEAD = _ENTRY_RECORD_BYTES + _CHECKSUM_BYTES

_32_BITS = 0xFFFFFFFF
#: A record's length and every offset in a file must fit in 32 bits.
FILE_BYTES_MAX = _32_BITS
#: Longest node id, address, incarnation or life in a configuration, bytes.
TEXT_BYTES_MAX = 255

_KINDS = {int(kind): kind for kind in EntryKind}
_ENTRY_TYPE = int(RecordType.ENTRY)


def encode_file_header(magic: bytes, *, seed: int, meta: SnapshotMeta | None = None) -> bytes:
    """The header of a file that holds `meta` in its first records. If an earlier version can read the file, the
    header has that version."""
    later = meta is not None and meta.configuration.needs_later_version
    version = FORMAT_VERSION if later else 1
    return _FILE_HEADER.pack(magic, version, seed)


def decode_file_header(raw: bytes, magic: bytes, path: str) -> int | None:
    """The seed of the file, or None if this is no such file or its header is damaged.

    Raises:
        UnknownFormat: a newer version wrote it.
    """
    if len(raw) < FILE_HEADER_BYTES:
        return None
    seed: int
    found, version, seed = _FILE_HEADER.unpack_from(raw)
    if found != magic or version == 0:
        return None
    if version > FORMAT_VERSION:
        raise UnknownFormat(f"{path} has format {version}; this version reads up to {FORMAT_VERSION}")
    return seed


def encode_record(type: RecordType, body: bytes, *, offset: int, durable: int, seed: int) -> bytes:
    """One record of any type, for this offset in its file; entries have a faster way in `encode_entries`."""
    record = _HEADER.pack(MARK, type, 0, RECORD_BYTES_MIN + len(body), durable) + body
    return record + _CHECKSUM.pack(crc32(record, seed + offset & _32_BITS))


def encode_entries(
    entries: tuple[Entry, ...], *, offset: int, durable: int, seed: int, into: list[bytes]
) -> int:
    """Append the records of `entries`, which begin at this offset, to the byte strings `into`; returns the offset
    after them."""
    pack, pack_checksum, append = _ENTRY_RECORD.pack, _CHECKSUM.pack, into.append
    for entry in entries:
        data = entry.data
        length = _ENTRY_OVERHEAD + len(data)
        head = pack(MARK, _ENTRY_TYPE, entry.kind, length, durable, entry.index, entry.term, entry.time_ms)
        append(head)
        append(data)
        append(pack_checksum(crc32(data, crc32(head, seed + offset & _32_BITS))))
        offset += length
    return offset


def read_record(raw: bytes, at: int, seed: int, *, base: int = 0) -> Record | None:
    """The record at `raw[at]`, or None if there is no intact one. `raw` begins at offset `base` of the file; the
    record's offsets are those in the file."""
    if at + RECORD_BYTES_MIN > len(raw):
        return None
    mark, type, kind, length, durable = _HEADER.unpack_from(raw, at)
    end = at + length
    if mark != MARK or length < RECORD_BYTES_MIN or end > len(raw):
        return None
    checksum_at = end - _CHECKSUM.size
    covered = raw[at:checksum_at]
    offset = base + at
    if crc32(covered, seed + offset & _32_BITS) != _CHECKSUM.unpack_from(raw, checksum_at)[0]:
        return None
    return Record(offset, offset + length, type, kind, durable, covered[_HEADER.size :])


def record_length(raw: bytes, offset: int) -> int:
    """The length that the record at `offset` says, mark to checksum; 0 if there is no header of a record."""
    if offset + RECORD_BYTES_MIN > len(raw):
        return 0
    mark, _, _, length, _ = _HEADER.unpack_from(raw, offset)
    return length if mark == MARK and length >= RECORD_BYTES_MIN else 0


def read_records(raw: bytes, offset: int, seed: int) -> Iterator[Record]:
    """The intact records from `offset` on, up to the first place that holds none."""
    while (record := read_record(raw, offset, seed)) is not None:
        yield record
        offset = record.end


class EntryRun(NamedTuple):
    """Entries whose records follow one another in a file."""

    entries: list[Entry]
    #: Offset of the first byte after the last record.
    end: int
    #: What the last record says is durable.
    durable: int


def read_entries(raw: bytes, offset: int, seed: int, *, durable: int, first_index: int) -> EntryRun:
    """The intact entry records from `offset` on that continue the log from `first_index`. The result is that of
    `read_record` and `decode_entry`, in a third of the time, because a log is nearly all entries. It ends at the
    first record that is anything else, damaged or out of place; `read_record` then finds out what it is."""
    unpack, unpack_checksum, kinds, mark = _ENTRY_RECORD.unpack_from, _CHECKSUM.unpack_from, _KINDS, MARK
    entries: list[Entry] = []
    append, size, index = entries.append, len(raw), first_index
    while offset + _ENTRY_OVERHEAD <= size:
        found, type, kind, length, stated, place, term, time_ms = unpack(raw, offset)
        end = offset + length
        if found != mark or type != _ENTRY_TYPE or place != index or not durable <= stated <= offset:
            break
        if length < _ENTRY_OVERHEAD or end > size or kind not in kinds:
            break
        checksum_at = end - _CHECKSUM_BYTES
        if crc32(raw[offset:checksum_at], seed + offset & _32_BITS) != unpack_checksum(raw, checksum_at)[0]:
            break
        append(Entry(place, term, time_ms, kinds[kind], raw[offset + _ENTRY_RECORD_BYTES : checksum_at]))
        offset, durable, index = end, stated, index + 1
    return EntryRun(entries, offset, durable)


def decode_entry(record: Record) -> Entry:
    body = record.body
    try:
        index, term, time_ms = _ENTRY.unpack_from(body)
        return Entry(index, term, time_ms, _KINDS[record.kind], body[_ENTRY.size :])
    except (struct.error, KeyError) as error:
        raise MalformedBody(f"entry: {error}") from None


def encode_hard_state(hard_state: HardState) -> bytes:
    return _TERM.pack(hard_state.term) + hard_state.vote.encode()


def decode_hard_state(body: bytes) -> HardState:
    try:
        return HardState(_TERM.unpack_from(body)[0], body[_TERM.size :].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedBody(f"hard state: {error}") from None


def encode_meta(meta: SnapshotMeta) -> bytes:
    """A snapshot's index, term and time, and the configuration there, for SNAPSHOT and RESET."""
    configuration = meta.configuration
    voters, learners = configuration.voters, configuration.learners
    parts = [_META.pack(meta.index, meta.term, meta.time_ms, len(voters), len(learners))]
    parts += map(_encode_text, (*voters, *learners))
    addresses, incarnations = configuration.addresses, configuration.incarnations
    later = configuration.needs_later_version
    if addresses or incarnations or later:
        parts.append(_PAIRS.pack(len(addresses), len(incarnations)))
        parts += (_encode_text(text) for pair in (*addresses, *incarnations) for text in pair)
    if later:
        parts.append(_encode_text(configuration.life))
    if configuration.lease_ms:
        parts.append(_LEASE.pack(configuration.lease_ms))
    return b"".join(parts)


def _encode_text(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) <= TEXT_BYTES_MAX, f"{len(encoded)} bytes of id, address, incarnation or life"
    return bytes((len(encoded),)) + encoded


def decode_meta(body: bytes) -> SnapshotMeta:
    try:
        index, term, time_ms, voters, learners = _META.unpack_from(body)
        ids, position = _decode_texts(body, _META.size, voters + learners)
        addresses: Pairs = ()
        incarnations: Pairs = ()
        life = ""
        lease_ms = 0
        if position < len(body):
            counts = _PAIRS.unpack_from(body, position)
            texts, position = _decode_texts(body, position + _PAIRS.size, 2 * sum(counts))
            pairs = tuple(zip(texts[::2], texts[1::2], strict=True))
            addresses, incarnations = pairs[: counts[0]], pairs[counts[0] :]
        if position < len(body):
            [life], position = _decode_texts(body, position, 1)
        if position < len(body):
            (lease_ms,) = _LEASE.unpack_from(body, position)
            position += _LEASE.size
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise MalformedBody(f"snapshot: {error}") from None
    if position != len(body):
        raise MalformedBody("snapshot: bytes left over")
    configuration = Configuration(tuple(ids[:voters]), tuple(ids[voters:]), addresses, incarnations, life, lease_ms)
    return SnapshotMeta(index, term, time_ms, configuration)


def _decode_texts(body: bytes, position: int, count: int) -> tuple[list[str], int]:
    """`count` texts from `position` on, and the position after them."""
    texts: list[str] = []
    for _ in range(count):
        start = position + 1
        position = start + body[position]
        if position > len(body):
            raise MalformedBody("snapshot: a text runs past the end")
        texts.append(body[start:position].decode())
    return texts, position


class SegmentStart(NamedTuple):
    """What the first record of a segment says of the log before it."""

    sequence: int
    #: Bytes of the segment before; 0 for the first ever. It must still be that long and intact.
    previous_bytes: int
    #: The log's last entry when this segment began; 0 if there was none.
    last_index: int
    last_term: int


def encode_segment_start(start: SegmentStart) -> bytes:
    return _SEGMENT.pack(*start)


def decode_segment_start(body: bytes) -> SegmentStart:
    try:
        return SegmentStart(*_SEGMENT.unpack(body))
    except struct.error as error:
        raise MalformedBody(f"segment start: {error}") from None


def encode_chunk(number: int, data: bytes) -> bytes:
    return _CHUNK.pack(number) + data


def decode_chunk(body: bytes) -> tuple[int, bytes]:
    try:
        return _CHUNK.unpack_from(body)[0], body[_CHUNK.size :]
    except struct.error as error:
        raise MalformedBody(f"chunk: {error}") from None


class SnapshotEnd(NamedTuple):
    """The last record of a snapshot file."""

    chunks: int
    size: int
    checksum: int


def encode_end(end: SnapshotEnd) -> bytes:
    return _END.pack(*end)


def decode_end(body: bytes) -> SnapshotEnd:
    try:
        return SnapshotEnd(*_END.unpack(body))
    except struct.error as error:
        raise MalformedBody(f"end: {error}") from None
