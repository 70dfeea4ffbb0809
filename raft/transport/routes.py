"""The peer listener: what other nodes of the cluster may ask. Never published to clients.

    POST /raft/{group}/request_vote      a RequestVote in, its reply out (msgpack)
    POST /raft/{group}/append_entries    an AppendEntries in, its reply out
    POST /raft/{group}/install_snapshot  a piece of a snapshot in; out: where to go on, or the reply
    POST /raft/{group}/members           a MemberChange for the leader in, what became of it out
    POST /raft/{group}/inquiry           a service's question to the leader in, its answer out (raft.inquiries)
    POST /raft/{group}/admission         an AdmissionRequest in, its reply out; also for those who are no members
    GET  /raft/stream                    WebSocket: frames of messages in, and what the sender's lives are as text;
                                         nothing out

Every request carries the cluster secret; without it the answer is 401 and nothing else. Who is of another cluster, or
sends what no group of this node wants to hear, is answered 403 (`raft.transport.identity`). Refusals are JSON as on
the port for clients: somebody may have taken the one for the other.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import WSMsgType, web

from common.api_error import ApiError
from common.logs import SparseLog, get_logger
from common.parsers import CLUSTER_ID_LENGTH_MAX
from common.web import error_response
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
from raft.life import described_life, may_be_the_same
from raft.node import RaftNode
from raft.peer_messages import PeerMessage
from raft.transport.codec import decode, decode_chunk, decode_frame, encode, encode_chunk_reply
from raft.transport.identity import (
    ADDRESS_HEADER,
    AUTHORIZATION_HEADER,
    CLUSTER_HEADER,
    LIVES_HEADER,
    NODE_HEADER,
    Stated,
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
#: What a refusal is called in its answer; peers go by the status alone.
_REASONS = {
    401: "unauthenticated",
    403: "forbidden",
    404: "no_such_route",
    405: "method_not_allowed",
    413: "too_large",
    503: "not_ready",
    504: "outcome_unknown",
}
_OPERATIONS: dict[str, type[RequestVote] | type[AppendEntries]] = {
    "request_vote": RequestVote,
    "append_entries": AppendEntries,
}
#: What is counted in quorums; all else only asks or tells.
_ANSWERS = (AppendEntriesReply, RequestVoteReply, InstallSnapshotReply)

logger = get_logger("raft.transport")
#: For what a peer can cause as often as it likes.
sparse_log = SparseLog(logger)


class PeerListener:
    """The handlers, bound to this node's groups and its links to the peers."""

    def __init__(self, nodes: Mapping[str, RaftNode], peers: Peers, secret: str) -> None:
        self._nodes = nodes
        self._peers = peers
        self._cluster = peers.identity.cluster
        self._authorization = f"Bearer {secret}".encode()
        #: Whose data is of another life, as the log was told.
        self._strangers: set[tuple[str, NodeId, str]] = set()
        #: Requests and messages that were refused: wrong secret, unreadable, a sender that is no member.
        self.refused = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MESSAGE_BYTES_MAX, middlewares=[_refuse_in_json])
        app.router.add_get("/raft/stream", self.stream)
        app.router.add_post("/raft/{group}/install_snapshot", self.install_snapshot)
        app.router.add_post("/raft/{group}/members", self.change_members)
        app.router.add_post("/raft/{group}/inquiry", self.inquire)
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
        if not isinstance(message, expected) or message.sender != request.headers.get(NODE_HEADER):
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
        except (DiskClosed, OSError) as error:
            # A node whose disk fails ends, and says itself why.
            raise web.HTTPServiceUnavailable(text="takes nothing more") from error
        return self._answer(encode_chunk_reply(reply))

    async def change_members(self, request: web.Request) -> web.Response:
        node = self._heard_by(request)
        try:
            change = decode_change(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        return self._answer(encode_change_reply(await node.membership.change_here(change)))

    async def inquire(self, request: web.Request) -> web.Response:
        node = self._heard_by(request)
        return self._answer(node.inquiries.answer_here(await request.read()))

    async def admit(self, request: web.Request) -> web.Response:
        _, stated = self._known_peer(request)
        node = self._node(request)
        try:
            asked = decode_admission_request(await request.read())
        except WireError as error:
            raise self._unreadable(error) from error
        life = stated.of(node.group)[1]
        reply = await admission.answer(node, asked, life, known=stated.known)
        return self._answer(encode_admission_reply(reply))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        peer, stated = self._known_peer(request)
        if not any([self._hears(node, peer, stated) for node in self._nodes.values()]):
            raise self._refusal(peer)
        stream = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        try:
            await stream.prepare(request)
        except ConnectionResetError:
            # It has hung up, and nobody reads this.
            return web.Response()
        break_on_silence(stream.get_extra_info("socket"), self._peers.silence_ms)
        says_lives = LIVES_HEADER in request.headers
        address = request.headers.get(ADDRESS_HEADER, "")
        self._peers.stream_opened(peer, stated, address, says_lives=says_lives)
        try:
            async for frame in stream:
                if frame.type is WSMsgType.TEXT:
                    stated.says(frame.data)
                if self._is_of_other_cluster(peer, stated):
                    # Learned here or there while the stream stood. The next one is told why it is refused.
                    break
                if frame.type is WSMsgType.BINARY:
                    self._on_frame(peer, stated, frame.data)
        finally:
            self._peers.stream_closed(peer, stated)
        return stream

    def _on_frame(self, peer: NodeId, stated: Stated, data: bytes) -> None:
        try:
            messages = decode_frame(data)
        except WireError as error:
            self.refused += 1
            sparse_log.warning("unreadable frame", peer, peer=peer, error=str(error))
            return
        link = self._peers.links.get(peer)
        for group, message in messages:
            node = self._nodes.get(group)
            if node is None or message.sender != peer or not self._is_wanted(node, message, stated):
                self.refused += 1
                continue
            if link is not None:
                link.on_reply(group, message)
            node.receive(message)
            if stated.cluster and not self._cluster.id:
                self._maybe_learn_cluster(node, peer, stated)

    def _heard_by(self, request: web.Request) -> RaftNode:
        """The group's node, where it hears this sender's requests."""
        peer, stated = self._known_peer(request)
        node = self._node(request)
        if not self._hears(node, peer, stated):
            raise self._refusal(peer)
        if not node.admitted:
            raise web.HTTPServiceUnavailable(text="takes no part yet")
        self._maybe_learn_cluster(node, peer, stated)
        return node

    def _maybe_learn_cluster(self, node: RaftNode, peer: NodeId, stated: Stated) -> None:
        """Where this node knows no cluster, take it from the leader that it follows. An empty node follows nobody
        before it is taken in."""
        if node.admitted and peer == node.core.state.leader:
            self._cluster.maybe_learn(stated.cluster)

    def _node(self, request: web.Request) -> RaftNode:
        node = self._nodes.get(request.match_info["group"])
        if node is None:
            raise web.HTTPNotFound
        return node

    def _known_peer(self, request: web.Request) -> tuple[NodeId, Stated]:
        """Who asks and what it says of itself: it has the secret, and is of no other cluster."""
        given = request.headers.get(AUTHORIZATION_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            self.refused += 1
            raise web.HTTPUnauthorized(text="this port is for the nodes of the cluster; it needs the cluster secret")
        peer, stated = request.headers.get(NODE_HEADER, ""), Stated(request.headers)
        if self._is_of_other_cluster(peer, stated):
            self.refused += 1
            raise web.HTTPForbidden(
                text=f"this node is of the cluster {self._cluster.id}, and {peer!r} is of "
                f"{stated.cluster[:CLUSTER_ID_LENGTH_MAX]!r}; two clusters never mix. Correct MUFAKAT_CLUSTER or "
                "MUFAKAT_CLUSTER_ID of the one that is wrong",
                headers={CLUSTER_HEADER: self._cluster.id},
            )
        return peer, stated

    def _is_of_other_cluster(self, peer: NodeId, stated: Stated) -> bool:
        if not self._cluster.is_other(stated.cluster):
            return False
        self._cluster.log_other("peer is of another cluster; it is not heard", peer, stated.cluster)
        return True

    def _refusal(self, peer: NodeId) -> web.HTTPException:
        self.refused += 1
        return web.HTTPForbidden(text=f"{peer!r} is no member, or its data is not what is known of it")

    def _unreadable(self, error: WireError) -> web.HTTPException:
        self.refused += 1
        return web.HTTPBadRequest(text=str(error))

    def _answer(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type=CONTENT_TYPE, headers=self._peers.identity.answer_headers())

    def _is_wanted(self, node: RaftNode, message: PeerMessage, stated: Stated) -> bool:
        heard, counts = stated.judged(node, message.sender)
        if isinstance(message, _ANSWERS):
            return counts
        return heard or self._hears(node, message.sender, stated)

    def _hears(self, node: RaftNode, peer: NodeId, stated: Stated) -> bool:
        incarnation, life = stated.of(node.group)
        if is_request_heard(node, peer, incarnation, life):
            return True
        stranger = (node.group, peer, life)
        if stranger not in self._strangers and not may_be_the_same(node.life, life):
            self._strangers.add(stranger)
            logger.warning(
                "peer's data is of another life of the group; it is not heard",
                group=node.group, peer=peer, its=described_life(life), ours=described_life(node.life),
            )  # fmt: skip
        return False


@web.middleware
async def _refuse_in_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        reason = _REASONS.get(error.status, "bad_request")
        response = error_response(ApiError(error.status, reason, error.text or error.reason))
        if CLUSTER_HEADER in error.headers:
            response.headers[CLUSTER_HEADER] = error.headers[CLUSTER_HEADER]
        return response
