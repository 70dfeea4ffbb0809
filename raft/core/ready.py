"""What the core wants done: one `Ready` is drained after events were fed (etcd's contract, made of fields).

What must happen before what is a field, not a comment:

1. `messages` may leave at once.
2. `persist` goes to the disk through one ordered queue; nothing overtakes.
3. `messages_after_persist` leave when that write, and with it every earlier one, is durable. They may come
   without a `persist` of their own: they then wait for the writes already in the queue.
4. `committed` is applied in order, at once.
"""

from dataclasses import dataclass

from raft.core.messages import Message
from raft.core.types import Entry, HardState, Index, NodeId, Role, SnapshotMeta, Term


@dataclass(frozen=True, slots=True)
class Persist:
    """One ordered disk write. Entries replace whatever stood at or after the first one's index."""

    #: Set where term or vote changed since the last write.
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    #: Set where a leader's snapshot replaces the whole log; written before the entries.
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
    """What a core knows of itself, for health pages and metrics."""

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
    #: The highest that a leader named, whether or not the entries up to it are here.
    heard_commit_index: Index = 0
