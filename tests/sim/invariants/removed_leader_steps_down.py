"""A leader whose removal is committed no longer leads."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class RemovedLeaderStepsDown(Observer):
    section = "thesis 4.2.2"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        if core.state.role is not Role.LEADER or core.is_voter:
            return
        if core.configurations.latest_index <= core.log.commit_index:
            self.fail(f"{node.id} leads, and its removal is committed")
