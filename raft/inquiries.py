"""What only the leader's service knows, asked at any node of the group.

The rule of this file: it is for showing, not for deciding. The leader answers from its memory, without a log entry
and without a round: it led by its own knowledge when it answered, and no more is promised.
"""

from collections.abc import Callable
from typing import Protocol

from raft.core.raft import RaftCore
from raft.core.types import NOBODY, NodeId, Role


class InquiryTransport(Protocol):
    async def inquire(self, to: NodeId, question: bytes) -> bytes:
        """Put a question to a node. Raises ConnectionError or TimeoutError where no answer came."""


class AskingNode(Protocol):
    """The node whose service asks or answers."""

    id: NodeId
    core: RaftCore


class Inquiries:
    """The questions of one node's service to the service of the leader."""

    def __init__(self, node: AskingNode, transport: InquiryTransport) -> None:
        self._node = node
        self._transport = transport
        #: The service's own answer where this node leads; empty where it has none.
        self.answer: Callable[[bytes], bytes] = lambda question: b""

    async def ask(self, question: bytes) -> bytes:
        """The answer of whoever leads; empty where nobody is known to, or none came."""
        leader = self._node.core.state.leader
        if leader == self._node.id:
            return self.answer_here(question)
        if leader == NOBODY:
            return b""
        try:
            return await self._transport.inquire(leader, question)
        except (ConnectionError, TimeoutError):
            return b""

    def answer_here(self, question: bytes) -> bytes:
        """For the transport: a question arrived. Empty where this node does not lead."""
        return self.answer(question) if self._node.core.state.role is Role.LEADER else b""
