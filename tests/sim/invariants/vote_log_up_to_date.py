"""A vote goes only to a candidate whose log is at least as up-to-date as the voter's durable log."""

from raft.core.messages import Message, RequestVote, RequestVoteReply
from raft.core.types import Index, NodeId, Term
from tests.sim.disk import SimDisk
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class VoteLogUpToDate(Observer):
    section = "paper 5.4.1"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._asked: dict[tuple[NodeId, int, bool], tuple[int, int]] = {}

    def on_sent(self, node: SimNode, message: Message) -> None:
        kind = type(message)
        if kind is RequestVote:
            place = (message.last_log_term, message.last_log_index)
            self._asked[(node.id, message.term, message.pre_vote)] = place
        elif kind is RequestVoteReply and message.granted and not message.pre_vote:
            disk = node.disk
            if disk.hard_state.term != message.term:
                return
            asked = self._asked[(message.to, message.term, False)]
            own = self._last_before(disk, message.term)
            if asked < own:
                self.fail(f"{node.id} with {own} voted for {message.to} with {asked}")

    def _last_before(self, disk: SimDisk, term: Term) -> tuple[Term, Index]:
        """What the log ended with when the vote was granted: entries of that term came after."""
        for entry in reversed(disk.entries):
            if entry.term < term:
                return (entry.term, entry.index)
        index = disk.base_index
        return (disk.term_at(index) or 0, index) if (disk.term_at(index) or 0) < term else (0, 0)
