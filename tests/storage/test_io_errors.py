"""An error at any operation: nothing is written after it, a restart recovers, and a full disk loses nothing."""

import errno

import pytest

from raft.core.ready import Persist
from raft.core.types import HardState
from raft.storage import Storage, open_storage, snapshot_file
from raft.storage.memory import MEMORY_DIRECTORY
from raft.storage.recovery import LogContents
from raft.storage.segment import SegmentWriter
from raft.storage.wal import Wal
from tests.storage.builders import SEGMENT_BYTES, indexes, meta, write_of
from tests.storage.oracle import Oracle, check_recovered
from tests.storage.power_loss import PowerLossFiles
from tests.storage.work import EVERY_WORK, Work, append, own_snapshots

#: Operations that need space, and so may find none.
NEED_SPACE = ("create", "write", "preallocate")


class Fault:
    """Raises an error in place of one operation, and notes what is done after it."""

    def __init__(self, number: int, code: int, kinds: tuple[str, ...] = ()) -> None:
        self.number = number
        self.code = code
        self.kinds = kinds
        self.struck = ""
        self.after: list[str] = []

    def __call__(self, operation: str) -> None:
        if self.struck:
            self.after.append(operation)
        elif not self.kinds or operation.startswith(self.kinds):
            if self.number == 0:
                self.struck = operation
                raise OSError(self.code, operation)
            self.number -= 1


def opened(files: PowerLossFiles) -> tuple[Storage, object]:
    return open_storage(MEMORY_DIRECTORY, segment_bytes=SEGMENT_BYTES, files=files)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that even small snapshots take several writes, with a sync between them."""
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 1500)


@pytest.mark.parametrize("work", EVERY_WORK, ids=lambda work: work.__name__)
def test_an_error_at_any_operation_stops_all_writing_and_a_restart_recovers(work: Work) -> None:
    """Known bugs 54 and 55: after a failed sync the pages read well and are not on the disk. What the restart read
    must survive a power loss after it."""
    number = struck = 0
    while True:
        files, fault = PowerLossFiles(), Fault(number, errno.EIO)
        storage, _ = opened(files)
        oracle = Oracle(storage)
        files.before = fault
        try:
            work(oracle)
        except OSError as error:
            assert error.errno == errno.EIO
        if not fault.struck:
            break
        struck += 1
        storage.close(seal=False)
        assert fault.after == []
        files.restart()

        reopened, recovered = opened(files)
        state = check_recovered(reopened, recovered, oracle.allowed)

        for image in files.freeze().images():
            again, found = opened(PowerLossFiles.from_image(image))
            check_recovered(again, found, [state])
        number += 1
    assert struck > 3


def test_without_writing_the_tail_again_a_restart_trusts_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Proof that the test above bites: known bug 55."""

    def trusting(self: Wal, contents: LogContents) -> None:
        last = contents.segments[-1]
        file = self._files.open(last.path)
        self._writer = SegmentWriter(file, seed=contents.seed, end=last.size, ahead_bytes=SEGMENT_BYTES)

    monkeypatch.setattr(Wal, "_continue", trusting)

    with pytest.raises(AssertionError):
        test_an_error_at_any_operation_stops_all_writing_and_a_restart_recovers(append)


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_after_a_failed_write_every_later_one_is_refused(operation: str) -> None:
    """Known bug 54: a retry would "succeed" over lost pages."""
    files = PowerLossFiles()
    storage, _ = opened(files)
    storage.write([write_of(1, 1)])
    files.before = fault = Fault(0, errno.EIO, (operation,))
    with pytest.raises(OSError, match=operation):
        storage.write([write_of(2, 2)])

    for call in (
        lambda: storage.write([write_of(2, 2)]),
        lambda: storage.mark_snapshot(meta(1)),
        lambda: storage.compact(0),
        storage.seal,
    ):
        with pytest.raises(OSError, match="failed before"):
            call()
    storage.close()

    assert fault.after == []


