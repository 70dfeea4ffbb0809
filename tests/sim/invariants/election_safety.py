"""At most one leader can be elected in a term (paper Figure 3, Election Safety)."""

from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ElectionSafety(Observer):
    section = "paper 5.2"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        state = node.core.state
        if state.role is not Role.LEADER:
            return
        known = self.world.truth.leaders.setdefault(state.term, node.id)
        if known != node.id:
            self.fail(f"{known} and {node.id} both lead term {state.term}")
