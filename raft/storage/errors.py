"""What can go wrong with a data directory.

    StorageError
    ├── DataDirectoryInUse     another process holds the lock
    ├── DataDirectoryGone      it was deleted or replaced while a process held it
    ├── RecoveryUnfinished     a recovery has put the directory aside and not put the new one in its place
    ├── DiskFull               no space; nothing was written, the same write may be tried again
    ├── CorruptStorage         what is on disk is not what was written: the node must refuse to take part
    │   ├── CorruptLog         ... in a segment of the write-ahead log
    │   └── CorruptSnapshot    ... in a snapshot file
    ├── UnknownFormat          written by a newer version
    ├── WrongCluster           the data directory is of another cluster
    └── RejectedChunk          a chunk of a leader's snapshot that does not fit; ask for it again

Any other `OSError` of a write or fsync is fatal: after a failed fsync nobody knows what the disk holds (Rebello et
al., ATC'20), so it is never retried and nothing is written after it.
"""


class StorageError(Exception):
    """Base of everything that this package raises itself."""


class DataDirectoryInUse(StorageError):
    """Another process has this data directory open."""


class DataDirectoryGone(StorageError):
    """The data directory was deleted or replaced while this process held it."""


class RecoveryUnfinished(StorageError):
    """The directory is put aside, and the one that a recovery made from it does not have its name yet. A node that
    opened an empty directory instead would begin a new group."""


class DiskFull(StorageError):
    """The disk has no room for this write. What was durable is still durable, and the same write may be tried
    again."""


class CorruptStorage(StorageError):
    """Something on disk is damaged, and a power loss cannot be the reason. The node may have lost data, so it must
    not vote, lead or serve; `path` and `offset` say where to look."""

    def __init__(self, path: str, offset: int, problem: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {problem}")
        self.path = path
        self.offset = offset
        self.problem = problem


class CorruptLog(CorruptStorage):
    """A segment of the log is damaged or missing."""


class CorruptSnapshot(CorruptStorage):
    """A snapshot file is damaged or missing, and nothing else on disk can replace it."""


class UnknownFormat(StorageError):
    """The file was written by a newer version of this software."""


class RejectedChunk(StorageError):
    """A chunk of a snapshot under way does not continue what is here. `expected_offset` says where to continue."""

    def __init__(self, problem: str, *, expected_offset: int) -> None:
        super().__init__(problem)
        self.expected_offset = expected_offset


class WrongCluster(StorageError):
    """A node's data directory is of another cluster than its settings say; `advice` tells what to do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.advice = advice
