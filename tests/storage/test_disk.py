"""The disk queue: order, shared syncs, barriers, and what an error or a full disk does."""

import asyncio
import errno
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import pytest

from raft.core.ready import Persist
from raft.core.types import HardState, SnapshotMeta
from raft.disk import DiskClosed, DiskQueue
from raft.storage import DiskFull, Storage
from tests.helpers import WITHIN_SECONDS, eventually
from tests.storage.builders import indexes, meta, recover, reopen, write_of
from tests.storage.work import snapshot_file

EMPTY = Persist(None, ())


class FakeStorage:
    """Stands in for `Storage`: records batches, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[Persist]] = []
        self.errors: list[Exception] = []
        self.full = False
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def write(self, batch: Sequence[Persist]) -> int:
        self.gate.wait(WITHIN_SECONDS)
        if self.errors:
            raise self.errors.pop(0)
        if self.full:
            raise DiskFull("no room")
        self.batches.append(list(batch))
        return sum(len(persist.entries) for persist in batch)

    def seal(self) -> None:
        self.calls.append("seal")

    def save_snapshot(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        for _ in chunks:
            pass
        self.calls.append(f"save {meta.index}")

    def mark_snapshot(self, meta: SnapshotMeta) -> None:
        self.calls.append(f"mark {meta.index} after {len(self.batches)}")

    def compact(self, index: int) -> None:
        self.calls.append(f"compact {index}")

    def close(self, *, seal: bool = True) -> None:
        self.calls.append(f"close seal={seal}")


class Listener:
    """Notes what the queue tells its owner."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.fatal: list[BaseException] = []
        self.full: list[bool] = []
        self.changed = asyncio.Event()

    def durable(self, number: int) -> None:
        self.done.append(number)
        self.changed.set()

    def on_fatal(self, error: BaseException) -> None:
        self.fatal.append(error)
        self.changed.set()

    def on_full(self, full: bool) -> None:
        self.full.append(full)
        self.changed.set()

    async def until(self, fact: str) -> None:
        """Wait until an expression over this listener holds."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not eval(fact, {}, vars(self)):
                self.changed.clear()
                await self.changed.wait()


def queue_for(
    storage: FakeStorage | Storage, listener: Listener, *, seal_after_seconds: float = 3600, **options: float
) -> DiskQueue:
    """A queue that seals nothing by itself where a test is not about that."""
    queue = DiskQueue(
        storage,  # type: ignore[arg-type]
        on_fatal=listener.on_fatal,
        on_full=listener.on_full,
        full_retry_seconds=0.01,
        seal_after_seconds=seal_after_seconds,
        **options,  # type: ignore[arg-type]
    )
    queue.start()
    return queue


async def test_what_waits_during_a_sync_is_the_next_batch_and_order_is_kept() -> None:
    """Group commit: one sync for all that arrived while the disk was busy."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    storage.gate.clear()
    for number in range(1, 51):
        queue.submit(write_of(number, number), lambda number=number: listener.durable(number))
    storage.gate.set()

    await listener.until("len(done) == 50")
    await queue.close()

    assert list(range(1, 51)) == listener.done
    assert len(storage.batches) <= 2
    written = [entry.index for batch in storage.batches for item in batch for entry in item.entries]
    assert list(range(1, 51)) == written


async def test_a_batch_is_bounded_by_bytes() -> None:
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener, batch_bytes_max=3000)
    storage.gate.clear()
    for number in range(1, 11):
        queue.submit(write_of(number, number, size=1000), lambda number=number: listener.durable(number))
    storage.gate.set()

    await listener.until("len(done) == 10")
    await queue.close()

    assert max(map(len, storage.batches)) == 3


async def test_a_barrier_costs_nothing_when_idle_and_waits_its_turn_when_not() -> None:
    """`messages_after_persist` without a write of their own must not overtake the writes in the queue."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    queue.submit(EMPTY, lambda: listener.durable(0))
    done_at_once = list(listener.done)
    await asyncio.sleep(0)
    done_next_turn = list(listener.done)
    storage.gate.clear()
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    queue.submit(EMPTY, lambda: listener.durable(2))
    await eventually(lambda: queue.statistics().busy_seconds > 0.0)
    done_while_busy = list(listener.done)
    storage.gate.set()
    await listener.until("len(done) == 3")

    statistics = queue.statistics()
    await queue.close()

    assert (done_at_once, done_next_turn, done_while_busy, listener.done) == ([], [0], [0], [0, 1, 2])
    assert (statistics.batches, statistics.waiting, statistics.busy_seconds) == (1, 0, 0.0)


async def test_a_failed_write_is_fatal_and_nothing_is_written_after_it() -> None:
    """Known bug 54: a failed fsync is never retried, and what came before it is answered only where it is safe."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    await listener.until("done == [1]")
    storage.errors = [OSError(errno.EIO, "fsync")]
    queue.submit(write_of(2, 2), lambda: listener.durable(2))
    await listener.until("len(fatal) == 1")
    queue.submit(write_of(3, 3), lambda: listener.durable(3))
    queue.submit(EMPTY, lambda: listener.durable(4))
    with pytest.raises(DiskClosed):
        await queue.save_snapshot(meta(1), [b"state"])

    await queue.close()

    assert listener.done == [1]
    assert listener.fatal[0].errno == errno.EIO  # type: ignore[attr-defined]
    assert (len(listener.fatal), len(storage.batches)) == (1, 1)
    assert storage.calls == ["close seal=False"]


