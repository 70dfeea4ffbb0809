"""A group of RaftNodes in one event loop, over a `MemoryNetwork`, on filesystems in memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from common.clock import now_ms
from raft.admission import is_empty
from raft.core.config import CoreConfig
from raft.core.types import Role
from raft.disk import DiskQueue
from raft.node import RaftNode
from raft.state_machine import ApplyContext
from raft.status import NodeConfig
from raft.storage.memory import MemoryFiles, open_memory_storage
from raft.transport.memory import MemoryNetwork
from tests.helpers import eventually


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
    """`ids` as voters; each can be crashed and started again on what its disk kept."""

    def __init__(self, ids: tuple[str, ...] = ("a", "b", "c"), **config: Any) -> None:
        self.ids = ids
        self.network = MemoryNetwork()
        self.files = {id: MemoryFiles() for id in ids}
        self.nodes: dict[str, RaftNode] = {}
        self.fatal: list[BaseException] = []
        self._config = config

    async def __aenter__(self) -> "Group":
        for id in self.ids:
            self.start(id)
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in tuple(self.nodes.values()):
            await node.stop(handover_s=0)

    def start(
        self,
        id: str,
        *,
        voters: tuple[str, ...] | None = None,
        clock_ms: Callable[[], int] = now_ms,
        must_be_admitted: bool = False,
        **config: Any,
    ) -> RaftNode:
        """Start a node on its disk. `voters` are those to begin with, where they are not all of the group."""
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
            clock_ms=clock_ms,
            on_fatal=self.fatal.append,
            admitted=not (must_be_admitted and is_empty(recovered)),
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

    async def leader(self, within_s: float = 5.0) -> RaftNode:
        """The leader that every running node agrees on."""

        def agreed() -> bool:
            known = {node.core.state.leader for node in self.nodes.values()}
            return len(known) == 1 and known <= set(self.nodes) and len(self.leaders) == 1

        await eventually(agreed, within_s)
        return self.leaders[0]

    async def follower(self) -> RaftNode:
        leader = await self.leader()
        return next(node for node in self.nodes.values() if node is not leader)
