"""Cache nodes with leases and drifting clocks under one seed: the real core, proposals, machine, grants and account,
on a simulated network, with crashes, freezes and cuts. The history of each key must be that of a register.

    python -m tests.sim.cache_cluster [--seeds 100] [--seed first]

One process, no real time, no asyncio. A node is driven as `raft.node.RaftNode` drives it: apply before send.
"""

import argparse
import heapq
import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from common.metrics import Metrics
from common.wire import pack, unpack
from raft.applier import Applier
from raft.core import leases
from raft.core.config import CoreConfig
from raft.core.raft import RaftCore
from raft.core.types import Configuration, Entry, HardState, Role, SnapshotMeta
from raft.errors import NoLeader, OutcomeUnknown
from raft.forwarding import Forward, ForwardReply
from raft.proposals import Proposals
from raft.transport.codec import PeerMessage, from_list, to_list
from raft.withheld import Publisher
from services.cache.coherence import Coherence
from services.cache.commands import Delete, Fill, Put
from services.cache.invalidations import Invalidations
from services.cache.machine import CacheMachine
from services.envelope import ReplicatedMachine, encode_command
from tests.sim.check import Operation, Verdict, check_history

LEASE_MS = 600
SECONDS = 20
CLIENTS = 8
KEYS = ("a", "b", "c")
#: Clocks differ in rate by less than the drift that leases allow for.
RATES = (0.976, 1.0, 1.024)
WAKE_MS = 10


class Answer:
    """As much of a Future as `Proposals` uses."""

    def __init__(self, then: Callable[[Any, Exception | None], None]) -> None:
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
    hard_state: HardState
    entries: list[Entry]


class Node:
    """One cache node; also the `Node` that its grants and its account know."""

    def __init__(self, world: "World", id: str) -> None:
        self.world = world
        self.id = id
        self.rate = world.random.choice(RATES)
        self.offset_ms = world.random.randrange(1_000_000)
        self.disk = Disk(HardState(), [])
        self.frozen_until = 0.0
        self.alive = True
        self.life = 0
        self.start()

    def start(self) -> None:
        """Power on with what the disk kept."""
        self.life += 1
        now_ms = self.now_ms()
        self.core = RaftCore(
            CoreConfig(id=self.id, lease_ms=LEASE_MS, lease_drift_percent=5),
            Configuration(self.world.ids),
            random=Random(self.world.random.random()),
            now_ms=now_ms,
            hard_state=self.disk.hard_state,
            entries=self.disk.entries,
        )
        self.machine = ReplicatedMachine(CacheMachine)
        self.applier = Applier(self.machine, self.now_ms, start=SnapshotMeta())
        self.proposals = Proposals(self.core, self.world.send)
        self.publisher = Publisher(self.core)
        metrics = Metrics()
        self.coherence = Coherence(self, metrics, recent_ms=10_000_000)
        self.account = Invalidations(self, metrics.cache_invalidation_wait_seconds.labels())
        self.inbox: list[PeerMessage] = []
        self.last_wake_ms = now_ms

    def now_ms(self) -> int:
        return int(self.world.time_ms * self.rate) + self.offset_ms

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        return self.applier.subscribe(topic, callback)

    def cluster_time_ms(self) -> int:
        return self.applier.estimated_time_ms()

    def may_serve_locally(self) -> bool:
        return leases.is_valid(self.core, self.now_ms())

    @property
    def runs(self) -> bool:
        return self.alive and self.world.time_ms >= self.frozen_until

    def run(self) -> None:
        """One round of the driver."""
        if not self.runs:
            return
        now_ms = self.now_ms()
        if now_ms - self.last_wake_ms > self.core.config.election_timeout_min_ms // 2:
            self.core.stalled(now_ms)
        self.last_wake_ms = now_ms
        leader = self.core.state.leader
        inbox, self.inbox = self.inbox, []
        for message in inbox:
            if isinstance(message, Forward):
                self.proposals.on_forward(message, now_ms)
            elif isinstance(message, ForwardReply):
                self.proposals.on_forward_reply(message, self.applier.applied_index)
            else:
                self.core.receive(message, now_ms)
        self.core.tick(now_ms)
        if leader and self.core.state.leader != leader:
            self.proposals.on_leader_lost(leader)
        self.proposals.feed(now_ms)
        self._work()
        self.proposals.expire(now_ms, lambda: NoLeader("none"))

    def _work(self) -> None:
        while True:
            self.publisher.before_apply(self.account)
            self._apply(self.core.take_committed())
            self.publisher.after_apply(self.account)
            ready = self.core.take_ready()
            if not ready:
                break
            for message in ready.messages:
                self.world.send(message)
            self._apply(ready.committed)
            if ready.persist is not None:
                persist = ready.persist
                self.disk.hard_state = persist.hard_state or self.disk.hard_state
                if persist.entries:
                    del self.disk.entries[persist.entries[0].index - 1 :]
                    self.disk.entries.extend(persist.entries)
                self.core.persisted(persist, self.now_ms())
            for message in ready.messages_after_persist:
                self.world.send(message)
        self.proposals.settle_released()

    def _apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            self.proposals.on_applied(entry.index, entry.term, self.applier.apply(entry))
        if entries:
            self.core.applied(self.applier.applied_index)

    def propose(self, command: Any, then: Callable[[Any, Exception | None], None]) -> None:
        now_ms = self.now_ms()
        answer: Any = Answer(then)
        self.proposals.add(
            encode_command(command), answer, place_by_ms=now_ms + 1_500, settle_by_ms=now_ms + 1_800
        )
        self.run()


