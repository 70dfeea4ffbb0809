"""A simulated node: one RaftCore and the driver around it, which does exactly what the contract of `Ready` says.

    deliver / timer / client request  ->  core  ->  take_ready  ->  network, disk queue, machine

The driver keeps the order that raft/core/ready.py demands. The seed's plan decides what is free: how many events it
feeds before one `take_ready`, how long a write takes, and at which boundary inside one step power fails.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

from raft.core.config import CoreConfig
from raft.core.messages import Message
from raft.core.raft import RaftCore
from raft.core.ready import Persist, Ready
from raft.core.types import Configuration, Index, Role
from tests.sim.clock import SimClock
from tests.sim.disk import DamagedDisk, Write
from tests.sim.replica import Replica
from tests.sim.watch import Watch

if TYPE_CHECKING:
    from tests.sim.world import World

#: Where a crash may be armed to strike inside one step of the driver.
BOUNDARIES = ("before messages", "after messages", "after persist", "after apply")


class PowerFailure(Exception):
    """The armed crash struck."""


class SimNode(Replica):
    """One identity: its disk stays through crashes, its core and machine do not."""

    def __init__(self, world: World, id: str, configuration: Configuration, clock: SimClock) -> None:
        super().__init__(world)
        self.id = id
        #: What a first start is told; a joining node is told nothing.
        self.first_configuration = configuration
        self.clock = clock
        self.watch = Watch(world, self)
        #: For good: a damaged disk, or an identity that was replaced.
        self.dead = False
        self.frozen = False
        self.crash_armed = ""
        self.inbox: deque[Message] = deque()
        self.incoming_snapshots: dict[Index, tuple[bytes, ...]] = {}
        self._awake_since_us = 0
        self._timer_us = 0
        self._wake_scheduled = False

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def runs(self) -> bool:
        return self.core is not None and not self.frozen

    @property
    def leads(self) -> bool:
        return self.core is not None and self.core.state.role is Role.LEADER

    def now_ms(self) -> int:
        return self.clock.now_ms(self.world.now_us)

    # Life and death

    def start(self) -> None:
        """Power on: recover from the disk."""
        world = self.world
        assert self.core is None and not self.dead
        self.life += 1
        try:
            hard_state, snapshot, data, entries = self.disk.recover()
        except DamagedDisk:
            world.cover["damaged disk refused"] += 1
            self.dead = True
            return
        world.log("start", self.id, hard_state.term, hard_state.vote, len(entries))
        self.begin_life(snapshot, data)
        self.inbox.clear()
        self.incoming_snapshots.clear()
        self.crash_armed = ""
        self._wake_scheduled = False
        self.core = RaftCore(
            self._config(),
            self.first_configuration,
            random=Random(f"{world.plan.seed} {self.id} {self.life}"),
            now_ms=self.now_ms(),
            hard_state=hard_state,
            snapshot=snapshot,
            entries=list(entries),
        )
        self.watch.on_start(self.core)
        self._timer_us = 0
        self._arm_timer()

    def crash(self) -> None:
        """Power off: unsynced writes are kept, lost or torn."""
        if self.core is None:
            return
        world = self.world
        world.log("crash", self.id)
        world.observers_before_crash(self)
        self.core = None
        self.frozen = False
        self.disk.crash(world.random, world.count)
        for hook in world.observers.on_crash:
            hook(self)

    def _config(self) -> CoreConfig:
        plan = self.world.plan
        return CoreConfig(
            id=self.id,
            heartbeat_ms=plan.heartbeat_ms,
            election_timeout_min_ms=plan.election_timeout_min_ms,
            election_timeout_max_ms=plan.election_timeout_max_ms,
            fast_election_delay_max_ms=max(1, plan.heartbeat_ms),
            pre_vote=self._has_pre_vote(),
            check_quorum=plan.check_quorum,
            append_entries_max=plan.append_entries_max,
            append_bytes_max=plan.append_bytes_max,
            inflight_messages_max=plan.inflight_messages_max,
            inflight_bytes_max=plan.inflight_bytes_max,
            uncommitted_bytes_max=plan.uncommitted_bytes_max,
            committed_entries_max=plan.committed_entries_max,
            reads_waiting_max=8,
            learner_lag_max=plan.learner_lag_max,
            lease_ms=self._lease_ms(),
            # Two clocks may differ by twice the spread; what is promised must cover that.
            lease_drift_percent=5 + plan.clock_spread_permille // 4,
        )

    def _lease_ms(self) -> int:
        """Now and then the setting is being changed, node by node."""
        plan = self.world.plan
        if plan.seed % 2:
            return plan.lease_ms
        return plan.lease_ms * Random(f"lease {plan.seed} {self.id} {self.life}").choice((1, 1, 2))

    def _has_pre_vote(self) -> bool:
        plan = self.world.plan
        if plan.pre_vote_mixed:
            return Random(f"pre-vote {plan.seed} {self.id} {self.life}").random() < 0.5
        return plan.pre_vote

    # Events

    def deliver(self, message: Message) -> None:
        """A message reached this machine; a frozen process finds it when it wakes."""
        self.inbox.append(message)
        if self.frozen:
            self.world.cover["message waited for a paused node"] += 1
            return
        batching_us = self.world.plan.batching_us
        if not batching_us:
            self.step()
        elif not self._wake_scheduled:
            self._wake_scheduled = True
            delay_us = int(self.world.random.random() * batching_us)
            self.world.after(delay_us, self._on_wake, self.life)

    def _on_wake(self, life: int) -> None:
        if life == self.life and self.core is not None:
            self._wake_scheduled = False
            if not self.frozen:
                self.step()

    def pause(self) -> None:
        self.frozen = True
        self._awake_since_us = self.world.now_us

    def resume(self) -> None:
        """The process runs again. After a long gap the core is told before anything that arrived meanwhile."""
        if self.core is None or not self.frozen:
            return
        self.frozen = False
        world = self.world
        gap_ms = self.clock.now_ms(world.now_us) - self.clock.now_ms(self._awake_since_us)
        if gap_ms > world.plan.election_timeout_min_ms / 2:
            world.cover["node was told that it had stalled"] += 1
            if self.leads:
                world.cover["leader stalled"] += 1
            if self.inbox:
                world.cover["stalled node found a full inbox"] += 1
            self.core.stalled(self.now_ms())
        self._tick()
        self.step()

    def step(self) -> None:
        """Feed all that arrived, then do what the core wants, to completion."""
        core = self.core
        if core is None or self.frozen:
            return
        now_ms = self.now_ms()
        if len(self.inbox) > 1:
            self.world.cover["several messages before one Ready"] += 1
        while self.inbox:
            message = self.inbox.popleft()
            self._receive(core, message, now_ms)
        self._finish_step(core)

    def _receive(self, core: RaftCore, message: Message, now_ms: int) -> None:
        for hook in self.world.observers.on_receive:
            hook(self, message)
        core.receive(message, now_ms)

    def _finish_step(self, core: RaftCore) -> None:
        try:
            self._handle(core.take_ready())
            while core.log.applied_index < core.log.commit_index:
                self._handle(core.take_ready())
        except PowerFailure:
            self.world.cover["fault: crash at " + self.crash_armed] += 1
            self.crash()
            return
        self.watch.on_state(core)
        self._arm_timer()

    def _arm_timer(self) -> None:
        """One timer event is on its way at most; a deadline that moved back is found when it fires."""
        assert self.core is not None
        at_us = max(self.clock.true_us_at(self.core.next_deadline_ms()), self.world.now_us)
        due = self._due_us()
        if due is not None:
            at_us = min(at_us, due)
        if not self._timer_us or at_us < self._timer_us:
            self._timer_us = at_us
            self.world.at(at_us, self._on_timer, self.life, at_us)

    def _due_us(self) -> int | None:
        """Leader: when its machine next has something to do."""
        if not self.leads:
            return None
        due_ms = self.service.next_due_ms()
        if due_ms is None:
            return None
        wait_ms = due_ms - self.core.cluster_time_ms(self.now_ms())
        return self.world.now_us + max(wait_ms, self.world.plan.heartbeat_ms) * 1000

    def _on_timer(self, life: int, at_us: int) -> None:
        if life != self.life or self.core is None or at_us != self._timer_us:
            return
        self._timer_us = 0
        if self.frozen:
            return
        if self.core.next_deadline_ms() > self.now_ms() and not self.leads:
            self._arm_timer()
            return
        self._tick()
        self._finish_step(self.core)

    def _tick(self) -> None:
        core = self.core
        assert core is not None
        core.tick(self.now_ms())
        due_ms = self.service.next_due_ms() if self.leads else None
        if due_ms is None:
            return
        due_ms = core.time_entry_due_ms(due_ms)
        if core.cluster_time_ms(self.now_ms()) < due_ms:
            return
        if core.is_time_under_way(due_ms, self.applied_index):
            self.world.cover["advance not needed: an entry under way brings the time"] += 1
            return
        self.world.propose_advance(self)

    # The Ready contract

    def _handle(self, ready: Ready) -> None:
        if self.crash_armed == "before messages" and ready:
            raise PowerFailure
        for message in ready.messages:
            self.send(message)
        if self.crash_armed == "after messages" and ready.messages:
            raise PowerFailure
        if ready.persist is not None or ready.messages_after_persist:
            self._enqueue(ready)
        if self.crash_armed == "after persist" and ready.persist is not None:
            raise PowerFailure
        if ready.committed:
            self.apply(ready.committed)
        for state in ready.read_states:
            self.world.on_read_state(self, state)
        if self.crash_armed == "after apply" and ready.committed:
            raise PowerFailure

    def send(self, message: Message) -> None:
        for hook in self.world.observers.on_sent:
            hook(self, message)
        self.world.network.send(message)

    def _enqueue(self, ready: Ready) -> None:
        persist, after = ready.persist, ready.messages_after_persist
        disk = self.disk
        if persist is None and not disk.queue:
            for message in after:
                self.send(message)
            return
        data: tuple[bytes, ...] = ()
        if persist is not None and persist.snapshot is not None:
            data = self.incoming_snapshots[persist.snapshot.index]
            self.install(persist.snapshot, data)
        disk.queue.append(Write(persist, after, data))
        if len(disk.queue) > 1:
            self.world.cover["writes waited for an earlier fsync"] += 1
        if not disk.syncing:
            self._start_sync()

    def _start_sync(self) -> None:
        disk, world = self.disk, self.world
        disk.syncing = len(disk.queue)
        if disk.syncing > 1:
            world.cover["one fsync for several writes"] += 1
        spread = world.disk_max_us(self) - world.disk_min_us
        delay_us = world.disk_min_us + (int(world.random.random() * spread) if spread > 0 else 0)
        world.after(delay_us, self._on_synced, self.life)

    def _on_synced(self, life: int) -> None:
        disk, world = self.disk, self.world
        if life != self.life or self.core is None or not disk.syncing:
            return
        if disk.fail_next_sync:
            world.cover["fault: fsync failed"] += 1
            self.crash()
            return
        if disk.full or disk.hung or self.frozen:
            # The write is tried again until there is room; the core sees a disk that does not answer.
            world.cover["fault: disk full" if disk.full else "write waited for a disk that hangs"] += 1
            world.after(5_000, self._on_synced, life)
            return
        self._complete(disk.complete(disk.syncing))

    def _complete(self, done: list[Write]) -> None:
        core, world = self.core, self.world
        assert core is not None
        persists = [write.persist for write in done if write.persist is not None]
        for persist in persists:
            self._tell_durable(persist)
        if world.plan.group_completions:
            persists = persists[-1:]
        now_ms = self.now_ms()
        for persist in persists:
            core.persisted(persist, now_ms)
        for write in done:
            for message in write.messages_after:
                self.send(message)
        if self.disk.queue:
            self._start_sync()
        self._finish_step(core)

    def _tell_durable(self, persist: Persist) -> None:
        world = self.world
        for hook in world.observers.on_durable:
            hook(self, persist)
        if persist.snapshot is not None:
            for hook in world.observers.on_snapshot:
                hook(self, persist.snapshot, self.disk.snapshots.get(persist.snapshot.index, ()), True)

    # What the world asks

    def on_snapshot_sent(self, peer: str, delivered: bool) -> None:
        if self.core is None or self.frozen:
            self.world.after(20_000, self._retry_snapshot_sent, self.life, peer, delivered)
            return
        self.core.snapshot_sent(peer, delivered=delivered, now_ms=self.now_ms())
        self._finish_step(self.core)

    def _retry_snapshot_sent(self, life: int, peer: str, delivered: bool) -> None:
        if life == self.life and self.core is not None:
            self.on_snapshot_sent(peer, delivered)

    def on_peer_lost(self, peer: str) -> None:
        if self.runs:
            self.core.peer_lost(peer, self.now_ms())
            self._finish_step(self.core)

    def propose(self, commands: list[bytes]) -> Index:
        """Leader: append commands; the first one's index. Raises as `RaftCore.propose`."""
        core = self.core
        before, size = core.uncommitted_bytes, sum(map(len, commands))
        index = core.propose(commands, self.now_ms())
        if before and before + size > core.config.uncommitted_bytes_max:
            self.world.fail(f"{self.id} took {size} bytes with {before} uncommitted (known bug 35)")
        return index

    def read(self, context: int) -> None:
        self.core.read(context, self.now_ms())

    def transfer(self, to: str) -> bool:
        started = self.core.transfer_leadership(to, self.now_ms())
        self._finish_step(self.core)
        return started

    def finish_step(self) -> None:
        """After calls into the core from outside: drain what they caused."""
        if self.core is not None:
            self._finish_step(self.core)
