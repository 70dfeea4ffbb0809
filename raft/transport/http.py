"""A group's view of the links: routes each message to the link of its receiver."""

from collections.abc import Mapping

from raft.core.types import NodeId
from raft.membership import MemberChange, MemberChangeReply
from raft.peer_messages import PeerMessage, SnapshotChunk, SnapshotChunkReply
from raft.transport.client import PeerLink


class HttpTransport:
    """Implements `raft.node.Transport` for one group over the node's shared links."""

    def __init__(self, group: str, links: Mapping[NodeId, PeerLink]) -> None:
        self._group = group
        self._links = links

    def send(self, message: PeerMessage) -> bool:
        link = self._links.get(message.to)
        return link is not None and link.send(self._group, message)

    def is_connected(self, peer: NodeId) -> bool:
        link = self._links.get(peer)
        return link is not None and link.connected

    async def change_members(self, to: NodeId, change: MemberChange) -> MemberChangeReply:
        return await self._link(to).change_members(self._group, change)

    async def inquire(self, to: NodeId, question: bytes) -> bytes:
        return await self._link(to).inquire(self._group, question)

    async def send_chunk(self, chunk: SnapshotChunk) -> SnapshotChunkReply:
        return await self._link(chunk.message.to).send_chunk(self._group, chunk)

    def _link(self, to: NodeId) -> PeerLink:
        """Raises ConnectionError where there is none."""
        link = self._links.get(to)
        if link is None:
            raise ConnectionError(f"no way to {to} is known")
        return link
