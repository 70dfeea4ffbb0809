"""Reading a data directory as a node does on its start, without being that node: this changes not one byte of it.

The rule: a reader shares the directory's lock, so that no node writes meanwhile. If there is no lock (a copy, a
folder that was never opened) or we cannot take it (a folder that is not ours), we read without it. A node that then
starts on the directory makes the reading fail or end early, and does not change what was read.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raft.core.types import Entry, HardState, Index, SnapshotMeta, Term
from raft.storage.files import Files, Lock, RealFiles
from raft.storage.recovery import read_log
from raft.storage.snapshots import Snapshots
from raft.storage.storage import LOCK_NAME, choose_snapshot

#: What the system says if we cannot take a lock although nobody holds it: no right to the file, or no locks on this
#: filesystem.
_NO_LOCK_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class DirectoryContents:
    """What a node that started on the directory would hold."""

    directory: Path
    hard_state: HardState
    #: None if the log begins at index 1.
    snapshot: SnapshotMeta | None
    #: All entries after the snapshot, contiguous.
    entries: list[Entry]
    #: The filesystem from which the chunks of the snapshot are read.
    files: Files

    @property
    def last_index(self) -> Index:
        return self.entries[-1].index if self.entries else self.snapshot.index if self.snapshot else 0

    @property
    def last_term(self) -> Term:
        return self.entries[-1].term if self.entries else self.snapshot.term if self.snapshot else 0

    def chunks(self) -> Iterator[bytes]:
        """The chunks of the snapshot, as they were saved. Raises as `Snapshots.load`."""
        assert self.snapshot is not None
        return Snapshots(self.files, self.directory).load(self.snapshot)


@contextmanager
def shared(path: Path, *, files: Files | None = None) -> Iterator[None]:
    """As far as possible, let nobody open the directory of this lock file meanwhile.

    Raises:
        DataDirectoryInUse: somebody has it open.
    """
    files = files if files is not None else RealFiles()
    lock: Lock | None = None
    try:
        lock = files.lock_shared(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCK_ERRNOS:
            raise
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def read_directory(directory: Path, *, files: Files | None = None) -> DirectoryContents:
    """Read the log and choose the snapshot as a node does on its start. Hold the lock, or share it, meanwhile.

    Raises:
        CorruptLog, CorruptSnapshot: damage that no power loss explains.
        UnknownFormat: a newer version wrote it.
        OSError: the directory or a file in it cannot be read.
    """
    files = files if files is not None else RealFiles()
    contents = read_log(files, directory)
    snapshot, _ = choose_snapshot(files, directory, contents)
    covered = snapshot.index if snapshot is not None else 0
    entries = contents.entries[max(0, covered - contents.base_index) :]
    return DirectoryContents(directory, contents.hard_state, snapshot, entries, files)


@contextmanager
def reading(directory: Path, *, files: Files | None = None) -> Iterator[DirectoryContents]:
    """Share the directory's lock and read it. Raises as `shared` and `read_directory`."""
    with shared(directory / LOCK_NAME, files=files):
        yield read_directory(directory, files=files)
