"""The peer listener: what other nodes of the cluster may ask. Never published to clients.

    POST /raft/{group}/request_vote      a RequestVote in, its reply out (msgpack)
    POST /raft/{group}/append_entries    an AppendEntries in, its reply out
    POST /raft/{group}/install_snapshot  a piece of a snapshot in; out: where to go on, or the reply
    GET  /raft/stream                    WebSocket: frames of messages in, nothing out

Every request carries the cluster secret; without it the answer is 401 and nothing else.
"""

import hmac
from collections.abc import Mapping

from aiohttp import WSMsgType, web

from common.logs import get_logger
from common.wire import MESSAGE_BYTES_MAX, WireError
from raft.core.messages import AppendEntries, RequestVote
from raft.node import RaftNode
from raft.transport.client import PeerLink
from raft.transport.codec import decode, decode_chunk, decode_frame, encode, encode_chunk_reply

#: How long a caller's POST is held for the reply, which may wait for the disk.
REPLY_TIMEOUT_S = 1.0
CONTENT_TYPE = "application/msgpack"
_OPERATIONS: dict[str, type] = {"request_vote": RequestVote, "append_entries": AppendEntries}

logger = get_logger("raft.transport")


class PeerListener:
    """The handlers, bound to this node's groups and its links to the peers."""

    def __init__(self, nodes: Mapping[str, RaftNode], links: Mapping[str, PeerLink], secret: str) -> None:
        self._nodes = nodes
        self._links = links
        self._authorization = f"Bearer {secret}".encode()
        #: Requests and frames that were refused: wrong secret, unreadable, foreign sender.
        self.refused = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MESSAGE_BYTES_MAX)
        app.router.add_get("/raft/stream", self.stream)
        app.router.add_post("/raft/{group}/install_snapshot", self.install_snapshot)
        app.router.add_post("/raft/{group}/{operation}", self.call)
        return app

    async def call(self, request: web.Request) -> web.Response:
        self._check_sender(request)
        node = self._nodes.get(request.match_info["group"])
        expected = _OPERATIONS.get(request.match_info["operation"])
        if node is None or expected is None:
            raise web.HTTPNotFound
        try:
            message = decode(await request.read())
        except WireError as error:
            self.refused += 1
            raise web.HTTPBadRequest(text=str(error)) from error
        if type(message) is not expected or message.sender != request.headers.get("X-Mufakat-Node"):
            self.refused += 1
            raise web.HTTPBadRequest(text=f"not a {expected.__name__} of the sender's own")
        reply = await node.call(message, REPLY_TIMEOUT_S)
        if reply is None:
            raise web.HTTPGatewayTimeout
        return web.Response(body=encode(reply), content_type=CONTENT_TYPE)

    async def install_snapshot(self, request: web.Request) -> web.Response:
        self._check_sender(request)
        node = self._nodes.get(request.match_info["group"])
        if node is None:
            raise web.HTTPNotFound
        try:
            chunk = decode_chunk(await request.read())
        except WireError as error:
            self.refused += 1
            raise web.HTTPBadRequest(text=str(error)) from error
        if chunk.message.sender != request.headers.get("X-Mufakat-Node"):
            self.refused += 1
            raise web.HTTPBadRequest(text="not the sender's own")
        answer = await node.snapshotter.receive(chunk)
        return web.Response(body=encode_chunk_reply(answer), content_type=CONTENT_TYPE)

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        peer = self._check_sender(request)
        stream = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await stream.prepare(request)
        link = self._links[peer]
        async for frame in stream:
            if frame.type is not WSMsgType.BINARY:
                continue
            try:
                messages = decode_frame(frame.data)
            except WireError as error:
                self.refused += 1
                logger.warning("unreadable frame", peer=peer, error=str(error))
                continue
            for group, message in messages:
                node = self._nodes.get(group)
                if node is None or message.sender != peer:
                    self.refused += 1
                    continue
                link.on_reply(group, message)
                node.receive(message)
        return stream

    def _check_sender(self, request: web.Request) -> str:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            self.refused += 1
            raise web.HTTPUnauthorized
        peer = request.headers.get("X-Mufakat-Node", "")
        if peer not in self._links:
            self.refused += 1
            raise web.HTTPForbidden(text=f"{peer!r} is no member of this cluster")
        return peer
