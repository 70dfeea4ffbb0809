"""A node's read lease ends by the node's clock before the leader counts it as ended by the leader's clock.

Otherwise the leader may answer a write while the node still serves what that write replaced. The check is for the
leader of the highest term, once it may release any answers."""

from raft.core import leases
from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaseStopsFirst(Observer):
    section = "design: the cache's coherence protocol; known bugs 69 and 70"

    def on_state(self, node: SimNode) -> None:
        world = self.world
        if not world.plan.lease_ms:
            return
        core = node.core
        if core.state.role is Role.LEADER and core.state.term >= max(world.truth.leaders, default=0):
            for other in world.nodes.values():
                if other is not node and other.runs:
                    self._check(node, other)
            return
        leader = world.nodes.get(world.truth.leaders.get(max(world.truth.leaders, default=0), ""))
        if leader is not None and leader is not node and leader.runs and leader.leads:
            self._check(leader, node)

    def _check(self, leader: SimNode, node: SimNode) -> None:
        now_ms = node.now_ms()
        if not leases.is_valid(node.core, now_ms):
            return
        self.world.cover["lease valid"] += 1
        core, leader_ms = leader.core, leader.now_ms()
        if core.state.term != max(self.world.truth.leaders):
            return
        until_ms = core.leases.may_serve_until_ms(node.id)
        if leader_ms >= until_ms and leases.is_open(core):
            self.fail(
                f"{node.id} serves by its lease, {leader.id} takes it for ended {leader_ms - until_ms} ms ago"
            )
