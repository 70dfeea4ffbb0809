"""A snapshot's way from the leader to a follower (paper 7), in pieces of its file, each with its CRC.

    leader    sends the newest file, from where the follower says that it goes on; to each follower one at a time, the
              one that the core asked for last
    follower  gathers the pieces in a file beside; the last one hands the message to the core like any other

The rule of the file: every transfer ends. The follower answers each piece with where to go on, with its core's reply,
or with why it takes none. The leader stops at such a refusal, at a connection that breaks, at answers that lead no
further, and once its core wants the transfer no more. After a failure the core hears of it only when a pause is over,
which doubles with each failure: it asks for the next try at once.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Protocol
from zlib import crc32

from common.logs import get_logger
from raft.core import snapshotting
from raft.core.messages import AppendEntriesReply, InstallSnapshot, InstallSnapshotReply, Message
from raft.core.raft import RaftCore
from raft.core.types import NodeId
from raft.disk import DiskQueue
from raft.peer_messages import PeerMessage, SnapshotChunk, SnapshotChunkReply
from raft.status import NodeConfig
from raft.storage import CorruptSnapshot, DiskFull, RejectedChunk, Storage

#: Bytes of a snapshot file in one message.
CHUNK_BYTES = 256 << 10
#: Answers of one transfer that may lead no further; the first question where to begin may be one.
SETBACKS_MAX = 4
#: Pause after a transfer that failed; doubles with each one up to the upper bound.
PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 5.0

logger = get_logger("raft.snapshots")


class SnapshotSender(Protocol):
    """How chunks reach a peer."""

    async def send_chunk(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        """Raises ConnectionError or TimeoutError where no answer came."""


class TransferringNode(Protocol):
    """The node at either end of a transfer."""

    group: str
    config: NodeConfig
    core: RaftCore
    disk: DiskQueue

    def now_ms(self) -> int: ...

    def wake(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def receive(self, message: PeerMessage) -> None: ...

    async def call(self, message: Message, timeout_s: float) -> Message | None: ...


class TransferFailed(Exception):
    """The follower did not get the snapshot; the text says why."""


class SnapshotSending:
    """Leader: the transfers under way."""

    def __init__(self, node: TransferringNode, storage: Storage, sender: SnapshotSender) -> None:
        self._node = node
        self._storage = storage
        self._sender = sender
        #: To each follower the transfer that counts: an earlier one ends when it notices that it is not here.
        self._under_way: dict[NodeId, InstallSnapshot] = {}
        #: The last pause after a failure, and what was logged of it: each reason once until a transfer succeeds.
        self._pause_seconds: dict[NodeId, float] = {}
        self._logged: dict[NodeId, str] = {}
        #: Transfers that reached their end.
        self.sent = 0

    def begin(self, message: InstallSnapshot) -> Coroutine[None, None, None]:
        """Take on a transfer to the follower that the core names; what is returned carries it out."""
        self._under_way[message.to] = message
        return self._run(message)

    async def _run(self, message: InstallSnapshot) -> None:
        node = self._node
        try:
            reply = await self._stream(message)
        except CorruptSnapshot as error:
            node.fail(error)
            return
        except (TransferFailed, ConnectionError, TimeoutError) as failure:
            await self._back_off(message, str(failure) or type(failure).__name__)
            self._report(message, delivered=False)
            return
        delivered = isinstance(reply, InstallSnapshotReply)
        if delivered:
            self.sent += 1
            self._pause_seconds.pop(message.to, None)
            self._logged.pop(message.to, None)
        self._report(message, delivered=delivered)
        if reply is not None:
            node.receive(reply)

    async def _stream(self, message: InstallSnapshot) -> InstallSnapshotReply | AppendEntriesReply | None:
        """The follower's answer; None where the transfer is not wanted any more."""
        disk, core = self._node.disk, self._node.core
        reader = await disk.run_aside(self._storage.open_snapshot)
        if reader is None:
            raise TransferFailed("there is no snapshot")
        newest = replace(message, snapshot=reader.meta)
        offset, data, setbacks = 0, b"", 0
        try:
            while self._is_wanted(message):
                chunk = SnapshotChunk(newest, reader.id, reader.size, offset, data, crc32(data))
                answer = await self._sender.send_chunk(chunk)
                if answer.reply is not None:
                    return answer.reply
                if answer.refusal:
                    raise TransferFailed(answer.refusal)
                if answer.next_offset > offset:
                    snapshotting.on_advanced(core, message.to, answer.next_offset / reader.size)
                else:
                    setbacks += 1
                    if setbacks > SETBACKS_MAX:
                        raise TransferFailed("its answers lead no further")
                offset = answer.next_offset
                data = await disk.run_aside(partial(reader.read, offset, CHUNK_BYTES))
        finally:
            reader.close()
        return None

    async def _back_off(self, message: InstallSnapshot, why: str) -> None:
        peer = message.to
        if why != self._logged.get(peer):
            self._logged[peer] = why
            logger.info("snapshot transfer failed", group=self._node.group, peer=peer, error=why)
        pause = min(2 * self._pause_seconds.get(peer, PAUSE_SECONDS_MIN / 2), PAUSE_SECONDS_MAX)
        self._pause_seconds[peer] = pause
        await asyncio.sleep(pause)

    def _report(self, message: InstallSnapshot, *, delivered: bool) -> None:
        """Tell the core, unless it has gone over to something else."""
        wanted = self._is_wanted(message)
        if self._under_way.get(message.to) is message:
            del self._under_way[message.to]
        if wanted:
            self._node.core.snapshot_sent(message.to, delivered=delivered, now_ms=self._node.now_ms())
            self._node.wake()

    def _is_wanted(self, message: InstallSnapshot) -> bool:
        return self._under_way.get(message.to) is message and snapshotting.is_wanted(self._node.core, message)


