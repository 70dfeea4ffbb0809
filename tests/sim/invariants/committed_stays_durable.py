"""A node that confirmed a committed entry still holds it after a restart (known bugs 53, 62)."""

from raft.core.messages import AppendEntriesReply, Message
from raft.core.types import Index, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class CommittedStaysDurable(Observer):
    section = "paper 5.4, known bugs 53 and 57"

    def __init__(self, world) -> None:
        super().__init__(world)
        #: The last entry that a node vouched for, and its term there.
        self._vouched: dict[str, tuple[Index, Term]] = {}

    def on_sent(self, node: SimNode, message: Message) -> None:
        if type(message) is AppendEntriesReply and message.success:
            term = node.disk.term_at(message.match_index)
            if term is not None:
                self._vouched[node.id] = (message.match_index, term)

    def on_start(self, node: SimNode) -> None:
        index, term = self._vouched.get(node.id, (0, 0))
        known = self.world.truth.entries
        if not 0 < index <= len(known) or known[index - 1].term != term:
            return
        if not node.disk.holds(index, term):
            self.fail(f"{node.id} restarted without ({index}, {term}), for which it had vouched")
