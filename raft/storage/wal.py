"""The write-ahead log: hard state, entries and snapshot markers in one ordered series of segment files.

Rules of the file:

- One batch is one write and one sync. The next batch is not written before that sync returned.
- An error of a write or a sync spoils the log object: nothing is written after it, ever.
- A segment gets its name only after its first records are durable, and begins with all that the log needs from
  the segments before it, so that whole old segments can be dropped.

The format is drawn in `record.py`; what recovery cuts and what it refuses is in `recovery.py`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raft.core.ready import Persist
from raft.core.types import HardState, Index, SnapshotMeta, Term
from raft.storage.errors import DiskFull
from raft.storage.files import DISK_FULL_ERRNOS, File, Files
from raft.storage.record import (
    FILE_BYTES_MAX,
    LOG_MAGIC,
    RecordType,
    SegmentStart,
    encode_entries,
    encode_file_header,
    encode_hard_state,
    encode_meta,
    encode_record,
    encode_segment_start,
)
from raft.storage.recovery import LogContents, Segment, clamp_index_max, segment_name

#: Space is reserved in pieces of this size ahead of the writing position: a sync inside it writes no metadata.
PREALLOCATE_BYTES = 4 * 1024 * 1024
#: Ends the name of a file that is not complete; recovery removes it.
TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True, slots=True)
class WalStatistics:
    """Sizes of the log on disk."""

    segments: int
    #: Bytes of records in all segments.
    log_bytes: int
    #: Bytes written since the newest snapshot marker: roughly what another snapshot would make superfluous.
    entry_bytes: int


class Wal:
    """The log of one data directory. Not thread-safe: one thread at a time calls it."""

    def __init__(self, files: Files, directory: Path, segment_bytes: int) -> None:
        """Use `Wal.open`."""
        assert 4096 <= segment_bytes <= FILE_BYTES_MAX // 2, f"segments of {segment_bytes} bytes"
        self._files = files
        self._directory = directory
        self._segment_bytes = segment_bytes
        #: Oldest first; the last one is being written.
        self._segments: list[Segment] = []
        self._file: File | None = None
        #: Of the checksums in the last segment.
        self._seed = 0
        #: Size of the last segment's file; from `_end` on it reads as zeroes.
        self._allocated = 0
        #: Where the next record goes in the last segment.
        self._end = 0
        #: Everything in the last segment before this offset is known to be durable.
        self._durable = 0
        #: Bytes of the last segment that every new one begins with; it is not worth rotating before there is more.
        self._start_bytes = 0
        self._sealed = True
        self._failed = False
        self._entry_bytes = 0
        self._hard_state = HardState()
        self._snapshot: SnapshotMeta | None = None
        self._last_index: Index = 0
        self._last_term: Term = 0

    @classmethod
    def open(cls, files: Files, directory: Path, contents: LogContents, *, segment_bytes: int) -> "Wal":
        """Go on with a log that `read_log` gave, or start one where there is none. Afterwards what was read is
        durable, and a torn end is cut.

        Raises:
            DiskFull: no room for the first segment.
            OSError: the disk does not do as asked.
        """
        wal = cls(files, directory, segment_bytes)
        # A name may have been read that is not durable yet: nothing may build on it before this.
        files.sync_directory(directory)
        wal._hard_state, wal._snapshot = contents.hard_state, contents.snapshot
        wal._last_index, wal._last_term = contents.last_index, contents.last_term
        wal._entry_bytes = contents.entry_bytes
        wal._segments = contents.segments
        if contents.segments:
            wal._continue(contents)
        else:
            wal._start_segment()
        return wal

    def write(self, batch: Sequence[Persist]) -> int:
        """Append all of it and return when it is durable: how many bytes that took. Where there is nothing to
        write it costs nothing.

        Raises:
            DiskFull: nothing of it was written; the same batch may be tried again.
            OSError: the log must not be used any more.
        """
        self._check_usable()
        self._check_batch(batch)
        data = self._encode(batch)
        if not data:
            return 0
        if self._end + len(data) > self._segment_bytes and self._end > self._start_bytes:
            self._start_segment()
            data = self._encode(batch)
        self._append(data)
        self._sync()
        self._entry_bytes += len(data)
        for persist in batch:
            self._note(persist)
        return len(data)

    def mark_snapshot(self, meta: SnapshotMeta) -> None:
        """Record which snapshot of our own the log builds on. Entries up to its index may be compacted from now
        on; its file must be durable.

        Raises: as `write`.
        """
        self._check_usable()
        assert meta.index <= self._last_index, f"snapshot at {meta.index}, log ends at {self._last_index}"
        self._append(self._record(RecordType.SNAPSHOT, encode_meta(meta), self._end))
        self._sync()
        self._snapshot = meta
        self._entry_bytes = 0

    def compact(self, index: Index) -> None:
        """Drop the oldest segments whose entries all lie at or before `index`.

        Raises:
            OSError: the log must not be used any more.
        """
        self._check_usable()
        covered = self._snapshot.index if self._snapshot is not None else 0
        assert index <= covered, f"compact to {index} with a snapshot at {covered}"
        while len(self._segments) > 1 and self._segments[0].index_max <= index:
            # The oldest first, and each durably: after a power loss the rest must be without a gap.
            self._drop_oldest()

    def seal(self) -> None:
        """Write down that everything before is durable, so that damage to the last batch is recognised as such.
        Not durable itself; without it nothing is lost. Cheap: for when the disk is idle."""
        self._check_usable()
        if not self._sealed:
            self._append(self._record(RecordType.SEAL, b"", self._end))
            self._sealed = True

    def close(self, *, seal: bool = True) -> None:
        """Seal the log if it is sound and that is wanted, and close it."""
        if self._file is None:
            return
        try:
            if seal and not self._failed:
                self.seal()
                self._sync()
        except DiskFull:
            pass  # the seal is a courtesy
        finally:
            self._failed = True
            self._file.close()
            self._file = None

    def statistics(self) -> WalStatistics:
        log_bytes = sum(segment.size for segment in self._segments)
        return WalStatistics(len(self._segments), log_bytes, self._entry_bytes)

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """The newest snapshot that the log names."""
        return self._snapshot

    # -- writing -------------------------------------------------------------------------------------------------

    def _encode(self, batch: Sequence[Persist]) -> bytes:
        parts: list[bytes] = []
        offset, seed = self._end, self._seed
        for persist in batch:
            if persist.hard_state is not None:
                parts.append(
                    self._record(RecordType.HARD_STATE, encode_hard_state(persist.hard_state), offset)
                )
                offset += len(parts[-1])
            if persist.snapshot is not None:
                parts.append(self._record(RecordType.RESET, encode_meta(persist.snapshot), offset))
                offset += len(parts[-1])
            if persist.entries:
                offset = encode_entries(
                    persist.entries, offset=offset, durable=self._durable, seed=seed, into=parts
                )
        return b"".join(parts)

    def _check_batch(self, batch: Sequence[Persist]) -> None:
        """What recovery would refuse must not be written: these are errors of the caller."""
        term, last_index = self._hard_state.term, self._last_index
        for persist in batch:
            if persist.hard_state is not None:
                assert persist.hard_state.term >= term, f"term {persist.hard_state.term} after {term}"
                term = persist.hard_state.term
            if persist.snapshot is not None:
                last_index = persist.snapshot.index
            if persist.entries:
                first, last = persist.entries[0].index, persist.entries[-1].index
                assert 0 < first <= last_index + 1, f"entry {first} after {last_index}"
                assert last - first + 1 == len(persist.entries), f"a gap between {first} and {last}"
                last_index = last

    def _note(self, persist: Persist) -> None:
        """Keep account of what became durable."""
        if persist.hard_state is not None:
            self._hard_state = persist.hard_state
        if persist.snapshot is not None:
            self._snapshot = persist.snapshot
            self._last_index, self._last_term = persist.snapshot.index, persist.snapshot.term
            self._entry_bytes = 0
            clamp_index_max(self._segments, 0)
        if persist.entries:
            first, last = persist.entries[0].index, persist.entries[-1]
            if first <= self._last_index:
                clamp_index_max(self._segments, first - 1)
            self._last_index, self._last_term = last.index, last.term
            self._segments[-1].index_max = last.index

    def _record(self, type: RecordType, body: bytes, offset: int) -> bytes:
        return encode_record(type, body, offset=offset, durable=self._durable, seed=self._seed)

    def _append(self, data: bytes) -> None:
        """Write at the end; not yet durable."""
        assert self._file is not None
        end = self._end + len(data)
        assert end <= FILE_BYTES_MAX, f"a batch of {len(data)} bytes"
        if end > self._allocated:
            self._reserve(end)
        try:
            self._file.write(self._end, data)
        except OSError as error:
            self._failed = True
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            # Part of it may have been written. Were it to stay, a shorter batch written over it would leave
            # intact records behind its own end.
            self._file.truncate(self._end)
            self._allocated = self._end
            self._failed = False
            raise DiskFull(str(error)) from error
        self._end = end
        self._segments[-1].size = end
        self._sealed = False

    def _sync(self) -> None:
        assert self._file is not None
        try:
            self._file.sync()
        except OSError:
            # What the disk holds is unknown from here on, and a second try may "succeed" (Rebello et al., ATC'20).
            self._failed = True
            raise
        self._durable = self._end

    def _reserve(self, end: int) -> None:
        """Have space up to `end`, and some more where there is room."""
        assert self._file is not None
        ahead = min(PREALLOCATE_BYTES, self._segment_bytes)
        for size in (end - end % ahead + ahead, end):
            try:
                self._file.preallocate(size)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    self._failed = True
                    raise
                if size == end:
                    raise DiskFull(str(error)) from error
            else:
                self._allocated = max(self._allocated, size)
                return

    # -- segments ------------------------------------------------------------------------------------------------

    def _start_segment(self) -> None:
        """Create the next segment and write there from now on. On `DiskFull` the current one stays in use."""
        previous = self._segments[-1] if self._segments else None
        sequence = previous.sequence + 1 if previous is not None else 1
        if self._file is not None:
            # Give back what was reserved and not used, and make sure that a seal is durable.
            try:
                self._file.truncate(self._end)
                self._allocated = self._end
                self._file.sync()
            except OSError:
                self._failed = True
                raise
            self._durable = self._end
        seed = int.from_bytes(os.urandom(4), "little")
        start = self._encode_start(sequence, previous.size if previous is not None else 0, seed)
        path = self._directory / segment_name(sequence)
        file = self._create(path, start)
        if self._file is not None:
            self._file.close()
        self._file, self._seed = file, seed
        self._segments.append(Segment(sequence, path, len(start)))
        self._end = self._durable = self._start_bytes = len(start)
        self._allocated = max(len(start), file.size())
        self._sealed = True

    def _create(self, path: Path, start: bytes) -> File:
        """A segment under its name with its first records durable, or nothing."""
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        file = None
        try:
            try:
                file = self._files.create(temporary)
                file.preallocate(len(start))
                file.write(0, start)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRNOS:
                    raise
                if file is not None:
                    file.close()
                    self._files.remove(temporary)
                raise DiskFull(str(error)) from error
            file.sync()
            self._files.rename(temporary, path)
            self._files.sync_directory(self._directory)
        except OSError:
            self._failed = True
            raise
        return file

    def _encode_start(self, sequence: int, previous_bytes: int, seed: int) -> bytes:
        """All that the log needs to know from the segments before."""
        start = SegmentStart(sequence, previous_bytes, self._last_index, self._last_term)
        records = [
            (RecordType.SEGMENT, encode_segment_start(start)),
            (RecordType.HARD_STATE, encode_hard_state(self._hard_state)),
        ]
        if self._snapshot is not None:
            records.append((RecordType.SNAPSHOT, encode_meta(self._snapshot)))
        encoded = encode_file_header(LOG_MAGIC, seed=seed)
        for type, body in records:
            encoded += encode_record(type, body, offset=len(encoded), durable=0, seed=seed)
        return encoded

    def _continue(self, contents: LogContents) -> None:
        """Go on in the last segment: cut what is torn, and make what was read durable.

        After a failed sync the kernel may hold pages that read well and are marked clean, but are not on the
        disk (known as "fsyncgate"). Only the last batch can be such: it is written again.
        """
        last = contents.segments[-1]
        self._file = file = self._files.open(last.path)
        self._seed = contents.seed
        if contents.cut_bytes:
            file.truncate(last.size)
        file.write(contents.tail_offset, contents.tail)
        file.sync()
        self._allocated = file.size()
        self._end = self._durable = last.size
        self._sealed = False

    def _drop_oldest(self) -> None:
        try:
            self._files.remove(self._segments[0].path)
            self._files.sync_directory(self._directory)
        except OSError:
            self._failed = True
            raise
        del self._segments[0]

    def _check_usable(self) -> None:
        assert self._file is not None, "the log is closed"
        if self._failed:
            raise OSError("the log failed before; nothing may be written after that")
