"""A group of RaftNodes in one event loop, over a `MemoryNetwork`, on filesystems in memory.

The rule of this file: the nodes share one clock that leaves out the time for which the process stood still. On
machines of their own one node pauses while the others go on; here all of them pause together, and if the clock told
them, a group would lose its leader whenever the machine that the test runs on pauses. What a test says of times it
measures on that clock. A test that wants a node to stand still moves that node's own (tests/node/test_stalls.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from common.clock import now_ms
from raft.admission import is_empty
from raft.core.config import CoreConfig
from raft.core.types import Role
from raft.disk import DiskQueue
from raft.life import UNKNOWN_LIFE
from raft.node import RaftNode
from raft.state_machine import ApplyContext
from raft.status import NodeConfig
from raft.storage.memory import MemoryFiles, open_memory_storage
from raft.transport.memory import MemoryNetwork
from tests.helpers import POLL_SECONDS, eventually

#: How often the real time is looked at, and what counts at most between two looks. Nodes put up with several such
#: steps in a row before they take them for a stall.
LOOK_SECONDS = 0.01
PAUSE_MS_MAX = 40


class GroupClock:
    """Milliseconds, without the pauses of this process."""

    def __init__(self) -> None:
        self._now_ms = self._looked_ms = now_ms()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> int:
        real_ms = now_ms()
        self._now_ms += min(real_ms - self._looked_ms, PAUSE_MS_MAX)
        self._looked_ms = real_ms
        return self._now_ms

    def run(self) -> None:
        """Look at the real time from now on, whether or not anybody asks."""
        self.stop()
        self()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class ListMachine:
    """Remembers every command; answers with how many there are. `due_ms` may be set by a test."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.times: list[int] = []
        self.due_ms: int | None = None

    def apply(self, context: ApplyContext, command: bytes) -> Any:
        self.commands.append(command)
        context.events.append(("command", command))
        return len(self.commands)

    def advance(self, context: ApplyContext) -> None:
        self.times.append(context.time_ms)
        if self.due_ms is not None and context.time_ms >= self.due_ms:
            self.due_ms = None

    def next_due_ms(self) -> int | None:
        return self.due_ms

    def snapshot(self) -> Iterator[bytes]:
        return iter(tuple(self.commands))

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.commands = list(chunks)


class Group:
    """`ids` as voters; each can be crashed and started again on what its disk kept. Where a test does not say
    otherwise, requests wait for longer than elections take."""

    def __init__(self, ids: tuple[str, ...] = ("a", "b", "c"), **config: Any) -> None:
        self.ids = ids
        self.network = MemoryNetwork()
        self.files = {id: MemoryFiles() for id in ids}
        self.nodes: dict[str, RaftNode] = {}
        self.fatal: list[BaseException] = []
        self._config = {"leader_wait_ms": 10_000, "request_timeout_ms": 10_000, **config}
        self.clock_ms = GroupClock()

    async def __aenter__(self) -> "Group":
        for id in self.ids:
            self.start(id)
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in tuple(self.nodes.values()):
            await node.stop(handover_s=0)
        self.clock_ms.stop()

    def start(
        self,
        id: str,
        *,
        voters: tuple[str, ...] | None = None,
        clock_ms: Callable[[], int] | None = None,
        must_be_admitted: bool = False,
        incarnation: str = "",
        life: str = UNKNOWN_LIFE,
        **config: Any,
    ) -> RaftNode:
        """Start a node on its disk. `voters` are those to begin with, where they are not all of the group."""
        self.clock_ms.run()
        storage, recovered = open_memory_storage(self.files[id])
        machine = self.make_machine()
        loaded = storage.load_snapshot()
        if loaded is not None:
            machine.restore(loaded[1])
        disk = DiskQueue(
            storage,
            on_fatal=lambda error: self.nodes[id].fail(error),
            on_full=lambda full: self.nodes[id].disk_full(full),
        )
        settings = {"voters": self.ids if voters is None else voters, **self._config, **config}
        node = RaftNode(
            NodeConfig(group="test", core=self.core_config(id), **settings),
            machine=machine,
            storage=storage,
            disk=disk,
            recovered=recovered,
            transport=self.network.transport(id),
            clock_ms=clock_ms or self.clock_ms,
            on_fatal=self.fatal.append,
            admitted=not (must_be_admitted and is_empty(recovered)),
            incarnation=incarnation,
            life=life,
        )
        self.nodes[id] = node
        self.network.attach(id, node)
        self.prepare(node)
        node.start()
        return node

    # What a group of another machine does differently

    def make_machine(self) -> Any:
        return ListMachine()

    def core_config(self, id: str) -> CoreConfig:
        return CoreConfig(id=id)

    def prepare(self, node: RaftNode) -> None:
        """A node is about to start."""

    async def crash(self, id: str) -> None:
        """The process is gone: nothing is handed over, its peers notice the broken connection."""
        node = self.nodes.pop(id)
        self.network.detach(id)
        await node.stop(handover_s=0)

    @property
    def leaders(self) -> list[RaftNode]:
        return [node for node in self.nodes.values() if node.core.state.role is Role.LEADER]

    async def leader(self) -> RaftNode:
        """The leader that every running node agrees on."""

        def agreed() -> bool:
            known = {node.core.state.leader for node in self.nodes.values()}
            return len(known) == 1 and known <= set(self.nodes) and len(self.leaders) == 1

        await eventually(agreed)
        return self.leaders[0]

    async def leader_after(self, former: RaftNode) -> RaftNode:
        """Another leader than this one. Ask it for what is to be done next: the others may still send that to the
        former one, and then its outcome may be unknown."""
        return await eventually(lambda: next((node for node in self.leaders if node is not former), None))

    async def follower(self) -> RaftNode:
        leader = await self.leader()
        return next(node for node in self.nodes.values() if node is not leader)

    async def lead(self, node: RaftNode) -> None:
        """Have leadership handed to a node, until all know of it. One that is slow may miss its moment; then it is
        handed over again."""

        def leads() -> bool:
            for leader in self.leaders:
                if leader is not node:
                    leader.transfer_leadership(node.id)
            return self.leaders == [node]

        await eventually(leads)
        await self.leader()

    async def pass_ms(self, milliseconds: int) -> None:
        """Let time pass, as the nodes count it."""
        until_ms = self.clock_ms() + milliseconds
        while self.clock_ms() < until_ms:  # noqa: ASYNC110 - no event tells of this clock
            await asyncio.sleep(POLL_SECONDS)

    async def seconds_of(self, work: Awaitable[Any]) -> float:
        """How long it took, as the nodes count it."""
        began_ms = self.clock_ms()
        await work
        return (self.clock_ms() - began_ms) / 1000
