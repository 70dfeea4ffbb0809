"""The replicated log as this node holds it in memory (paper 5.3, 5.4, 7).

    compacted_index          applied_index   commit_index      durable_index        last_index
          |  entries kept in memory ...                                                 |

Everything up to `compacted_index` is gone from memory; a snapshot holds it. `applied <= commit <= last` always, and
`durable <= last`. Committed entries never change. A completed write makes durable only what no later write replaces,
whether that write is under way or still to come. An entry can be replaced and replaced again, so that the same index
and term are here once more while the disk still has to do both writes (etcd's
`async_storage_writes_append_aba_race`).
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from raft.core.types import Entry, Index, SnapshotMeta, Term

#: What an entry takes in memory besides its data: the objects of its fields and its places in the lists.
ENTRY_OVERHEAD_BYTES = 220


class RaftLog:
    """Entries after the compaction point, and the four indexes that move along them."""

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry]) -> None:
        #: The newest snapshot that this node holds durably; the leader sends it to followers that are too far behind.
        self.snapshot = snapshot
        #: Index and term of the last entry that is gone from memory; (0, 0) if none is.
        self.compacted_index: Index = snapshot.index
        self.compacted_term: Term = snapshot.term
        self._entries: list[Entry] = list(entries)
        #: For each entry, the counted bytes of everything up to it, itself included, from some base on; then that
        #: base.
        self._ends: list[int] = []
        self._base_bytes = 0
        self._count(self._entries)
        for offset, entry in enumerate(self._entries):
            assert entry.index == snapshot.index + 1 + offset, "recovered entries must follow the snapshot"
        #: Known to be on a quorum, as far as this node was told.
        self.commit_index: Index = snapshot.index
        #: Handed out for apply.
        self.applied_index: Index = snapshot.index
        #: On this node's disk, fsynced.
        self.durable_index: Index = self.last_index
        #: Handed to the disk queue; entries after it go into the next `Ready`.
        self.submitted_index: Index = self.last_index

    @property
    def first_index(self) -> Index:
        return self.compacted_index + 1

    @property
    def last_index(self) -> Index:
        return self.compacted_index + len(self._entries)

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self.compacted_term

    @property
    def last_time_ms(self) -> int:
        """Cluster time of the last entry, or of the snapshot if there is no entry."""
        return self._entries[-1].time_ms if self._entries else self.snapshot.time_ms

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at `index`; 0 for index 0; None if the entry is compacted away or not there."""
        offset = index - self.compacted_index
        if offset == 0:
            return self.compacted_term
        if offset < 0 or offset > len(self._entries):
            return None
        return self._entries[offset - 1].term

    def entry(self, index: Index) -> Entry:
        """The entry at `index`, which must be in memory."""
        assert self.compacted_index < index <= self.last_index, f"no entry {index} in memory"
        return self._entries[index - self.compacted_index - 1]

    def counted_bytes(self, after: Index, to: Index) -> int:
        """What the entries after `after` up to `to` take in memory; all of them must be there."""
        assert self.compacted_index <= after and to <= self.last_index
        return self._bytes_up_to(to) - self._bytes_up_to(after)

    def data_bytes(self, after: Index, to: Index) -> int:
        """Bytes of data in the same entries."""
        return self.counted_bytes(after, to) - (to - after) * ENTRY_OVERHEAD_BYTES

    @property
    def memory_bytes(self) -> int:
        """What all entries in memory take there."""
        return self.counted_bytes(self.compacted_index, self.last_index)

    def first_within(self, to: Index, *, entries_max: int, bytes_max: int) -> Index:
        """The index from which on the entries up to `to` keep both bounds; `to + 1` if not even the last one does."""
        least = self._bytes_up_to(to) - bytes_max
        first = self.compacted_index + 1
        if least > self._base_bytes:
            first += 1 + bisect_left(self._ends, least)
        return max(first, to + 1 - entries_max)

    def _bytes_up_to(self, index: Index) -> int:
        offset = index - self.compacted_index
        return self._ends[offset - 1] if offset else self._base_bytes

    def _count(self, entries: Iterable[Entry]) -> None:
        """`entries` were put at the end of the log."""
        ends = self._ends
        end = ends[-1] if ends else self._base_bytes
        for entry in entries:
            end += len(entry.data) + ENTRY_OVERHEAD_BYTES
            ends.append(end)

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log with this end is at least as up-to-date as this one (paper 5.4.1: the later term wins, in
        equal terms the longer log)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def slice(
        self, start: Index, *, entries_max: int, bytes_max: int, end: Index | None = None
    ) -> list[Entry]:
        """Entries from `start` up to `end` included, the first always, the rest within both bounds."""
        low = start - self.compacted_index - 1
        assert low >= 0, f"entry {start} is compacted away"
        high = len(self._entries) if end is None else end - self.compacted_index
        picked = self._entries[low : min(high, low + entries_max)]
        size = 0
        for count, entry in enumerate(picked):
            size += len(entry.data)
            if size > bytes_max and count:
                return picked[:count]
        return picked

    def append(self, entries: Sequence[Entry]) -> None:
        """Put `entries`, if any, into the log; they replace everything at or after the first one's index."""
        if not entries:
            return
        first = entries[0].index
        assert self.commit_index < first <= self.last_index + 1, "committed entries never change (paper 5.4)"
        if first <= self.last_index:
            del self._entries[first - self.compacted_index - 1 :]
            del self._ends[first - self.compacted_index - 1 :]
            self.durable_index = min(self.durable_index, first - 1)
            self.submitted_index = min(self.submitted_index, first - 1)
        self._entries.extend(entries)
        self._count(entries)

    def conflict_hint(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The highest index at or below `index` whose entry's term is at most `term`, and that entry's term.

        The fast back-up of paper 5.3: skips a whole conflicting term in one step. A compacted entry ends the
        search: everything up to there is committed and agrees with every later leader.
        """
        index = min(index, self.last_index)
        while index > self.compacted_index:
            own_term = self._entries[index - self.compacted_index - 1].term
            if own_term <= term:
                return index, own_term
            index -= 1
        return self.compacted_index, self.compacted_term

    def commit_to(self, index: Index) -> bool:
        """Move the commit index forward; never back."""
        if index <= self.commit_index:
            return False
        assert index <= self.last_index, "cannot commit what is not in the log"
        self.commit_index = index
        return True

    def take_committed(self, *, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """The next committed entries to apply, in order; they count as handed out."""
        if self.applied_index >= self.commit_index:
            return ()
        taken = self.slice(
            self.applied_index + 1, entries_max=entries_max, bytes_max=bytes_max, end=self.commit_index
        )
        self.applied_index = taken[-1].index
        return tuple(taken)

    def take_unsubmitted(self) -> tuple[Entry, ...]:
        """Entries that the disk queue has not got yet; they count as submitted."""
        if self.submitted_index >= self.last_index:
            return ()
        entries = tuple(self._entries[self.submitted_index - self.compacted_index :])
        self.submitted_index = self.last_index
        return entries

    def on_durable(self, index: Index) -> bool:
        """Entries up to `index` are on disk as they are here. False if that is no news."""
        if index <= self.durable_index:
            return False
        assert index <= self.submitted_index, "only what the disk was given can be durable"
        self.durable_index = index
        return True

    def compact(self, snapshot: SnapshotMeta, retain_from: Index) -> None:
        """`snapshot` is durable: forget entries before `retain_from`, at most up to the snapshot."""
        assert snapshot.index <= self.applied_index, "a snapshot covers applied entries only"
        if snapshot.index > self.snapshot.index:
            self.snapshot = snapshot
        drop_to = min(retain_from - 1, self.snapshot.index, self.durable_index, self.submitted_index)
        if drop_to <= self.compacted_index:
            return
        term = self.term_at(drop_to)
        assert term is not None
        self._base_bytes = self._bytes_up_to(drop_to)
        del self._entries[: drop_to - self.compacted_index]
        del self._ends[: drop_to - self.compacted_index]
        self.compacted_index, self.compacted_term = drop_to, term

    def restore(self, snapshot: SnapshotMeta) -> None:
        """A leader's snapshot replaces the whole log (paper 7). It is durable only once the driver says so."""
        assert snapshot.index > self.commit_index, "never install something older"
        self.snapshot = snapshot
        self._entries.clear()
        self._ends.clear()
        self._base_bytes = 0
        self.compacted_index, self.compacted_term = snapshot.index, snapshot.term
        self.commit_index = self.applied_index = self.submitted_index = snapshot.index
        self.durable_index = 0
