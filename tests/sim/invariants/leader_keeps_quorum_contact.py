"""A leader that no quorum has acknowledged for an election timeout no longer leads (CheckQuorum)."""

from raft.core.types import Configuration, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaderKeepsQuorumContact(Observer):
    section = "thesis 6.2, known bug 15"

    def __init__(self, world) -> None:
        super().__init__(world)
        #: Since when (the node's clock) a node uses its configuration: another one has another quorum.
        self._since: dict[str, tuple[Configuration, int]] = {}

    def on_state(self, node: SimNode) -> None:
        core = node.core
        config = core.config
        if core.state.role is not Role.LEADER or not config.check_quorum:
            return
        known = self._since.get(node.id)
        if known is None or known[0] is not core.configuration:
            known = self._since[node.id] = (core.configuration, core.now_ms)
        if core.now_ms - known[1] <= 2 * config.heartbeat_ms:
            return
        voters = core.configuration.voters
        contacts = [
            core.now_ms if voter == node.id else core.progress[voter].acked_sent_ms for voter in voters
        ]
        contacts.sort(reverse=True)
        silent_ms = core.now_ms - contacts[len(voters) // 2]
        # It looks at each heartbeat at the latest.
        if silent_ms > config.election_timeout_max_ms + 2 * config.heartbeat_ms:
            self.fail(f"{node.id} leads without a quorum for {silent_ms} ms")
