"""A data directory: the log and the snapshots of one group on one node, under an exclusive lock.

`open_storage` recovers; the disk queue drives `Storage`. One thread (raft/disk.py) writes, marks and compacts; one
other thread saves and receives snapshot files.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from common.chance import SYSTEM_RANDOM
from raft.core.ready import Persist
from raft.core.types import Entry, HardState, Index, SnapshotMeta
from raft.storage.beside import check_recovered
from raft.storage.errors import CorruptLog, CorruptSnapshot
from raft.storage.files import Files, Lock, RealFiles
from raft.storage.recovery import LogContents, read_log
from raft.storage.snapshot_file import SnapshotReader, inspect
from raft.storage.snapshots import Snapshots
from raft.storage.wal import Wal

LOCK_NAME = "LOCK"
SEGMENT_BYTES_DEFAULT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a data directory held when it was opened."""

    hard_state: HardState
    #: What `Storage.load_snapshot` gives; None if the log begins at index 1.
    snapshot: SnapshotMeta | None
    #: All entries after the snapshot, contiguous.
    entries: list[Entry]
    #: Bytes of a torn last write that were cut off.
    cut_bytes: int
    #: The directory held nothing: a new node, or one whose disk was wiped.
    fresh: bool
    #: Name of a damaged snapshot that an older one and more of the log replace; else empty.
    damaged_snapshot: str = ""


@dataclass(frozen=True, slots=True)
class StorageStatistics:
    """Sizes on disk, for health pages and for deciding when to take a snapshot."""

    segments: int
    #: Bytes of all records in the log.
    log_bytes: int
    #: Bytes written to the log since the newest snapshot.
    bytes_since_snapshot: int
    #: Index of the newest snapshot; 0 for none.
    snapshot_index: Index


def open_storage(
    directory: Path,
    *,
    segment_bytes: int = SEGMENT_BYTES_DEFAULT,
    files: Files | None = None,
    random: Random = SYSTEM_RANDOM,
) -> tuple["Storage", Recovered]:
    """Lock and recover a data directory; create it if there is none. What is returned is durable.

    Args:
        random: of it the seeds of the log's segments are made; used on whichever thread writes.

    Raises:
        DataDirectoryInUse: another process has it open.
        RecoveryUnfinished: it is not in its place, because a recovery was interrupted.
        CorruptLog, CorruptSnapshot: damage that no power loss explains. Nothing was changed.
        UnknownFormat: a newer version wrote it.
        DiskFull: no room for the first segment.
        OSError: the disk does not do as asked.
    """
    files = files if files is not None else RealFiles()
    check_recovered(directory, files=files)
    files.make_directory(directory)
    lock = files.lock(directory / LOCK_NAME)
    try:
        return _recover(files, directory, segment_bytes, lock, random)
    except BaseException:
        lock.close()
        raise


def _recover(
    files: Files, directory: Path, segment_bytes: int, lock: Lock, random: Random
) -> tuple["Storage", Recovered]:
    contents = read_log(files, directory)
    fresh = not contents.segments
    meta, damaged = choose_snapshot(files, directory, contents)
    wal = Wal(files, directory, contents, segment_bytes=segment_bytes, random=random)
    snapshots = Snapshots(files, directory)
    try:
        snapshots.remove_unnamed(contents.snapshot)
        if damaged:
            assert contents.snapshot is not None and meta is not None
            wal.mark_snapshot(meta)
            snapshots.set_aside(contents.snapshot)
    except BaseException:
        wal.close()
        raise
    entries = contents.entries[max(0, (meta.index if meta is not None else 0) - contents.base_index) :]
    recovered = Recovered(contents.hard_state, meta, entries, contents.cut_bytes, fresh, damaged)
    return Storage(wal, snapshots, lock), recovered


def choose_snapshot(files: Files, directory: Path, contents: LogContents) -> tuple[SnapshotMeta | None, str]:
    """The snapshot to start from: the newest that the log names, or an older one if the log has all entries after
    that; in the second case also the name of the damaged one.

    Raises:
        CorruptLog: there are snapshots, but the log that names them is gone.
        CorruptSnapshot: no snapshot that is whole fits the log.
        UnknownFormat: a newer version wrote one.
    """
    snapshots = Snapshots(files, directory)
    newest = contents.snapshot
    if newest is None:
        if not contents.segments and snapshots.metas():
            raise CorruptLog(str(directory), 0, "there are snapshots but no log")
        return None, ""
    damage: CorruptSnapshot | None = None
    for index, term in reversed(snapshots.metas()):
        if (index, term) > (newest.index, newest.term) or index < contents.base_index:
            continue
        path = snapshots.path(SnapshotMeta(index, term))
        try:
            meta = inspect(files, path).meta
        except CorruptSnapshot as error:
            damage = damage or error
            continue
        if meta == newest:
            return meta, ""
        if index < newest.index:
            return meta, snapshots.path(newest).name
    raise damage or CorruptSnapshot(str(snapshots.path(newest)), 0, "the file is missing")


