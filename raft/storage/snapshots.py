"""The snapshot files: each is complete or absent, the last two are kept, and a leader's is gathered beside them.

A file is written under a temporary name, synced and renamed, and then the directory is synced. So a file whose name
ends in `.snapshot` is whole, unless the disk damaged it later. A snapshot counts only once the log names it; files
that no log names are removed when the directory is opened.

A leader sends a snapshot as the bytes of its file. What has arrived stays on disk under the snapshot's id. So a
broken transfer continues where it stopped, also after a restart, and chunks of two snapshots never mix.
"""

import contextlib
import errno
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

from raft.core.types import Index, SnapshotMeta, Term
from raft.storage.errors import CorruptSnapshot, DiskFull, RejectedChunk
from raft.storage.files import DISK_FULL_ERRNOS, File, Files
from raft.storage.segment import TEMPORARY_SUFFIX
from raft.storage.snapshot_file import (
    SnapshotReader,
    inspect,
    intact_bytes,
    read_snapshot,
    write_snapshot,
)

SNAPSHOT_SUFFIX = ".snapshot"
#: A leader's snapshot under way.
PART_SUFFIX = ".part"
#: A damaged snapshot that an older one replaced; kept for people to look at, never read.
DAMAGED_SUFFIX = ".damaged"

#: How many snapshots stay on disk: the newest, and one that can replace it.
SNAPSHOTS_KEPT = 2

_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")
_ID = re.compile(r"[0-9a-f]{1,16}-[0-9a-f]{1,16}-[0-9a-f]{1,16}-[0-9a-f]{8}")


def snapshot_name(meta: SnapshotMeta) -> str:
    return f"{meta.index:020d}-{meta.term:020d}{SNAPSHOT_SUFFIX}"


def _size_of(snapshot_id: str) -> int:
    """Bytes of the file that an id names."""
    return int(snapshot_id.split("-")[2], 16)


