"""A node applies exactly the committed entries, in order, each once (Figure 3, State Machine Safety)."""

from typing import Any

from raft.core.types import Entry
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class AppliedInOrder(Observer):
    section = "paper 5.4.3"

    def on_applied(self, node: SimNode, entry: Entry, answer: Any) -> None:
        known = self.world.truth.entries
        if entry.index > node.core.log.commit_index:
            self.fail(f"{node.id} applied {entry.index}, which is not committed")
        if known[entry.index - 1] is not entry and known[entry.index - 1] != entry:
            self.fail(f"{node.id} applied {entry}, others {known[entry.index - 1]}")
