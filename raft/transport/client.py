"""The way to one peer: a persistent stream for most messages, POSTs for those that must not queue behind it.

    stream    one WebSocket that this node opens to the peer's listener; carries this node's messages to it, of
              all groups, many to a frame. The answers come on the stream that the peer opens.
    POST      votes always; heartbeats while the stream is down or backed up. The reply is the response.

What needs an answer is sent only while the peer's own stream to this node stands: an answer that could not come would
leave a request's outcome unknown.

A message that cannot leave now is dropped, as the protocol allows, and the sender is told. When the stream breaks
or falls silent (`raft.transport.silence`), or a connection is refused, the groups hear `peer_lost` at once: it is how
a dead leader is noticed.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

import aiohttp

from common.logs import SparseLog, get_logger
from common.wire import MESSAGE_BYTES_MAX, WireError
from raft.cluster_id import ClusterId
from raft.core.messages import AppendEntries, AppendEntriesReply, ReadIndex, RequestVote
from raft.core.types import NodeId
from raft.forwarding import Forward
from raft.membership import CHANGE_SECONDS_MAX, MemberChange, MemberChangeReply
from raft.peer_messages import PeerMessage, SnapshotChunk, SnapshotChunkReply
from raft.transport import silence
from raft.transport.codec import (
    decode,
    decode_chunk_reply,
    encode,
    encode_chunk,
    encode_frame,
)
from raft.transport.identity import CLUSTER_HEADER, said_frame, said_now
from raft.transport.limits import FRAME_BYTES_MAX, weight
from raft.transport.member_codec import decode_change_reply, encode_change
from raft.transport.silence import SILENCE_MS

#: Weight of the messages queued for the stream or being written, above which heartbeats go by POST.
BACKLOG_BYTES_MAX = 256 << 10
#: Messages that wait for the stream's writer; above it they are dropped.
QUEUE_MAX = 4096
#: Messages in one frame; what they weigh together is bounded, too (raft.transport.limits).
FRAME_MESSAGES_MAX = 256
#: Calls by POST under way to one peer.
POSTS_MAX = 16
POST_TIMEOUT_S = 1.0
CONNECT_TIMEOUT_S = 1.0
#: For one piece of a snapshot; the last one's answer waits for the follower's disk.
CHUNK_TIMEOUT_S = 30.0
#: Pause before the stream is opened again after a failure; doubles up to the upper bound.
RECONNECT_MIN_S = 0.02
RECONNECT_MAX_S = 0.5
#: Requests on the stream whose answer time is being taken.
TIMED_MAX = 1024

#: Messages whose sender waits for an answer on the peer's stream.
_NEED_ANSWERS = (Forward, ReadIndex)

Answer = TypeVar("Answer")

logger = get_logger("raft.transport")
#: For what a peer can cause as often as it likes.
sparse_log = SparseLog(logger)


class Receiver(Protocol):
    """A group's node, as the transport sees it."""

    def receive(self, message: PeerMessage) -> None: ...

    def peer_lost(self, peer: NodeId) -> None: ...


