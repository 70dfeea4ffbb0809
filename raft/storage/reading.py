"""A data directory read as a node does on its start, by somebody else: not a byte of it is changed.

The rule: whoever reads shares the directory's lock, so that no node writes meanwhile. Where there is no lock (a copy,
a folder that was never opened) or none can be had (a folder that is not ours), it is read without: a node that starts
on it then makes the reading fail or end early, and changes nothing of what was read.
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

#: What the system says where a lock cannot be had that nobody holds: no right to the file, none on this filesystem.
_NO_LOCK_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class DirectoryContents:
    """What a node that started on the directory would hold."""

    directory: Path
    hard_state: HardState
    #: None where the log begins at index 1.
    snapshot: SnapshotMeta | None
    #: All entries after the snapshot, contiguous.
    entries: list[Entry]
    #: Where the chunks of the snapshot are read.
    files: Files

    @property
    def last_index(self) -> Index:
        return self.entries[-1].index if self.entries else self.snapshot.index if self.snapshot else 0

    @property
    def last_term(self) -> Term:
        return self.entries[-1].term if self.entries else self.snapshot.term if self.snapshot else 0

    def chunks(self) -> Iterator[bytes]:
        """The snapshot's, as they were saved. Raises as `Snapshots.load`."""
        assert self.snapshot is not None
        return Snapshots(self.files, self.directory).load(self.snapshot)


@contextmanager
def shared(path: Path, *, files: Files | None = None) -> Iterator[None]:
    """Keep everybody who opens what this lock file stands for away meanwhile, as far as that is possible.

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
    """Read the log and choose the snapshot as a start does. Hold the lock, or share it, meanwhile.

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
