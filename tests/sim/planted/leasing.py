"""Read leases."""

from tests.sim.planted import Bug

BUGS = (
    Bug(
        "lease_counts_from_the_newest_reply",
        (69,),
        "raft.core.lease_records:Leases.on_append_entries",
        "replied_ms + duration_ms",
        "max(self._replied_ms.values()) + duration_ms",
    ),
    Bug(
        "lease_outlives_the_leaders_own",
        (70,),
        "raft.core.leases:on_answer",
        "election.quorum_contact_ms(raft) + lease_ms, ",
        "raft.now_ms + lease_ms, ",
    ),
    Bug(
        "new_leader_does_not_wait_for_earlier_leases",
        (70,),
        "raft.core.lease_records:Leases.on_elected",
        "self._earlier_until_ms = now_ms + longest_ms",
        "self._earlier_until_ms = 0",
    ),
    Bug(
        "new_leader_waits_by_its_own_setting",
        (),
        "raft.core.leases:_longest_ms",
        "max(raft.config.lease_ms, agreed.lease_ms)",
        "raft.config.lease_ms",
    ),
)
