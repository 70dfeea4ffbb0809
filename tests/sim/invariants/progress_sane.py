"""A leader's next index for a peer is above its match index and within reach of its log."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ProgressSane(Observer):
    section = "paper 5.3 (nextIndex), known bug 29"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        if core.state.role is not Role.LEADER:
            if core.progress:
                self.fail(f"{node.id} does not lead and keeps progress")
            return
        end = core.log.last_index + 1
        for peer, progress in core.progress.items():
            if not progress.match_index < progress.next_index <= end:
                self.fail(
                    f"{node.id}: {peer} next {progress.next_index}, match {progress.match_index}, end {end}"
                )