class Snapshots:
    """The snapshot files of one data directory. Only one thread at a time may save and receive; `prune` and
    `open_reader` may run beside it."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._directory = directory
        #: The transfer under way: its id, its file, and how many bytes have arrived.
        self._part_id = ""
        self._part: File | None = None
        self._part_bytes = 0

    def metas(self) -> list[tuple[Index, Term]]:
        """Index and term of every complete snapshot, rising."""
        matches = map(_NAME.fullmatch, self._files.names(self._directory))
        return sorted((int(match[1]), int(match[2])) for match in matches if match)

    def path(self, meta: SnapshotMeta) -> Path:
        return self._directory / snapshot_name(meta)

    def save(self, meta: SnapshotMeta, chunks: Iterable[bytes]) -> None:
        """Write a snapshot. When this returns, the snapshot is durable, but it counts only once the log names it.

        Raises:
            DiskFull: nothing is left behind.
            OSError: the disk must not be trusted any more.
        """
        path = self.path(meta)
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        file = None
        try:
            file = self._files.create(temporary)
            write_snapshot(file, meta, chunks)
            file.sync()
        except BaseException as error:
            if file is not None:
                file.close()
            if isinstance(error, OSError) and error.errno not in DISK_FULL_ERRNOS:
                raise
            with contextlib.suppress(OSError):
                self._files.remove(temporary)
            if isinstance(error, OSError):
                raise DiskFull(str(error)) from error
            raise
        file.close()
        self._publish(temporary, path)

    def load(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """The chunks of a snapshot. Raises as `read_snapshot`, possibly after some chunks."""
        path = self.path(meta)
        file = self._files.open_readonly(path)
        try:
            for part in read_snapshot(file, path):
                if isinstance(part, bytes):
                    yield part
        finally:
            file.close()

    def open_reader(self, meta: SnapshotMeta) -> SnapshotReader:
        """Check a snapshot and open it for sending: damage is found here and not at the follower.

        Raises:
            CorruptSnapshot: it is damaged.
            OSError: it is not there.
        """
        info = inspect(self._files, self.path(meta))
        return SnapshotReader(self._files.open_readonly(info.path), info)

    def prune(self, newest: SnapshotMeta) -> None:
        """Keep the snapshot that the log names and the one before it; remove older ones."""
        named = [meta for meta in self.metas() if meta <= (newest.index, newest.term)]
        for index, term in named[:-SNAPSHOTS_KEPT]:
            self._files.remove(self.path(SnapshotMeta(index, term)))

    def remove_unnamed(self, newest: SnapshotMeta | None) -> None:
        """Remove what a crash left behind: temporary files, and snapshots that the log does not name."""
        limit = (newest.index, newest.term) if newest is not None else (0, 0)
        for name in self._files.names(self._directory):
            match = _NAME.fullmatch(name)
            unnamed = match is not None and (int(match[1]), int(match[2])) > limit
            if unnamed or name.endswith(TEMPORARY_SUFFIX):
                self._files.remove(self._directory / name)

    def set_aside(self, meta: SnapshotMeta) -> None:
        """Rename a damaged snapshot so that nothing reads it again."""
        path = self.path(meta)
        with contextlib.suppress(FileNotFoundError):
            self._files.rename(path, path.with_name(path.name + DAMAGED_SUFFIX))
        self._files.sync_directory(self._directory)

    # -- a leader's snapshot -------------------------------------------------------------------------------------

    def received_bytes(self, snapshot_id: str) -> int:
        """Where a transfer of this snapshot would continue: 0 if nothing of it is here."""
        if snapshot_id and snapshot_id == self._part_id:
            return self._part_bytes
        path = self._part_path(snapshot_id)
        if path.name not in self._files.names(self._directory):
            return 0
        self._resume(snapshot_id, path)
        return self._part_bytes

    def receive(self, snapshot_id: str, offset: int, data: bytes, checksum: int) -> int:
        """Take the next bytes of a leader's snapshot file; returns the offset at which to continue.

        A chunk at offset 0 begins the transfer, and ends another one. `checksum` is the CRC-32 of `data`.

        Raises:
            RejectedChunk: it does not continue what is here, or was damaged on the way.
            DiskFull: it was not taken; it may be sent again.
            OSError: the disk must not be trusted any more.
        """
        expected = self.received_bytes(snapshot_id)  # checks the id, too
        if crc32(data) != checksum:
            raise RejectedChunk("damaged on the way", expected_offset=expected)
        if offset != expected:
            raise RejectedChunk(f"offset {offset} where {expected} comes next", expected_offset=expected)
        if offset + len(data) > _size_of(snapshot_id):
            raise RejectedChunk("longer than its id says", expected_offset=offset)
        try:
            if offset == 0:
                self._begin(snapshot_id)
            assert self._part is not None
            self._part.write(offset, data)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(str(error)) from error
            raise
        self._part_bytes = offset + len(data)
        return self._part_bytes

    def finish(self, snapshot_id: str) -> SnapshotMeta:
        """Check the whole transfer and make it a snapshot, durably. It counts once the log is reset to it.

        Raises:
            RejectedChunk: what has arrived is not that snapshot; it was dropped.
            DiskFull: the filesystem finds only now that there is no room; what has arrived was dropped.
            OSError: the disk must not be trusted any more.
        """
        if snapshot_id != self._part_id or self._part is None:
            expected = self.received_bytes(snapshot_id)
            raise RejectedChunk("no such transfer is under way", expected_offset=expected)
        if self._part_bytes < _size_of(snapshot_id):
            raise RejectedChunk("not all of it has come", expected_offset=self._part_bytes)
        try:
            self._part.sync()
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            self._drop_part()
            raise DiskFull(str(error)) from error
        path = self._part_path(snapshot_id)
        try:
            info = inspect(self._files, path)
            if info.id != snapshot_id:
                raise CorruptSnapshot(str(path), 0, f"it is {info.id}, not {snapshot_id}")
        except CorruptSnapshot as error:
            self._drop_part()
            raise RejectedChunk(str(error), expected_offset=0) from None
        self._part.close()
        self._part, self._part_id, self._part_bytes = None, "", 0
        self._publish(path, self.path(info.meta))
        return info.meta

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part, self._part_id, self._part_bytes = None, "", 0

    def _publish(self, temporary: Path, path: Path) -> None:
        self._files.rename(temporary, path)
        self._files.sync_directory(self._directory)

    def _part_path(self, snapshot_id: str) -> Path:
        if not _ID.fullmatch(snapshot_id):
            raise RejectedChunk("not the id of a snapshot", expected_offset=0)
        return self._directory / (snapshot_id + PART_SUFFIX)

    def _begin(self, snapshot_id: str) -> None:
        self._drop_part()
        for name in self._files.names(self._directory):
            if name.endswith(PART_SUFFIX):  # of a transfer that ended before a restart
                self._files.remove(self._directory / name)
        path = self._part_path(snapshot_id)
        part = self._files.create(path)
        try:
            # If there is no room for all of it, take nothing: the log needs the room that is left.
            part.preallocate(_size_of(snapshot_id))
        except (OSError, OverflowError) as error:
            part.close()
            if isinstance(error, OSError) and error.errno not in (*DISK_FULL_ERRNOS, errno.EFBIG):
                raise
            self._files.remove(path)
            if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
                raise
            raise RejectedChunk("not the size of a snapshot", expected_offset=0) from None
        self._part, self._part_id, self._part_bytes = part, snapshot_id, 0

    def _resume(self, snapshot_id: str, path: Path) -> None:
        """Continue a transfer from before a restart, with the part of it that reads back."""
        self.close()
        self._part, self._part_id = self._files.open(path), snapshot_id
        self._part_bytes = intact_bytes(self._part, path)
        self._part.truncate(self._part_bytes)

    def _drop_part(self) -> None:
        part_id = self._part_id
        self.close()
        if part_id:
            self._files.remove(self._part_path(part_id))
