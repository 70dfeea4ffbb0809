"""Every state that a power loss may leave, at every operation of every procedure, recovers to what was acknowledged.

Before each operation of the filesystem all disks that a power loss there may leave are built (power_loss.py) and
opened. Each must give a state that the oracle allows; then it must take another write and give that back. Of those
openings, every operation is in turn a place where the power may fail a second time.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from raft.core.ready import Persist
from raft.core.types import HardState
from raft.storage import CorruptStorage, Recovered, Storage, open_storage, snapshot_file
from raft.storage.memory import MEMORY_DIRECTORY
from raft.storage.record import FILE_HEADER_BYTES
from raft.storage.segment import SegmentWriter
from raft.storage.wal import Wal
from tests.storage.builders import SEGMENT_BYTES, write_of
from tests.storage.oracle import Oracle, State, check_recovered
from tests.storage.power_loss import CHECKED, Image, Moment, PowerLossFiles
from tests.storage.work import (
    EVERY_WORK,
    Work,
    anything,
    append,
    append_much,
    close,
    leaders_snapshot,
    own_snapshots,
    rotate,
    seal_at_a_sectors_end,
)

#: Random series of work; more of them by the environment variable.
SEEDS = range(int(os.environ.get("POWER_LOSS_SEEDS", "6")))
#: One of so many disks is put through a second power loss, at every operation of its recovery.
SECOND_LOSS_EVERY = 10


@dataclass
class Counts:
    """What was tried, so that it can be told and that an empty enumeration fails."""

    crash_points: int = 0
    states: int = 0
    second_states: int = 0
    cut: int = 0
    kept_unacknowledged: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"{self.crash_points} crash points, {self.states} states, {self.second_states} of a second loss, "
            f"{self.cut} with a torn tail, {self.kept_unacknowledged} that kept more than was acknowledged"
        )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that even small snapshots take several writes, with a sync between them."""
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 1500)


@pytest.mark.parametrize("work", [*EVERY_WORK, *map(anything, SEEDS)], ids=lambda work: work.__name__)
def test_every_power_loss_recovers_to_what_was_acknowledged(work: Work) -> None:
    """Known bugs 2, 26, 52, 53, 56, 57, 62 and 65."""
    counts = enumerate_losses(work)

    print(f"{work.__name__}: {counts}")
    CHECKED["crash points"] += counts.crash_points
    CHECKED["states"] += counts.states
    CHECKED["states of a second loss while recovering"] += counts.second_states
    assert counts.states > counts.crash_points / 2
    assert counts.second_states > 0


@pytest.mark.parametrize("work", [append, rotate], ids=lambda work: work.__name__)
def test_unacknowledged_writes_are_sometimes_kept_and_sometimes_cut(work: Work) -> None:
    """The enumeration reaches both sides of every write."""
    counts = enumerate_losses(work)

    assert 0 < counts.cut < counts.states
    assert 0 < counts.kept_unacknowledged < counts.states


def pretend(*words: str) -> Callable[[str], bool]:
    return lambda operation: any(word in operation for word in words)


@pytest.mark.parametrize(
    ("work", "pretends"),
    [
        (append, pretend("sync 0000000000000001.wal")),
        (append, pretend("sync 0000000000000001.wal.tmp")),
        (rotate, pretend("sync 0000000000000002.wal.tmp")),
        (rotate, pretend("sync_directory")),
        (own_snapshots, pretend("snapshot.tmp")),
        (own_snapshots, pretend("sync_directory")),
        (leaders_snapshot, pretend(".part")),
    ],
    ids=[
        "batch",
        "first segment",
        "next segment",
        "name of a segment",
        "snapshot",
        "name of a snapshot",
        "part",
    ],
)
def test_every_sync_is_needed(work: Work, pretends: Callable[[str], bool]) -> None:
    """The proof that the enumeration bites: with any kind of sync left out, something acknowledged is lost, and it
    says so (known bugs 52 and 53)."""
    with pytest.raises((AssertionError, CorruptStorage)):
        enumerate_losses(work, pretends)


def leave_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery that only skips a torn end (known bug 57)."""
    monkeypatch.setattr(PowerLossFiles, "open", lambda self, path: _Untruncated(self.open_readonly(path)))


def claim_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch after a seal that says that the seal is durable."""
    append_ = SegmentWriter.append

    def patched(self: SegmentWriter, data: bytes) -> None:
        append_(self, data)
        self.durable = self.end

    monkeypatch.setattr(SegmentWriter, "append", patched)


