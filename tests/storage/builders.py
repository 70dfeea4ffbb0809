"""Short ways to say entries and writes, and to look at a data directory's files."""

from pathlib import Path

from raft.core.ready import Persist
from raft.core.types import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from raft.storage import Recovered, Storage, open_storage

SEGMENT_BYTES = 4096


def entry(index: int, term: int = 1, data: bytes | None = None, kind: EntryKind = EntryKind.COMMAND) -> Entry:
    """An entry whose data tells its place, so that mixed-up ones are seen."""
    return Entry(index, term, 1000 + index, kind, b"%d@%d" % (index, term) if data is None else data)


def entries(first: int, last: int, term: int = 1, size: int = 0) -> tuple[Entry, ...]:
    """Entries `first` to `last`; with `size`, each with so many bytes of data."""
    return tuple(
        entry(index, term, (b"%d@%d." % (index, term) * size)[:size] if size else None)
        for index in range(first, last + 1)
    )


def write_of(
    first: int = 1,
    last: int = 0,
    term: int = 1,
    *,
    size: int = 0,
    hard_state: HardState | None = None,
    snapshot: SnapshotMeta | None = None,
) -> Persist:
    return Persist(hard_state, entries(first, last, term, size), snapshot)


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, 1000 + index, Configuration(("node1", "node2", "node3"), ("node4",)))


def reopen(directory: Path, segment_bytes: int = SEGMENT_BYTES) -> tuple[Storage, Recovered]:
    return open_storage(directory, segment_bytes=segment_bytes)


def recover(directory: Path) -> Recovered:
    """Open, close, and say what was there."""
    storage, recovered = reopen(directory)
    storage.close(seal=False)
    return recovered


def crash(storage: Storage) -> None:
    """What a SIGKILL leaves: no seal, nothing flushed, the lock let go."""
    storage.close(seal=False)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.wal"))


def indexes(recovered: Recovered) -> list[int]:
    return [item.index for item in recovered.entries]
