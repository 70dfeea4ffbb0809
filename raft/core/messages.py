"""The messages between nodes, one frozen dataclass each (paper Figure 2; thesis 3.10, 4.2.3, 6.4, 9.6).

Every message names its `sender`, its receiver `to` and the sender's `term`. The requester chooses `sequence`, and the
reply repeats it. A leader's sequences rise strictly, so a reply proves that the follower still followed after that
request was *sent*; ReadIndex rounds and leases use this.
"""

from dataclasses import dataclass

from raft.core.types import Entry, Index, NodeId, SnapshotMeta, Term


@dataclass(frozen=True, slots=True)
class RequestVote:
    """Paper 5.2. With `pre_vote`, `term` is the term that the sender *would* campaign in (thesis 9.6) and nobody's
    term changes. With `transfer`, the old leader has asked for this election: receivers that still hear a leader must
    not ignore it (thesis 3.10)."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    last_log_index: Index
    last_log_term: Term
    pre_vote: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class RequestVoteReply:
    """`term` is the responder's current term, but in a granted pre-vote it is the term of the request."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    granted: bool
    pre_vote: bool = False


# Not `frozen`, for the reason given at `Entry`.
@dataclass(slots=True, unsafe_hash=True)
class AppendEntries:
    """Paper 5.3. Without entries it is a heartbeat or carries a new commit index."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    prev_log_index: Index
    prev_log_term: Term
    leader_commit: Index
    entries: tuple[Entry, ...] = ()
    #: The lease that this message grants: `(number of a reply of the follower's, duration in ms)`;
    #: `(0, 0)` grants none. The cache's coherence protocol counts it from the follower's own send time.
    lease: tuple[int, int] = (0, 0)
    #: `(index, held)`: the answers to entries up to `index` are released, except those of the indexes in `held`.
    release: tuple[Index, tuple[Index, ...]] = (0, ())
    #: The leader waits for this follower to apply something: it should say so with `Applied` at once.
    wants_applied: bool = False
    #: The leader's cluster time when this was sent (`raft.core.cluster_time`).
    time_ms: int = 0


# Not `frozen`, for the reason given at `Entry`.
@dataclass(slots=True, unsafe_hash=True)
class AppendEntriesReply:
    """On success `match_index` is the last entry that this request proved equal, durable at the follower.
    On refusal `match_index` is 0 and the hint says where the logs may meet (paper 5.3, last paragraphs):
    `hint_index` is the highest index worth probing, `hint_term` the follower's term there."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    success: bool
    match_index: Index = 0
    #: On refusal: the `prev_log_index` that was refused, so that the leader recognises a stale refusal.
    rejected_index: Index = 0
    hint_index: Index = 0
    hint_term: Term = 0
    #: Highest index that the follower has applied; the leader's coherence bookkeeping reads it.
    applied_index: Index = 0
    #: The follower chooses it, a new one for each reply in all its boots; grants of leases name it.
    number: int = 0


@dataclass(frozen=True, slots=True)
class Applied:
    """A follower tells the leader how far it has applied, because the leader waits for that."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    applied_index: Index


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Paper 7. The core sees the snapshot whole; the driver streams its data in chunks below this message."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    snapshot: SnapshotMeta


@dataclass(frozen=True, slots=True)
class InstallSnapshotReply:
    """`match_index` is the index up to which the follower's state is now durable."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    match_index: Index


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """A follower asks the leader for an index at which its reads are linearizable (thesis 6.4). `sequence` is unique
    over restarts of the asker, so that it never takes a reply for the answer to another question."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int


@dataclass(frozen=True, slots=True)
class ReadIndexReply:
    """`index` 0 means refused: the receiver does not lead."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int
    index: Index


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader tells its chosen successor to campaign at once (thesis 3.10)."""

    sender: NodeId
    to: NodeId
    term: Term
    sequence: int


Message = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | Applied
    | InstallSnapshot
    | InstallSnapshotReply
    | ReadIndex
    | ReadIndexReply
    | TimeoutNow
)
