"""A leader whose disk does not answer for long steps down (known bug 38)."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaderDiskAnswers(Observer):
    section = "known bug 38"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        since_ms = core.oldest_persist_ms
        if core.state.role is not Role.LEADER or since_ms is None:
            return
        waited_ms = core.now_ms - since_ms
        # It looks at each heartbeat; the promise is two timeouts, and this leaves no room to waste.
        if waited_ms > 3 * core.config.election_timeout_max_ms // 2:
            self.fail(f"{node.id} leads though its disk has not answered for {waited_ms} ms")
