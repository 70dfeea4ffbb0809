"""Random clients that vanish and repeat, at three nodes that lag, stop and lose answers, in virtual time.

Each seed is one run over one log. Checked: who is told `ok` holds the lock until it gives it back, an exclusive
request is not told of a shared hold, and in the end nothing is left: no hold, no place in line, no withdrawal, no
difference.
"""

import asyncio
import random
from typing import Any

import pytest

from common.runtime import Background
from raft.errors import NoLeader, OutcomeUnknown, RaftError, Stopping
from raft.node import CLOSED_TOPIC
from raft.replica import RESTORED_TOPIC
from raft.state_machine import ApplyContext
from services.lock.node.waiting import LockWaits
from services.lock.replicated.commands import Acquire, DropWaiters, Release
from services.lock.replicated.machine import LockMachine
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine
from tests.services import calls
from tests.services.calls import LoneCall

CLIENTS = 8
ROUNDS = 10
NO_LEADER = 0.15
UNKNOWN = 0.2


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Where nothing is ready, the next timer's time has come."""

    _now = 1_000.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


class Node:
    """One replica; what it proposes reaches the log in order, late, or never, and it may not hear of it."""

    def __init__(self, world: "World", id: str) -> None:
        self.world, self.id = world, id
        self.machine = ReplicatedMachine(LockMachine)
        self.applied, self.lives, self.lags = 0, 0, False
        self.begin_life()

    def begin_life(self) -> None:
        self.lives += 1
        self.boot = f"boot{self.lives}"
        self.numbers = 0
        self.closed: RaftError | None = None
        self.parting = False
        self.listeners: list[tuple[str, Any]] = []
        self.before_leaving: list[Any] = []
        self.background = Background()
        self.requests: set[asyncio.Task] = set()
        self.placed: dict[int, asyncio.Future] = {}
        self.last_at = 0.0
        self.waits = LockWaits(self, f"{self.id}:{self.boot}:", self.background)

    def subscribe(self, topic: str, callback: Any) -> None:
        self.listeners.append((topic, callback))

    def tell(self, events: list[tuple[str, Any]]) -> None:
        for topic, body in events:
            for wanted, callback in tuple(self.listeners):
                if wanted == topic:
                    callback(body)

    async def propose(self, command: bytes, *, parting: bool = False) -> Any:
        choose, loop = self.world.choose, asyncio.get_running_loop()
        if self.closed is not None and not (parting and self.parting):
            raise self.closed
        if choose.random() < self.world.no_leader:
            await asyncio.sleep(choose.random() * 0.2)
            raise NoLeader("none")
        future = loop.create_future()
        self.last_at = max(self.last_at, loop.time() + choose.random() * 0.03) + 1e-6
        loop.call_at(self.last_at, self._place, command, future, choose.random())
        return await future

    def _place(self, command: bytes, future: asyncio.Future, fate: float) -> None:
        unknown = self.world.unknown
        if future.cancelled() and self.world.choose.random() < 0.5:
            return
        if fate < unknown / 2:
            _fail(future, OutcomeUnknown("lost"))
            return
        index = self.world.append(command)
        if fate < unknown:
            _fail(future, OutcomeUnknown("carried out"))
        else:
            self.placed[index] = future
            self.world.catch_up()

    def catch_up(self) -> None:
        for time_ms, command in self.world.log[self.applied :]:
            self.applied += 1
            context = ApplyContext(self.applied, time_ms)
            result = self.machine.apply(context, command) if command else self.machine.advance(context)
            self.tell(context.events)
            future = self.placed.pop(self.applied, None)
            if future is not None and not future.done():
                future.set_result(result)

    def install_snapshot_of(self, other: "Node") -> None:
        self.machine.restore(list(other.machine.snapshot()))
        self.applied = other.applied
        for index in [index for index in self.placed if index <= self.applied]:
            _fail(self.placed.pop(index), OutcomeUnknown("in a snapshot"))
        self.tell([(RESTORED_TOPIC, None)])

    async def restart(self) -> None:
        self.closed, self.parting = Stopping("stopping"), True
        self.tell([(CLOSED_TOPIC, self.closed)])
        await asyncio.gather(*(each() for each in self.before_leaving))
        self.parting = False
        for future in self.placed.values():
            _fail(future, OutcomeUnknown("stopped"))
        await asyncio.sleep(self.world.choose.random())
        for task in self.requests:
            task.cancel()
        await self.background.stop()
        self.begin_life()
        await self.world.say(DropWaiters(self.id, self.boot), self)


def _fail(future: asyncio.Future, error: RaftError) -> None:
    if not future.done():
        future.set_exception(error)


