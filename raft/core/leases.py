"""Read leases of the nodes of a group, and the release of answers that wait for them.

Leases let a node answer from its own memory without a message (Chubby's leased caches; docs/coherence.md has the
argument). Only groups with `lease_ms` > 0 use them. The rules, on clocks that may drift:

    Q       the send time of the leader's newest round that a quorum has acknowledged
    leader  its own lease runs until Q + L; no lease that it gives runs longer
    grant   a follower sent its reply k at s, by its clock; the leader received it at R. For the leader, the follower
            may serve until R + d(1 + drift), where d = min(L, Q + L - R, M + 2L - R). The next message to it says
            (k, d), and it serves until s + d. Since s is before R, it stops first. The follower chooses k, and gives
            it to one reply of one boot only, so that the grant cannot be counted from another reply
    length  L is the leader's own setting, but at most what the committed configuration says; a node must have
            applied that configuration. So nodes may have different settings: a new leader waits as long as the
            configuration says. A leader raises that length before it gives longer leases, and lowers it once no
            longer one can run
    members only members of the committed configuration get a lease: a new leader may not know others
    again   if a node's lease ran out while an answer waited for it, the node gets a new one only once it has applied
            the newest entry that was answered without it; from a new leader, once it has applied that leader's no-op
    lag     a node that has not applied what was committed two heartbeats ago, at M, gets none: else answers would
            wait without end for a node that answers but lags, and nobody could know when a removal is known to all
    before  a new leader knows no earlier grants: every node may have a lease until L(1 + drift) after the election,
            and so may a node that was removed lately
    id      a server that is added under the id of a removed one says nothing about the lease of the removed one

The leader's driver says which entries' answers are still withheld (`publish`), and AppendEntries carries that. A node
may answer for an entry that it has applied once `is_released` is true.
"""

from raft.core import election
from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.server import Server
from raft.core.types import NOBODY, Configuration, Index, NodeId, Role


def longest_ms(raft: Server) -> int:
    """The longest time that any lease given up to now may run, by this node's clock."""
    return _longest_ms(raft, raft.configuration)


def _longest_ms(raft: Server, agreed: Configuration) -> int:
    """L(1 + drift), plus the tick in which clocks are read. The setting counts, too: before the group agreed on a
    length, leaders of an earlier version gave leases."""
    lease_ms = max(raft.config.lease_ms, agreed.lease_ms)
    return lease_ms + lease_ms * raft.config.lease_drift_percent // 100 + 2


def removal_unknown_ms(raft: Server) -> int:
    """How long a node that serves may not know what this node has applied, by this node's clock. If the entry was
    committed after M, such a node has a lease that ends by M + 2L on the leader's clock, and a drift later on its
    own."""
    return 3 * _longest_ms(raft, raft.configurations.at(raft.applied_index))


def _length_ms(raft: Server) -> int:
    """Leader: the length of the leases that it gives, its own included."""
    return min(raft.config.lease_ms, raft.configurations.at(raft.log.commit_index).lease_ms)


def check_agreement(raft: Server, configuration: Configuration) -> None:
    """Check that this leader may have the group agree on `configuration.lease_ms`. Raises ConfigurationRefused."""
    lease_ms, agreed_ms = configuration.lease_ms, raft.configuration.lease_ms
    if lease_ms == agreed_ms:
        return
    if lease_ms != raft.config.lease_ms:
        raise ConfigurationRefused("a leader gives leases of its own length only")
    if lease_ms < agreed_ms and raft.now_ms < raft.leases.may_serve_until_ms(NOBODY):
        raise ConfigurationBusy("longer leases of an earlier leader may still run")


def on_answer(raft: Server, node: NodeId, reply: int) -> None:
    """Leader: this reply of `node` came; give it a lease if it may have one."""
    if not raft.config.lease_ms:
        return
    commit_index = raft.log.commit_index
    agreed = raft.configurations.at(commit_index)
    if node not in agreed.voters and node not in agreed.learners:
        return
    needed_index = max(
        raft.term_start_index, raft.leases.needed_index(node), raft.configurations.index_at(commit_index)
    )
    if raft.progress[node].applied_index < needed_index:
        return
    # The clock is read in whole milliseconds, so the reply may have come up to one millisecond later.
    received_ms, lease_ms = raft.now_ms + 1, min(raft.config.lease_ms, agreed.lease_ms)
    until_ms = min(election.quorum_contact_ms(raft) + lease_ms, raft.leases.marked_ms + 2 * lease_ms)
    duration_ms = min(lease_ms, until_ms - received_ms)
    if duration_ms > 0:
        drift_ms = duration_ms * raft.config.lease_drift_percent // 100 + 1
        raft.leases.note_grant(node, reply, duration_ms, received_ms + duration_ms + drift_ms)


def is_valid(raft: Server, now_ms: int) -> bool:
    """Whether this node may serve lines that it holds, at `now_ms` by its clock. Read the clock after the value."""
    if not raft.config.lease_ms:
        return False
    if now_ms < raft.leases.valid_until_ms:
        return True
    if raft.state.role is not Role.LEADER:
        return False
    if raft.applied_index < max(raft.term_start_index, raft.leases.needed_index(raft.id)):
        return False
    if now_ms >= raft.leases.leader_until_ms:
        # A quorum never takes back that it acknowledged a round: what was computed before stays valid.
        lease_ms = _length_ms(raft)
        raft.leases.leader_until_ms = min(
            election.quorum_contact_ms(raft) + lease_ms, raft.leases.marked_ms + 2 * lease_ms
        )
    return now_ms < raft.leases.leader_until_ms


def is_open(raft: Server) -> bool:
    """Leader: whether it may release any answers: every lease of an earlier leader has ended, or every node has
    applied this leader's no-op and so all that earlier leaders answered."""
    if raft.applied_index < raft.term_start_index:
        return False
    if raft.now_ms >= raft.leases.may_serve_until_ms(NOBODY):
        return True
    # A node that was removed lately may have a lease, and the leader no longer asks it: only time ends that.
    return raft.now_ms >= raft.leases.members_changed_ms + longest_ms(raft) and all(
        progress.applied_index >= raft.term_start_index for progress in raft.progress.values()
    )


def is_done(raft: Server, node: NodeId, index: Index) -> bool:
    """Leader: whether `node` can no longer serve what the entry at `index` replaced: it has applied the entry, or its
    lease has run out. In the second case it gets no new lease before it has applied the entry."""
    if node == raft.id:
        return raft.applied_index >= index
    if raft.now_ms < raft.leases.earlier_member_until_ms(node):
        return False
    progress = raft.progress.get(node)
    if progress is not None and progress.applied_index >= index:
        return True
    if raft.now_ms < raft.leases.may_serve_until_ms(node):
        return False
    raft.leases.raise_barrier(node, index)
    return True
