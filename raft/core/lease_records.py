"""What one node remembers of read leases, granted and received; the rules are those of `raft.core.leases`."""

from collections import OrderedDict

from raft.core.messages import AppendEntries
from raft.core.types import Index, NodeId

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
