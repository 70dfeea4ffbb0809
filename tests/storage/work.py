"""What a node does to its data directory, as short programs: what the power-loss and error tests interrupt."""

import random
from collections.abc import Callable
from functools import cache

from raft.core.ready import Persist
from raft.core.types import HardState, SnapshotMeta
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles, open_memory_storage
from raft.storage.snapshots import snapshot_name
from tests.storage.builders import meta, write_of
from tests.storage.oracle import Oracle, snapshot_chunks

Work = Callable[[Oracle], None]


def append(oracle: Oracle) -> None:
    """Batches of a few records, over several sectors, with hard state among them."""
    oracle.write(Persist(HardState(1, "node1"), ()))
    oracle.write(write_of(1, 3, size=300), Persist(HardState(2), ()), write_of(4, 4, term=2, size=300))
    oracle.write(write_of(5, 5, term=2))
    oracle.write(write_of(6, 12, term=2, size=150))


def append_much(oracle: Oracle) -> None:
    """Batches over more sectors than all combinations of can be tried, one of them larger than a segment."""
    oracle.write(write_of(1, 2, size=1700))
    oracle.write(write_of(3, 4, size=9000), Persist(HardState(2, "node2"), ()))
    oracle.write(write_of(5, 30, term=2, size=100))


def replace_suffix(oracle: Oracle) -> None:
    oracle.write(write_of(1, 8, size=100))
    oracle.write(write_of(3, 6, term=2, size=200, hard_state=HardState(2)))
    oracle.write(write_of(6, 6, term=3))


def rotate(oracle: Oracle) -> None:
    """More than a segment's worth, with replacement over the border."""
    oracle.write(write_of(1, 5, size=500, hard_state=HardState(1, "node2")))
    oracle.write(write_of(6, 8, size=500))
    oracle.write(write_of(7, 9, term=2, size=700))
    oracle.write(write_of(8, 8, term=3, size=10))


def own_snapshots(oracle: Oracle) -> None:
    """Three snapshots with compaction; the first file goes with the third."""
    for number in range(3):
        first = 6 * number + 1
        oracle.write(write_of(first, first + 3, size=600))
        oracle.snapshot(meta(first + 2))
        oracle.write(write_of(first + 4, first + 5, size=600))
        oracle.compact(first + 2)


def leaders_snapshot(oracle: Oracle) -> None:
    """A conflicting log is replaced, with entries in the same batch; then life goes on."""
    oracle.write(write_of(1, 9, size=600, hard_state=HardState(1)))
    oracle.write(write_of(10, 11, size=600))
    received = meta(8, 5)
    oracle.receive(received, *snapshot_file(received))
    oracle.write(write_of(9, 10, term=5, snapshot=received, hard_state=HardState(5)))
    oracle.write(write_of(11, 16, term=5, size=600))
    oracle.snapshot(meta(14, 5))
    oracle.compact(14)


def seal(oracle: Oracle) -> None:
    """Seals are not synced: the batch after one must not claim that they are."""
    oracle.write(write_of(1, 2, size=400))
    oracle.seal()
    oracle.write(write_of(3, 4, size=400))
    oracle.seal()
    oracle.write(write_of(5, 9, size=400))
    oracle.seal()
    oracle.write(write_of(10, 10, size=400))


def seal_at_a_sectors_end(oracle: Oracle) -> None:
    """As `seal`, with the seal alone in its sector: it can be lost while what follows is kept."""
    end = oracle.storage.log_bytes
    oracle.write(write_of(1, 1, size=1024 - end - 40 - 16))
    assert oracle.storage.log_bytes == 1024 - 16
    oracle.seal()
    oracle.write(write_of(2, 3, size=700))


def close(oracle: Oracle) -> None:
    oracle.write(write_of(1, 3, size=300))
    oracle.storage.close()


EVERY_WORK: tuple[Work, ...] = (
    append,
    append_much,
    replace_suffix,
    rotate,
    own_snapshots,
    leaders_snapshot,
    seal,
    seal_at_a_sectors_end,
    close,
)


def anything(seed: int) -> Work:
    """A random series of the same."""

    def work(oracle: Oracle) -> None:
        chance = random.Random(seed)
        for _ in range(14):
            chance.choice((_write, _write, _write, _write, _seal, _snapshot, _receive))(oracle, chance)

    work.__name__ = f"seed{seed}"
    return work


def _write(oracle: Oracle, chance: random.Random) -> None:
    covered = oracle.state.snapshot.index if oracle.state.snapshot is not None else 0
    last, term, batch = oracle.last_index, oracle.state.hard_state.term, []
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.3:
            term += 1
            batch.append(Persist(HardState(term, chance.choice(("", "node1", "node2"))), ()))
        else:
            first = chance.randint(covered + 1, last + 1) if chance.random() < 0.3 else last + 1
            last = first + chance.randint(0, 3)
            size = chance.choice((0, 1, 100, 400, 1500))
            batch.append(write_of(first, last, term, size=size))
    oracle.write(*batch)


def _seal(oracle: Oracle, chance: random.Random) -> None:
    oracle.seal()


def _snapshot(oracle: Oracle, chance: random.Random) -> None:
    candidates = oracle.state.after_snapshot
    if candidates:
        entry = chance.choice(candidates)
        oracle.snapshot(meta(entry.index, entry.term))
        oracle.compact(entry.index - chance.randint(0, min(3, entry.index)))


def _receive(oracle: Oracle, chance: random.Random) -> None:
    covered = oracle.state.snapshot.index if oracle.state.snapshot is not None else 0
    term = oracle.state.hard_state.term + 1
    received = meta(covered + chance.randint(1, 10), term)
    oracle.receive(received, *snapshot_file(received))
    oracle.write(Persist(HardState(term), (), received))


@cache
def snapshot_file(place: SnapshotMeta) -> tuple[bytes, str]:
    """The bytes and the id of a snapshot file as a leader would send it."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files)
    storage.write([write_of(1, place.index, place.term)])
    storage.save_snapshot(place, snapshot_chunks(place))
    storage.mark_snapshot(place)
    reader = storage.open_snapshot()
    assert reader is not None
    storage.close()
    return bytes(files.contents[MEMORY_DIRECTORY / snapshot_name(place)]), reader.id
