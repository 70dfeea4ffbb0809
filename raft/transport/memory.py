"""Peers in one process and one event loop, for tests of the driver: messages are handed over by `call_soon`."""

import asyncio

from raft import admission
from raft.admission import AdmissionReply, AdmissionRequest
from raft.core.types import NodeId
from raft.life import ANY_LIFE, may_be_the_same
from raft.membership import MemberChange, MemberChangeReply
from raft.node import RaftNode
from raft.peer_messages import PeerMessage, SnapshotChunk, SnapshotChunkReply
from raft.transport.codec import (
    decode,
    decode_chunk,
    decode_chunk_reply,
    encode,
    encode_chunk,
    encode_chunk_reply,
)
from raft.transport.member_codec import (
    decode_admission_reply,
    decode_admission_request,
    decode_change,
    decode_change_reply,
    encode_admission_reply,
    encode_admission_request,
    encode_change,
    encode_change_reply,
)


class MemoryNetwork:
    """Connects nodes of one group. Messages pass through the codec, as they would on the wire."""

    def __init__(self) -> None:
        self._receivers: dict[NodeId, RaftNode] = {}
        self._cut: set[tuple[NodeId, NodeId]] = set()

    def attach(self, node: NodeId, receiver: RaftNode) -> None:
        self._receivers[node] = receiver

    def detach(self, node: NodeId) -> None:
        """The node's process ended: everybody notices the broken connection."""
        del self._receivers[node]
        for receiver in self._receivers.values():
            receiver.peer_lost(node)

    def cut(self, a: NodeId, b: NodeId) -> None:
        """Silently lose messages between the two, both ways, until `heal`."""
        self._cut |= {(a, b), (b, a)}

    def isolate(self, node: NodeId) -> None:
        for other in self._receivers:
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        self._cut.clear()

    def transport(self, node: NodeId) -> "MemoryTransport":
        return MemoryTransport(self, node)

    def deliver(self, message: PeerMessage) -> bool:
        receiver = self._receivers.get(message.to)
        if receiver is None:
            return False
        if (message.sender, message.to) not in self._cut and self._may_mix(message.sender, receiver):
            asyncio.get_running_loop().call_soon(receiver.receive, decode(encode(message)))
        return True

    async def deliver_chunk(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        receiver = self._receivers.get(chunk.message.to)
        if receiver is None or (chunk.message.sender, chunk.message.to) in self._cut:
            raise ConnectionError("the peer cannot be reached")
        if not self._may_mix(chunk.message.sender, receiver):
            raise ConnectionError("the peer's data is of another life")
        reply = await receiver.snapshotter.receive(decode_chunk(encode_chunk(chunk)))
        return decode_chunk_reply(encode_chunk_reply(reply))

    async def change_members(self, sender: NodeId, to: NodeId, change: MemberChange) -> MemberChangeReply:
        receiver = self._receivers.get(to)
        if receiver is None or (sender, to) in self._cut:
            raise ConnectionError("the peer cannot be reached")
        return decode_change_reply(
            encode_change_reply(await receiver.membership.change_here(decode_change(encode_change(change))))
        )

    async def inquire(self, sender: NodeId, to: NodeId, question: bytes) -> bytes:
        receiver = self._receivers.get(to)
        if receiver is None or (sender, to) in self._cut:
            raise ConnectionError("the peer cannot be reached")
        return receiver.inquiries.answer_here(question)

    async def ask(self, sender: NodeId, to: NodeId, request: AdmissionRequest) -> AdmissionReply | None:
        """Put a request for admission to a node."""
        receiver = self._receivers.get(to)
        if receiver is None or (sender, to) in self._cut:
            return None
        asked = decode_admission_request(encode_admission_request(request))
        known = self._receivers[sender].versions.known
        reply = await admission.answer(receiver, asked, self._life_of(sender), known=known)
        return decode_admission_reply(encode_admission_reply(reply))

    def _life_of(self, node: NodeId) -> str:
        return self._receivers[node].life if node in self._receivers else ANY_LIFE

    def _may_mix(self, sender: NodeId, receiver: RaftNode) -> bool:
        return may_be_the_same(self._life_of(sender), receiver.life)

    def known_by(self, asker: NodeId, peer: NodeId) -> int | None:
        """Which version of the log `peer` knows, as it says to `asker`; None where it cannot be reached."""
        if peer not in self._receivers or (peer, asker) in self._cut:
            return None
        return self._receivers[peer].versions.known

    def is_attached(self, node: NodeId) -> bool:
        return node in self._receivers


class MemoryTransport:
    """Implements `raft.node.Transport` for one node of a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, node: NodeId) -> None:
        self._network = network
        self._node = node

    def send(self, message: PeerMessage) -> bool:
        return self._network.deliver(message)

    async def send_chunk(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        return await self._network.deliver_chunk(chunk)

    async def change_members(self, to: NodeId, change: MemberChange) -> MemberChangeReply:
        return await self._network.change_members(self._node, to, change)

    async def inquire(self, to: NodeId, question: bytes) -> bytes:
        return await self._network.inquire(self._node, to, question)

    def is_connected(self, peer: NodeId) -> bool:
        return self._network.is_attached(peer)
