"""What a node keeps on disk: the write-ahead log and the snapshots. DESIGN.md tells the format and its reasons."""

from raft.storage.errors import (
    CorruptLog,
    CorruptSnapshot,
    CorruptStorage,
    DataDirectoryGone,
    DataDirectoryInUse,
    DiskFull,
    RecoveryUnfinished,
    RejectedChunk,
    StorageError,
    UnknownFormat,
    WrongCluster,
)
from raft.storage.snapshot_file import SnapshotReader
from raft.storage.storage import Recovered, Storage, StorageStatistics, open_storage

__all__ = [
    "CorruptLog",
    "CorruptSnapshot",
    "CorruptStorage",
    "DataDirectoryGone",
    "DataDirectoryInUse",
    "DiskFull",
    "Recovered",
    "RecoveryUnfinished",
    "RejectedChunk",
    "SnapshotReader",
    "Storage",
    "StorageError",
    "StorageStatistics",
    "UnknownFormat",
    "WrongCluster",
    "open_storage",
]
