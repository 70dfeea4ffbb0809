"""A leadership transfer is over within an election timeout, and never outlives the leadership (known bug 19)."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class TransferEnds(Observer):
    section = "thesis 3.10, known bug 19"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        if not core.transfer.to:
            return
        if core.state.role is not Role.LEADER:
            self.fail(f"{node.id} does not lead and still hands over")
        late_ms = core.now_ms - core.transfer.deadline_ms
        if late_ms > 2 * core.config.heartbeat_ms:
            self.fail(f"{node.id} has been handing over for {late_ms} ms too long")