class SnapshotReceiving:
    """Follower: what a leader sends."""

    def __init__(self, node: TransferringNode, storage: Storage) -> None:
        self._node = node
        self._storage = storage
        #: The snapshot that pieces came of last.
        self._message: InstallSnapshot | None = None
        #: Its size in bytes, where the disk has no room for it; else 0.
        self._no_room_bytes = 0

    @property
    def hindrance(self) -> str:
        """Why this node lacks what a leader has begun to send; empty where it lacks nothing of it."""
        if self._message is None or not snapshotting.would_install(self._node.core, self._message):
            return ""
        if self._no_room_bytes:
            return (
                f"no room on the disk for the leader's snapshot of {self._no_room_bytes} bytes; free some space, "
                "it goes on by itself"
            )
        return "the leader's snapshot is being received"

    async def receive(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        """A piece of a leader's snapshot arrived. An empty piece asks where to begin.

        Raises:
            DiskClosed: this node takes nothing more.
        """
        run_aside, storage = self._node.disk.run_aside, self._storage
        if not snapshotting.would_install(self._node.core, chunk.message):
            return await self._tell_core(chunk.message, 0)
        self._message = chunk.message
        try:
            if chunk.data:
                offset = await run_aside(
                    lambda: storage.receive_snapshot(chunk.snapshot_id, chunk.offset, chunk.data, chunk.checksum)
                )
                self._has_room()
            else:
                offset = await run_aside(lambda: storage.received_bytes(chunk.snapshot_id))
            if offset < chunk.size:
                return SnapshotChunkReply(offset)
            meta = await run_aside(lambda: storage.finish_snapshot(chunk.snapshot_id))
        except RejectedChunk as rejected:
            return SnapshotChunkReply(rejected.expected_offset)
        except DiskFull:
            return self._refuse_for_room(chunk.size)
        return await self._tell_core(replace(chunk.message, snapshot=meta), chunk.size)

    def _refuse_for_room(self, size: int) -> SnapshotChunkReply:
        if not self._no_room_bytes:
            logger.warning("no room for the leader's snapshot", group=self._node.group, bytes=size)
        self._no_room_bytes = size
        return SnapshotChunkReply(0, refusal="it has no room for the snapshot")

    def _has_room(self) -> None:
        if self._no_room_bytes:
            self._no_room_bytes = 0
            logger.info("there is room for the leader's snapshot again", group=self._node.group)

    async def _tell_core(self, message: InstallSnapshot, next_offset: int) -> SnapshotChunkReply:
        reply = await self._node.call(message, self._node.config.request_timeout_ms / 1000)
        if isinstance(reply, InstallSnapshotReply | AppendEntriesReply):
            return SnapshotChunkReply(next_offset, reply)
        return SnapshotChunkReply(next_offset, refusal="it did not answer in time")
