"""No message of a term, and no vote, leaves a node before both are on its disk (Figure 2: "updated on stable storage
before responding to RPCs"). Pre-votes bind nobody and may leave at once."""

from raft.core.messages import Message, RequestVote, RequestVoteReply
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class TermDurableBeforeMessage(Observer):
    section = "paper Figure 2, known bugs 1 and 3"

    def on_sent(self, node: SimNode, message: Message) -> None:
        kind = type(message)
        voting = kind is RequestVote or kind is RequestVoteReply
        if voting and message.pre_vote:
            return
        durable = node.disk.hard_state
        if durable.term < message.term:
            self.fail(f"{node.id} sent {message} while term {durable.term} is on disk")
        if not voting or durable.term > message.term:
            return
        if kind is RequestVote and durable.vote != node.id:
            self.fail(f"{node.id} campaigns without its own durable vote")
        if kind is RequestVoteReply and message.granted and durable.vote != message.to:
            self.fail(f"{node.id} granted a vote that is not on its disk")
