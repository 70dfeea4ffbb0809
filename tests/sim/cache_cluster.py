"""Cache nodes with leases and drifting clocks under one seed: the real core, proposals, machine, grants and account
of invalidations, on a simulated network. The history of each key must be that of a register.

    python -m tests.sim.cache_cluster [--seeds 100] [--seed first]        (`make sim-cache`)

One process, no real time, no asyncio. `cache_node` is a node and `cache_nemesis` is what goes wrong. This file has
time, the network, the clients and the watcher: a reader at every node that knows when a read could show something
old. It reads like any client, from memory and with no message, and its reads go into the history; the checker judges.
"""

import argparse
import heapq
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from common.metrics import Metrics
from common.wire import pack, unpack
from raft.core.messages import InstallSnapshot
from raft.forwarding import Forward, ForwardReply
from raft.peer_messages import PeerMessage
from raft.replica import TURN_WORK_MAX
from raft.transport.codec import from_list, to_list
from tests.sim.cache_client import Request
from tests.sim.cache_nemesis import Nemesis
from tests.sim.cache_node import Node
from tests.sim.check import Operation, Undecided, Verdict, check_history

SECONDS = 6
CLIENTS = 5
#: Of the checker, for one key's history: past so many it is left undecided.
CHECK_STEPS_MAX = 10_000
#: `q` is left to the stories, so that a node that was away still holds it; `z` is written seldom, and so is absent
#: for long.
KEYS = ("a", "b", "q", "z")
#: Share of the clients' writes of a key that remain writes; the others become reads.
WRITTEN = {"a": 1.0, "b": 1.0, "q": 0.03, "z": 0.3}
#: Nodes look at the clock this often, and by up to so much later.
WAKE_MS = 30


