"""A node that vouched for a committed entry still holds it after a restart (known bugs 53, 62)."""

from raft.core.messages import AppendEntriesReply, Message
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class CommittedStaysDurable(Observer):
    section = "paper 5.4, known bugs 53 and 57"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._vouched: dict[str, int] = {}

    def on_sent(self, node: SimNode, message: Message) -> None:
        if type(message) is AppendEntriesReply and message.success:
            self._vouched[node.id] = message.match_index

    def on_start(self, node: SimNode) -> None:
        index = min(self._vouched.get(node.id, 0), self.world.truth.commit_index)
        if index == 0:
            return
        entry = self.world.truth.entries[index - 1]
        if not node.disk.holds(index, entry.term) and node.disk.hard_state.term == entry.term:
            self.fail(f"{node.id} restarted without ({index}, {entry.term}), for which it had vouched")
