"""Reading the log back: what it says, and whether a broken end may be cut or must be refused.

Everything here only reads; `Wal.open` acts on what is found and `dump` prints it. The rule, from the checklist of
what other systems lost: a power loss can only harm the last batch, and nobody was told that it is safe. Anything else
that does not read back is damage: raise `CorruptLog` for it, never cut it.
"""

import errno
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raft.core.types import Entry, HardState, Index, SnapshotMeta, Term
from raft.storage.errors import CorruptLog
from raft.storage.files import Files
from raft.storage.record import (
    FILE_HEADER_BYTES,
    LOG_MAGIC,
    MARK,
    MalformedBody,
    Record,
    RecordType,
    SegmentStart,
    decode_entry,
    decode_file_header,
    decode_hard_state,
    decode_meta,
    decode_segment_start,
    read_entries,
    read_record,
    record_length,
)

SEGMENT_SUFFIX = ".wal"
_SEQUENCE_DIGITS = 16

#: The smallest piece that a disk writes as a whole; a power loss keeps or loses at least this much at a time.
SECTOR_BYTES = 512
#: How often the search for intact records after damage may read the rest of a file. Bytes that imitate records could
#: otherwise cost time without bound. Beyond this bound the answer is the safe one: refuse.
SEARCH_PASSES_MAX = 16

_ENTRY = int(RecordType.ENTRY)


def segment_name(sequence: int) -> str:
    return f"{sequence:0{_SEQUENCE_DIGITS}d}{SEGMENT_SUFFIX}"


def segment_sequences(names: Iterable[str]) -> list[int]:
    """The sequence numbers of the segments among these names, rising."""
    stems = [name.removesuffix(SEGMENT_SUFFIX) for name in names if name.endswith(SEGMENT_SUFFIX)]
    return sorted(int(stem) for stem in stems if len(stem) == _SEQUENCE_DIGITS and stem.isdigit())


@dataclass(slots=True)
class Segment:
    """One file of the log."""

    sequence: int
    path: Path
    #: Bytes up to the end of its last record.
    size: int
    #: Highest index among its entries that no later record replaced; 0 for none. The segment may be dropped once a
    #: snapshot covers this index.
    index_max: Index = 0


@dataclass(slots=True)
class LogContents:
    """What all records together say."""

    hard_state: HardState = field(default_factory=HardState)
    #: Meta of the newest snapshot that the log names; its file is the other half of the state.
    snapshot: SnapshotMeta | None = None
    #: Index before the first of `entries`.
    base_index: Index = 0
    #: Term of the entry at `base_index`; 0 if it is not known.
    base_term: Term = 0
    #: Contiguous, from `base_index + 1`; may begin before the snapshot's index.
    entries: list[Entry] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    #: Of the checksums in the last segment.
    seed: int = 0
    #: The last batch: where it starts in the last segment, and its bytes. We could read them, but after a failed
    #: fsync that does not mean that they are on the disk.
    tail_offset: int = 0
    tail: bytes = b""
    #: Bytes after the last intact record that are not blank: a torn write.
    cut_bytes: int = 0
    #: Bytes of entry records since the newest snapshot.
    entry_bytes: int = 0

    @property
    def last_index(self) -> Index:
        return self.base_index + len(self.entries)

    @property
    def last_term(self) -> Term:
        return self.entries[-1].term if self.entries else self.base_term

    def apply(self, record: Record) -> None:
        """Take in one record. Raises `MalformedBody` if it cannot follow what came before."""
        if record.type == _ENTRY:
            entry = decode_entry(record)
            if entry.index != self.base_index + len(self.entries) + 1:
                self._replace_from(entry.index)
            self.entries.append(entry)
            self.segments[-1].index_max = entry.index
            self.entry_bytes += record.end - record.offset
        elif record.type == RecordType.HARD_STATE:
            self.hard_state = decode_hard_state(record.body)
        elif record.type == RecordType.SNAPSHOT:
            meta = decode_meta(record.body)
            if meta.index > self.last_index:
                raise MalformedBody(f"a snapshot at {meta.index} behind a log that ends at {self.last_index}")
            if meta != self.snapshot:
                self.entry_bytes = 0
            self.snapshot = meta
        elif record.type == RecordType.RESET:
            self.snapshot = decode_meta(record.body)
            self._forget(self.snapshot)
        elif record.type != RecordType.SEAL:
            raise MalformedBody(f"a record of type {record.type} has no place here")

    def extend(self, entries: list[Entry], size: int) -> None:
        """Take in entries that continue the log, of `size` bytes of records."""
        if entries:
            self.entries += entries
            self.segments[-1].index_max = entries[-1].index
            self.entry_bytes += size

    def start_segment(self, start: SegmentStart, path: Path) -> None:
        """Begin a segment. Raises `MalformedBody` if it does not continue the one before."""
        if not self.segments:
            self.base_index, self.base_term = start.last_index, start.last_term
        elif (start.last_index, start.last_term) != (self.last_index, self.last_term):
            raise MalformedBody(f"continues a log that ended at {start.last_index}, not at {self.last_index}")
        self.segments.append(Segment(start.sequence, path, 0))

    def _replace_from(self, index: Index) -> None:
        """A later record has an entry with this index: the old entry and all after it are void (paper 5.3)."""
        if index > self.last_index + 1 or index < 1:
            raise MalformedBody(f"entry {index} follows entry {self.last_index}")
        if index <= self.base_index:
            self.base_index, self.base_term = index - 1, 0
        del self.entries[index - self.base_index - 1 :]
        clamp_index_max(self.segments, index - 1)

    def _forget(self, snapshot: SnapshotMeta) -> None:
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self.entries = []
        self.entry_bytes = 0
        clamp_index_max(self.segments, 0)