class Storage:
    """The log and the snapshots of one group on one node."""

    def __init__(self, wal: Wal, snapshots: Snapshots, lock: Lock) -> None:
        """Use `open_storage`."""
        self._wal = wal
        self._snapshots = snapshots
        self._lock = lock

    # -- for the disk thread -------------------------------------------------------------------------------------

    def write(self, batch: Sequence[Persist]) -> int:
        """Make the batch durable with one sync. Of each write, the hard state comes first, then the snapshot that
        replaces the log, then the entries. A snapshot must have been received (`finish_snapshot`) before. Returns the
        bytes written; 0 means that there was nothing to do.

        Raises:
            DiskFull: nothing of it was written; the same batch may be tried again.
            OSError: the storage must not be used any more.
        """
        for persist in batch:
            if persist.snapshot is not None:
                place = (persist.snapshot.index, persist.snapshot.term)
                assert place in self._snapshots.metas(), f"snapshot {place} was never received"
        written = self._wal.write(batch)
        for persist in batch:
            if persist.snapshot is not None:
                self._snapshots.prune(persist.snapshot)
                self._wal.compact(persist.snapshot.index)
        return written

    def mark_snapshot(self, meta: SnapshotMeta) -> None:
        """From now on recovery starts from this snapshot, which was saved before; older files are removed. A snapshot
        that is older than the newest is ignored: a leader's may have overtaken it. Raises as `write`."""
        newest = self._wal.snapshot
        if newest is not None and meta.index <= newest.index:
            return
        self._wal.mark_snapshot(meta)
        self._snapshots.prune(meta)

    def compact(self, index: Index) -> None:
        """Drop whole segments whose entries are all at or before `index`, which a marked snapshot must cover. Raises
        `OSError`: the storage must not be used any more."""
        self._wal.compact(index)

    def seal(self) -> None:
        """See `Wal.seal`."""
        self._wal.seal()

    def close(self, *, seal: bool = True) -> None:
        """Close everything and release the directory. Without `seal` this writes nothing more: use that after an
        error, when nobody knows what the disk would do."""
        try:
            self._wal.close(seal=seal)
        finally:
            self._snapshots.close()
            self._lock.close()

    # -- for the snapshot thread ---------------------------------------------------------------------------------

    def save_snapshot(self, meta: SnapshotMeta, chunks: Iterable[bytes]) -> None:
        """Write a snapshot of our own durably. It counts only after `mark_snapshot`. Raises as `write`."""
        self._snapshots.save(meta, chunks)

    def received_bytes(self, snapshot_id: str) -> int:
        """Where a transfer of this snapshot would continue."""
        return self._snapshots.received_bytes(snapshot_id)

    def receive_snapshot(self, snapshot_id: str, offset: int, data: bytes, checksum: int) -> int:
        """See `Snapshots.receive`."""
        return self._snapshots.receive(snapshot_id, offset, data, checksum)

    def finish_snapshot(self, snapshot_id: str) -> SnapshotMeta:
        """See `Snapshots.finish`; then write a `Persist` with this meta."""
        return self._snapshots.finish(snapshot_id)

    # -- for any thread ------------------------------------------------------------------------------------------

    def load_snapshot(self) -> tuple[SnapshotMeta, Iterator[bytes]] | None:
        """The newest snapshot's meta and its chunks as they were saved; None if there is none. The iterator raises
        `CorruptSnapshot` if the file was damaged since it was opened."""
        meta = self._wal.snapshot
        return None if meta is None else (meta, self._snapshots.load(meta))

    def open_snapshot(self) -> SnapshotReader | None:
        """The newest snapshot's file, checked, for sending; None if there is none.

        Raises:
            CorruptSnapshot: it is damaged.
        """
        meta = self._wal.snapshot
        return None if meta is None else self._snapshots.open_reader(meta)

    @property
    def log_bytes(self) -> int:
        """Bytes of all records in the log."""
        return self._wal.statistics().log_bytes

    @property
    def bytes_since_snapshot(self) -> int:
        """Bytes written to the log since the newest snapshot: when they are many, it is time for another one."""
        return self._wal.entry_bytes

    def statistics(self) -> StorageStatistics:
        sizes, meta = self._wal.statistics(), self._wal.snapshot
        index = meta.index if meta is not None else 0
        return StorageStatistics(sizes.segments, sizes.log_bytes, sizes.entry_bytes, index)
