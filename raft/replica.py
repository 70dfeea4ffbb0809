"""Replica: what one node of a group does in one turn, without I/O.

A turn feeds the core what arrived, carries out the `Ready` that comes back, and applies what is committed. It runs to
completion: between reading term or role and acting on it nothing can intervene. The order within it is part of the
protocol, so it is written once, here. What one turn applies is bounded, by work and not by time, so that a simulation
takes the same turns again; what is left waits for the next, and heartbeats and clients pass in between. Who has a
network, a disk and a clock is a subclass: `raft.node.RaftNode` has those of a process, and the simulations of the
tests have their own.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from common.chance import SYSTEM_RANDOM
from raft.applier import Applier
from raft.core.errors import ProposalRefused
from raft.core.messages import ReadIndex
from raft.core.raft import RaftCore
from raft.core.ready import Persist, Ready
from raft.core.types import NOBODY, Entry, NodeId, Role, SnapshotMeta
from raft.errors import RaftError
from raft.forwarding import Forward, ForwardReply
from raft.peer_messages import PeerMessage
from raft.proposals import Proposals
from raft.read_index import ReadIndexClient
from raft.state_machine import StateMachine
from raft.withheld import Publisher, Withheld

#: What listeners hear, with the snapshot's meta, when the machine was replaced by a leader's snapshot.
RESTORED_TOPIC = "raft.restored"
#: Work (`Applier.work`) after which a turn applies no further entry: some 10 us each, a quarter of a stall. The last
#: entry may go beyond it, by what its machine does with one entry at most.
TURN_WORK_MAX = 5_000


class Replica(ABC):
    """The core of one node with its machine, its clients' proposals and reads.

    Args:
        random: where proposals and reads begin to count; the core has a `Random` of its own.
    """

    def __init__(
        self, core: RaftCore, machine: StateMachine, clock_ms: Callable[[], int], random: Random = SYSTEM_RANDOM
    ) -> None:
        self.id: NodeId = core.config.id
        self.core = core
        self.machine = machine
        self.applier = Applier(machine, start=core.log.snapshot)
        self.proposals = Proposals(core, self.send, random)
        self.reads = ReadIndexClient(clock_ms, random)
        #: The service's account of answers that wait; None where the group has no leases.
        self.withheld: Withheld | None = None
        self._publisher = Publisher(core)
        #: Committed entries that wait: for the next turn, or while the machine is restored from a snapshot.
        self._to_apply: deque[Entry] = deque()
        self._awaiting_snapshot: SnapshotMeta | None = None
        self._last_wake_ms = clock_ms()
        self._stall_ms = core.config.election_timeout_min_ms // 2
        #: How often the process stood still for longer than it may.
        self.stalls = 0
        self.turn_work_max = TURN_WORK_MAX
        #: Work of the entries that this turn, or the last one, has applied.
        self.turn_work = 0

    # What a subclass brings

    @abstractmethod
    def send(self, message: PeerMessage) -> bool:
        """Hand a message to the network. False where it is certain that it was not sent."""

    @abstractmethod
    def write(self, persist: Persist | None, messages: tuple[PeerMessage, ...]) -> None:
        """Make this durable, tell `core.persisted` and ask for another turn; then the messages may leave. None: they
        wait for what was written before, and nothing is to be told."""

    @abstractmethod
    def wake(self) -> None:
        """Another turn is wanted."""

    @abstractmethod
    def feed_completions(self, now_ms: int) -> None:
        """Tell the core what has become durable since the last turn."""

    @abstractmethod
    def maybe_take_snapshot(self) -> None:
        """Entries were applied: the log may have grown beyond its bounds."""

    @abstractmethod
    def why_no_leader(self) -> RaftError:
        """What a client is told whose request found no leader in time."""

    # A turn

    def notice_stall(self, now_ms: int) -> None:
        """After a pause (SIGSTOP, a starved machine) drop leadership before reading what piled up."""
        if now_ms - self._last_wake_ms > self._stall_ms:
            self.stalls += 1
            self.core.stalled(now_ms)
        self._last_wake_ms = now_ms

    def turn(self, now_ms: int, messages: Iterable[PeerMessage], lost_peers: Iterable[NodeId]) -> None:
        """Take in what arrived and do what follows from it."""
        leader = self.core.state.leader
        self.turn_work = 0
        self.feed_completions(now_ms)
        self._feed_messages(messages, now_ms)
        self._feed_lost_peers(lost_peers, now_ms)
        self.core.tick(now_ms)
        if self.core.state.leader != leader:
            self._on_leader_changed(leader)
        self.proposals.feed(now_ms)
        self.reads.ask(self.core, now_ms)
        self._apply_committed()
        self._carry_out(self.core.take_ready())
        self.proposals.settle_released()
        self._maybe_advance(now_ms)
        self.expire(now_ms)

    def dispatch(self, message: PeerMessage) -> None:
        """Send a message of the core's."""
        if not self.send(message) and isinstance(message, ReadIndex):
            self.reads.ask_again()

    def expire(self, now_ms: int) -> None:
        """Answer the clients whose time is over."""
        self.proposals.expire(now_ms, self.why_no_leader)
        self.reads.expire(now_ms)

    def on_restored(self, snapshot: SnapshotMeta) -> None:
        """The machine was rebuilt from this snapshot: go on with the entries behind it."""
        if self._awaiting_snapshot == snapshot:
            # Else a newer one has come meanwhile, and this was only a step on the way.
            self._awaiting_snapshot = None
        self.applier.restored(snapshot)
        self.applier.announce(RESTORED_TOPIC, snapshot)
        self.core.applied(snapshot.index)
        while self._to_apply and self._to_apply[0].index <= snapshot.index:
            self._to_apply.popleft()
        self.wake()

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Hear every event body of `topic` right after its entry was applied here; returns the way out."""
        return self.applier.subscribe(topic, callback)

    def _feed_messages(self, messages: Iterable[PeerMessage], now_ms: int) -> None:
        for message in messages:
            if isinstance(message, Forward):
                self.proposals.on_forward(message, now_ms)
            elif isinstance(message, ForwardReply):
                self.proposals.on_forward_reply(message, self.applier.applied_index)
            else:
                self.core.receive(message, now_ms)

    def _feed_lost_peers(self, lost_peers: Iterable[NodeId], now_ms: int) -> None:
        for peer in lost_peers:
            self.core.peer_lost(peer, now_ms)
            self.proposals.on_leader_lost(peer)
            self.reads.ask_again()

    def _on_leader_changed(self, before: NodeId) -> None:
        if before != NOBODY:
            self.proposals.on_leader_lost(before)
        self.reads.ask_again()

    def _apply_committed(self) -> None:
        """Where answers wait for leases, apply before the messages leave, so that they carry what the apply released.
        Elsewhere the disk comes first: it works while this node applies."""
        if self.withheld is None:
            return
        self._publisher.before_apply(self.withheld)
        if not self.core.is_installing:
            self._to_apply.extend(self.core.take_committed())
            self._apply()
        self._publisher.after_apply(self.withheld)

    def _carry_out(self, ready: Ready) -> None:
        for message in ready.messages:
            self.dispatch(message)
        if ready.persist is not None or ready.messages_after_persist:
            self.write(ready.persist, ready.messages_after_persist)
            if ready.persist is not None and ready.persist.snapshot is not None:
                # Until the file is the log's new beginning, what follows it cannot be applied.
                self._awaiting_snapshot = ready.persist.snapshot
        self._to_apply.extend(ready.committed)
        if self._apply() and self.withheld is not None:
            # Applied behind the release that just left: the next turn publishes theirs.
            self.wake()
        for read_state in ready.read_states:
            self.reads.on_read_state(read_state)
        self.reads.serve(self.applier.applied_index)
        if self.core.log.applied_index < self.core.log.commit_index:
            self.wake()

    def _apply(self) -> bool:
        """Apply what is committed and this turn has work left for, unless the machine is about to be replaced by a
        leader's snapshot. Whether anything was applied."""
        if not self._to_apply or self._awaiting_snapshot is not None:
            return False
        applied_before = self.applier.applied_index
        while self._to_apply and self.turn_work < self.turn_work_max:
            entry = self._to_apply.popleft()
            result = self.applier.apply(entry)
            self.turn_work += self.applier.work
            if self.proposals.on_applied(entry.index, entry.term, result):
                self.wake()
        if self._to_apply:
            self.wake()
        if self.applier.applied_index == applied_before:
            return False
        self.core.applied(self.applier.applied_index)
        self.maybe_take_snapshot()
        return True

    def _maybe_advance(self, now_ms: int) -> None:
        """Leader: where no traffic carries the time to what is due, or on towards it, propose an advance."""
        if self.core.state.role is not Role.LEADER or self._awaiting_snapshot is not None:
            return
        due_ms = self.machine.next_due_ms()
        if due_ms is None:
            return
        due_ms = self.core.time_entry_due_ms(due_ms)
        if self.core.cluster_time_ms(now_ms) < due_ms:
            return
        if self.core.is_time_under_way(due_ms, self.applier.applied_index):
            return
        try:
            self.core.propose_advance(now_ms)
        except ProposalRefused:
            return
        self.wake()
