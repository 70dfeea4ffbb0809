"""Read leases of the nodes of a group, and the release of answers that wait for them.

Leases let a node answer from its own memory without a message (Chubby's leased caches; docs/coherence.md has the
argument). Only groups with `lease_ms` > 0 use them. The rules, on clocks that may drift:

    Q       the send time of the leader's newest round that a quorum has acknowledged
    leader  its own lease runs until Q + L; no lease that it gives outlives that
    grant   a follower sent its reply k at s, by its clock; the leader received it at R. The follower may serve
            until R + d(1 + drift) as far as the leader is concerned, d = min(L, Q + L - R, M + 2L - R). The next
            message to it says (k, d), and it serves until s + d: since s lies before R, it stops first. k is the
            follower's own number, of one reply of one life, so that no other reply is ever dated by it
    length  L is the leader's own setting, but at most what the committed configuration says; a node must have applied
            that configuration. Nodes may so be set differently: a new leader waits out what the configuration
            says. A leader has it say more before it gives more, and less once nothing longer can run
    members a lease is given to members of the committed configuration only: of others a new leader may not know
    anew    a node whose lease ran out while an answer was waiting for it gets one again only once it has applied
            the newest entry that was answered without it; from a new leader, once it has applied its no-op
    lag     a node that has not applied what was committed two heartbeats ago, at M, gets none: else one that answers
            but lags would be awaited without end, and a removal could not be known to be over
    before  a new leader knows no earlier grants: every node may hold one until L(1 + drift) after the election,
            and so may one that a configuration left out lately
    again   a server that is added under the id of one that was removed says nothing of the lease of that one

The leader's driver says which entries' answers are still held (`publish`); that rides on AppendEntries, and a
node may answer for an entry that it has applied once `is_released` says so.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from raft.core import election, membership
from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.messages import AppendEntries
from raft.core.types import NOBODY, Configuration, Index, NodeId, Role

if TYPE_CHECKING:
    from raft.core.raft import RaftCore

#: Own replies whose send time a follower remembers; a grant for an older one is not taken.
REPLIES_MAX = 256
#: Replies of one life per millisecond of its beginning: what keeps the numbers of two lives apart.
_NUMBER_BITS = 20
#: Held entries that one message names; with more, everything from the first on counts as held.
HELD_MAX = 1024

#: `(released up to this index, but for these)`.
Release = tuple[Index, tuple[Index, ...]]
NOTHING_RELEASED: Release = (0, ())


class Leases:
    """Both sides: what this node was granted, and what it has granted as leader."""

    def __init__(self, now_ms: int) -> None:
        #: Follower: until when it may serve, by its own clock.
        self.valid_until_ms = 0
        #: Follower: the number of its last reply, unlike those of any earlier life of this node.
        self._last_reply = now_ms << _NUMBER_BITS
        #: Follower: number of a reply -> when it was sent, oldest first.
        self._replied_ms: OrderedDict[int, int] = OrderedDict()
        #: When this node last saw the members change, or began: who left before that may hold a lease still.
        self.members_changed_ms = now_ms
        #: What the leader of the present term has released.
        self.release: Release = NOTHING_RELEASED
        self._held: frozenset[Index] = frozenset()
        #: Follower: the leader waits to hear how far this node has applied.
        self.wanted = False
        #: Leader: until when it may serve itself, as far as it was reckoned.
        self.leader_until_ms = 0
        #: Leader: counts its releases, so that each peer is sent the newest.
        self.release_number = 0
        #: Leader: nodes whose progress it waits for.
        self._wants: frozenset[NodeId] = frozenset()
        #: Leader: until when each node may serve, by the leader's clock, as far as it granted.
        self._may_serve_until_ms: dict[NodeId, int] = {}
        #: Leader: until when any node may serve by a grant of an earlier leader.
        self._earlier_until_ms = 0
        #: Leader: until when a server may serve that had this id before the one that has it now.
        self._earlier_member_until_ms: dict[NodeId, int] = {}
        #: Leader: `(commit index, when)` at its last heartbeat, and at the one before.
        self._commit_marks: tuple[tuple[Index, int], tuple[Index, int]] = ((0, now_ms), (0, now_ms))
        #: Leader: `(reply, duration)` for the next message to each node.
        self._grants: dict[NodeId, tuple[int, int]] = {}
        #: Leader: what each node must have applied before it is given a lease.
        self._barriers: dict[NodeId, Index] = {}

    def is_released(self, index: Index) -> bool:
        """Whether the leader of this term has released the answer to the entry at `index`."""
        return index <= self.release[0] and index not in self._held

    def on_new_term(self) -> None:
        """Another leader, or none: replies of the old term date nothing, and releases are to come anew. A lease
        that was granted runs on: the new leader waits it out."""
        self._replied_ms.clear()
        self._set_release(NOTHING_RELEASED)
        self.wanted = False

    def on_stalled(self) -> None:
        self.valid_until_ms = 0

    # Follower

    def on_reply(self, now_ms: int) -> int:
        """A reply is sent; returns its number."""
        self._last_reply += 1
        self._replied_ms[self._last_reply] = now_ms
        if len(self._replied_ms) > REPLIES_MAX:
            self._replied_ms.popitem(last=False)
        return self._last_reply

    def on_append_entries(self, message: AppendEntries) -> None:
        """Take the grant and the release that a leader's message brings."""
        reply, duration_ms = message.lease
        replied_ms = self._replied_ms.get(reply)
        if replied_ms is not None:
            self.valid_until_ms = max(self.valid_until_ms, replied_ms + duration_ms)
        if message.release[0] >= self.release[0]:
            self._set_release(message.release)
        self.wanted = message.wants_applied

    # Leader

    def on_elected(self, now_ms: int, longest_ms: int) -> None:
        self.on_new_term()
        self._may_serve_until_ms.clear()
        self._grants.clear()
        self._barriers.clear()
        self._wants = frozenset()
        self._earlier_member_until_ms.clear()
        self._commit_marks = ((0, now_ms), (0, now_ms))
        self.leader_until_ms = 0
        self._earlier_until_ms = now_ms + longest_ms

    def on_joined(self, node: NodeId) -> None:
        """Leader: there is a new member. One that had its id may hold a lease until then."""
        self._earlier_member_until_ms[node] = self.may_serve_until_ms(node)

    def on_heartbeat(self, commit_index: Index, now_ms: int) -> None:
        """Leader: a heartbeat is due. Not at rounds for reads: they may follow each other faster than anybody
        applies, and then nobody would be given a lease."""
        self._commit_marks = ((commit_index, now_ms), self._commit_marks[0])

    def needed_index(self, node: NodeId) -> Index:
        """Leader: what `node` must have applied to be given a lease."""
        return max(self._commit_marks[1][0], self._barriers.get(node, 0))

    @property
    def marked_ms(self) -> int:
        """Leader: all that was committed by then has been applied by whoever is given a lease now."""
        return self._commit_marks[1][1]

    def earlier_member_until_ms(self, node: NodeId) -> int:
        return self._earlier_member_until_ms.get(node, 0)

    def may_serve_until_ms(self, node: NodeId) -> int:
        """When the leader may count on it that `node` serves nothing that it has not applied anew."""
        return max(self._earlier_until_ms, self._may_serve_until_ms.get(node, 0))

    def publish(self, release: Release, wants: frozenset[NodeId]) -> None:
        """Leader: which answers are released, and whose progress is waited for."""
        held = release[1]
        if len(held) > HELD_MAX:
            release = (min(held) - 1, ())
        self._wants = wants
        if release != self.release:
            self._set_release(release)
            self.release_number += 1

    def take_grant(self, node: NodeId) -> tuple[int, int]:
        return self._grants.pop(node, (0, 0))

    def wants_applied(self, node: NodeId) -> bool:
        return node in self._wants

    def note_grant(self, node: NodeId, reply: int, duration_ms: int, until_ms: int) -> None:
        self._grants[node] = (reply, duration_ms)
        self._may_serve_until_ms[node] = max(self._may_serve_until_ms.get(node, 0), until_ms)

    def raise_barrier(self, node: NodeId, index: Index) -> None:
        self._barriers[node] = max(self._barriers.get(node, 0), index)

    def _set_release(self, release: Release) -> None:
        self.release = release
        self._held = frozenset(release[1])


