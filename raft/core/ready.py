"""What the core wants done: the driver feeds events, then drains one `Ready` (etcd's contract, made of fields).

Fields, not comments, say what must happen before what:

1. `messages` may leave at once.
2. `persist` goes to the disk through one ordered queue; no write overtakes another.
3. `messages_after_persist` leave when that write, and with it every earlier one, is durable. They may come
   without a `persist` of their own: they then wait for the writes already in the queue.
4. `committed` is applied in order, at once.
"""

from dataclasses import dataclass

from raft.core.messages import Message
from raft.core.types import Entry, HardState, Index, NodeId, Role, SnapshotMeta, Term


@dataclass(frozen=True, slots=True)
class Persist:
    """One ordered disk write. Entries replace everything at or after the first one's index."""

    #: Set if term or vote changed since the last write.
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    #: Set if a leader's snapshot replaces the whole log; written before the entries.
    snapshot: SnapshotMeta | None = None


@dataclass(frozen=True, slots=True)
class ReadState:
    """`context` may be served once the applied index has reached `index`. `index` 0: refused, ask again."""

    context: int
    index: Index


@dataclass(frozen=True, slots=True)
class Ready:
    messages: tuple[Message, ...] = ()
    persist: Persist | None = None
    messages_after_persist: tuple[Message, ...] = ()
    committed: tuple[Entry, ...] = ()
    read_states: tuple[ReadState, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.messages or self.persist or self.messages_after_persist or self.committed or self.read_states
        )


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """What a core knows about itself, for health pages and metrics."""

    id: NodeId
    role: Role
    term: Term
    vote: NodeId
    leader: NodeId
    first_index: Index
    last_index: Index
    durable_index: Index
    commit_index: Index
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...]
    elections: int
    leader_changes: int
    rejected_messages: int
    #: The highest commit index that a leader named, even if the entries up to it are not here yet.
    heard_commit_index: Index = 0
