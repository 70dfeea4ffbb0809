"""A simulated disk: an ordered queue of writes, how much of it is durable, and what a crash does with the rest.

A `Persist` is written as records, in order: a leader's snapshot, the hard state, then each entry. When power fails,
each record that was not fsynced is kept, lost or torn, independently of the others. Recovery reads in order, ends at
the first record that is not whole, and cuts off everything after it, kept or not. The durable part is stored as
recovery would read it, so that checks can look at it after every event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from raft.core.messages import Message
from raft.core.ready import Persist
from raft.core.types import Entry, HardState, Index, SnapshotMeta, Term

#: Data of own and installed snapshots that a node can still stream to others.
SNAPSHOTS_KEPT = 2


class DamagedDisk(Exception):
    """What is read back is not what was written: the node must not take part."""


@dataclass(slots=True)
class Write:
    """One `Persist` in the queue, with what may leave once it is durable."""

    persist: Persist | None
    messages_after: tuple[Message, ...]
    snapshot_data: tuple[bytes, ...] = ()


class SimDisk:
    """One node's disk; outlives its crashes."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.snapshot: SnapshotMeta | None = None
        self.snapshot_data: tuple[bytes, ...] = ()
        #: Streamable snapshots by index; the newest is the durable one.
        self.snapshots: dict[Index, tuple[bytes, ...]] = {}
        #: Durable entries behind `base_index`, without gaps.
        self.base_index: Index = 0
        self.entries: list[Entry] = []
        self.queue: deque[Write] = deque()
        #: Writes that the fsync under way covers.
        self.syncing = 0
        self.full = False
        self.hung = False
        self.fail_next_sync = False
        self.damaged = False

    @property
    def last_index(self) -> Index:
        return self.base_index + len(self.entries)

    def term_at(self, index: Index) -> Term | None:
        """The durable entry's term; a snapshot's stands for all entries that it covers, of which only the last
        is known. None where nothing is."""
        if self.snapshot is not None and index == self.snapshot.index:
            return self.snapshot.term
        offset = index - self.base_index
        if 0 < offset <= len(self.entries):
            return self.entries[offset - 1].term
        return 0 if index == 0 else None

    def holds(self, index: Index, term: Term) -> bool:
        """Whether the entry is durable here, itself or within a snapshot."""
        if self.snapshot is not None and index <= self.snapshot.index:
            return True
        return self.term_at(index) == term

    def complete(self, count: int) -> list[Write]:
        """The first `count` writes of the queue are durable now."""
        done = [self.queue.popleft() for _ in range(count)]
        self.syncing = 0
        for write in done:
            if write.persist is not None:
                for record in _records(write):
                    record(self)
        return done

    def crash(self, random: Random, cover: Callable[[str], None]) -> None:
        """Power is gone: settle what the unsynced records became, and forget the queue."""
        whole = True
        for write in self.queue:
            if write.persist is None:
                continue
            for position, record in enumerate(_records(write)):
                fate = random.choice(("kept", "kept", "lost", "torn"))
                cover(f"fault: unsynced record {fate}")
                if whole and fate == "kept":
                    record(self)
                    cover("unsynced record survived a crash")
                elif fate == "kept":
                    cover("record behind a torn one was cut off")
                else:
                    if whole and position:
                        cover("write was torn in its middle")
                    whole = False
        self.queue.clear()
        self.syncing = 0
        self.full = self.hung = self.fail_next_sync = False

    def recover(self) -> tuple[HardState, SnapshotMeta | None, tuple[bytes, ...], list[Entry]]:
        """What a starting node reads; the entries follow the snapshot.

        Raises:
            DamagedDisk: a checksum does not match.
        """
        if self.damaged:
            raise DamagedDisk
        first = self.snapshot.index if self.snapshot is not None else 0
        return self.hard_state, self.snapshot, self.snapshot_data, self.entries[first - self.base_index :]

    def store_snapshot(self, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        """An own snapshot is durable; its last entry was before."""
        assert self.term_at(meta.index) == meta.term, "a snapshot is marked behind its last entry"
        assert self.snapshot is None or meta.index > self.snapshot.index, "never store an older snapshot"
        self.snapshot, self.snapshot_data = meta, data
        self._keep(meta.index, data)

    def compact(self, index: Index) -> None:
        """Entries up to `index` stand in a durable snapshot: drop them."""
        assert self.snapshot is not None and index <= self.snapshot.index, "compaction before the snapshot"
        drop = min(index, self.last_index) - self.base_index
        if drop > 0:
            del self.entries[:drop]
            self.base_index += drop

    def _keep(self, index: Index, data: tuple[bytes, ...]) -> None:
        self.snapshots[index] = data
        while len(self.snapshots) > SNAPSHOTS_KEPT:
            del self.snapshots[min(self.snapshots)]

    # Records

    def write_snapshot(self, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        self.snapshot, self.snapshot_data = meta, data
        self.entries, self.base_index = [], meta.index
        self._keep(meta.index, data)

    def write_hard_state(self, hard_state: HardState) -> None:
        self.hard_state = hard_state

    def write_entry(self, entry: Entry) -> None:
        if entry.index <= self.base_index:
            return
        assert entry.index <= self.last_index + 1, "a hole in the log on disk"
        del self.entries[entry.index - self.base_index - 1 :]
        self.entries.append(entry)


def _records(write: Write) -> list[Callable[[SimDisk], None]]:
    persist = write.persist
    assert persist is not None
    records: list[Callable[[SimDisk], None]] = []
    if persist.hard_state is not None:
        hard_state = persist.hard_state
        records.append(lambda disk: disk.write_hard_state(hard_state))
    if persist.snapshot is not None:
        meta, data = persist.snapshot, write.snapshot_data
        records.append(lambda disk: disk.write_snapshot(meta, data))
    for entry in persist.entries:
        records.append(lambda disk, entry=entry: disk.write_entry(entry))
    return records
