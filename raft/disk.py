"""The ordered disk queue of one group: one thread writes, many submissions share one sync.

Rules of the file:

- Writes become durable in the order of `submit`, and their callbacks run in that order, on the event loop.
- What arrives while the disk is busy is the next batch (group commit); there is no timer.
- A failed write or sync is fatal: `on_fatal` is called once, and nothing is written after it, by nobody.
- A full disk is not: nothing of the batch was written, it waits, and goes through when there is room.
- Snapshot files are written and received by a second thread, beside the log. They come into effect only through
  the ordered queue, after all that was submitted before.
"""

import asyncio
import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from common.runtime import settle
from common.threads import SYSTEM_THREADS, Queue, Threads
from raft.core.ready import Persist
from raft.core.types import Index, SnapshotMeta
from raft.storage import DiskFull, Storage

Result = TypeVar("Result")

#: Most bytes of entry data that one batch gathers; a single larger write still goes through, alone.
BATCH_BYTES_MAX = 16 * 1024 * 1024
#: A log that has been quiet for so long is sealed, so that damage to its last batch can be told from a torn one.
SEAL_AFTER_SECONDS = 0.2
#: How often a write that found the disk full is tried again.
FULL_RETRY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """What the queue has done and is doing."""

    #: Batches that were written and synced.
    batches: int
    #: Bytes of records in them.
    written_bytes: int
    #: Submissions whose callback has not run yet.
    waiting: int
    #: How long the batch being written has taken so far; 0.0 while none is. A disk that hangs shows here.
    busy_seconds: float
    #: The disk has no room and a batch waits for some.
    full: bool


@dataclass(frozen=True, slots=True)
class _Write:
    persist: Persist
    on_durable: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Task:
    """Anything else that a thread is to do: `call()`, its outcome to `future`."""

    call: Callable[[], Any]
    future: asyncio.Future[Any]


class DiskClosed(Exception):
    """The queue was closed before this was done."""


