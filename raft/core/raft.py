"""RaftCore: feed it events, then drain one `Ready`. One node's whole protocol state, without I/O.

    receive / tick / propose / read / persisted / applied / peer_lost / ...   ->   take_ready()

Every event brings `now_ms`, the node's own clock; randomness is the `Random` given at creation. Handlers are in the
file named for their topic. The state that they share is in `server`, which also says which message may leave before
the disk has answered. This file calls the handlers, and does what concerns several topics at a change of role.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from raft.core import (
    catching_up,
    cluster_time,
    election,
    leases,
    messages,
    reads,
    reconfiguration,
    replication,
    snapshotting,
    transfer,
)
from raft.core.config import CoreConfig
from raft.core.errors import FollowerBehind, NotLeading, TooMuchUncommitted, TransferInProgress
from raft.core.lease_records import Release
from raft.core.messages import Message
from raft.core.progress import Progress
from raft.core.ready import CoreStatus, Persist, Ready
from raft.core.server import Server
from raft.core.types import (
    NOBODY,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Role,
    SnapshotMeta,
    Term,
)

#: Only the leader of a term sends these: they make their sender the leader of that term.
FROM_LEADER = (messages.AppendEntries, messages.InstallSnapshot)
#: Handled in any term: their handlers judge the term themselves.
VOTING = (messages.RequestVote,)


class RaftCore(Server):
    """One replica of one group.

    Args:
        config: times and limits.
        configuration: the members to start with; a snapshot or an entry in the log overrides it.
        hard_state, snapshot, entries: what the disk held; all of it counts as durable.
        random: the only source of chance.
        now_ms: the node's clock at this moment.
    """

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
        super().__init__(
            config,
            configuration,
            random=random,
            now_ms=now_ms,
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
        )
        election.reset_deadline(self)

    # Events

    def receive(self, message: Message, now_ms: int) -> None:
        """A peer's message arrived. Never raises for what a peer sent."""
        self._advance_clock(now_ms)
        if message.to != self.id or message.sender == self.id:
            self.rejected_messages += 1
            return
        if not self._settle_term(message):
            return
        _HANDLERS[type(message)](self, message)

    def tick(self, now_ms: int) -> None:
        """Time passed. Call it at `next_deadline_ms` at the latest; more often does no harm."""
        self._advance_clock(now_ms)
        if self.state.role is Role.LEADER:
            replication.on_tick(self)
        elif self.now_ms >= self.election.deadline_ms:
            election.maybe_start(self)

    def propose(self, commands: Sequence[bytes], now_ms: int, asker: NodeId = NOBODY) -> Index:
        """Append one entry per command; returns the first one's index, in the current term. If they came through a
        follower, `asker`, the leader tells it of their commit at once.

        Raises:
            NotLeading, TransferInProgress, TooMuchUncommitted, FollowerBehind: nothing was appended.
        """
        self._advance_clock(now_ms)
        size = sum(map(len, commands))
        self._check_proposable(size)
        if catching_up.would_overtake(self, size):
            raise FollowerBehind
        first = self.append_own(EntryKind.COMMAND, commands)
        progress = self.progress.get(asker)
        if progress is not None:
            progress.commit_wanted = self.log.last_index
        return first

    def propose_advance(self, now_ms: int) -> Index:
        """Append an entry that carries only cluster time. Raises as `propose`."""
        self._advance_clock(now_ms)
        self._check_proposable(0)
        return self.append_own(EntryKind.ADVANCE, (b"",))

    def propose_configuration(self, configuration: Configuration, now_ms: int) -> Index:
        """Append a membership change of one server. Raises NotLeading or ConfigurationRefused."""
        self._advance_clock(now_ms)
        return reconfiguration.propose(self, configuration)

    def read(self, context: int, now_ms: int) -> None:
        """Ask for a linearizable read index. A `ReadState` with this context follows, if this node knows a leader and
        nothing is lost on the way. Contexts must be unique over restarts of the node."""
        self._advance_clock(now_ms)
        reads.read(self, context)

    def transfer_leadership(self, to: NodeId, now_ms: int) -> bool:
        """Begin to hand leadership to another voter. False if that is not possible now."""
        self._advance_clock(now_ms)
        return transfer.start(self, to)

    def persisted(self, persist: Persist, now_ms: int) -> None:
        """This write, and with it every earlier one, is durable."""
        self._advance_clock(now_ms)
        written: Persist | None = None
        while written is not persist:
            written, _ = self._outstanding.popleft()
            if written.hard_state is not None:
                self.durable_hard_state = written.hard_state
            self._on_log_durable(written)
        election.on_hard_state_durable(self)
        replication.maybe_commit(self)

    def applied(self, index: Index) -> None:
        """The driver has applied everything up to `index`."""
        assert self.applied_index <= index <= self.log.applied_index
        self.applied_index = index
        if self.leases.wanted and self.state.role is Role.FOLLOWER and self.state.leader:
            self.send(messages.Applied(self.id, self.state.leader, self.state.term, 0, index))

    def publish_release(self, release: Release, wants: frozenset[NodeId]) -> None:
        """Leader's driver: answers to entries up to `release[0]` are released, except those in `release[1]`, which
        wait until the nodes in `wants` have applied them."""
        self.leases.publish(release, wants)

    def take_committed(self) -> tuple[Entry, ...]:
        """The next committed entries to apply. For a driver that applies before it sends the messages of
        `take_ready`, so that they carry what the apply released."""
        return self.log.take_committed(
            entries_max=self.config.committed_entries_max, bytes_max=self.config.committed_bytes_max
        )

    def snapshot_taken(self, snapshot: SnapshotMeta, retain_from: Index) -> None:
        """This node's own snapshot is durable; entries before `retain_from` may be forgotten."""
        snapshotting.on_taken(self, snapshot, retain_from)

    def snapshot_sent(self, peer: NodeId, *, delivered: bool, now_ms: int) -> None:
        """How streaming an InstallSnapshot's data to `peer` ended. Call it for each one."""
        self._advance_clock(now_ms)
        snapshotting.on_sent(self, peer, delivered)

    def peer_lost(self, peer: NodeId, now_ms: int) -> None:
        """The connection to or from `peer` broke: messages may be lost, and a leader may be dead."""
        self._advance_clock(now_ms)
        progress = self.progress.get(peer)
        if progress is not None and progress.inflight_messages:
            progress.become_probe()
        election.on_peer_lost(self, peer)

    def stalled(self, now_ms: int) -> None:
        """The process stood still for longer than it may: what it believed about its peers is out of date. Call this
        before you feed anything that arrived meanwhile."""
        self._advance_clock(now_ms)
        if self.state.role is Role.LEADER:
            self.become_follower(self.state.term, NOBODY)
        else:
            election.reset_deadline(self)
        self.leases.on_stalled()

    def admit(self, term: Term, vote: NodeId, now_ms: int) -> None:
        """A core that holds nothing yet takes part from `term` on, as if it had voted for `vote` in that term: the
        node that had this id and lost its disk may have voted in this term and before it."""
        self._advance_clock(now_ms)
        assert self.state.hard_state == HardState() and not self.log.last_index, "only an empty node is admitted"
        if term:
            self.become_follower(term, NOBODY)
            self.state.grant_vote(vote)
        election.reset_deadline(self)

    # What the driver asks

    def next_deadline_ms(self) -> int:
        """When `tick` must be called next, on the node's clock."""
        if self.state.role is not Role.LEADER:
            return self.election.deadline_ms
        return replication.next_deadline_ms(self)

    def cluster_time_ms(self, now_ms: int) -> int:
        """Cluster time as a leader would stamp it now. On another node, what it would begin from if it led; that
        stands still while there is no leader."""
        return cluster_time.now(self, now_ms)

    def estimated_time_ms(self, now_ms: int) -> int:
        """Cluster time as far as this node can know it, for answers that show remaining times; never for apply."""
        return cluster_time.estimate(self, now_ms)

    def time_entry_due_ms(self, due_ms: int) -> int:
        """Leader: the cluster time that an entry must bring, if something is due at `due_ms`. It is earlier if the
        last entry is old: time that no entry carries is lost when all nodes stop at once."""
        return min(due_ms, self.log.last_time_ms + self.config.time_entry_ms)

    def is_time_under_way(self, due_ms: int, applied_index: Index) -> bool:
        """Whether an entry after `applied_index` brings cluster time to `due_ms`. Then the driver proposes no
        advance: one at each tick would fill the log of a slow group faster than it commits, and no bound counts
        entries without data."""
        return self.log.last_index > applied_index and self.log.last_time_ms >= due_ms

    @property
    def is_installing(self) -> bool:
        """A leader's snapshot has replaced the log and the next `Ready` brings it. Apply nothing before that."""
        return self.snapshot_to_persist is not None

    def status(self) -> CoreStatus:
        return CoreStatus(
            id=self.id,
            role=self.state.role,
            term=self.state.term,
            vote=self.state.vote,
            leader=self.state.leader,
            first_index=self.log.first_index,
            last_index=self.log.last_index,
            durable_index=self.log.durable_index,
            commit_index=self.log.commit_index,
            voters=self.configuration.voters,
            learners=self.configuration.learners,
            elections=self.state.elections,
            leader_changes=self.state.leader_changes,
            rejected_messages=self.rejected_messages,
            heard_commit_index=self.heard_commit_index,
        )

    def take_ready(self) -> Ready:
        """What the driver must do now. Each thing is handed out once."""
        if self.state.role is Role.LEADER:
            if reads.maybe_start_round(self):
                replication.broadcast_heartbeat(self)
                # If nobody else votes, no reply will come to confirm it.
                reads.on_answer(self)
            replication.flush(self)
            if self.retiring:
                self.become_follower(self.state.term, NOBODY)
        persist = self._take_persist()
        ready = Ready(
            messages=tuple(self._messages),
            persist=persist,
            messages_after_persist=tuple(self._messages_after_persist),
            committed=self.take_committed(),
            read_states=tuple(self.read_states),
        )
        self._messages = []
        self._messages_after_persist = []
        self.read_states = []
        return ready

    # What the handlers have done here (raft.core.server)

    def become_follower(self, term: Term, leader: NodeId) -> None:
        """Follow `leader`, or nobody yet, in `term`. Everything that a leader or candidate had under way ends."""
        was = self.state.role
        if term > self.state.term or was is Role.LEADER:
            self.leases.on_new_term()
        self.state.become_follower(term, leader)
        if was is Role.FOLLOWER:
            # A vote request of a higher term must not postpone this node's own election (hashicorp 30f065a).
            return
        if was is Role.LEADER:
            reads.refuse_all(self)
            self.transfer.clear()
            self.progress = {}
            self.retiring = False
            self.uncommitted_bytes = 0
        if was is Role.PRE_CANDIDATE:
            election.postpone_after_lost_pre_vote(self)
        else:
            election.reset_deadline(self)

    def become_leader(self) -> None:
        """Won: append a no-op of the new term, which also commits what earlier terms left (paper 5.4.2, 8)."""
        self.state.become_leader()
        cluster_time.begin(self)
        self.progress = {
            peer: Progress(next_index=self.log.last_index + 1, now_ms=self.now_ms)
            for peer in self.configuration.members
            if peer != self.id
        }
        self.uncommitted_bytes = self.log_bytes_after(self.log.commit_index)
        self.term_start_index = self.log.last_index + 1
        self.heartbeat_deadline_ms = self.now_ms + self.config.heartbeat_ms
        self.leases.on_elected(self.now_ms, leases.longest_ms(self))
        self.append_own(EntryKind.NOOP, (b"",))

    def append_own(self, kind: EntryKind, datas: Sequence[bytes]) -> Index:
        """Leader: append entries of the current term, stamped with cluster time; returns the first's index."""
        assert self.state.role is Role.LEADER
        time_ms = self.cluster_time_ms(self.now_ms)
        first, term = self.log.last_index + 1, self.state.term
        entries = [Entry(first + offset, term, time_ms, kind, data) for offset, data in enumerate(datas)]
        self.log.append(entries)
        self.uncommitted_bytes += sum(map(len, datas))
        if kind is EntryKind.CONFIGURATION:
            reconfiguration.on_entries_appended(self, entries)
        return first

    def _advance_clock(self, now_ms: int) -> None:
        self.now_ms = max(self.now_ms, now_ms)

    def _check_proposable(self, size: int) -> None:
        if self.state.role is not Role.LEADER:
            raise NotLeading
        if self.transfer.to:
            raise TransferInProgress
        if self.uncommitted_bytes and self.uncommitted_bytes + size > self.config.uncommitted_bytes_max:
            raise TooMuchUncommitted

    def _settle_term(self, message: Message) -> bool:
        """Rules for all servers (Figure 2): adopt a higher term, answer or drop a lower one. False: dropped."""
        if isinstance(message, VOTING):
            return True
        if message.term > self.state.term:
            if isinstance(message, messages.RequestVoteReply) and message.pre_vote and message.granted:
                return True
            leader = message.sender if isinstance(message, FROM_LEADER) else NOBODY
            self.become_follower(message.term, leader)
        elif message.term < self.state.term:
            if isinstance(message, FROM_LEADER):
                replication.refuse_stale(self, message)
            elif isinstance(message, messages.ReadIndex):
                reads.refuse(self, message)
            return isinstance(message, messages.ReadIndexReply)
        if isinstance(message, FROM_LEADER):
            return self._follow_sender(message)
        return True

    def _follow_sender(self, message: Message) -> bool:
        """`message` comes from a leader of our term. False if it breaks the protocol."""
        state = self.state
        if state.role is Role.LEADER or (state.leader and state.leader != message.sender):
            self.rejected_messages += 1
            return False
        if state.role is not Role.FOLLOWER or state.leader != message.sender:
            self.become_follower(state.term, message.sender)
        election.on_leader_heard(self)
        return True

    def _on_log_durable(self, written: Persist) -> None:
        """Entries that a later write replaces do not count. They may be replaced twice, so that their index and term
        are in the log again while the disk still has to do both writes."""
        if written.entries:
            index = written.entries[-1].index
        elif written.snapshot is not None:
            index = written.snapshot.index
        else:
            return
        if self.snapshot_to_persist is not None:
            return
        for later, _ in self._outstanding:
            if later.snapshot is not None:
                return
            if later.entries:
                index = min(index, later.entries[0].index - 1)
        self.log.on_durable(min(index, self.log.submitted_index))

    def _take_persist(self) -> Persist | None:
        hard_state = self.state.hard_state
        changed = hard_state if hard_state != self._submitted_hard_state else None
        snapshot, self.snapshot_to_persist = self.snapshot_to_persist, None
        entries = self.log.take_unsubmitted()
        if changed is None and snapshot is None and not entries:
            return None
        self._submitted_hard_state = hard_state
        persist = Persist(hard_state=changed, entries=entries, snapshot=snapshot)
        self._outstanding.append((persist, self.now_ms))
        return persist


