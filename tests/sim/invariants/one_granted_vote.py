"""A node grants its vote to one candidate in a term; the check counts the messages that leave the node."""

from raft.core.messages import Message, RequestVoteReply
from raft.core.types import NodeId, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class OneGrantedVote(Observer):
    section = "paper 5.2"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._granted: dict[tuple[NodeId, Term], NodeId] = {}

    def on_sent(self, node: SimNode, message: Message) -> None:
        if type(message) is not RequestVoteReply or message.pre_vote or not message.granted:
            return
        known = self._granted.setdefault((node.id, message.term), message.to)
        if known != message.to:
            self.fail(f"{node.id} granted {known} and {message.to} its vote in term {message.term}")