class PeerLink:
    """This node's connection to one peer, shared by its groups.

    Args:
        url: of the peer's listener, such as `http://127.0.0.1:18001`.
        headers: what this node says of itself with every request (`raft.transport.identity`).
        lives: which life of its group each group's data is of, as of now.
        cluster: which cluster this node is of.
        observe_rpc: told `(op, seconds)` of each answered request.
        is_trusted: whether `(group, peer, headers of the answer)` is whom the group knows under that id: what a disk
            that was replaced answers must not count.
        silence_ms: for so long nothing may be acknowledged before the stream counts as broken.
    """

    def __init__(
        self,
        *,
        peer: NodeId,
        url: str,
        headers: Mapping[str, str],
        receivers: Mapping[str, Receiver],
        observe_rpc: Callable[[str, float], None],
        is_trusted: Callable[[str, NodeId, Mapping[str, str]], bool],
        lives: Callable[[], Mapping[str, str]] = dict,
        cluster: ClusterId | None = None,
        silence_ms: int = SILENCE_MS,
    ) -> None:
        self.peer = peer
        self._silence_ms = silence_ms
        self.url = url
        self._headers = headers
        self._lives = lives
        self._cluster = cluster or ClusterId()
        self._receivers = receivers
        self._is_trusted = is_trusted
        self._observe_rpc = observe_rpc
        #: With what each weighs.
        self._queue: deque[tuple[str, PeerMessage, int]] = deque()
        self._wake = asyncio.Event()
        self._stream: aiohttp.ClientWebSocketResponse | None = None
        #: Streams that the peer has open to this node: the way of its answers.
        self._peer_streams = 0
        #: Set where another try to connect is worth while at once.
        self._retry = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self._timed: OrderedDict[tuple[str, int], float] = OrderedDict()
        #: Weight of the queue and of the frame that is being written.
        self._backlog_bytes = 0
        #: Counted for `statistics` and the metrics.
        self.dropped = 0
        self.connects = 0

    @property
    def connected(self) -> bool:
        return self._stream is not None

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Open the stream and keep it open. A bug in the task that does so reaches `on_failure`."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )
        self._task = asyncio.create_task(self._keep_connected(), name=f"stream to {self.peer}")
        self._task.add_done_callback(lambda task: self._on_task_done(task, on_failure))

    async def close(self) -> None:
        tasks = [task for task in (self._task, *self._posts) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def send(self, group: str, message: PeerMessage) -> bool:
        """Send by whichever way suits the message; False where it certainly does not leave."""
        if isinstance(message, RequestVote):
            return self._start_post(group, "request_vote", message)
        if isinstance(message, AppendEntries) and not message.entries and not self._stream_flows():
            return self._start_post(group, "append_entries", message)
        unanswerable = isinstance(message, _NEED_ANSWERS) and not self._peer_streams
        if self._stream is None or unanswerable or len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return False
        if isinstance(message, AppendEntries):
            self._timed[group, message.sequence] = time.perf_counter()
            if len(self._timed) > TIMED_MAX:
                self._timed.popitem(last=False)
        size = weight(message)
        self._queue.append((group, message, size))
        self._backlog_bytes += size
        self._wake.set()
        return True

    def on_peer_streams(self, count: int) -> None:
        """The peer opened a stream to this node, or one of its streams ended; `count` are left."""
        lost = self._peer_streams and not count
        if count > self._peer_streams:
            # It runs: no need to wait any longer before the next try to reach it.
            self._retry.set()
        self._peer_streams = count
        if lost:
            self._tell_lost()

    def on_reply(self, group: str, message: PeerMessage) -> None:
        """A reply of this peer's arrived on its stream: take the time of the request."""
        if isinstance(message, AppendEntriesReply):
            sent = self._timed.pop((group, message.sequence), None)
            if sent is not None:
                self._observe_rpc("append_entries", time.perf_counter() - sent)

    def _stream_flows(self) -> bool:
        return self._stream is not None and self._backlog_bytes <= BACKLOG_BYTES_MAX

    # POST

    def _start_post(self, group: str, op: str, message: PeerMessage) -> bool:
        if self._session is None or len(self._posts) >= POSTS_MAX:
            self.dropped += 1
            return False
        task = asyncio.create_task(self._post(group, op, message), name=f"{op} to {self.peer}")
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)
        return True

    async def _post(self, group: str, op: str, message: PeerMessage) -> None:
        assert self._session is not None
        started = time.perf_counter()
        url, said = f"{self.url}/raft/{group}/{op}", self._said_now()
        try:
            async with self._session.post(url, data=encode(message), headers=said) as response:
                body = await response.read()
                if self._is_of_other_cluster(response.headers):
                    return
                if response.status != 200 or not self._trusts(group, response):
                    return
                reply = decode(body)
        except aiohttp.ClientConnectorError:
            self._tell_lost()
            return
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        except WireError as error:
            sparse_log.warning("peer sent an unreadable reply", self.peer, peer=self.peer, op=op, error=str(error))
            return
        self._observe_rpc(op, time.perf_counter() - started)
        self._receivers[group].receive(reply)

    async def send_chunk(self, group: str, chunk: SnapshotChunk) -> SnapshotChunkReply:
        """Send a piece of a snapshot and return the peer's answer.

        Raises:
            ConnectionError, TimeoutError: there was none, or none that could be read.
        """
        started = time.perf_counter()
        body = await self._ask(group, "install_snapshot", encode_chunk(chunk), CHUNK_TIMEOUT_S)
        answer = self._decoded(decode_chunk_reply, body)
        self._observe_rpc("install_snapshot", time.perf_counter() - started)
        return answer

    async def change_members(self, group: str, change: MemberChange) -> MemberChangeReply:
        """Put a change of members to the peer. Raises as `send_chunk`."""
        timeout_s = CHANGE_SECONDS_MAX + POST_TIMEOUT_S
        body = await self._ask(group, "members", encode_change(change), timeout_s, is_trust_needed=False)
        return self._decoded(decode_change_reply, body)

    async def inquire(self, group: str, question: bytes) -> bytes:
        """Put a service's question to the peer. Raises as `send_chunk`."""
        return await self._ask(group, "inquiry", question, POST_TIMEOUT_S)

    async def _ask(
        self, group: str, operation: str, data: bytes, timeout_s: float, *, is_trust_needed: bool = True
    ) -> bytes:
        """Post to the peer and return the answer's body. Raises as `send_chunk`."""
        if self._session is None:
            raise ConnectionError("not started")
        url, said = f"{self.url}/raft/{group}/{operation}", self._said_now()
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(url, data=data, headers=said, timeout=timeout) as response:
                body = await response.read()
                if self._is_of_other_cluster(response.headers):
                    raise ConnectionError(f"{self.peer} is of another cluster")
                if response.status != 200 or (is_trust_needed and not self._trusts(group, response)):
                    raise ConnectionError(f"{self.peer} answered {response.status}")
                return body
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionError(f"{self.peer}: {error!r}") from error

    def _decoded(self, decode_answer: Callable[[bytes], Answer], body: bytes) -> Answer:
        """Raises ConnectionError where the body cannot be read."""
        try:
            return decode_answer(body)
        except WireError as error:
            raise ConnectionError(f"{self.peer}: {error!r}") from error

    def _trusts(self, group: str, response: aiohttp.ClientResponse) -> bool:
        return self._is_trusted(group, self.peer, response.headers)

    def _is_of_other_cluster(self, headers: Mapping[str, str]) -> bool:
        """Whether this answer, or refusal, comes from a node that is of another cluster."""
        said = headers.get(CLUSTER_HEADER, "")
        if not self._cluster.is_other(said):
            return False
        self._cluster.log_other("peer is of another cluster; its answers do not count", self.peer, said)
        return True

    def _said_now(self) -> dict[str, str]:
        return said_now(self._lives(), self._cluster.id)

    # Stream

    async def _keep_connected(self) -> None:
        assert self._session is not None
        pause_s = RECONNECT_MIN_S
        refused = False
        while True:
            try:
                stream = await self._session.ws_connect(
                    f"{self.url}/raft/stream",
                    headers=self._said_now(),
                    compress=0,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CONNECT_TIMEOUT_S),
                    heartbeat=silence.PING_SECONDS,
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, aiohttp.WSServerHandshakeError):
                    if not self._is_of_other_cluster(error.headers or {}) and not refused:
                        logger.warning("peer refuses the stream", peer=self.peer, status=error.status)
                    refused = True
                self._tell_lost()
                self._retry.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._retry.wait(), pause_s)
                pause_s = min(2 * pause_s, RECONNECT_MAX_S)
                continue
            pause_s, refused = RECONNECT_MIN_S, False
            self.connects += 1
            await self._use(stream)
            self._tell_lost()

    async def _use(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        """Write to the stream until it breaks; the reader is there to notice that it did."""
        silence.break_on_silence(stream.get_extra_info("socket"), self._silence_ms)
        self._timed.clear()
        self._stream = stream
        reader = asyncio.create_task(self._read(stream), name=f"stream from {self.peer}")
        reader.add_done_callback(lambda _: self._wake.set())
        said: tuple[Mapping[str, str], str] | None = None
        try:
            while not reader.done():
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                if (now := (self._lives(), self._cluster.id)) != said:
                    said = now
                    await stream.send_str(said_frame(*now))
                frame, size = self._take_frame()
                await stream.send_bytes(encode_frame(frame))
                self._backlog_bytes -= size
        except (aiohttp.ClientError, ConnectionError, OSError, RuntimeError) as error:
            sparse_log.info("stream broke", self.peer, peer=self.peer, error=str(error))
        finally:
            self._stream = None
            self._queue.clear()
            self._backlog_bytes = 0
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await stream.close()

    async def _read(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        """The peer sends nothing here; this returns when the stream ends."""
        async for _ in stream:
            sparse_log.warning("unexpected data on the stream", self.peer, peer=self.peer)

    def _take_frame(self) -> tuple[list[tuple[str, PeerMessage]], int]:
        """The next messages, the first always, and what they weigh: less than a receiver takes."""
        frame: list[tuple[str, PeerMessage]] = []
        total = 0
        while self._queue and len(frame) < FRAME_MESSAGES_MAX:
            group, message, size = self._queue[0]
            if frame and total + size > FRAME_BYTES_MAX:
                break
            self._queue.popleft()
            frame.append((group, message))
            total += size
        return frame, total

    def _tell_lost(self) -> None:
        for receiver in self._receivers.values():
            receiver.peer_lost(self.peer)

    @staticmethod
    def _on_task_done(task: asyncio.Task[None], on_failure: Callable[[BaseException], None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            on_failure(error)
