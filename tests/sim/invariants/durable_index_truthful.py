"""What the core calls durable is on the disk: the last entry's term, and the hard state."""

from tests.sim.node import SimNode
from tests.sim.observer import Observer


class DurableIndexTruthful(Observer):
    section = "paper Figure 2; known bugs 4, 27 and 33"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._checked: dict[str, tuple[int, int, int]] = {}

    def on_state(self, node: SimNode) -> None:
        core, disk = node.core, node.disk
        index = core.log.durable_index
        # Looked at where either side changed: the queue may rewrite what was durable.
        key = (index, disk.last_index, len(disk.queue))
        if self._checked.get(node.id) != key:
            self._checked[node.id] = key
            term = core.log.term_at(index)
            if term is not None and not disk.holds(index, term):
                self.fail(f"{node.id} believes ({index}, {term}) durable; on disk: {disk.term_at(index)}")
        durable = core.durable_hard_state
        if durable is not disk.hard_state and durable != disk.hard_state and not disk.queue:
            self.fail(f"{node.id} believes {durable} durable; on disk: {disk.hard_state}")
