"""One cache node of the lease simulation: the real replica with its core, proposals, reads and machine, the real
grants and account, on a disk that answers at once and with a clock that runs a little wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from raft.core import leases, snapshotting
from raft.core.config import CoreConfig
from raft.core.messages import InstallSnapshot
from raft.core.raft import RaftCore
from raft.core.ready import Persist
from raft.core.types import Configuration, Entry, HardState, SnapshotMeta
from raft.errors import NoLeader, RaftError
from raft.peer_messages import PeerMessage
from raft.replica import RESTORED_TOPIC, Replica
from services.cache.node.coherence import Coherence
from services.cache.node.held import HeldLines
from services.cache.node.invalidations import Invalidations
from services.cache.replicated.line import Invalidated, Transition
from services.cache.replicated.machine import TRANSITION_TOPIC, CacheMachine
from services.cache.replicated.store import INVALIDATED_TOPIC
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine

if TYPE_CHECKING:
    from tests.sim.cache_cluster import World

Then = Callable[[Any, Exception | None], None]


class Answer:
    """As much of a Future as `Proposals` and `ReadIndexClient` use."""

    def __init__(self, then: Then) -> None:
        self._then = then
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Any) -> None:
        self._done = True
        self._then(result, None)

    def set_exception(self, error: Exception) -> None:
        self._done = True
        self._then(None, error)


@dataclass
class Disk:
    """What a crash leaves."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    chunks: tuple[bytes, ...] = ()
    entries: list[Entry] = field(default_factory=list)

    def save(self, snapshot: SnapshotMeta, chunks: tuple[bytes, ...]) -> None:
        self.snapshot, self.chunks = snapshot, chunks
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]

    def append(self, entries: tuple[Entry, ...]) -> None:
        if entries and self.entries:
            del self.entries[max(0, entries[0].index - self.entries[0].index) :]
        # What was applied, and is in the snapshot, may reach the disk only now.
        kept_from = 0 if self.snapshot is None else self.snapshot.index + 1
        self.entries.extend(entry for entry in entries if entry.index >= kept_from)


