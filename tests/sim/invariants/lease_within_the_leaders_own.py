"""No lease that a leader grants runs longer than its own, which ends one lease after the newest round that a quorum
has acknowledged: from then on there may be another leader.

The quorum is that of the configuration at the moment of the grant. If the configuration changes right after it, in
the same turn, the grant stays valid: every majority of the next configuration meets every majority of the last one
(thesis 4.1), so it has a member that still keeps a promise to this leader."""

from raft.core import election
from raft.core.types import Configuration, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaseWithinTheLeadersOwn(Observer):
    section = "design: the cache's coherence protocol; known bug 70"

    def __init__(self, world) -> None:
        super().__init__(world)
        #: Newest grant seen: (leader, life, holder) -> (reply, duration).
        self._seen: dict[tuple[str, int, str], tuple[int, int]] = {}
        #: The configuration at the last look.
        self._configurations: dict[str, Configuration] = {}

    def on_state(self, node: SimNode) -> None:
        core = node.core
        if not core.config.lease_ms or core.state.role is not Role.LEADER:
            return
        changed = self._configurations.get(node.id) is not core.configuration
        self._configurations[node.id] = core.configuration
        for holder, grant in core.leases._grants.items():
            place = (node.id, node.life, holder)
            if self._seen.get(place) != grant:
                self._seen[place] = grant
                # A grant that is new was made at this moment of the leader's clock.
                ends_ms = core.now_ms + grant[1]
                own_ms = election.quorum_contact_ms(core) + core.config.lease_ms
                if ends_ms > own_ms and not changed:
                    self.fail(f"{node.id} grants {holder} a lease that ends {ends_ms - own_ms} ms after its own")