async def test_a_callback_that_raises_is_fatal() -> None:
    """The callbacks after it would be lost: nothing limps."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)

    def broken() -> None:
        raise KeyError("broken")

    queue.submit(write_of(1, 1), broken)
    await listener.until("len(fatal) == 1")
    await queue.close()

    assert isinstance(listener.fatal[0], KeyError)


async def test_a_full_disk_holds_the_batch_until_there_is_room() -> None:
    """A full disk loses nothing and stops nothing for good; the owner hears of both ends."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    storage.full = True
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    queue.submit(write_of(2, 2), lambda: listener.durable(2))
    await listener.until("full == [True]")
    full = queue.statistics().full

    storage.full = False
    await listener.until("done == [1, 2]")
    await queue.close()

    assert full
    assert (listener.full, listener.fatal) == ([True, False], [])
    assert not queue.statistics().full


async def test_closing_with_a_full_disk_gives_up_and_acknowledges_nothing() -> None:
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    storage.full = True
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    await listener.until("full == [True]")

    await queue.close()

    assert (listener.done, listener.fatal) == ([], [])


async def test_a_snapshot_comes_into_effect_after_the_writes_before_it() -> None:
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    queue.submit(write_of(1, 9), lambda: listener.durable(1))
    await queue.save_snapshot(meta(9), [b"state"], compact_index=5)
    await queue.compact(9)
    await queue.close()

    assert storage.calls == ["save 9", "mark 9 after 1", "compact 5", "compact 9", "close seal=True"]


async def test_appends_go_on_while_a_snapshot_is_written() -> None:
    """Known bug 50: a slow snapshot must not hold up the log."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    slow = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"first"
        slow.wait(WITHIN_SECONDS)
        yield b"second"

    saving = asyncio.ensure_future(queue.save_snapshot(meta(1), chunks()))
    for number in range(1, 4):
        queue.submit(write_of(number, number), lambda number=number: listener.durable(number))
        await listener.until(f"len(done) == {number}")
    saved_meanwhile = saving.done()
    slow.set()
    await saving
    await queue.close()

    assert not saved_meanwhile


async def test_an_error_beside_the_log_stops_the_log_too() -> None:
    """A snapshot's failed fsync says as much about the disk as the log's own."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)

    def fail() -> None:
        raise OSError(errno.EIO, "fsync")

    with pytest.raises(OSError, match="fsync"):
        await queue.run_aside(fail)
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    await queue.close()

    assert (len(listener.fatal), listener.done, storage.batches) == (1, [], [])


async def test_closing_gives_up_a_snapshot_and_its_waiter_hears_of_it() -> None:
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener)
    release = threading.Event()

    def chunks() -> Iterator[bytes]:
        release.wait(WITHIN_SECONDS)
        yield b"one"
        raise AssertionError("went on after closing")

    saving = asyncio.ensure_future(queue.save_snapshot(meta(1), chunks()))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(queue.close())
    await asyncio.sleep(0)
    release.set()
    await closing

    with pytest.raises(DiskClosed):
        await saving
    assert storage.calls == ["close seal=True"]


async def test_a_quiet_log_is_sealed_once(tmp_path: Path) -> None:
    """Damage to the last batch of a log that rests is then recognised as damage."""
    storage, listener = FakeStorage(), Listener()
    queue = queue_for(storage, listener, seal_after_seconds=0.01)
    queue.submit(write_of(1, 1), lambda: listener.durable(1))
    await listener.until("done == [1]")
    await eventually(lambda: storage.calls)
    await asyncio.sleep(0.05)

    calls = list(storage.calls)
    await queue.close()

    assert calls == ["seal"]


async def test_with_a_real_directory_all_that_was_called_back_is_there(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    listener = Listener()
    queue = queue_for(storage, listener, seal_after_seconds=0.001)
    queue.submit(Persist(HardState(2, "node1"), ()), lambda: listener.durable(0))
    for number in range(1, 101):
        queue.submit(write_of(number, number, size=100), lambda number=number: listener.durable(number))
        if number % 30 == 0:
            await listener.until(f"len(done) == {number + 1}")
            await queue.save_snapshot(meta(number), [b"state", str(number).encode()])
    await listener.until("len(done) == 101")
    await queue.close()

    recovered = recover(tmp_path)

    assert (HardState(2, "node1"), meta(90)) == (recovered.hard_state, recovered.snapshot)
    assert list(range(91, 101)) == indexes(recovered)


async def test_snapshots_and_a_leaders_snapshot_beside_a_stream_of_writes(tmp_path: Path) -> None:
    """Both threads at work on one real directory: whatever interleaving, what was called back is there."""
    storage, _ = reopen(tmp_path)
    listener = Listener()
    queue = queue_for(storage, listener, seal_after_seconds=0.0001)
    content, snapshot_id = snapshot_file(meta(500, 9))
    snapshots: list[asyncio.Task[None]] = []
    for number in range(1, 301):
        queue.submit(write_of(number, number, size=300), lambda number=number: listener.durable(number))
        if number % 20 == 0:
            await asyncio.sleep(0)
        if number % 60 == 0:
            await listener.until(f"len(done) == {number}")
            snapshots.append(asyncio.ensure_future(queue.save_snapshot(meta(number), [b"x" * 5000] * 5)))
    await asyncio.gather(*snapshots)
    await queue.run_aside(lambda: queue.storage.receive_snapshot(snapshot_id, 0, content, crc32(content)))
    received = await queue.run_aside(lambda: queue.storage.finish_snapshot(snapshot_id))
    queue.submit(Persist(HardState(9), (), received), lambda: listener.durable(301))
    queue.submit(write_of(501, 520, term=9), lambda: listener.durable(302))
    await listener.until("len(done) == 302")
    await queue.close()

    recovered = recover(tmp_path)

    assert (recovered.hard_state, recovered.snapshot) == (HardState(9), meta(500, 9))
    assert indexes(recovered) == list(range(501, 521))
    assert listener.done == list(range(1, 303))
    assert listener.fatal == []
