"""Snapshots of one replica: taken, sent to a follower, received and put into effect (paper 7, thesis 5).

    take       the machine's copy is made in one go and encoded in slices on the event loop, so that heartbeats
               pass between them; a thread writes the file; then the log behind it is dropped
    send       the newest file goes to the follower in chunks, from where it left off (raft.snapshot_transfer)
    receive    chunks go to a file beside; the last one hands the message to the core like any other
    restore    once the log is reset to it, the machine is rebuilt on a thread while the node goes on answering
               heartbeats; committed entries wait until that is done

One of each at a time. What fails is given up and begins again at the next occasion.
"""

import asyncio
import queue
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from enum import Enum, auto
from itertools import chain
from typing import Protocol

from common.logs import get_logger
from common.threads import Queue
from raft.applier import Applier
from raft.core import catching_up, snapshotting
from raft.core.messages import InstallSnapshot
from raft.core.types import Index, SnapshotMeta
from raft.disk import DiskClosed
from raft.peer_messages import SnapshotChunk, SnapshotChunkReply
from raft.proposals import Proposals
from raft.slices import PAUSE_SECONDS, in_slices
from raft.snapshot_transfer import SnapshotReceiving, SnapshotSender, SnapshotSending, TransferringNode
from raft.state_machine import StateMachine
from raft.storage import Storage, StorageError

#: Chunks encoded and not written yet.
ENCODED_MAX = 16
#: After a snapshot that could not be taken, the next try waits for this many further entries.
RETRY_ENTRIES = 1_000

logger = get_logger("raft.snapshots")


class _Ending(Enum):
    """What the writing thread is told behind the last chunk."""

    #: The copy is encoded to its end.
    WHOLE = auto()
    #: It was given up on the way.
    ABANDONED = auto()


_Encoded = Queue[bytes | _Ending]


class SnapshotAbandoned(StorageError):
    """The snapshot being taken was given up; the log is as before."""


class SnapshottedNode(TransferringNode, Protocol):
    """The node whose machine the snapshots are of."""

    machine: StateMachine
    applier: Applier
    proposals: Proposals

    def on_restored(self, snapshot: SnapshotMeta) -> None: ...


