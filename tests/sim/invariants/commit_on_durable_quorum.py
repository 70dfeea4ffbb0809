"""A leader commits what a quorum of its configuration holds on disk, and only by an entry of its own term."""

from raft.core.quorum import quorum_size
from raft.core.types import Index, NodeId, Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class CommitOnDurableQuorum(Observer):
    section = "paper 5.3, 5.4.2; known bugs 4 and 21"

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        core, watch = node.core, node.watch
        if core.state.role is not Role.LEADER or core.log.term_at(after) != core.state.term:
            if core.state.role is Role.LEADER and watch.role is Role.LEADER:
                self.fail(f"{node.id} committed {after} by an entry of an earlier term")
            return
        # The change that is at most under way may have come after the commit, in the same step.
        latest = [configuration for _, configuration in core.configurations._history[-2:]]
        if not any(self._is_durable(one.voters, after, core.state.term) for one in latest):
            self.fail(f"{node.id} committed {after} without a quorum of durable copies of {latest}")

    def _is_durable(self, voters: tuple[NodeId, ...], index: Index, term: Term) -> bool:
        holders = sum(self.world.nodes[voter].disk.holds(index, term) for voter in voters)
        return bool(voters) and holders >= quorum_size(len(voters))
