"""The nouns of the protocol: entries, hard state, roles, configurations.

Everything here is immutable data. Times are integer milliseconds; each field says which clock they belong to. Node
ids are short printable strings such as `node1`.
"""

from dataclasses import dataclass
from enum import IntEnum

NodeId = str
Term = int
Index = int

#: The id that stands for "nobody": no vote cast in this term, no leader known.
NOBODY: NodeId = ""


class Role(IntEnum):
    """What a node is in the current term. The numbers are part of the HTTP contract, except `PRE_CANDIDATE`,
    which `/health` reports as 1 like `CANDIDATE`."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class EntryKind(IntEnum):
    """What an entry's data means. The numbers are on disk and on the wire: never reuse one."""

    #: Opaque bytes for the state machine.
    COMMAND = 0
    #: Empty: a new leader's first entry of its term (paper section 8).
    NOOP = 1
    #: Empty: moves cluster time forward when something is due and no traffic flows.
    ADVANCE = 2
    #: An encoded `Configuration` (thesis section 4.1).
    CONFIGURATION = 3


# Not `frozen`: that makes an object three times as slow to build, and every write on every node builds one. Nobody
# assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Entry:
    """One entry of the replicated log (paper section 5.3)."""

    #: Position in the log; the first entry ever has index 1.
    index: Index
    #: Term of the leader that created it.
    term: Term
    #: Cluster time in milliseconds, stamped by that leader; never falls along the log.
    time_ms: int
    kind: EntryKind
    #: Command bytes, or the encoded configuration, or empty.
    data: bytes


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before any message of its term leaves (paper Figure 2): one record, never two."""

    term: Term = 0
    vote: NodeId = NOBODY


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who takes part. Voters count in quorums; learners receive the log and count nowhere (thesis 4.2.1).
    Both are sorted tuples so that every walk over peers has one order."""

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    #: Where members are reached, as `(id, host:port)`, sorted; the core only carries it along.
    addresses: tuple[tuple[NodeId, str], ...] = ()
    #: The data directory that a member's id stands for, as `(id, incarnation)`, sorted. A member without one is not
    #: bound yet. The core compares incarnations and never makes one.
    incarnations: tuple[tuple[NodeId, str], ...] = ()
    #: The life of the group (`raft.life`); empty while it has none. Once it is set it never changes. The core only
    #: carries it along.
    life: str = ""
    #: Bound of the read leases that a leader may give; the group agrees on it as on the members (`raft.core.leases`).
    #: 0: the group has not agreed, and no leader may give any.
    lease_ms: int = 0

    @property
    def members(self) -> tuple[NodeId, ...]:
        return tuple(sorted((*self.voters, *self.learners)))

    @property
    def needs_later_version(self) -> bool:
        """Whether it says something that the first version of the formats cannot say."""
        return bool(self.life or self.lease_ms)

    def address_of(self, member: NodeId) -> str:
        """`host:port`, or empty if the configuration does not know it."""
        return _value_of(self.addresses, member)

    def incarnation_of(self, member: NodeId) -> str:
        """The incarnation that the id is bound to; empty if it is not bound."""
        return _value_of(self.incarnations, member)


def _value_of(pairs: tuple[tuple[NodeId, str], ...], wanted: NodeId) -> str:
    for id, value in pairs:
        if id == wanted:
            return value
    return ""


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot is of: the state after applying every entry up to `index`."""

    index: Index = 0
    term: Term = 0
    #: Cluster time of the entry at `index`.
    time_ms: int = 0
    configuration: Configuration = Configuration()