class Snapshotter:
    """What `RaftNode` delegates to; all methods run on its event loop."""

    def __init__(self, node: SnapshottedNode, storage: Storage, sender: SnapshotSender) -> None:
        self._node = node
        self._storage = storage
        self._sending = SnapshotSending(node, storage, sender)
        self._receiving = SnapshotReceiving(node, storage)
        self._taking = False
        self._not_before: Index = 0
        #: The log in memory begins earlier than it would without followers that are catching up.
        self._keeps_more = False
        #: The leader's snapshot that the machine is being rebuilt from; None while it is whole.
        self.restoring: SnapshotMeta | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Counted for the status page.
        self.taken = self.installed = 0

    @property
    def sent(self) -> int:
        """Snapshots that reached a follower."""
        return self._sending.sent

    @property
    def taking(self) -> bool:
        """Whether a snapshot is being taken."""
        return self._taking

    async def stop(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Taking

    def copy(self) -> tuple[SnapshotMeta, Iterator[bytes]] | None:
        """The machine's state as of the last applied entry, and where in the log that is: a copy, to be drained in
        slices while newer entries are applied. None while there is nothing that could be named so."""
        node = self._node
        index = node.applier.applied_index
        if self.restoring is not None or node.core.log.term_at(index) is None:
            return None
        if not snapshotting.may_take(node.core, index):
            return None
        meta = snapshotting.meta_at(node.core, index, node.applier.applied_time_ms)
        return meta, node.machine.snapshot()

    def maybe_take(self) -> bool:
        """Begin a snapshot where the log behind the last one has grown beyond its bounds."""
        node = self._node
        index = node.applier.applied_index
        if self._taking or index < self._not_before:
            return False
        entries = index - node.core.log.snapshot.index
        few = entries < node.config.snapshot_entries
        if few and self._storage.bytes_since_snapshot < node.config.snapshot_bytes:
            return False
        copied = self.copy() if entries else None
        if copied is None:
            return False
        self._taking = True
        self._start(self._take(*copied), "take a snapshot")
        return True

    async def _take(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        node = self._node
        encoded: _Encoded = node.disk.threads.queue(ENCODED_MAX)
        # On disk nothing is read again behind a snapshot: what followers need is sent from memory.
        retain_from = self._retain_from(meta.index)
        writing = asyncio.ensure_future(
            node.disk.save_snapshot(meta, _drain(encoded), compact_index=retain_from - 1)
        )
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        whole = False
        try:
            whole = await _encode(chunks, encoded, writing)
            await writing
        except StorageError as error:
            logger.warning("no snapshot was taken", group=node.group, error=str(error))
            self._not_before = meta.index + RETRY_ENTRIES
            return
        finally:
            self._taking = False
            if not whole:
                _abandon(encoded)
        self.taken += 1
        if meta.index > node.core.log.snapshot.index:
            # Else a leader's has come meanwhile, and the log begins behind that.
            retain_from, needed_from = self._retain_from(meta.index), catching_up.needed_from(node.core)
            self._keeps_more = needed_from < retain_from
            node.core.snapshot_taken(meta, min(retain_from, needed_from))
        logger.info("snapshot taken", group=node.group, index=meta.index)

    def _retain_from(self, index: Index) -> Index:
        """Where the log may begin once a snapshot stands for everything up to `index`."""
        config = self._node.config
        return self._node.core.log.first_within(
            index, entries_max=config.snapshot_retain_entries, bytes_max=config.snapshot_retain_bytes_max
        )

    def release_log(self) -> None:
        """Forget what was kept for followers that have caught up by now, or are waited for no more."""
        if not self._keeps_more:
            return
        core = self._node.core
        retain_from = self._retain_from(core.log.snapshot.index)
        if catching_up.needed_from(core) >= retain_from:
            self._keeps_more = False
            snapshotting.compact(core, core.log.snapshot, retain_from)

    # Sending and receiving

    def send(self, message: InstallSnapshot) -> None:
        """Stream the newest snapshot to the follower that the core names; the core is told how that ended."""
        self._start(self._sending.begin(message), f"send a snapshot to {message.to}")

    async def receive(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        """See `SnapshotReceiving.receive`."""
        return await self._receiving.receive(chunk)

    @property
    def hindrance(self) -> str:
        """Why this node has not taken in all that a leader's snapshot brings; empty where it has."""
        return "the leader's snapshot is being restored" if self.restoring else self._receiving.hindrance

    # Restoring

    def restore(self, snapshot: SnapshotMeta) -> None:
        """The log now begins at `snapshot`: rebuild the machine from its file. Entries wait until that is done."""
        again = self.restoring is not None
        self.restoring = snapshot
        self._node.proposals.on_snapshot_installed(snapshot.index)
        if not again:
            self._start(self._restore(), "restore a snapshot")

    async def _restore(self) -> None:
        node = self._node
        wanted = None
        while wanted != self.restoring:
            wanted = self.restoring
            await node.disk.run_aside(self._load)
        assert wanted is not None
        self.restoring = None
        self.installed += 1
        logger.info("snapshot installed", group=node.group, index=wanted.index)
        node.on_restored(wanted)

    def _load(self) -> None:
        loaded = self._storage.load_snapshot()
        assert loaded is not None, "the log was reset to it"
        self._node.machine.restore(loaded[1])

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"{self._node.group}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A disk queue that failed has told the node already.
        if error is not None and not isinstance(error, DiskClosed):
            self._node.fail(error)


async def _encode(chunks: Iterator[bytes], encoded: _Encoded, writing: asyncio.Future[None]) -> bool:
    """Drain `chunks` into the writer's queue, a slice at a time. False where the writer gave up first."""
    whole: Iterator[bytes | _Ending] = chain(chunks, (_Ending.WHOLE,))
    async for chunk in in_slices(whole):
        while encoded.full() and not writing.done():  # noqa: ASYNC110 - the other end is a thread
            await asyncio.sleep(PAUSE_SECONDS)
        if writing.done():
            return False
        encoded.put_nowait(chunk)
    return True


def _abandon(encoded: _Encoded) -> None:
    """Let the writer end without a snapshot: whatever waits to be written no longer matters."""
    while True:
        try:
            encoded.put_nowait(_Ending.ABANDONED)
            return
        except queue.Full:
            with suppress(queue.Empty):
                encoded.get_nowait()


def _drain(encoded: _Encoded) -> Iterator[bytes]:
    """The chunks, on the writing thread. A copy that was given up must not end like a whole one."""
    while (item := encoded.get()) is not _Ending.WHOLE:
        if item is _Ending.ABANDONED:
            raise SnapshotAbandoned("the snapshot was given up")
        yield item
