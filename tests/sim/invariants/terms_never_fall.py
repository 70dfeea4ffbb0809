"""The current term only grows, and never falls behind what is durable (Figure 2, State)."""

from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class TermsNeverFall(Observer):
    section = "paper 5.1"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._promised: dict[str, Term] = {}

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        if node.core.state.term < term:
            self.fail(f"{node.id} fell from term {term} to {node.core.state.term}")

    def on_durable(self, node: SimNode, persist) -> None:
        self._promised[node.id] = max(self._promised.get(node.id, 0), node.disk.hard_state.term)

    def on_start(self, node: SimNode) -> None:
        if node.core.state.term < self._promised.get(node.id, 0):
            self.fail(f"{node.id} restarted in term {node.core.state.term}, behind what it had written")