def clamp_index_max(segments: Iterable[Segment], index: Index) -> None:
    """Entries after `index` were replaced: they are no reason to keep a segment."""
    for segment in segments:
        segment.index_max = min(segment.index_max, index)


def read_log(files: Files, directory: Path) -> LogContents:
    """Read every segment of a directory in order. With no segment at all, the contents are empty.

    Raises:
        CorruptLog: something is damaged or missing, and a power loss cannot be the reason.
        UnknownFormat: a newer version wrote a segment.
    """
    contents = LogContents()
    sequences = segment_sequences(files.names(directory))
    with _collector_paused():
        for number, sequence in enumerate(sequences):
            path = directory / segment_name(sequence)
            expected = sequences[0] + number
            if sequence != expected:
                raise CorruptLog(str(directory / segment_name(expected)), 0, "the segment is missing")
            raw = read_whole(files, path)
            _read_segment(contents, raw, path, sequence, last=number == len(sequences) - 1)
    _check_covered(contents, directory)
    return contents


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hundreds of thousands of entries are made and all of them stay. The garbage collector would look through them
    again and again, which takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_whole(files: Files, path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        CorruptLog: the disk cannot read it.
        OSError: it cannot be opened; the error names it.
    """
    try:
        file = files.open_readonly(path)
        try:
            return file.read(0, file.size())
        finally:
            file.close()
    except OSError as error:
        if error.errno != errno.EIO:
            error.filename = error.filename or str(path)
            raise
        raise CorruptLog(str(path), 0, f"cannot be read: {error}") from error


def _read_segment(contents: LogContents, raw: bytes, path: Path, sequence: int, *, last: bool) -> None:
    seed = decode_file_header(raw, LOG_MAGIC, str(path))
    first = read_record(raw, FILE_HEADER_BYTES, seed) if seed is not None else None
    if seed is None or first is None or first.type != RecordType.SEGMENT:
        # A segment gets its name only after its start is durable: no power loss leaves this.
        raise CorruptLog(str(path), 0, "the start of the segment is unreadable")
    position, durable, at = first.end, 0, first
    try:
        start = decode_segment_start(first.body)
        if start.sequence != sequence:
            raise MalformedBody(f"says that it is segment {start.sequence}")
        _check_whole(contents, start)
        contents.start_segment(start, path)
        while True:
            run = read_entries(raw, position, seed, durable=durable, first_index=contents.last_index + 1)
            contents.extend(run.entries, run.end - position)
            position, durable = run.end, run.durable
            record = read_record(raw, position, seed)
            if record is None:
                break
            at = record
            if not durable <= at.durable <= at.offset:
                raise MalformedBody(f"durable offset {at.durable} after {durable}")
            contents.apply(at)
            position, durable = at.end, at.durable
    except MalformedBody as error:
        raise CorruptLog(str(path), at.offset, str(error)) from None
    contents.segments[-1].size, contents.seed = position, seed
    if last:
        blank_from = len(raw.rstrip(b"\0"))
        if blank_from > position:
            check_torn(raw, position, seed, str(path))
            contents.cut_bytes = blank_from - position
        contents.tail_offset, contents.tail = durable, raw[durable:position]


def _check_whole(contents: LogContents, start: SegmentStart) -> None:
    """The segment before must read back up to the end that this one names: only the last segment may be torn."""
    if contents.segments and contents.segments[-1].size != start.previous_bytes:
        previous = contents.segments[-1]
        raise CorruptLog(
            str(previous.path),
            previous.size,
            f"a record is damaged; {start.previous_bytes} bytes were intact",
        )


def _check_covered(contents: LogContents, directory: Path) -> None:
    """The entries must begin right after the snapshot, or earlier."""
    covered = contents.snapshot.index if contents.snapshot is not None else 0
    if contents.base_index > covered:
        first = contents.segments[0].path if contents.segments else directory
        raise CorruptLog(
            str(first), 0, f"entries {covered + 1} to {contents.base_index} are missing before this segment"
        )


def check_torn(raw: bytes, damaged: int, seed: int, path: str) -> None:
    """Decide about the first place of the last segment that does not read back. If this returns, a power loss
    explains it: the batch there was never durable as a whole, and may be cut.

    The intact records after it may prove the contrary in two ways. A record that says that this place was durable is
    a proof. A record of the same batch means that a disk kept the later part but not this one. Then a sector must be
    missing as a whole, because a disk does not lose single bits of a sector that it wrote; if none is missing, that
    is a proof.

    Raises:
        CorruptLog: the place was once intact.
    """
    damage = "a record is damaged, and intact ones follow"
    position, budget = damaged, len(raw) * SEARCH_PASSES_MAX
    seen_of_batch = False
    while (found := raw.find(MARK, position)) >= 0:
        record = read_record(raw, found, seed)
        if record is None:
            claimed = record_length(raw, found)
            budget -= claimed if found + claimed <= len(raw) else 0
            if budget < 0:
                raise CorruptLog(path, damaged, "what follows the last intact record cannot be told apart")
            position = found + 1
            continue
        if record.durable > damaged:
            raise CorruptLog(path, damaged, damage)
        if not seen_of_batch and not _lost_sector(raw, damaged, record.offset):
            raise CorruptLog(path, damaged, damage)
        seen_of_batch = True
        position = record.end


def _lost_sector(raw: bytes, start: int, end: int) -> bool:
    """Whether some sector between `start`, where a record should begin, and `end` is blank; of the first sector, only
    the part from `start` on counts. Such a sector was never written, or was last written before that record."""
    return any(
        not raw[max(sector, start) : sector + SECTOR_BYTES].strip(b"\0")
        for sector in range(start - start % SECTOR_BYTES, end, SECTOR_BYTES)
    )