class DiskQueue:
    """Drives one `Storage`. All methods are for the event loop's thread."""

    def __init__(
        self,
        storage: Storage,
        *,
        on_fatal: Callable[[BaseException], None],
        on_full: Callable[[bool], None] | None = None,
        on_batch: Callable[[float], None] | None = None,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        seal_after_seconds: float = SEAL_AFTER_SECONDS,
        full_retry_seconds: float = FULL_RETRY_SECONDS,
        threads: Threads = SYSTEM_THREADS,
    ) -> None:
        """
        Args:
            on_fatal: called once, with the error; the node must stop.
            on_full: called with True when the disk turns out to be full, and with False when a write went through
                again.
            on_batch: called after each batch with the seconds that writing and syncing took.
        """
        self._storage = storage
        #: Where its threads come from.
        self.threads = threads
        self._on_fatal = on_fatal
        self._on_full = on_full or (lambda full: None)
        self._on_batch = on_batch or (lambda seconds: None)
        self._batch_bytes_max = batch_bytes_max
        self._seal_after_seconds = seal_after_seconds
        self._full_retry_seconds = full_retry_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        #: None ends the thread.
        self._log_queue: Queue[_Write | _Task | None] = threads.queue()
        self._snapshot_queue: Queue[_Task | None] = threads.queue()
        #: One for each thread, done when the thread has ended.
        self._ends: list[asyncio.Future[None]] = []
        #: Set after a fatal error: nothing more may be written, by either thread.
        self._failed = threads.event()
        #: Set when closing: a snapshot being saved and a write that waits for room are given up.
        self._closing = threads.event()
        #: Submissions whose callback has not run yet.
        self._waiting = 0
        #: Of tasks that have not ended yet.
        self._futures: set[asyncio.Future[Any]] = set()
        #: Taken from the log queue while gathering a batch that it does not belong to. The thread's own.
        self._put_back: list[_Task | None] = []
        #: Something was written since the log was last sealed. The thread's own.
        self._unsealed = False
        self._failure_reported = False
        self._full = False
        self._batches = 0
        self._written_bytes = 0
        #: Monotonic seconds at which the batch being written began; 0.0 while none is. Written by the thread.
        self._busy_since = 0.0

    def start(self) -> None:
        """Start the threads; the running loop is the one that callbacks run on."""
        assert self._loop is None, "started twice"
        self._loop = asyncio.get_running_loop()
        self._ends = [
            self._start_thread("disk", self._run_log),
            self._start_thread("snapshots", self._run_snapshots),
        ]

    def submit(self, persist: Persist, on_durable: Callable[[], None]) -> None:
        """Write this after all that was submitted before, then call back.

        A `Persist` with nothing in it is a barrier: it calls back when everything before it is durable, on the
        loop's next turn where nothing is under way. After an error nothing is written and nothing calls back.
        """
        assert self._loop is not None, "not started"
        if self._failed.is_set():
            return
        if self._waiting == 0 and not (persist.entries or persist.hard_state or persist.snapshot):
            self._loop.call_soon(on_durable)
            return
        self._waiting += 1
        self._log_queue.put(_Write(persist, on_durable))

    async def save_snapshot(
        self, meta: SnapshotMeta, chunks: Iterable[bytes], *, compact_index: Index | None = None
    ) -> None:
        """Write a snapshot of our own, then in order let the log start from it, and drop segments whose entries
        all lie at or before `compact_index` (the snapshot's index, unless a slow follower still needs some).
        `chunks` is drained by another thread.

        Raises:
            DiskFull: no snapshot was taken; the log is as before.
            DiskClosed: the queue closed first.
            OSError: the fatal error that `on_fatal` was told of.
        """
        await self.run_aside(lambda: self._storage.save_snapshot(meta, self._until_closing(chunks)))
        limit = meta.index if compact_index is None else compact_index
        await self._enqueue(self._log_queue, lambda: self._mark(meta, limit))

    async def compact(self, index: Index) -> None:
        """In order: drop segments whose entries all lie at or before `index`, which a snapshot must cover."""
        await self._enqueue(self._log_queue, lambda: self._storage.compact(index))

    def run_aside(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run something of the snapshot side of `Storage` (receiving, reading) on the snapshot thread. An
        `OSError` is fatal to the queue; any other error is the future's alone."""
        return self._enqueue(self._snapshot_queue, call)

    async def close(self) -> None:
        """Write what was submitted, give up a snapshot being saved, seal the log, let go of the directory. On a
        disk that hangs this hangs, too: the caller bounds it."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._loop is None:
            self._storage.close()
            return
        log_ended, snapshots_ended = self._ends
        self._snapshot_queue.put(None)
        await snapshots_ended
        self._log_queue.put(None)
        await log_ended
        # After an error not even a seal may be written; else sealing may take a sync, which must not hold the loop.
        seal = not self._failed.is_set()
        try:
            await self._loop.run_in_executor(None, lambda: self._storage.close(seal=seal))
        except OSError as error:
            # What was called back is durable; only the seal is not. Still nobody must think that all went well.
            self._failed.set()
            self._on_failure(error)
        for future in tuple(self._futures):
            self._settle(future, None, DiskClosed("the disk queue was closed"))

    @property
    def storage(self) -> Storage:
        """For reading it, and for what `run_aside` is given to do; writing is the queue's own."""
        return self._storage

    @property
    def log_bytes(self) -> int:
        """Bytes of all records in the log."""
        return self._storage.log_bytes

    @property
    def bytes_since_snapshot(self) -> int:
        """Bytes written to the log since the newest snapshot: when they are many, another one is due."""
        return self._storage.bytes_since_snapshot

    def statistics(self) -> DiskStatistics:
        since = self._busy_since
        busy_seconds = self.threads.monotonic() - since if since else 0.0
        return DiskStatistics(self._batches, self._written_bytes, self._waiting, busy_seconds, self._full)

    # -- on the threads ------------------------------------------------------------------------------------------

    def _run_log(self) -> None:
        """Body of the disk thread."""
        while (item := self._next_item()) is not None:
            if isinstance(item, _Task):
                self._run_task(item)
            else:
                self._write_batch(self._gather(item))

    def _run_snapshots(self) -> None:
        """Body of the snapshot thread."""
        while (task := self._snapshot_queue.get()) is not None:
            self._run_task(task)

    def _next_item(self) -> _Write | _Task | None:
        if self._put_back:
            return self._put_back.pop()
        if self._unsealed:
            try:
                return self._log_queue.get(timeout=self._seal_after_seconds)
            except queue.Empty:
                self._check_sound()
                with contextlib.suppress(DiskFull):
                    self._storage.seal()
                self._unsealed = False
        return self._log_queue.get()

    def _gather(self, first: _Write) -> list[_Write]:
        """Everything that waits behind `first`, up to the limit: the next batch."""
        batch, size = [first], _data_bytes(first.persist)
        while size < self._batch_bytes_max:
            try:
                item = self._log_queue.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, _Write):
                self._put_back.append(item)
                break
            batch.append(item)
            size += _data_bytes(item.persist)
        return batch

    def _write_batch(self, batch: list[_Write]) -> None:
        persists = [item.persist for item in batch]
        self._busy_since = began = self.threads.monotonic()
        full = False
        while True:
            self._check_sound()
            try:
                written = self._storage.write(persists)
                break
            except DiskFull:
                if not full:
                    full = True
                    self._call_loop(self._on_full_changed, True)
                if self._closing.wait(self._full_retry_seconds):
                    raise DiskClosed("the disk was full until the end") from None
        seconds = self.threads.monotonic() - began
        self._busy_since = 0.0
        self._unsealed = self._unsealed or written > 0
        if full:
            self._call_loop(self._on_full_changed, False)
        self._call_loop(self._on_written, batch, written, seconds)

    def _run_task(self, task: _Task) -> None:
        self._check_sound()
        try:
            result = task.call()
        except (OSError, AssertionError):
            raise
        except Exception as error:
            self._call_loop(self._settle, task.future, None, error)
        else:
            self._call_loop(self._settle, task.future, result, None)

    def _mark(self, meta: SnapshotMeta, compact_index: Index) -> None:
        self._storage.mark_snapshot(meta)
        self._storage.compact(compact_index)

    def _until_closing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._closing.is_set() or self._failed.is_set():
                raise DiskClosed("the snapshot was given up")
            yield chunk

    def _check_sound(self) -> None:
        """The other thread may have met an error: then this one must not write either."""
        if self._failed.is_set():
            raise DiskClosed("the other thread failed")

    def _call_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(
            RuntimeError
        ):  # the loop was closed without closing the queue: nobody listens
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _start_thread(self, name: str, body: Callable[[], None]) -> asyncio.Future[None]:
        assert self._loop is not None
        ended = self._loop.create_future()

        def run() -> None:
            try:
                body()
            except DiskClosed:
                pass
            except BaseException as error:
                self._failed.set()
                self._call_loop(self._on_failure, error)
            self._call_loop(ended.set_result, None)

        self.threads.start(name, run)
        return ended

    # -- on the loop ---------------------------------------------------------------------------------------------

    def _on_written(self, batch: list[_Write], written: int, seconds: float) -> None:
        if self._failure_reported:
            return
        try:
            if written:
                self._batches += 1
                self._written_bytes += written
                self._on_batch(seconds)
            for item in batch:
                self._waiting -= 1
                item.on_durable()
        except Exception as error:  # what the callbacks after it stand for would be lost: do not limp on
            self._failed.set()
            self._on_failure(error)

    def _on_full_changed(self, full: bool) -> None:
        self._full = full
        self._on_full(full)

    def _on_failure(self, error: BaseException) -> None:
        if self._failure_reported:
            return
        self._failure_reported = True
        for future in tuple(self._futures):
            self._settle(future, None, error)
        self._on_fatal(error)

    def _enqueue(self, tasks: Queue[Any], call: Callable[[], Result]) -> asyncio.Future[Result]:
        assert self._loop is not None, "not started"
        future: asyncio.Future[Result] = self._loop.create_future()
        if self._failed.is_set() or self._closing.is_set():
            future.set_exception(DiskClosed("the disk queue failed or was closed before"))
        else:
            self._futures.add(future)
            tasks.put(_Task(call, future))
        return future

    def _settle(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._futures.discard(future)
        settle(future, result, error)


def _data_bytes(persist: Persist) -> int:
    return sum([len(entry.data) for entry in persist.entries])
