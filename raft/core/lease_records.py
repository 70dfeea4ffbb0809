"""What one node remembers of read leases, granted and received; the rules are those of `raft.core.leases`."""

from collections import OrderedDict

from raft.core.messages import AppendEntries
from raft.core.types import Index, NodeId

#: A follower remembers the send time of this many own replies; it does not take a grant for an older one.
REPLIES_MAX = 256
#: A boot's numbers begin at its start time in milliseconds, moved left by so many bits: this keeps the numbers of two
#: boots apart.
_NUMBER_BITS = 20
#: Withheld entries that one message names; with more, everything from the first on counts as withheld.
HELD_MAX = 1024

#: `(released up to this index, but for these)`.
Release = tuple[Index, tuple[Index, ...]]
NOTHING_RELEASED: Release = (0, ())


class Leases:
    """Both sides: the leases that this node got, and those that it has given as leader."""

    def __init__(self, now_ms: int) -> None:
        #: Follower: until when it may serve, by its own clock.
        self.valid_until_ms = 0
        #: Follower: the number of its last reply; no earlier boot of this node used it.
        self._last_reply = now_ms << _NUMBER_BITS
        #: Follower: number of a reply -> when it was sent, oldest first.
        self._replied_ms: OrderedDict[int, int] = OrderedDict()
        #: When this node last saw the members change, or started: a member that left then may still have a lease.
        self.members_changed_ms = now_ms
        #: What the leader of the present term has released.
        self.release: Release = NOTHING_RELEASED
        self._held: frozenset[Index] = frozenset()
        #: Follower: the leader waits to hear how far this node has applied.
        self.wanted = False
        #: Leader: until when it may serve itself, as last computed.
        self.leader_until_ms = 0
        #: Leader: counts its releases, so that each peer is sent the newest.
        self.release_number = 0
        #: Leader: nodes whose progress it waits for.
        self._wants: frozenset[NodeId] = frozenset()
        #: Leader: until when each node may serve by its grants, by the leader's clock.
        self._may_serve_until_ms: dict[NodeId, int] = {}
        #: Leader: until when any node may serve by a grant of an earlier leader.
        self._earlier_until_ms = 0
        #: Leader: until when the earlier server with this id may still serve.
        self._earlier_member_until_ms: dict[NodeId, int] = {}
        #: Leader: `(commit index, when)` at its last heartbeat and at the one before.
        self._commit_marks: tuple[tuple[Index, int], tuple[Index, int]] = ((0, now_ms), (0, now_ms))
        #: Leader: `(reply, duration)` for the next message to each node.
        self._grants: dict[NodeId, tuple[int, int]] = {}
        #: Leader: what each node must have applied before it gets a lease.
        self._barriers: dict[NodeId, Index] = {}

    def is_released(self, index: Index) -> bool:
        """Whether the leader of this term has released the answer to the entry at `index`."""
        return index <= self.release[0] and index not in self._held

    def on_new_term(self) -> None:
        """Another leader, or none: no lease starts at a reply of the old term, and releases must come again. A lease
        that this node has runs on: the new leader waits until it has ended."""
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
        """Leader: there is a new member. An earlier server with its id may have a lease until then."""
        self._earlier_member_until_ms[node] = self.may_serve_until_ms(node)

    def on_heartbeat(self, commit_index: Index, now_ms: int) -> None:
        """Leader: a heartbeat is due. This does not count rounds for reads: they may follow each other faster than
        any node applies, and then no node would get a lease."""
        self._commit_marks = ((commit_index, now_ms), self._commit_marks[0])

    def needed_index(self, node: NodeId) -> Index:
        """Leader: what `node` must have applied to get a lease."""
        return max(self._commit_marks[1][0], self._barriers.get(node, 0))

    @property
    def marked_ms(self) -> int:
        """Leader: a node that gets a lease now has applied all that was committed by then."""
        return self._commit_marks[1][1]

    def earlier_member_until_ms(self, node: NodeId) -> int:
        return self._earlier_member_until_ms.get(node, 0)

    def may_serve_until_ms(self, node: NodeId) -> int:
        """From when on `node` surely serves nothing by an old lease."""
        return max(self._earlier_until_ms, self._may_serve_until_ms.get(node, 0))

    def publish(self, release: Release, wants: frozenset[NodeId]) -> None:
        """Leader: which answers are released, and for whose progress the leader waits."""
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