def longest_ms(raft: RaftCore) -> int:
    """The longest that any lease may run that was given up to now, by this node's clock."""
    return _longest_ms(raft, raft.configuration)


def _longest_ms(raft: RaftCore, agreed: Configuration) -> int:
    """L(1 + drift), and the tick that clocks are read in. The setting counts, too: while nothing was agreed upon,
    leaders of an earlier version gave leases."""
    lease_ms = max(raft.config.lease_ms, agreed.lease_ms)
    return lease_ms + lease_ms * raft.config.lease_drift_percent // 100 + 2


def removal_unknown_ms(raft: RaftCore) -> int:
    """How long what this node has applied may be unknown to a node that serves, by this node's clock. Whoever does
    not know it was given a lease that ends by M + 2L on the leader's clock, and a drift later on its own, where the
    entry was committed after M."""
    return 3 * _longest_ms(raft, raft.configurations.at(raft.applied_index))


def _length_ms(raft: RaftCore) -> int:
    """Leader: how long the leases are that it gives, its own among them."""
    return min(raft.config.lease_ms, raft.configurations.at(raft.log.commit_index).lease_ms)


def maybe_agree(raft: RaftCore) -> bool:
    """Leader: have the configuration say how long the leases are that this node gives."""
    lease_ms, configuration = raft.config.lease_ms, raft.configuration
    if lease_ms == configuration.lease_ms:
        return False
    try:
        membership.propose(raft, replace(configuration, lease_ms=lease_ms))
    except ConfigurationRefused:
        return False
    return True