@pytest.mark.parametrize("work", EVERY_WORK, ids=lambda work: work.__name__)
def test_a_full_disk_at_any_operation_loses_nothing_once_there_is_room(work: Work) -> None:
    """Known bug 61: the same call goes through later, and what is on disk is as if nothing had happened."""
    number = struck = 0
    while True:
        files, fault = PowerLossFiles(), Fault(number, errno.ENOSPC, NEED_SPACE)
        storage, _ = opened(files)
        oracle = Oracle(storage)
        files.before = fault
        work(oracle)
        if not fault.struck:
            break
        struck += oracle.full_count
        storage.close(seal=False)
        files.restart()

        check_recovered(*opened(files), [oracle.state])  # type: ignore[arg-type]

        number += 1
    assert struck > 0


@pytest.mark.parametrize("work", EVERY_WORK, ids=lambda work: work.__name__)
def test_a_disk_that_stays_full_keeps_what_was_acknowledged(work: Work) -> None:
    """Full at some operation and for good, then the process is killed, or the power fails."""
    number = 0
    while True:
        files = PowerLossFiles()
        storage, _ = opened(files)
        oracle = Oracle(storage)
        files.before = full = FullFrom(number)
        try:
            work(oracle)
        except AssertionError:
            assert oracle.full_count == 100
        if not full.struck:
            break
        files.before = lambda operation: None
        storage.close()
        images = list(files.freeze().images())
        files.restart()

        check_recovered(*opened(files), oracle.allowed)  # type: ignore[arg-type]
        for image in images:
            check_recovered(*opened(PowerLossFiles.from_image(image)), oracle.allowed)  # type: ignore[arg-type]

        number += 1
    assert number >= 3


class FullFrom:
    """No operation that needs space works after so many that did."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.struck = False

    def __call__(self, operation: str) -> None:
        if operation.startswith(NEED_SPACE):
            self.number -= 1
            if self.number < 0:
                self.struck = True
                raise OSError(errno.ENOSPC, operation)


def test_a_batch_that_found_no_room_half_way_leaves_nothing_behind() -> None:
    """The disk fills while a batch is written, and another, shorter one is written in its place: what was left of
    the first must not be read behind it."""
    files = PowerLossFiles()
    storage, _ = opened(files)
    storage.write([write_of(1, 1)])
    strike(files, "write", half_written=True)
    with pytest.raises(Exception, match="28"):
        storage.write([write_of(2, 9, size=10)])

    storage.write([write_of(2, 2, term=2, size=10)])
    storage.close(seal=False)
    files.restart()
    _, recovered = opened(files)

    assert indexes(recovered) == [1, 2]  # type: ignore[arg-type]
    assert recovered.entries[-1].term == 2  # type: ignore[attr-defined]


def strike(files: PowerLossFiles, kind: str, *, half_written: bool) -> None:
    """The next write stops half way with ENOSPC."""
    from tests.storage import power_loss

    write = power_loss.PowerLossFile.write

    def once(self, offset: int, data: bytes) -> None:
        power_loss.PowerLossFile.write = write  # type: ignore[method-assign]
        write(self, offset, data[: len(data) * 3 // 4])
        raise OSError(errno.ENOSPC, "28: no room")

    power_loss.PowerLossFile.write = once  # type: ignore[method-assign]


def test_an_unopenable_directory_is_let_go() -> None:
    """After an error while opening, another attempt must not find the directory in use."""
    files = PowerLossFiles()
    files.before = Fault(0, errno.EIO, ("sync",))
    with pytest.raises(OSError, match="sync"):
        opened(files)
    files.before = lambda operation: None

    storage, _ = opened(files)
    storage.write([Persist(HardState(1), ())])

    storage.close()


def test_a_snapshot_that_finds_no_room_leaves_no_file() -> None:
    files = PowerLossFiles()
    storage, _ = opened(files)
    own_snapshots(Oracle(storage))
    names = files.names(MEMORY_DIRECTORY)
    files.before = FullFrom(1)

    with pytest.raises(Exception, match="write"):
        storage.save_snapshot(meta(18), [b"x" * 5000])

    assert files.names(MEMORY_DIRECTORY) == names