def _on_install_snapshot_reply(raft: Server, message: messages.InstallSnapshotReply) -> None:
    replication.on_install_snapshot_reply(raft, message.sender, message.sequence, message.match_index)


Handled = TypeVar("Handled", bound=Message)
#: Each handler takes messages of its own class; the type of a table of handlers cannot say which.
Handler = Callable[[Server, Any], None]


def _row(kind: type[Handled], handler: Callable[[Server, Handled], None]) -> tuple[type, Handler]:
    """A row of the table: the handler takes messages of this kind."""
    return kind, handler


_HANDLERS: dict[type, Handler] = dict(
    (
        _row(messages.RequestVote, election.on_request_vote),
        _row(messages.RequestVoteReply, election.on_request_vote_reply),
        _row(messages.AppendEntries, replication.on_append_entries),
        _row(messages.AppendEntriesReply, replication.on_append_entries_reply),
        _row(messages.Applied, replication.on_applied),
        _row(messages.InstallSnapshot, snapshotting.on_install_snapshot),
        _row(messages.InstallSnapshotReply, _on_install_snapshot_reply),
        _row(messages.ReadIndex, reads.on_read_index),
        _row(messages.ReadIndexReply, reads.on_read_index_reply),
        _row(messages.TimeoutNow, election.on_timeout_now),
    )
)
