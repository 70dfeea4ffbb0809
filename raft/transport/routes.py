"""The peer listener: what other nodes of the cluster may ask. Never published to clients.

    POST /raft/{group}/request_vote      a RequestVote in, its reply out (msgpack)
    POST /raft/{group}/append_entries    an AppendEntries in, its reply out
    POST /raft/{group}/install_snapshot  a piece of a snapshot in; out: where to go on, or the reply
    POST /raft/{group}/members           a MemberChange for the leader in, what became of it out
    POST /raft/{group}/admission         an AdmissionRequest in, its reply out; also for those who are no members
    GET  /raft/stream                    WebSocket: frames of messages in, nothing out

Every request carries the cluster secret; without it the answer is 401 and nothing else. Who sends what no group of
this node wants to hear is answered 403 (`raft.transport.identity`).
"""

import hmac
from collections.abc import Mapping

from aiohttp import WSMsgType, web

from common.logs import get_logger
from common.wire import MESSAGE_BYTES_MAX, WireError
from raft import admission
from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshotReply,
    RequestVote,
    RequestVoteReply,
)
from raft.core.types import NodeId
from raft.disk import DiskClosed
from raft.node import RaftNode
from raft.transport.codec import PeerMessage, decode, decode_chunk, decode_frame, encode, encode_chunk_reply
from raft.transport.identity import (
    ADDRESS_HEADER,
    AUTHORIZATION_HEADER,
    INCARNATIONS_HEADER,
    NODE_HEADER,
    does_answer_count,
    incarnation_in,
    incarnations_in,
    is_request_heard,
)
from raft.transport.member_codec import (
    decode_admission_request,
    decode_change,
    encode_admission_reply,
    encode_change_reply,
)
from raft.transport.peers import Peers
from raft.transport.silence import break_on_silence

#: How long a caller's POST is held for the reply, which may wait for the disk.
REPLY_TIMEOUT_S = 1.0
CONTENT_TYPE = "application/msgpack"
_OPERATIONS: dict[str, type] = {"request_vote": RequestVote, "append_entries": AppendEntries}
#: What is counted in quorums; all else only asks or tells.
_ANSWERS = (AppendEntriesReply, RequestVoteReply, InstallSnapshotReply)

logger = get_logger("raft.transport")


class PeerListener:
    """The handlers, bound to this node's groups and its links to the peers."""

    def __init__(self, nodes: Mapping[str, RaftNode], peers: Peers, secret: str) -> None:
        self._nodes = nodes
        self._peers = peers
        self._authorization = f"Bearer {secret}".encode()
        self._headers = peers.identity.answer_headers()
        #: Requests and messages that were refused: wrong secret, unreadable, a sender that is no member.
        self.refused = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MESSAGE_BYTES_MAX)
        app.router.add_get("/raft/stream", self.stream)
        app.router.add_post("/raft/{group}/install_snapshot", self.install_snapshot)
        app.router.add_post("/raft/{group}/members", self.change_members)
        app.router.add_post("/raft/{group}/admission", self.admit)
        app.router.add_post("/raft/{group}/{operation}", self.call)
        return app

    async def call(self, request: web.Request) -> web.Response:
        node = self._heard_by(request)
        expected = _OPERATIONS.get(request.match_info["operation"])
        if expected is None:
            raise web.HTTPNotFound
        try:
            message = decode(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        if type(message) is not expected or message.sender != request.headers.get(NODE_HEADER):
            self.refused += 1
            raise web.HTTPBadRequest(text=f"not a {expected.__name__} of the sender's own")
        reply = await node.call(message, REPLY_TIMEOUT_S)
        if reply is None:
            raise web.HTTPGatewayTimeout
        return self._answer(encode(reply))

    async def install_snapshot(self, request: web.Request) -> web.Response:
        node = self._heard_by(request)
        try:
            chunk = decode_chunk(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        if chunk.message.sender != request.headers.get(NODE_HEADER):
            self.refused += 1
            raise web.HTTPBadRequest(text="not the sender's own")
        try:
            reply = await node.snapshotter.receive(chunk)
        except DiskClosed as error:
            raise web.HTTPServiceUnavailable(text="takes nothing more") from error
        return self._answer(encode_chunk_reply(reply))

    async def change_members(self, request: web.Request) -> web.Response:
        node = self._heard_by(request)
        try:
            change = decode_change(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        return self._answer(encode_change_reply(await node.membership.change_here(change)))

    async def admit(self, request: web.Request) -> web.Response:
        self._check_secret(request)
        node = self._node(request)
        try:
            asked = decode_admission_request(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        return self._answer(encode_admission_reply(await admission.answer(node, asked)))

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        peer = self._check_secret(request)
        stated = incarnations_in(request.headers.get(INCARNATIONS_HEADER, ""))
        if not any(
            is_request_heard(node, peer, stated.get(group, "")) for group, node in self._nodes.items()
        ):
            raise self._refusal(peer)
        stream = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await stream.prepare(request)
        break_on_silence(stream.get_extra_info("socket"), self._peers.silence_ms)
        self._peers.stream_opened(peer, request.headers.get(ADDRESS_HEADER, ""))
        try:
            async for frame in stream:
                if frame.type is WSMsgType.BINARY:
                    self._on_frame(peer, stated, frame.data)
        finally:
            self._peers.stream_closed(peer)
        return stream

    def _on_frame(self, peer: NodeId, stated: Mapping[str, str], data: bytes) -> None:
        try:
            messages = decode_frame(data)
        except WireError as error:
            self.refused += 1
            logger.warning("unreadable frame", peer=peer, error=str(error))
            return
        link = self._peers.links.get(peer)
        for group, message in messages:
            node = self._nodes.get(group)
            if node is None or message.sender != peer or not _is_wanted(node, message, stated):
                self.refused += 1
                continue
            if link is not None:
                link.on_reply(group, message)
            node.receive(message)

    def _heard_by(self, request: web.Request) -> RaftNode:
        """The group's node, where it hears this sender's requests."""
        peer = self._check_secret(request)
        node = self._node(request)
        group = request.match_info["group"]
        if not is_request_heard(node, peer, incarnation_in(request.headers.get(INCARNATIONS_HEADER, ""), group)):
            raise self._refusal(peer)
        if not node.admitted:
            raise web.HTTPServiceUnavailable(text="takes no part yet")
        return node

    def _node(self, request: web.Request) -> RaftNode:
        node = self._nodes.get(request.match_info["group"])
        if node is None:
            raise web.HTTPNotFound
        return node

    def _check_secret(self, request: web.Request) -> NodeId:
        """Who asks, proven to belong to the cluster."""
        given = request.headers.get(AUTHORIZATION_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            self.refused += 1
            raise web.HTTPUnauthorized
        return request.headers.get(NODE_HEADER, "")

    def _refusal(self, peer: NodeId) -> web.HTTPException:
        self.refused += 1
        return web.HTTPForbidden(text=f"{peer!r} is no member, or its data directory is not the one that is known")

    def _unreadable(self, error: WireError) -> web.HTTPException:
        self.refused += 1
        return web.HTTPBadRequest(text=str(error))

    def _answer(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type=CONTENT_TYPE, headers=self._headers)


def _is_wanted(node: RaftNode, message: PeerMessage, stated: Mapping[str, str]) -> bool:
    incarnation = stated.get(node.group, "")
    if isinstance(message, _ANSWERS):
        return does_answer_count(node, message.sender, incarnation)
    return is_request_heard(node, message.sender, incarnation)
