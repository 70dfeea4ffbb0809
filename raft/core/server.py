"""Server: the state that the handlers of one node share, and what they have to send.

Handlers are in the file named for their topic. Each takes the `Server`, so it knows neither `RaftCore`, which calls
it, nor the handlers that use it. This file has what belongs to no topic: the fields, and one place (`send`) that says
which message may leave before the disk has answered. The subclass does what concerns several topics at once.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from random import Random

from raft.core import messages
from raft.core.config import CoreConfig
from raft.core.lease_records import Leases
from raft.core.log import RaftLog
from raft.core.membership import ConfigurationHistory
from raft.core.messages import Message
from raft.core.progress import Progress
from raft.core.read_rounds import ReadRounds
from raft.core.ready import Persist, ReadState
from raft.core.state import ServerState
from raft.core.types import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    SnapshotMeta,
    Term,
)


class Election:
    """What a follower or candidate remembers between messages."""

    __slots__ = (
        "deadline_ms",
        "fast_attempts",
        "leader_contact_ms",
        "leader_lost",
        "round_sequence",
        "votes",
    )

    def __init__(self) -> None:
        #: When this node starts its next pre-vote, unless it hears a leader first.
        self.deadline_ms = 0
        #: Last message from the current leader; start of this node's promise to vote for nobody else.
        self.leader_contact_ms = 0
        #: The connection from the leader broke, and this node has not heard the leader since.
        self.leader_lost = False
        self.fast_attempts = 0
        #: Replies of the running pre-vote or vote, and the sequence of its requests.
        self.votes: dict[NodeId, bool] = {}
        self.round_sequence = 0


class Transfer:
    """The transfer under way, if any. Cleared whenever this node stops leading (hashicorp/raft#696)."""

    __slots__ = ("deadline_ms", "to", "told")

    def __init__(self) -> None:
        self.to: NodeId = NOBODY
        self.deadline_ms = 0
        #: TimeoutNow was sent.
        self.told = False

    def clear(self) -> None:
        self.to = NOBODY
        self.told = False


class ClusterTime:
    """What one node knows of the group's clock."""

    __slots__ = ("base_ms", "heard_at_ms", "heard_ms", "heard_term", "since_ms")

    def __init__(self, now_ms: int) -> None:
        #: Leader: cluster time at its election, and when that was by its own clock.
        self.base_ms = 0
        self.since_ms = now_ms
        #: Newest cluster time that the leader of `heard_term` told (it may be this node), and when this node heard
        #: it.
        self.heard_term: Term = 0
        self.heard_ms = 0
        self.heard_at_ms = now_ms


class Server(ABC):
    """One replica of one group, as its handlers see it. It takes the arguments of `RaftCore`."""

    def __init__(
        self,
        config: CoreConfig,
        configuration: Configuration,
        *,
        random: Random,
        now_ms: int,
        hard_state: HardState | None = None,
        snapshot: SnapshotMeta | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        self.config = config
        self.id: NodeId = config.id
        self.random = random
        self.now_ms = now_ms
        self.durable_hard_state = hard_state or HardState()
        self.state = ServerState(config.id, self.durable_hard_state)
        base = snapshot or SnapshotMeta(configuration=configuration)
        self.log = RaftLog(base, entries)
        self.configurations = ConfigurationHistory(base.index, base.configuration, entries)
        #: What the driver has applied; at most `log.applied_index`, which it was handed.
        self.applied_index: Index = base.index
        self.election = Election()
        self.transfer = Transfer()
        self.reads = ReadRounds()
        self.leases = Leases(now_ms)
        self.cluster_time = ClusterTime(now_ms)
        #: Leader: one for each other member. Rebuilt in sorted order, so that every walk has one order.
        self.progress: dict[NodeId, Progress] = {}
        self.heartbeat_deadline_ms = 0
        #: Leader: learners that the driver does not want to vote yet, however much they hold.
        self.held_back: frozenset[NodeId] = frozenset()
        #: Leader: index of its no-op; reads and membership changes wait for its commit.
        self.term_start_index: Index = 0
        #: The highest commit index that a leader has named, even if the entries up to it are not here yet.
        self.heard_commit_index: Index = 0
        #: Leader: bytes of entries after the commit index.
        self.uncommitted_bytes = 0
        #: Leader that removed itself: steps down after its next flush.
        self.retiring = False
        self.last_sequence = 0
        #: Peers' messages that broke the protocol and were dropped.
        self.rejected_messages = 0
        self.read_states: list[ReadState] = []
        self.snapshot_to_persist: SnapshotMeta | None = None
        self._submitted_hard_state = self.durable_hard_state
        self._outstanding: deque[tuple[Persist, int]] = deque()
        self._messages: list[Message] = []
        self._messages_after_persist: list[Message] = []

    # What a subclass brings

    @abstractmethod
    def become_follower(self, term: Term, leader: NodeId) -> None:
        """Follow `leader`, or nobody yet, in `term`. Everything that a leader or candidate had under way ends."""

    @abstractmethod
    def become_leader(self) -> None:
        """Won: lead the present term, beginning with a no-op."""

    @abstractmethod
    def append_own(self, kind: EntryKind, datas: Sequence[bytes]) -> Index:
        """Leader: append entries of the current term, stamped with cluster time; returns the first's index."""

    # What the handlers share

    @property
    def configuration(self) -> Configuration:
        return self.configurations.latest

    @property
    def is_voter(self) -> bool:
        return self.id in self.configuration.voters

    @property
    def may_campaign(self) -> bool:
        """A server that its own latest configuration leaves out campaigns until it knows that this configuration is
        committed (thesis 4.2.2). Its log may be longer than the others', so that only this server can win, and then
        it commits the removal."""
        return self.is_voter or any(
            self.id in configuration.voters for configuration in self.configurations.since(self.log.commit_index)
        )

    @property
    def oldest_persist_ms(self) -> int | None:
        """Since when the disk has not answered; None if it has answered everything."""
        return self._outstanding[0][1] if self._outstanding else None

    def next_sequence(self) -> int:
        self.last_sequence += 1
        return self.last_sequence

    def send(self, message: Message) -> None:
        """Queue a message for the moment at which it may leave.

        No message of a new term or vote leaves before both are durable, vote requests included. A success reply
        leaves once the entries that it confirms are durable. Pre-votes and their grants bind nobody and leave at
        once. A refused pre-vote waits as the others do, because the asker adopts the term that it names.
        """
        if self._must_wait_for_disk(message):
            self._messages_after_persist.append(message)
        else:
            self._messages.append(message)

    def _must_wait_for_disk(self, message: Message) -> bool:
        if isinstance(message, messages.RequestVote) and message.pre_vote:
            return False
        if isinstance(message, messages.RequestVoteReply) and message.pre_vote and message.granted:
            return False
        if self.state.hard_state != self.durable_hard_state:
            return True
        if isinstance(message, messages.AppendEntriesReply):
            return message.success and message.match_index > self.log.durable_index
        if isinstance(message, messages.InstallSnapshotReply):
            return message.match_index > self.log.durable_index
        return False

    def on_own_committed(self, before: Index, after: Index) -> None:
        """Leader: the commit index moved; the uncommitted tail shrank."""
        self.uncommitted_bytes -= self.log.data_bytes(before, after)

    def log_bytes_after(self, index: Index) -> int:
        return self.log.data_bytes(index, self.log.last_index)
