"""A success reply confirms entries that are on the follower's disk and equal to the leader's (known bug 3, 33)."""

from raft.core.messages import AppendEntriesReply, InstallSnapshotReply, Message
from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class AckIsDurable(Observer):
    section = "paper 5.3, known bugs 3, 28 and 33"

    def on_sent(self, node: SimNode, message: Message) -> None:
        kind = type(message)
        if kind is AppendEntriesReply:
            if not message.success:
                return
        elif kind is not InstallSnapshotReply:
            return
        disk = node.disk
        if disk.hard_state.term != message.term:
            # The node has moved on durably: what it held in that term it weighed when it voted.
            return
        if disk.last_index < message.match_index and not disk.holds(message.match_index, -1):
            self.fail(f"{node.id} vouches for {message.match_index} with {disk.last_index} on disk")
        leader = self.world.nodes[message.to]
        if leader.core is None or leader.core.state.term != message.term:
            return
        if leader.core.state.role is Role.LEADER:
            term = leader.core.log.term_at(message.match_index)
            if term is not None and not disk.holds(message.match_index, term):
                self.fail(f"{node.id} vouches for another entry {message.match_index} than {leader.id}'s")