class World:
    """Time, network, faults and clients of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.time_ms = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self.ids = ("n1", "n2", "n3", "n4", "n5")[: self.random.choice((3, 3, 5))]
        self.cut: set[tuple[str, str]] = set()
        #: Longest delay of a message now and then: long enough for a lease to end on the way.
        self.slow_ms = self.random.choice((5, 50, 400))
        self.nodes = {id: Node(self, id) for id in self.ids}
        self.operations: list[Operation] = []
        self.hits = self.values = 0
        #: What ends an operation that has no outcome yet.
        self._under_way: dict[Callable[[bool | None], None], None] = {}

    def at(self, delay_ms: float, work: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (self.time_ms + delay_ms, self._numbers, work))

    def run(self) -> Verdict:
        for node in self.nodes.values():
            self._wake(node)
        for number in range(CLIENTS):
            self.at(1_000 + number, lambda number=number: self._client(number, 0))
        self.at(2_000, self._fault)
        while self._events and self.time_ms < SECONDS * 1_000:
            self.time_ms, _, work = heapq.heappop(self._events)
            work()
        for end in tuple(self._under_way):
            end(None)
        return check_history(self.operations, "register")

    def _wake(self, node: Node) -> None:
        node.run()
        self.at(WAKE_MS, lambda: self._wake(node))

    # Network

    def send(self, message: PeerMessage) -> bool:
        chance = self.random
        if (message.sender, message.to) in self.cut or chance.random() < 0.02:
            return True
        copied = unpack(pack(to_list(message)))
        # The way between two drivers doubles nothing; only the core is proof to it, not what clients forward.
        doubled = chance.random() < 0.03 and not isinstance(message, Forward | ForwardReply)
        for _ in range(2 if doubled else 1):
            delay_ms = chance.uniform(0.2, self.slow_ms if chance.random() < 0.05 else 3)
            self.at(delay_ms, lambda: self._deliver(message.to, copied))
        return True

    def _deliver(self, to: str, row: list) -> None:
        node = self.nodes[to]
        if node.alive:
            node.inbox.append(from_list(unpack(pack(row))))
            node.run()

    # Faults

    def _fault(self) -> None:
        chance = self.random
        node = self.nodes[chance.choice(self.ids)]
        leaders = [node for node in self.nodes.values() if node.core.state.role is Role.LEADER]
        if leaders and chance.random() < 0.4:
            node = chance.choice(leaders)
        kind = chance.randrange(5)
        length_ms = chance.choice((100, 500, 700, 1_500))
        if kind == 0:
            node.alive = False
            self.at(length_ms, lambda: self._restart(node))
        elif kind == 1:
            node.frozen_until = self.time_ms + length_ms
        elif kind in (2, 3):
            others = [id for id in self.ids if id != node.id]
            # In a group of five one of them stays within reach now and then.
            if len(others) > 2 and chance.random() < 0.5:
                others.pop(chance.randrange(len(others)))
            ways = {(node.id, other) for other in others} | {(other, node.id) for other in others}
            if kind == 3:
                ways = {way for way in ways if way[chance.randrange(2)] == node.id}
            self.cut |= ways
            self.at(length_ms, lambda: self.cut.difference_update(ways))
        elif leaders:
            to = chance.choice(self.ids)
            if to != leaders[0].id and leaders[0].runs:
                leaders[0].core.transfer_leadership(to, leaders[0].now_ms())
        self.at(chance.uniform(200, 2_500), self._fault)

    def _restart(self, node: Node) -> None:
        node.alive = True
        node.start()

    # Clients

    def _client(self, number: int, life: int) -> None:
        """One operation of this client; the next follows its outcome."""
        chance = self.random
        node = self.nodes[chance.choice(self.ids)]
        key, process, called = chance.choice(KEYS), f"{number}.{life}", self.time_ms
        what = chance.random()
        op, value = "read", None
        if what > 0.97:
            op, command = "write", Delete(key)
        elif what > 0.75:
            self.values += 1
            op, value = "write", self.values
            command = Put(key, b"%d" % value, node.id)

        def end(ok: bool | None, result: Any = None) -> None:
            if end not in self._under_way:
                return
            del self._under_way[end]
            if op == "write" or ok:
                returned = None if ok is None else self.time_ms
                self.operations.append(Operation(process, op, key, value, called, returned, ok, result))
            self.at(chance.uniform(0, 30), lambda: self._client(number, life + (ok is None)))

        self._under_way[end] = None
        if not node.runs:
            end(False)
            return
        if op == "read":
            held = node.coherence.may_serve(key)
            if held is not None:
                self.hits += 1
                end(True, int(held.value))
                return
            command = Fill(key, node.id)
        life_of_node = node.life

        def then(answer: Any, error: Exception | None) -> None:
            if error is not None or node.life != life_of_node:
                end(None if isinstance(error, OutcomeUnknown) or error is None else False)
                return
            if op == "read":
                if answer["hit"]:
                    node.coherence.grant(key, answer["version"])
                end(True, int(answer["val"]) if answer["hit"] else None)
            else:
                if value is not None:
                    node.coherence.grant(key, answer["version"])
                end(True)

        # The process may end without a word.
        self.at(3_000, lambda: end(None))
        node.propose(command, then)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.cache_cluster")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    operations = hits = 0
    for seed in range(options.seed, options.seed + options.seeds):
        world = World(seed)
        verdict = world.run()
        operations += len(world.operations)
        hits += world.hits
        if not verdict.linearizable:
            for operation in verdict.offending:
                print(operation.to_json())
            print(f"not linearizable: python -m tests.sim.cache_cluster --seeds 1 --seed {seed}")
            return 1
    print(f"{options.seeds} seeds, {operations} operations, {hits} of them local hits: every history linearizable")
    return 0


if __name__ == "__main__":
    sys.exit(main())