def check_agreement(raft: RaftCore, configuration: Configuration) -> None:
    """Whether this leader may have the group agree on `configuration.lease_ms`. Raises ConfigurationRefused."""
    lease_ms, agreed_ms = configuration.lease_ms, raft.configuration.lease_ms
    if lease_ms == agreed_ms:
        return
    if lease_ms != raft.config.lease_ms:
        raise ConfigurationRefused("a leader gives leases of its own length only")
    if lease_ms < agreed_ms and raft.now_ms < raft.leases.may_serve_until_ms(NOBODY):
        raise ConfigurationBusy("longer leases of an earlier leader may still run")


def on_answer(raft: RaftCore, node: NodeId, reply: int) -> None:
    """Leader: this reply of `node` came; grant it what may be granted."""
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
    # The clock is read in whole milliseconds, so the reply may have come up to one later than it says.
    received_ms, lease_ms = raft.now_ms + 1, min(raft.config.lease_ms, agreed.lease_ms)
    until_ms = min(election.quorum_contact_ms(raft) + lease_ms, raft.leases.marked_ms + 2 * lease_ms)
    duration_ms = min(lease_ms, until_ms - received_ms)
    if duration_ms > 0:
        drift_ms = duration_ms * raft.config.lease_drift_percent // 100 + 1
        raft.leases.note_grant(node, reply, duration_ms, received_ms + duration_ms + drift_ms)


def is_valid(raft: RaftCore, now_ms: int) -> bool:
    """Whether this node may serve lines that it holds, at `now_ms` by its clock: read after the value was."""
    if not raft.config.lease_ms:
        return False
    if now_ms < raft.leases.valid_until_ms:
        return True
    if raft.state.role is not Role.LEADER:
        return False
    if raft.applied_index < max(raft.term_start_index, raft.leases.needed_index(raft.id)):
        return False
    if now_ms >= raft.leases.leader_until_ms:
        # A quorum that acknowledged a round did so for good: what was reckoned before stands.
        lease_ms = _length_ms(raft)
        raft.leases.leader_until_ms = min(
            election.quorum_contact_ms(raft) + lease_ms, raft.leases.marked_ms + 2 * lease_ms
        )
    return now_ms < raft.leases.leader_until_ms


def is_open(raft: RaftCore) -> bool:
    """Leader: whether answers may be given at all: every lease of an earlier leader has ended, or every node has
    applied this leader's no-op and so all that earlier ones answered."""
    if raft.applied_index < raft.term_start_index:
        return False
    if raft.now_ms >= raft.leases.may_serve_until_ms(NOBODY):
        return True
    # A node that was left out lately may hold a lease and is not asked any more: only time ends that.
    return raft.now_ms >= raft.leases.members_changed_ms + longest_ms(raft) and all(
        progress.applied_index >= raft.term_start_index for progress in raft.progress.values()
    )


def is_done(raft: RaftCore, node: NodeId, index: Index) -> bool:
    """Leader: whether `node` can no longer serve what the entry at `index` replaced: it has applied the entry, or
    its lease has run out. In the second case it gets no lease before it has applied the entry."""
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
