"""The write-ahead log: hard state, entries and snapshot markers in one ordered series of segment files.

Rules of the file:

- One batch is one write and one sync. The next batch is written only after that sync has returned.
- After an error of a write or a sync the log object writes nothing, ever.
- A segment gets its name only after its first records are durable. It begins with all that the log needs from the
  segments before it, so that whole old segments can be dropped.

`record.py` draws the format; `recovery.py` says what recovery cuts and what it refuses.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from common.chance import SYSTEM_RANDOM
from raft.core.ready import Persist
from raft.core.types import HardState, Index, SnapshotMeta, Term
from raft.storage.errors import DiskFull
from raft.storage.files import Files
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
from raft.storage.segment import SegmentWriter

SEGMENT_BYTES_MIN = 4096


@dataclass(frozen=True, slots=True)
class WalStatistics:
    """Sizes of the log on disk."""

    segments: int
    #: Bytes of records in all segments.
    log_bytes: int
    #: Bytes written since the newest snapshot marker: roughly what another snapshot would make unnecessary.
    entry_bytes: int


class Wal:
    """The log of one data directory. Not thread-safe: one thread at a time calls it."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        contents: LogContents,
        *,
        segment_bytes: int,
        random: Random = SYSTEM_RANDOM,
    ) -> None:
        """Continue a log that `read_log` gave, or start one if there is none. After this, what was read is durable
        and a torn end is cut.

        Raises:
            DiskFull: no room for the first segment.
            OSError: the disk does not do as asked.
        """
        assert SEGMENT_BYTES_MIN <= segment_bytes <= FILE_BYTES_MAX // 2, f"segments of {segment_bytes} bytes"
        self._files = files
        self._directory = directory
        self._segment_bytes = segment_bytes
        #: Where the seeds of segments come from.
        self._random = random
        #: Oldest first; the last one is being written.
        self._segments: list[Segment] = contents.segments
        #: Of the last segment; None when the log is closed.
        self._writer: SegmentWriter | None = None
        #: Bytes with which the last segment began; it is not rotated before it has more.
        self._start_bytes = 0
        #: The last record is a seal, or a segment's start, which needs no seal.
        self._sealed = False
        #: There was an error: nothing may be written any more.
        self._failed = False
        self._entry_bytes = contents.entry_bytes
        self._hard_state: HardState = contents.hard_state
        self._snapshot: SnapshotMeta | None = contents.snapshot
        self._last_index: Index = contents.last_index
        self._last_term: Term = contents.last_term
        # A name that was read may not be durable yet: nothing may depend on it before this.
        files.sync_directory(directory)
        if contents.segments:
            self._continue(contents)
        else:
            self._start_segment()

    def write(self, batch: Sequence[Persist]) -> int:
        """Append the batch and return when it is durable: the number of bytes that it took. It costs nothing if there
        is nothing to write.

        Raises:
            DiskFull: nothing of it was written; the same batch may be tried again.
            OSError: the log must not be used any more.
        """
        writer = self._usable()
        self._check_batch(batch)
        data = self._encode(batch, writer)
        if not data:
            return 0
        with self._spoilt_by_error():
            if writer.end + len(data) > self._segment_bytes and writer.end > self._start_bytes:
                writer = self._start_segment()
                data = self._encode(batch, writer)
            self._append(writer, data)
            writer.sync()
        self._entry_bytes += len(data)
        for persist in batch:
            self._note(persist)
        return len(data)

    def mark_snapshot(self, meta: SnapshotMeta) -> None:
        """Record which of our own snapshots the log now depends on. Entries up to its index may be compacted from now
        on; its file must be durable.

        Raises: as `write`.
        """
        writer = self._usable()
        assert meta.index <= self._last_index, f"snapshot at {meta.index}, log ends at {self._last_index}"
        with self._spoilt_by_error():
            self._append(writer, writer.record(RecordType.SNAPSHOT, encode_meta(meta)))
            writer.sync()
        self._snapshot = meta
        self._entry_bytes = 0

    def compact(self, index: Index) -> None:
        """Drop the oldest segments whose entries are all at or before `index`.

        Raises:
            OSError: the log must not be used any more.
        """
        self._usable()
        covered = self._snapshot.index if self._snapshot is not None else 0
        assert index <= covered, f"compact to {index} with a snapshot at {covered}"
        while len(self._segments) > 1 and self._segments[0].index_max <= index:
            # The oldest first, and each durably: after a power loss the rest must be without a gap.
            with self._spoilt_by_error():
                self._files.remove(self._segments[0].path)
                self._files.sync_directory(self._directory)
            del self._segments[0]

    def seal(self) -> None:
        """Write a record that says that everything before it is durable, so that damage to the last batch is
        recognised as damage. The seal itself is not durable; without it nothing is lost. It is cheap: use it when the
        disk is idle.

        Raises: as `write`.
        """
        writer = self._usable()
        if not self._sealed:
            with self._spoilt_by_error():
                self._append(writer, writer.record(RecordType.SEAL, b""))
            self._sealed = True

    def close(self, *, seal: bool = True) -> None:
        """Seal the log, if it is sound and the caller wants that, and close it."""
        writer = self._writer
        if writer is None:
            return
        try:
            if seal and not self._failed:
                self.seal()
                writer.sync()
        except DiskFull:
            pass  # nothing needs the seal
        finally:
            self._writer = None
            writer.close()

    @property
    def entry_bytes(self) -> int:
        """Bytes of entries after the newest snapshot; cheap, because it is called with each apply."""
        return self._entry_bytes

    def statistics(self) -> WalStatistics:
        log_bytes = sum(segment.size for segment in self._segments)
        return WalStatistics(len(self._segments), log_bytes, self._entry_bytes)

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """The newest snapshot that the log names."""
        return self._snapshot

    # -- batches -------------------------------------------------------------------------------------------------

    def _encode(self, batch: Sequence[Persist], writer: SegmentWriter) -> bytes:
        parts: list[bytes] = []
        offset = writer.end
        for persist in batch:
            if persist.hard_state is not None:
                parts.append(
                    writer.record(RecordType.HARD_STATE, encode_hard_state(persist.hard_state), offset)
                )
                offset += len(parts[-1])
            if persist.snapshot is not None:
                parts.append(writer.record(RecordType.RESET, encode_meta(persist.snapshot), offset))
                offset += len(parts[-1])
            if persist.entries:
                offset = encode_entries(
                    persist.entries, offset=offset, durable=writer.durable, seed=writer.seed, into=parts
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
                covered = self._snapshot.index if self._snapshot is not None else 0
                assert persist.snapshot.index > covered, f"snapshot {persist.snapshot.index} after {covered}"
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

    def _append(self, writer: SegmentWriter, data: bytes) -> None:
        writer.append(data)
        self._segments[-1].size = writer.end
        self._sealed = False

    # -- segments ------------------------------------------------------------------------------------------------

    def _start_segment(self) -> SegmentWriter:
        """Create the next segment and write there from now on. On `DiskFull` the current one stays in use."""
        previous = self._segments[-1] if self._segments else None
        sequence = previous.sequence + 1 if previous is not None else 1
        if self._writer is not None:
            self._writer.trim()  # and with it a seal is durable: the next segment counts it
        seed = self._random.getrandbits(32)
        start = self._encode_start(sequence, previous.size if previous is not None else 0, seed)
        path = self._directory / segment_name(sequence)
        writer = SegmentWriter.create(self._files, path, start, seed=seed, ahead_bytes=self._segment_bytes)
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        self._segments.append(Segment(sequence, path, len(start)))
        self._start_bytes = len(start)
        self._sealed = True
        return writer

    def _encode_start(self, sequence: int, previous_bytes: int, seed: int) -> bytes:
        """All that the log needs to know from the segments before."""
        start = SegmentStart(sequence, previous_bytes, self._last_index, self._last_term)
        records = [
            (RecordType.SEGMENT, encode_segment_start(start)),
            (RecordType.HARD_STATE, encode_hard_state(self._hard_state)),
        ]
        if self._snapshot is not None:
            records.append((RecordType.SNAPSHOT, encode_meta(self._snapshot)))
        encoded = encode_file_header(LOG_MAGIC, seed=seed, meta=self._snapshot)
        for type, body in records:
            encoded += encode_record(type, body, offset=len(encoded), durable=0, seed=seed)
        return encoded

    def _continue(self, contents: LogContents) -> None:
        """Continue in the last segment: cut what is torn, and make what was read durable.

        After a failed sync the kernel may hold pages that read well and are marked clean, but are not on the disk
        (Rebello et al., ATC'20). This can only be so for the last batch, so it is written again.
        """
        last = contents.segments[-1]
        file = self._files.open(last.path)
        if contents.cut_bytes:
            file.truncate(last.size)
        file.write(contents.tail_offset, contents.tail)
        file.sync()
        self._writer = SegmentWriter(file, seed=contents.seed, end=last.size, ahead_bytes=self._segment_bytes)

    # -- errors --------------------------------------------------------------------------------------------------

    def _usable(self) -> SegmentWriter:
        assert self._writer is not None, "the log is closed"
        if self._failed:
            raise OSError("the log failed before; nothing may be written after that")
        return self._writer

    @contextmanager
    def _spoilt_by_error(self) -> Iterator[None]:
        """After an `OSError` nobody knows what the disk holds; after `DiskFull` it holds the same as before."""
        try:
            yield
        except OSError:
            self._failed = True
            raise
