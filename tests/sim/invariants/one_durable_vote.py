"""A node's durable vote in a term never changes, crashes included."""

from raft.core.ready import Persist
from raft.core.types import HardState, NodeId, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class OneDurableVote(Observer):
    section = "paper 5.2, known bug 1"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._votes: dict[tuple[NodeId, Term], NodeId] = {}

    def on_durable(self, node: SimNode, persist: Persist) -> None:
        if persist.hard_state is None or not persist.hard_state.vote:
            return
        self._check(node, persist.hard_state)

    def on_start(self, node: SimNode) -> None:
        hard_state = node.disk.hard_state
        if hard_state.vote or (node.id, hard_state.term) in self._votes:
            self._check(node, hard_state)

    def _check(self, node: SimNode, hard_state: HardState) -> None:
        known = self._votes.setdefault((node.id, hard_state.term), hard_state.vote)
        if known != hard_state.vote:
            self.fail(f"{node.id} voted for {known} and {hard_state.vote} in term {hard_state.term}")