class Node(Replica):
    """Also the `Node` that its grants and its account know. Each life begins with `start`."""

    def __init__(self, world: World, id: str) -> None:
        self.world = world
        self.id = id
        self.rate = world.random.choice(world.plan.rates)
        self.offset_ms = world.random.randrange(1_000_000)
        self.disk = Disk()
        self.frozen_until = 0.0
        #: The next run stops for so long right after it read the clock.
        self.pause_ms = 0.0
        self.alive = True
        self.life = 0
        self.start()

    def start(self) -> None:
        """Power on with what the disk kept."""
        plan, disk = self.world.plan, self.disk
        self.life += 1
        now_ms = self.now_ms()
        core = RaftCore(
            CoreConfig(
                id=self.id,
                lease_ms=self.world.random.choice(plan.lengths_ms),
                lease_drift_percent=5,
                election_timeout_min_ms=plan.election_timeout_ms,
                election_timeout_max_ms=2 * plan.election_timeout_ms,
                check_quorum=plan.check_quorum,
                pre_vote=plan.pre_vote,
            ),
            Configuration(self.world.ids),
            random=Random(self.world.random.random()),
            now_ms=now_ms,
            hard_state=disk.hard_state,
            snapshot=disk.snapshot,
            entries=disk.entries,
        )
        machine = ReplicatedMachine(CacheMachine)
        if disk.snapshot is not None:
            machine.restore(disk.chunks)
        super().__init__(core, machine, self.now_ms)
        self.turn_work_max = self.world.turn_work_max
        held = HeldLines(lines_max=plan.lines_max, bytes_max=1 << 20)
        self.coherence = Coherence(self, self.world.metrics, held=held)
        self.subscribe(RESTORED_TOPIC, lambda _: self.coherence.on_restored())
        #: key -> the newest entry that removed it, as far as this node has applied.
        self.removed: dict[str, int] = {}
        #: The newest entry that invalidated by tag, as far as this node has applied.
        self.invalidated = 0
        self.subscribe(TRANSITION_TOPIC, self._on_transition)
        self.subscribe(INVALIDATED_TOPIC, self._on_invalidated)
        self.withheld = Invalidations(self, self.world.metrics.cache_invalidation_wait_seconds.labels())
        self.inbox: list[PeerMessage] = []
        #: Data of snapshots that arrived, until the core has decided.
        self.received: dict[SnapshotMeta, tuple[bytes, ...]] = {}
        self._lost_peers: list[str] = []
        self._stopped: tuple[int, list[PeerMessage]] | None = None
        self._wants_turn = False

    # What its parts ask of it

    def now_ms(self) -> int:
        return int(self.world.time_ms * self.rate) + self.offset_ms

    def _on_transition(self, transition: Transition) -> None:
        if not transition.version_after:
            self.removed[transition.key] = transition.index
            self.world.counts[f"applied: {transition.cause}"] += 1

    def _on_invalidated(self, invalidated: Invalidated) -> None:
        self.invalidated = invalidated.index

    def cluster_time_ms(self) -> int:
        return self.core.estimated_time_ms(self.now_ms())

    def may_serve_locally(self) -> bool:
        return leases.is_valid(self.core, self.now_ms())

    def removal_unknown_ms(self) -> int:
        return leases.removal_unknown_ms(self.core)

    # What the world asks of it

    @property
    def runs(self) -> bool:
        return self.alive and self.world.time_ms >= self.frozen_until

    def propose(self, command: Any, then: Then) -> None:
        now_ms = self.now_ms()
        answer: Any = Answer(then)
        self.proposals.add(
            encode_command(command), answer, place_by_ms=now_ms + 1_500, settle_by_ms=now_ms + 1_800
        )
        self.run()

    def read_index(self, then: Then) -> None:
        answer: Any = Answer(then)
        self.reads.add(answer, give_up_ms=self.now_ms() + 1_500)
        self.run()

    def run(self) -> None:
        """Turns, until nothing more follows; first the rest of one that was stopped in the middle."""
        if not self.runs:
            return
        if self._stopped is not None:
            now_ms, inbox = self._stopped
            self._stopped = None
            self._take_turns(now_ms, inbox)
        now_ms = self.now_ms()
        self.notice_stall(now_ms)
        inbox, self.inbox = self.inbox, []
        if self.pause_ms:
            self._stopped = (now_ms, inbox)
            self.frozen_until, self.pause_ms = self.world.time_ms + self.pause_ms, 0.0
            return
        self._take_turns(now_ms, inbox)

    def _take_turns(self, now_ms: int, inbox: Sequence[PeerMessage]) -> None:
        self._wants_turn = True
        while self._wants_turn:
            self._wants_turn = False
            lost_peers, self._lost_peers = self._lost_peers, []
            self.turn(now_ms, inbox, lost_peers)
            inbox = ()
            assert not self.turn_work or self.turn_work - self.applier.work < self.turn_work_max
            if self._to_apply and self._awaiting_snapshot is None:
                # As in the loop of a process, others run before the rest is applied.
                self.world.counts["turns that left entries"] += 1
                self.world.at(1, self.run)
                return

    def peer_lost(self, peer: str) -> None:
        """The connection to `peer` broke."""
        self._lost_peers.append(peer)
        self.run()

    # What a turn needs

    def send(self, message: PeerMessage) -> bool:
        if isinstance(message, InstallSnapshot):
            self.world.send_snapshot(self, message)
            return True
        return self.world.send(message)

    def feed_completions(self, now_ms: int) -> None:
        """Nothing is left to tell: the disk answers at once, in `write`."""

    def write(self, persist: Persist | None, messages: tuple[PeerMessage, ...]) -> None:
        if persist is not None:
            self._persist(persist)
            self.wake()
        for message in messages:
            self.dispatch(message)

    def wake(self) -> None:
        self._wants_turn = True

    def why_no_leader(self) -> RaftError:
        return NoLeader("none")

    def maybe_take_snapshot(self) -> None:
        index = self.applier.applied_index
        if index - self.core.log.snapshot.index >= self.world.plan.snapshot_entries:
            meta = snapshotting.meta_at(self.core, index, self.applier.applied_time_ms)
            self.disk.save(meta, tuple(self.machine.snapshot()))
            self.core.snapshot_taken(meta, max(1, index + 1 - self.world.plan.retained_entries))

    def _persist(self, persist: Persist) -> None:
        self.disk.hard_state = persist.hard_state or self.disk.hard_state
        installed = persist.snapshot
        if installed is not None:
            self.disk.entries = []
            self.disk.save(installed, self.received[installed])
            self.received.clear()
        self.disk.append(persist.entries)
        self.core.persisted(persist, self.now_ms())
        if installed is not None:
            self.proposals.on_snapshot_installed(installed.index)
            life = self.life
            self.world.at(self.world.random.uniform(0, 60), lambda: self._restored(installed, life))

    def _restored(self, snapshot: SnapshotMeta, life: int) -> None:
        """The machine is rebuilt; the old one has served until now."""
        if self.life != life or self._awaiting_snapshot != snapshot:
            return
        if not self.runs:
            self.world.at(10, lambda: self._restored(snapshot, life))
            return
        self.world.note_restored(self)
        self.machine.restore(self.disk.chunks)
        self.on_restored(snapshot)
        self.run()
