"""How much one turn of a replica does, counted: 100,000 things end at once in each service, with and without writers.

The rule of this file: real replicas with the real listeners of a node, alone in their group, on a disk that answers
at once and a clock that the test moves. Counted is what left the machine in one turn, and what the turn itself
counts as its work.
"""

from asyncio import Future
from collections.abc import Iterator
from random import Random

import pytest

from common.metrics import Metrics
from raft.core.config import CoreConfig
from raft.core.raft import RaftCore
from raft.core.ready import Persist
from raft.core.types import Configuration
from raft.errors import NoLeader, RaftError
from raft.peer_messages import PeerMessage
from raft.replica import TURN_WORK_MAX, Replica
from services.cache.node.changes import Changes
from services.cache.node.coherence import Coherence
from services.cache.node.invalidations import Invalidations
from services.cache.replicated.commands import Invalidate, Put, PutMany
from services.cache.replicated.machine import CacheMachine
from services.lock.replicated.commands import Acquire
from services.lock.replicated.machine import LockMachine
from services.queue.replicated.commands import EnqueueBatch
from services.queue.replicated.machine import QueueMachine
from services.replicated.envelope import Command, encode_command
from services.replicated.machine import ReplicatedMachine, ServiceMachine

COUNT = 100_000
#: What the last entry of a turn may add: some thousand things of each kind that are swept, and a command's own.
ENTRY_WORK_MAX = 5_000


class Alone(Replica):
    """The only voter of its group."""

    def __init__(self, machine: type[ServiceMachine]) -> None:
        self.clock_ms = 0
        core = RaftCore(CoreConfig(id="a"), Configuration(("a",)), random=Random(1), now_ms=0)
        super().__init__(core, ReplicatedMachine(machine), lambda: self.clock_ms)
        self._durable: list[Persist] = []
        self._wants_turn = False
        self.closed = None
        self.answers: list[Future] = []

    def send(self, message: PeerMessage) -> bool:
        return False

    def write(self, persist: Persist | None, messages: tuple[PeerMessage, ...]) -> None:
        if persist is not None:
            self._durable.append(persist)
            self.wake()

    def wake(self) -> None:
        self._wants_turn = True

    def feed_completions(self, now_ms: int) -> None:
        durable, self._durable = self._durable, []
        for persist in durable:
            self.core.persisted(persist, now_ms)

    def maybe_take_snapshot(self) -> None:
        pass

    def why_no_leader(self) -> RaftError:
        return NoLeader("none")

    # What the cache's parts ask of a node

    def now_ms(self) -> int:
        return self.clock_ms

    def cluster_time_ms(self) -> int:
        return self.applier.estimated_time_ms()

    def may_serve_locally(self) -> bool:
        return False

    def status(self) -> "Alone":
        return self

    @property
    def applied_index(self) -> int:
        return self.applier.applied_index

    # What a test does with it

    @property
    def left(self) -> int:
        """Things in the machine."""
        inner = self.machine.inner
        if isinstance(inner, QueueMachine):
            return len(inner.store.messages)
        statistics = inner.statistics()
        return statistics.holds if isinstance(inner, LockMachine) else statistics.lines

    def turns(self) -> Iterator[int]:
        """Turns until nothing follows; how many things each took out of the machine."""
        self._wants_turn = True
        while self._wants_turn:
            self._wants_turn = False
            before = self.left
            self.turn(self.clock_ms, (), ())
            assert self.turn_work < TURN_WORK_MAX + ENTRY_WORK_MAX
            yield before - self.left

    def pass_time(self, milliseconds: int) -> list[int]:
        """Time passes, and turns are taken until nothing follows."""
        self.clock_ms += milliseconds
        return list(self.turns())

    def propose(self, *commands: Command) -> None:
        self.core.propose([encode_command(command) for command in commands], self.clock_ms)


def alone(machine: type[ServiceMachine]) -> Replica:
    replica = Alone(machine)
    replica.pass_time(1_000)
    assert replica.core.status().leader == "a"
    return replica


@pytest.fixture
def cache() -> Alone:
    """With everything that listens to a cache at a node."""
    replica, metrics = alone(CacheMachine), Metrics()
    Coherence(replica, metrics)
    replica.withheld = Invalidations(replica, metrics.cache_invalidation_wait_seconds.labels())
    Changes(replica, metrics.cache_watch_gaps_total.labels())
    return replica


def put_lines(cache: Alone, *, ttl_ms: int | None = None, tags: tuple[str, ...] = ()) -> None:
    for start in range(0, COUNT, 1_000):
        items = tuple((f"k{start + number}", b"1", ttl_ms, None, tags) for number in range(1_000))
        cache.propose(PutMany(items, "a"))
        cache.pass_time(0)
    assert cache.left == COUNT


def test_locks_that_expire_at_once() -> None:
    locks = alone(LockMachine)
    locks.propose(*(Acquire(f"k{number}", "owner", True, 60_000) for number in range(COUNT)))
    locks.pass_time(0)

    ended = locks.pass_time(60_000)

    assert sum(ended) == COUNT
    assert max(ended) <= TURN_WORK_MAX


def test_messages_that_expire_at_once() -> None:
    queue = alone(QueueMachine)
    for _ in range(0, COUNT, 1_000):
        queue.propose(EnqueueBatch((("q", b"1", 0, 0, 60_000),) * 1_000))
        queue.pass_time(0)

    ended = queue.pass_time(60_000) + queue.pass_time(2_000)

    assert sum(ended) == COUNT
    assert max(ended) <= TURN_WORK_MAX


def test_lines_that_expire_at_once(cache: Alone) -> None:
    put_lines(cache, ttl_ms=60_000)

    ended = cache.pass_time(62_000)

    assert sum(ended) == COUNT
    assert max(ended) <= TURN_WORK_MAX


def test_a_tag_of_many_lines_under_a_batch_of_writes(cache: Alone) -> None:
    """All that the writes sweep on their way was done in one turn."""
    put_lines(cache, tags=("t",))

    cache.propose(Invalidate("t"), *(Put(f"x{number}", b"1", "a") for number in range(2_000)))
    swept = list(cache.turns())

    assert cache.left == 2_000
    assert max(swept) <= TURN_WORK_MAX


def test_what_a_turn_leaves_is_applied_in_order_and_answered(cache: Alone) -> None:
    """A batch of 2,000 writes takes several turns; a read index waits for its own place in it."""
    applied_before = cache.applied_index
    cache.propose(*(Put("k", b"%d" % number, "a") for number in range(2_000)))

    applied = []
    for _ in cache.turns():
        applied.append(cache.applied_index - applied_before)
        assert cache.core.applied_index == cache.applied_index

    assert len(set(applied)) > 2
    assert applied == sorted(applied)
    assert (applied[-1], cache.machine.inner.line("k").value) == (2_000, b"1999")
