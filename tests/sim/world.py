"""The whole simulated cluster: virtual time, one queue of events, one seed. No asyncio, no real time.

Everything that happens is an event at a virtual microsecond; events of one moment keep the order in which they
were scheduled. All chance comes from the seed, so the same seed is the same run.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from raft.core.errors import ProposalRefused
from raft.core.messages import Message
from raft.core.ready import ReadState
from raft.core.types import Configuration, Entry, Index, NodeId, SnapshotMeta
from tests.sim.clock import SimClock
from tests.sim.network import SimNetwork
from tests.sim.node import SimNode
from tests.sim.observer import Observer, Observers, Violation
from tests.sim.plan import Plan
from tests.sim.service import Service
from tests.sim.transfers import Transfers
from tests.sim.truth import Truth

if TYPE_CHECKING:
    from tests.sim.clients import Clients

#: Lines of trace kept for a failure's report where the whole is not recorded.
TRACE_TAIL_MAX = 80
#: A healed cluster needs far fewer events than this to settle; a storm of messages needs more.
HEALED_EVENTS_MAX = 40_000


class World:
    """One run."""

    def __init__(
        self,
        plan: Plan,
        watchers: list[type[Observer]],
        make_machine: Callable[[], Any],
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.random = Random(f"world {plan.seed}")
        self.now_us = 0
        #: Events handled so far; also the clock of client histories.
        self.events = 0
        self.cover: Counter[str] = Counter()
        self.make_machine = make_machine
        self.disk_min_us = plan.disk_min_us
        self._trace = trace
        self.trace_tail: deque[tuple] = deque(maxlen=TRACE_TAIL_MAX)
        self._queue: list[tuple[int, int, Callable[..., None], tuple]] = []
        self._scheduled = 0
        self.slow_disks: dict[NodeId, int] = {}
        self.nodes: dict[NodeId, SimNode] = {}
        self.network = SimNetwork(self)
        self.transfers = Transfers(self)
        self.truth = Truth(self)
        self.observers = Observers([self.truth, *(watcher(self) for watcher in watchers)])
        self.clients: Clients | None = None
        self._nodes_made = 0
        voters = tuple(f"n{number}" for number in range(1, plan.node_count + 1))
        self.first_configuration = Configuration(voters)
        for _ in range(plan.node_count):
            self.new_node(self.first_configuration).start()

    # Time

    def at(self, at_us: int, call: Callable[..., None], *args: Any) -> None:
        self._scheduled += 1
        heapq.heappush(self._queue, (at_us, self._scheduled, call, args))

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now_us + delay_us, call, *args)

    def run_event(self) -> None:
        """Let the next event happen."""
        at_us, _, call, args = heapq.heappop(self._queue)
        if at_us > self.now_us:
            self.now_us = at_us
        self.events += 1
        call(*args)

    def run_until(self, done: Callable[[], bool], limit_us: int) -> bool:
        """Let events happen until `done`, looked at now and then; False where virtual time ran out first."""
        until_us = self.now_us + limit_us
        until_event = self.events + HEALED_EVENTS_MAX
        while self.now_us < until_us:
            if self.events > until_event:
                self.fail(f"liveness: {HEALED_EVENTS_MAX} events and no end: messages multiply (known bug 29)")
            for _ in range(20):
                self.run_event()
            if done():
                return True
        return done()

    # Record

    def log(self, *words: Any) -> None:
        """One line of the trace."""
        if self._trace is not None:
            self._trace(f"{self.now_us} {self.events} " + " ".join(map(str, words)))
        else:
            self.trace_tail.append((self.now_us, self.events, *words))

    def count(self, name: str) -> None:
        self.cover[name] += 1

    def fail(self, text: str) -> None:
        raise Violation(text)

    # Nodes

    def new_service(self) -> Service:
        return Service(self.make_machine)

    def new_node(self, configuration: Configuration) -> SimNode:
        """A machine with an identity that was never used before, powered off."""
        self._nodes_made += 1
        id = f"n{self._nodes_made}"
        spread = self.plan.clock_spread_permille
        rate = 1000 + (self.random.randint(-spread, spread) if spread else 0)
        clock = SimClock(offset_us=self.random.randint(0, 10_000_000), rate_permille=rate)
        node = self.nodes[id] = SimNode(self, id, configuration, clock)
        return node

    def disk_max_us(self, node: SimNode) -> int:
        return self.slow_disks.get(node.id, self.plan.disk_max_us)

    def deliver(self, message: Message) -> None:
        if self.network.is_cut(message.sender, message.to):
            self.cover["fault: message cut off"] += 1
            return
        node = self.nodes.get(message.to)
        if node is not None and node.core is not None:
            if self._trace is not None:
                self.log("deliver", message)
            node.deliver(message)

    def leaders(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.runs and node.leads]

    def propose_advance(self, node: SimNode) -> None:
        try:
            node.core.propose_advance(self.now_of(node))
            self.cover["cluster time was advanced without traffic"] += 1
        except ProposalRefused:
            self.cover["advance refused"] += 1

    def now_of(self, node: SimNode) -> int:
        return node.now_ms()

    # What nodes tell

    def on_read_state(self, node: SimNode, state: ReadState) -> None:
        if self.clients is not None:
            self.clients.on_read_state(node, state)

    def on_applied(self, node: SimNode, entries: tuple[Entry, ...]) -> None:
        if self.clients is not None:
            self.clients.on_applied(node, entries)

    def on_snapshot_data(self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        """What `node`'s machine is like after applying up to `meta.index`, by itself or from a snapshot."""
        self.truth.check_snapshot(node, meta, data)

    def observers_before_crash(self, node: SimNode) -> None:
        core, cover = node.core, self.cover
        if node.leads:
            cover["leader crashed"] += 1
            if core.log.last_index > core.log.durable_index:
                cover["leader crashed between append and fsync"] += 1
            if core.log.last_index > core.log.commit_index:
                cover["leader crashed with uncommitted entries"] += 1
        if core.state.hard_state != core.durable_hard_state:
            cover["crash between vote or term and its fsync"] += 1
        if any(write.persist and write.persist.snapshot for write in node.disk.queue):
            cover["crash while a leader's snapshot was written"] += 1
        if node.disk.syncing:
            cover["crash during an fsync"] += 1

    def highest_commit(self) -> Index:
        return self.truth.commit_index