@dataclass(frozen=True)
class Plan:
    """What one seed is made of."""

    nodes: int
    lease_ms: int
    #: What each life of a node is set to give, drawn anew: the setting is being changed, node by node.
    lengths_ms: tuple[int, ...]
    #: Shortest; the longest is twice that.
    election_timeout_ms: int
    check_quorum: bool
    pre_vote: bool
    #: Rates of clocks: at the edge of the drift that leases allow for.
    rates: tuple[float, ...]
    #: Longest delay of a message now and then: long enough for a lease to end on the way.
    slow_ms: float
    #: A snapshot is taken after so many entries, and so many before it are kept.
    snapshot_entries: int
    retained_entries: int
    #: Longest pause of a client between two operations. Where little is written, a node that was away lags by a
    #: single entry.
    thinking_ms: float
    #: Lines that a node may hold.
    lines_max: int
    #: Share of the writes that expire.
    expiring: float

    @classmethod
    def drawn(cls, chance: Random) -> "Plan":
        lease_ms = chance.choice((300, 600))
        return cls(
            nodes=chance.choice((3, 5)),
            lease_ms=lease_ms,
            lengths_ms=chance.choice(((lease_ms,), (lease_ms // 2, lease_ms, 2 * lease_ms))),
            election_timeout_ms=chance.choice((150, 400)),
            check_quorum=chance.random() < 0.5,
            pre_vote=chance.random() < 0.8,
            rates=chance.choice(((0.976, 1.024), (0.976, 1.0, 1.024))),
            slow_ms=chance.choice((5, 50, 400)),
            snapshot_entries=chance.choice((10, 40, 1_000_000)),
            retained_entries=chance.choice((0, 5)),
            thinking_ms=chance.choice((50, 50, 400)),
            lines_max=chance.choice((2, 100, 100)),
            expiring=chance.choice((0.0, 0.1, 0.3)),
        )


class World:
    """Time, network and clients of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.plan = Plan.drawn(self.random)
        self.time_ms = 0.0
        #: In every other seed a few entries are all that one turn applies.
        self.turn_work_max = 3 if seed % 2 else TURN_WORK_MAX
        self.metrics = Metrics()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self.ids = ("n1", "n2", "n3", "n4", "n5")[: self.plan.nodes]
        self.nodes = {id: Node(self, id) for id in self.ids}
        self.nemesis = Nemesis(self)
        self.keys = KEYS
        self.operations: list[Operation] = []
        self.counts: Counter[str] = Counter()
        self._values = 0
        #: What the stories are about at present.
        self._hot_key = KEYS[0]
        #: Requests that have no outcome yet, in order.
        self.under_way: dict[Request, None] = {}
        #: key -> newest version, or removal, that an ended operation has shown.
        self._shown: dict[str, int] = dict.fromkeys(KEYS, 0)
        #: What the watcher has read already: `(node, key, version, what was shown)`.
        self._watched: set[tuple[str, str, int, int]] = set()
        self._verdict: Verdict | None = None

    def at(self, delay_ms: float, work: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (self.time_ms + delay_ms, self._numbers, work))

    def run(self) -> Verdict:
        """Live through the seed; ends early with what the watcher found."""
        for node in self.nodes.values():
            self._wake(node)
        for number in range(CLIENTS):
            self.at(600 + number, lambda number=number: self._client(number, 0))
        self.at(900, self.nemesis.begin)
        while self._events and self.time_ms < SECONDS * 1_000 and self._verdict is None:
            due_ms, _, work = heapq.heappop(self._events)
            self.time_ms = max(self.time_ms, due_ms)
            work()
        return self._verdict or self._judge()

    def _judge(self) -> Verdict:
        for request in tuple(self.under_way):
            request.give_up()
        return self._check(self.operations)

    def _check(self, operations: list[Operation]) -> Verdict:
        """Many removals of unknown outcome are many ways to explain a key's history: some are left undecided."""
        try:
            return check_history(operations, "register", CHECK_STEPS_MAX)
        except Undecided:
            self.counts["checks undecided"] += 1
            return Verdict(True)

    def _wake(self, node: Node) -> None:
        if node.runs:
            node.run()
            self.watch(node)
        self.at(self.random.uniform(1, WAKE_MS), lambda: self._wake(node))

    # Network

    def send(self, message: PeerMessage) -> bool:
        chance = self.random
        if self.nemesis.is_cut(message.sender, message.to) or chance.random() < 0.01:
            return True
        packed = pack(to_list(message))
        # The way between two drivers doubles nothing; only the core is proof to it, not what clients forward.
        doubled = chance.random() < 0.02 and not isinstance(message, Forward | ForwardReply)
        for _ in range(2 if doubled else 1):
            delay_ms = chance.uniform(0.2, self.plan.slow_ms if chance.random() < 0.05 else 3)
            delay_ms += self.nemesis.delay_ms(message.sender, message.to)
            self.at(delay_ms, lambda: self._deliver(message.to, packed))
        return True

    def _deliver(self, to: str, packed: bytes) -> None:
        node = self.nodes[to]
        if node.alive:
            node.inbox.append(from_list(unpack(packed)))
            if node.runs:
                node.run()
                self.watch(node)

    def send_snapshot(self, node: Node, message: InstallSnapshot) -> None:
        """The newest snapshot's data takes a while; the sender is told how that ended."""
        assert node.disk.snapshot is not None, "compacted without a snapshot"
        message = replace(message, snapshot=node.disk.snapshot)
        chunks, life = node.disk.chunks, node.life

        def arrive() -> None:
            receiver = self.nodes[message.to]
            lost = self.nemesis.is_cut(message.sender, message.to) or not receiver.alive
            if node.life == life:
                node.core.snapshot_sent(message.to, delivered=not lost, now_ms=node.now_ms())
            if not lost:
                receiver.received[message.snapshot] = chunks
                self._deliver(message.to, pack(to_list(message)))

        self.at(self.random.uniform(1, 80), arrive)

    def note_restored(self, node: Node) -> None:
        self.counts["snapshots installed"] += 1
        held = any(node.machine.inner.census(node.id).values())
        self.counts["snapshots installed on holders"] += held

    # The watcher

    def watch(self, node: Node) -> None:
        """Read at `node` what is newer than all that was shown, which shows it, and what is older."""
        if not node.runs:
            return
        for key in KEYS:
            line = node.coherence.may_serve(key)
            if line is None or line.version == self._shown[key]:
                continue
            seen = (node.id, key, line.version, self._shown[key])
            if seen in self._watched:
                continue
            self._watched.add(seen)
            self.counts["watched"] += 1
            # Strictly behind what ended at this very moment.
            self.time_ms = now_ms = self.time_ms + 1e-6
            self.operations.append(
                Operation(f"watcher.{node.id}", "read", key, None, now_ms, now_ms, True, int(line.value))
            )
            if line.version > self._shown[key]:
                self.show(key, line.version)
            else:
                self._suspect(key)

    def show(self, key: str, version: int) -> None:
        """An operation that ends now shows this version, or removal: nobody may serve an older one."""
        if version > self._shown[key]:
            self._shown[key] = version
            for node in self.nodes.values():
                self.watch(node)

    def _suspect(self, key: str) -> None:
        """Something older was read. Where a removal was shown it may be a later one that is not: judge."""
        unended = [
            each for request in self.under_way if request.op != "read" for each in request.operations(None)
        ]
        verdict = self._check([each for each in (*self.operations, *unended) if each.key == key])
        if not verdict.linearizable:
            self._verdict = verdict

    # Clients

    def everybody_reads(self) -> None:
        """Every node that runs fills one line, and the stories to come are about it."""
        self._hot_key = self.random.choice(("a", "b", "q", "q"))
        for node in self.nodes.values():
            if node.runs:
                self._operate("warm", node, "read", self._hot_key)

    def writes_through(self, node: Node) -> None:
        """Two clients at other nodes read what one writes at this node."""
        key = self._hot_key
        if node.runs:
            self._operate("through", node, "write", key)
        for _ in range(2):
            other = self.nodes[self.random.choice(self.ids)]
            if other.runs:
                self.at(
                    self.random.uniform(1, 30), lambda other=other: self._operate("other", other, "read", key)
                )

    def _client(self, number: int, life: int) -> None:
        """One operation of this client; the next follows its outcome."""
        chance = self.random
        node = self.nodes[chance.choice(self.ids)]
        what = chance.random()
        op = "write" if what < 0.35 else "delete" if what < 0.38 else "invalidate" if what < 0.385 else "read"
        key = self._hot_key if chance.random() < 0.6 else chance.choice(KEYS)
        if op != "read" and chance.random() >= WRITTEN[key]:
            op = "read"
        pause_ms = 0.0 if chance.random() < 0.4 else chance.uniform(0, self.plan.thinking_ms)
        if not node.runs:
            self.at(pause_ms + 1, lambda: self._client(number, life))
            return
        self._operate(
            f"{number}.{life}",
            node,
            op,
            key,
            lambda ok: self.at(pause_ms, lambda: self._client(number, life + (ok is None))),
        )

    def _operate(
        self,
        process: str,
        node: Node,
        op: str,
        key: str,
        then: Callable[[bool | None], None] = lambda ok: None,
    ) -> None:
        Request(self, process, node, op, key, then).begin()

    def ttl_ms(self) -> int | None:
        """Some writes expire."""
        return self.random.randrange(100, 1_500) if self.random.random() < self.plan.expiring else None

    def next_value(self) -> int:
        """Every write has a value of its own."""
        self._values += 1
        return self._values


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.cache_cluster")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.seeds):
        world = World(seed)
        verdict = world.run()
        counts.update(world.counts)
        counts.update(world.nemesis.done)
        counts["operations"] += len(world.operations)
        if not verdict.linearizable:
            for operation in verdict.offending:
                print(operation.to_json())
            print(f"not linearizable: python -m tests.sim.cache_cluster --seeds 1 --seed {seed}")
            return 1
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    print(f"{options.seeds} seeds: every history linearizable, {counts['checks undecided']} checks undecided")
    return 0


if __name__ == "__main__":
    sys.exit(main())
