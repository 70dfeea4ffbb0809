"""A read's index covers everything that was committed anywhere when the read began."""

from raft.core.ready import ReadState
from raft.core.types import Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ReadIndexFresh(Observer):
    section = "thesis 6.4; known bugs 66 and 67"

    def on_read_state(self, node: SimNode, state: ReadState, floor: Index) -> None:
        if 0 < state.index < floor:
            self.fail(f"{node.id} may read at {state.index}, but {floor} was committed before it asked")
