"""What is on the way to a follower is bounded in messages and bytes (known bug 36)."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class InflightBounded(Observer):
    section = "known bug 36"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        if core.state.role is not Role.LEADER:
            return
        config = core.config
        for peer, progress in core.progress.items():
            if len(progress._inflight) > config.inflight_messages_max:
                self.fail(f"{node.id}: {progress.inflight_messages} messages on the way to {peer}")
            # The window is checked before a message is sent, so one message may reach beyond it.
            beyond = max(config.append_bytes_max, 1_000)
            if progress.inflight_bytes > config.inflight_bytes_max + beyond or progress.inflight_bytes < 0:
                self.fail(f"{node.id}: {progress.inflight_bytes} bytes on the way to {peer}")