def name_snapshot_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that the log names before its file is there (known bug 52)."""
    save, mark = Storage.save_snapshot, Storage.mark_snapshot

    def patched(self: Storage, meta, chunks) -> None:
        mark(self, meta)
        save(self, meta, chunks)

    monkeypatch.setattr(Storage, "save_snapshot", patched)
    monkeypatch.setattr(Storage, "mark_snapshot", lambda self, meta: None)


def forget_to_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that do not repeat the hard state."""
    encode = Wal._encode_start

    def patched(self: Wal, sequence: int, previous_bytes: int, seed: int) -> bytes:
        hard_state, self._hard_state = self._hard_state, HardState()
        start = encode(self, sequence, previous_bytes, seed)
        self._hard_state = hard_state
        return start

    monkeypatch.setattr(Wal, "_encode_start", patched)


@pytest.mark.parametrize(
    ("work", "plant"),
    [
        (append_much, leave_tail),
        (seal_at_a_sectors_end, claim_unsynced),
        (own_snapshots, name_snapshot_first),
        (rotate, forget_to_carry),
    ],
    ids=lambda part: part.__name__,
)
def test_planted_bugs_are_caught(
    work: Work, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    with pytest.raises((AssertionError, CorruptStorage, FileNotFoundError)):
        enumerate_losses(work)


def test_a_file_of_only_a_header_is_not_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power loss leaves it, since a segment is named when it is complete; so it is damage."""
    moment, _ = list(run(close))[-1]
    image = next(moment.images())

    with pytest.raises(CorruptStorage):
        open_image({name: content[:FILE_HEADER_BYTES] for name, content in image.items()})


class _Untruncated:
    """A file that does not shrink."""

    def __init__(self, file) -> None:
        self._file = file

    def truncate(self, size: int) -> None:
        pass

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def enumerate_losses(work: Work, pretends: Callable[[str], bool] = lambda operation: False) -> Counts:
    counts = Counts()
    for moment, allowed in run(work, pretends):
        counts.crash_points += 1
        for image in moment.images():
            check_image(image, allowed, counts)
    return counts


def run(
    work: Work, pretends: Callable[[str], bool] = lambda operation: False
) -> Iterator[tuple[Moment, list[State]]]:
    """Do the work once; the moments before each operation, and what recovery may find then."""
    files = PowerLossFiles(pretends=pretends)
    moments: list[tuple[Moment, list[State]]] = []
    oracle: Oracle | None = None

    def before(operation: str) -> None:
        moments.append((files.freeze(), list(oracle.allowed) if oracle is not None else [State()]))

    files.before = before
    storage, _ = open_storage(MEMORY_DIRECTORY, segment_bytes=SEGMENT_BYTES, files=files)
    oracle = Oracle(storage)
    work(oracle)
    before("end")
    yield from moments


def check_image(image: Image, allowed: list[State], counts: Counts) -> None:
    """Open one disk, check it, write to it, open it again."""
    identity = (hash(frozenset(image.items())), hash(tuple(allowed)))
    if identity in counts.seen:
        return
    counts.seen.add(identity)
    moments: list[Moment] = []
    files = PowerLossFiles.from_image(image)
    twice = counts.states % SECOND_LOSS_EVERY == 0
    counts.states += 1
    if twice:
        files.before = lambda operation: moments.append(files.freeze())
    storage, recovered = open_storage(MEMORY_DIRECTORY, segment_bytes=SEGMENT_BYTES, files=files)
    state = check_recovered(storage, recovered, allowed)
    files.before = lambda operation: None
    counts.cut += recovered.cut_bytes > 0
    counts.kept_unacknowledged += state != allowed[0]

    if twice:
        check_second_loss(moments, allowed, counts)
        # What the opening told the core is acknowledged by that.
        check_second_loss([files.freeze()], [state], counts)
    oracle = Oracle(storage, state)
    oracle.write(in_place_of_lost(oracle, allowed))
    storage.close(seal=False)
    check_recovered(*reopened(files), oracle.allowed)


def in_place_of_lost(oracle: Oracle, allowed: list[State]) -> Persist:
    """An entry just as long as the one that was cut, if one was: what was cut behind it must not come back."""
    after = allowed[min(allowed.index(oracle.state) + 1, len(allowed) - 1)].entries
    size = len(after[-1].data) if after else 20
    return write_of(oracle.last_index + 1, oracle.last_index + 1, term=99, size=size)


def check_second_loss(moments: list[Moment], allowed: list[State], counts: Counts) -> None:
    for moment in moments:
        for image in moment.images():
            counts.second_states += 1
            check_recovered(*open_image(image), allowed)


def reopened(files: PowerLossFiles) -> tuple[Storage, Recovered]:
    files.restart()
    return open_storage(MEMORY_DIRECTORY, segment_bytes=SEGMENT_BYTES, files=files)


def open_image(image: Image) -> tuple[Storage, Recovered]:
    return reopened(PowerLossFiles.from_image(image))
