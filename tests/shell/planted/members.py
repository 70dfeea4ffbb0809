"""Bugs of members that come and go, of disks that are lost, and of read leases meanwhile."""

from tests.shell.planted import Planted

PLANTED = [
    Planted(
        "wiped_disk_takes_part_at_once",
        "a node that lost its disk votes for one that lacks what was told",
        "lock",
        (
            ("services.app:_open_node", "admitted=not is_empty(recovered)", "admitted=True"),
            (
                "raft.transport.identity:does_answer_count",
                'node.core.configuration.incarnation_of(peer) in ("", incarnation) and ',
                "",
            ),
        ),
    ),
    Planted(
        "member_that_joins_is_not_reached",
        "nobody sends anything to a node that was added",
        "lock",
        (
            (
                "raft.transport.peers:Peers._wanted",
                'peer_url(self._known.get(peer) or address or self._named.get(peer, ""))',
                'peer_url(self._known.get(peer, ""))',
            ),
        ),
    ),
    Planted(
        "leader_waits_for_leases_of_its_own_length",
        "a stale read while the length of leases differs from node to node",
        "cache",
        (("raft.core.leases:_longest_ms", "max(raft.config.lease_ms, agreed.lease_ms)", "raft.config.lease_ms"),),
    ),
    Planted(
        "lease_of_a_removed_member_is_forgotten",
        "a stale read at a node that was removed a moment ago",
        "cache",
        (
            (
                "raft.core.leases:is_open",
                "raft.now_ms >= raft.leases.members_changed_ms + longest_ms(raft) and",
                "",
            ),
            ("raft.core.leases:is_done", "raft.now_ms < raft.leases.earlier_member_until_ms(node)", "False"),
        ),
    ),
]
