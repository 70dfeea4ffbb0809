"""An entry that was committed once is committed everywhere: every node's committed entries are the known ones."""

from raft.core.types import Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class CommittedNeverChanges(Observer):
    section = "paper 5.4"

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        log, known = node.core.log, self.world.truth.entries
        for index in range(max(before, log.compacted_index) + 1, after + 1):
            entry = log.entry(index)
            if known[index - 1] is not entry and known[index - 1] != entry:
                self.fail(f"{node.id} committed {entry} at {index}, others {known[index - 1]}")
