"""What a data directory must hold, kept beside a real one: the dumb twin of the log.

`Oracle` drives a `Storage` and remembers what was acknowledged. While a write is under way, each of its records may
or may not have reached the disk, in order; so at any moment there is a list of states that recovery may find, and
nothing else is allowed: a state missing from it has lost something acknowledged or invented something.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from zlib import crc32

from raft.core.ready import Persist
from raft.core.types import Entry, HardState, SnapshotMeta
from raft.storage import DiskFull, Recovered, Storage


@dataclass(frozen=True, slots=True)
class State:
    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    #: Every entry of the log, without regard to snapshots, except where a leader's one replaced it.
    entries: tuple[Entry, ...] = ()

    @property
    def after_snapshot(self) -> tuple[Entry, ...]:
        base = self.snapshot.index if self.snapshot is not None else 0
        return tuple(entry for entry in self.entries if entry.index > base)

    def with_entry(self, entry: Entry) -> "State":
        kept = tuple(other for other in self.entries if other.index < entry.index)
        return replace(self, entries=(*kept, entry))


def steps(state: State, batch: list[Persist]) -> list[State]:
    """The states after each record of a batch, beginning with the one before it."""
    found = [state]
    for persist in batch:
        if persist.hard_state is not None:
            found.append(replace(found[-1], hard_state=persist.hard_state))
        if persist.snapshot is not None:
            found.append(replace(found[-1], snapshot=persist.snapshot, entries=()))
        for entry in persist.entries:
            found.append(found[-1].with_entry(entry))
    return found


def snapshot_chunks(meta: SnapshotMeta) -> list[bytes]:
    """The content of the snapshot that tests save at this place: longer than a sector, and telling its place."""
    return [b"snapshot at %d@%d, chunk %d." % (meta.index, meta.term, number) * 25 for number in range(3)]


class Oracle:
    def __init__(self, storage: Storage, state: State = State()) -> None:
        self.storage = storage
        self.state = state
        #: What recovery may find if the power fails now.
        self.allowed: list[State] = [state]
        #: How often the disk was full.
        self.full_count = 0

    @property
    def last_index(self) -> int:
        base = self.state.snapshot.index if self.state.snapshot is not None else 0
        return self.state.entries[-1].index if self.state.entries else base

    def write(self, *batch: Persist) -> None:
        self.allowed = steps(self.state, list(batch))
        self._insist(lambda: self.storage.write(batch))
        self._settle(self.allowed[-1])

    def snapshot(self, meta: SnapshotMeta) -> None:
        """Take a snapshot of our own."""
        self._insist(lambda: self.storage.save_snapshot(meta, snapshot_chunks(meta)))
        self.allowed = [self.state, replace(self.state, snapshot=meta)]
        self._insist(lambda: self.storage.mark_snapshot(meta))
        self._settle(self.allowed[-1])

    def seal(self) -> None:
        self._insist(self.storage.seal)

    def compact(self, index: int) -> None:
        self.storage.compact(index)

    def receive(self, meta: SnapshotMeta, content: bytes, snapshot_id: str) -> None:
        """Take a leader's snapshot file in, which does not change the log yet."""
        half = len(content) // 2
        for offset, data in ((0, content[:half]), (half, content[half:])):
            self._insist(partial(self.storage.receive_snapshot, snapshot_id, offset, data, crc32(data)))
        assert meta == self.storage.finish_snapshot(snapshot_id)

    def _insist(self, call: Callable[[], object]) -> None:
        """Do it again for as long as the disk is full."""
        while True:
            try:
                call()
                return
            except DiskFull:
                self.full_count += 1
                assert self.full_count < 100

    def _settle(self, state: State) -> None:
        self.state = state
        self.allowed = [state]


def check_recovered(storage: Storage, recovered: Recovered, allowed: list[State]) -> State:
    """Which of the allowed states this is; fails where it is none of them."""
    found = (recovered.hard_state, recovered.snapshot, tuple(recovered.entries))
    matching = [
        state for state in allowed if (state.hard_state, state.snapshot, state.after_snapshot) == found
    ]
    assert matching, f"{_short(found)} is none of {[_short(_parts(state)) for state in allowed]}"
    loaded = storage.load_snapshot()
    assert (loaded is None) == (recovered.snapshot is None)
    if loaded is not None:
        meta, chunks = loaded
        assert meta == recovered.snapshot
        assert list(chunks) == snapshot_chunks(meta)
    return matching[-1]


def _parts(state: State) -> tuple[HardState, SnapshotMeta | None, tuple[Entry, ...]]:
    return state.hard_state, state.snapshot, state.after_snapshot


def _short(parts: tuple[HardState, SnapshotMeta | None, tuple[Entry, ...]]) -> str:
    hard_state, snapshot, entries = parts
    places = " ".join(f"{entry.index}@{entry.term}" for entry in entries)
    return f"[{hard_state.term}{hard_state.vote} {snapshot.index if snapshot else '-'}: {places}]"