class World:
    """The log, the nodes, and what their clients were told."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.no_leader, self.unknown = NO_LEADER, UNKNOWN
        self.log: list[tuple[int, bytes | None]] = []
        self.nodes = [Node(self, f"node{number}") for number in (1, 2, 3)]
        self.granted = 0
        self.ending = False

    def append(self, command: bytes | None) -> int:
        self.log.append((int(asyncio.get_running_loop().time() * 1000), command))
        return len(self.log)

    def catch_up(self) -> None:
        for node in self.nodes:
            if not node.lags:
                node.catch_up()

    def newest(self) -> Node:
        return max(self.nodes, key=lambda node: node.applied)

    async def say(self, command: Any, node: Node | None = None) -> None:
        """Until it is known to be done."""
        while True:
            try:
                await (node or self.choose.choice(self.nodes)).propose(encode_command(command))
                return
            except RaftError:
                await asyncio.sleep(0.02)

    async def keep_time(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            due_ms = self.newest().machine.next_due_ms()
            if due_ms is not None and due_ms <= asyncio.get_running_loop().time() * 1000:
                self.append(None)
            self.catch_up()

    async def disturb(self) -> None:
        choose = self.choose
        while not self.ending:
            await asyncio.sleep(choose.random())
            node, what = choose.choice(self.nodes), choose.random()
            if what < 0.4:
                await node.restart()
            elif what < 0.8:
                node.lags = True
                await asyncio.sleep(choose.random() * 0.5)
                node.lags = False
                if choose.random() < 0.6 and self.newest().applied > node.applied:
                    node.install_snapshot_of(self.newest())
                self.catch_up()
            else:
                await self.say(DropWaiters(node.id))

    async def use(self, owner: str) -> None:
        """One client's rounds: a few tries each, of which it leaves some."""
        choose = self.choose
        for number in range(ROUNDS):
            await asyncio.sleep(choose.random() * 0.3)
            lock, exclusive = choose.choice(["k1", "k2"]), choose.random() < 0.7
            key = f"{owner}-{number}" if choose.random() < 0.6 else None
            wait_ms = choose.choice([50, 300, 1500])
            tries = []
            for _ in range(choose.randint(1, 4)):
                node = choose.choice(self.nodes)
                if node.closed is None:
                    node.numbers += 1
                    id = f"{node.id}:{node.boot}:{node.numbers}"
                    asked = Acquire(lock, owner, exclusive, None, wait_ms, id, node.id, node.boot)
                    tries.append(await self._try(node, asked, key))
            if tries:
                await asyncio.wait([task for task, _ in tries])
            await self._hold(lock, owner, exclusive, [task.result() for task, there in tries if _is_ok(task, there)])

    async def _try(self, node: Node, asked: Acquire, key: str | None) -> tuple[asyncio.Task, LoneCall]:
        choose, connection = self.choose, LoneCall(key)
        task = asyncio.create_task(calls.told(connection, node.waits.acquire(connection, asked)))
        node.requests.add(task)
        task.add_done_callback(node.requests.discard)
        if choose.random() < 0.5:
            await asyncio.sleep(choose.choice([0, 0.005, 0.02, 0.1, 0.5]) * choose.random())
            if not task.done():
                connection.gone = choose.random() < 0.3
                await asyncio.sleep(0.03 if connection.gone else 0)
                task.cancel()
        elif choose.random() < 0.4:
            await asyncio.sleep(choose.random() * 0.05)
        else:
            await asyncio.wait({task})
        return task, connection

    async def _hold(self, lock: str, owner: str, exclusive: bool, told: list[dict]) -> None:
        if not told:
            return
        self.granted += 1
        token = max(answer["token"] for answer in told)
        for _ in range(self.choose.randint(1, 4)):
            self.catch_up()
            verdict = self.newest().machine.inner.validate(lock, token)
            assert verdict["valid"], (lock, owner, told, verdict)
            assert not exclusive or verdict["mode"] == "exclusive"
            await asyncio.sleep(self.choose.random() * 0.05)
        await self.say(Release(lock, owner, token))


def _is_ok(task: asyncio.Task, connection: LoneCall) -> bool:
    """Whether the client was told of a grant."""
    return not (task.cancelled() or connection.gone or task.exception()) and task.result()["ok"]


async def _run(seed: int) -> World:
    world = World(seed)
    time = asyncio.create_task(world.keep_time())
    disturbing = asyncio.create_task(world.disturb())
    await asyncio.gather(*(world.use(f"owner{number}") for number in range(CLIENTS)))
    world.ending = True
    await disturbing
    world.no_leader = world.unknown = 0
    await asyncio.sleep(20)
    time.cancel()
    return world


async def _end_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.parametrize("seed", range(40))
def test_who_is_told_ok_has_the_lock_and_nothing_is_left_for_who_has_gone(seed):
    loop = VirtualTimeLoop()
    try:
        world = loop.run_until_complete(_run(seed))
    finally:
        loop.run_until_complete(_end_all())
        loop.close()

    tables = world.newest().machine.inner._tables
    assert world.granted > 10
    assert (list(tables.holds.values()), list(tables.waiters.values()), tables.lives) == ([], [], {})
    for node in world.nodes:
        assert (node.waits._waits, node.waits.withdrawing) == ({}, 0)
        assert list(node.machine.snapshot()) == list(world.newest().machine.snapshot())
