"""Every committed entry is in the log of every later leader (Figure 3, Leader Completeness)."""

from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaderCompleteness(Observer):
    section = "paper 5.4"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core, truth = node.core, self.world.truth
        if core.state.role is not Role.LEADER:
            return
        committed = [entry for entry in truth.entries[-40:] if entry.term < core.state.term]
        for entry in reversed(committed):
            if entry.index <= core.log.compacted_index:
                return
            if core.log.term_at(entry.index) != entry.term:
                self.fail(f"{node.id} leads term {core.state.term} without committed {entry.index}")
