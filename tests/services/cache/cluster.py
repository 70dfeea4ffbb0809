"""Three cache nodes over HTTP, behind one log that lives in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from common.config import load_settings
from common.metrics import Metrics
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.state_machine import ApplyContext
from services.cache.hits import in_front
from services.cache.operations import attach
from services.cache.replicated.machine import CacheMachine
from services.catalogue import OPERATIONS
from services.http.application import application
from services.http.guard import Guard
from services.node.host import Host
from services.replicated.machine import ReplicatedMachine
from tests.services.cache.tools import NODES


class SharedLog:
    """What Raft gives: one order of commands, applied at every node, and a time that tests move."""

    def __init__(self) -> None:
        self.nodes: list[Replica] = []
        self.index = 0
        self.time_ms = 1000
        #: What every proposal meets, before or on the way back.
        self.broken: RaftError | None = None
        #: Until it is set, answers are on their way.
        self.way: asyncio.Event | None = None

    def append(self, command: bytes) -> dict[str, Any]:
        """Apply at all nodes; each node's answer by node id."""
        self.index += 1
        return {node.id: node.apply(ApplyContext(self.index, self.time_ms), command) for node in self.nodes}

    def advance(self, after_ms: int) -> None:
        """An entry that brings nothing but time."""
        self.index += 1
        self.time_ms += after_ms
        for node in self.nodes:
            context = ApplyContext(self.index, self.time_ms)
            node.machine.advance(context)
            node.announce(context)


class Inquiries:
    """The first node leads."""

    def __init__(self, node: "Replica") -> None:
        self.node = node
        self.answer: Callable[[bytes], bytes]

    async def ask(self, question: bytes) -> bytes:
        return self.node.log.nodes[0].inquiries.answer(question)


class Replica:
    """As much of `raft.node.RaftNode` as the routes use."""

    def __init__(self, node_id: str, log: SharedLog) -> None:
        self.id = node_id
        self.machine = ReplicatedMachine(CacheMachine)
        self.log = log
        self.subscribers: list[tuple[str, Callable[[Any], None]]] = []
        self.read_rounds = 0
        self.lease_valid = True
        self.withheld: Any = None
        self.inquiries = Inquiries(self)
        self.closed: RaftError | None = None
        self.before_leaving: list[Callable[[], Awaitable[None]]] = []
        #: Until it is set, this node has not applied what a read is to see.
        self.behind: asyncio.Event | None = None
        #: What every read of the log meets.
        self.unreadable: RaftError | None = None
        #: Called once, in the middle of the next proposal, before its entry is appended.
        self.before_append: Callable[[], None] | None = None
        log.nodes.append(self)

    def apply(self, context: ApplyContext, command: bytes) -> dict[str, Any]:
        answer = self.machine.apply(context, command)
        self.announce(context)
        return answer

    def announce(self, context: ApplyContext) -> None:
        for topic, body in context.events:
            for wanted, callback in tuple(self.subscribers):
                if wanted == topic:
                    callback(body)

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        intruder, self.before_append = self.before_append, None
        if intruder is not None:
            intruder()
        if self.log.broken is not None:
            raise self.log.broken
        answer = self.log.append(command)[self.id]
        if self.log.way is not None:
            await self.log.way.wait()
        if self.log.broken is not None:
            raise self.log.broken
        return answer

    def close(self, why: RaftError) -> None:
        """As a node that stops, or whose storage failed."""
        self.closed = why
        for topic, callback in tuple(self.subscribers):
            if topic == CLOSED_TOPIC:
                callback(why)

    async def read_index(self) -> None:
        self.read_rounds += 1
        if self.unreadable is not None:
            raise self.unreadable
        if self.behind is not None:
            await self.behind.wait()

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.subscribers.append((topic, callback))
        return lambda: self.subscribers.remove((topic, callback))

    def cluster_time_ms(self) -> int:
        return self.log.time_ms

    def applied_time_ms(self) -> int:
        return self.log.time_ms

    def status(self) -> Any:
        return SimpleNamespace(applied_index=self.log.index)

    def now_ms(self) -> int:
        return self.log.time_ms

    def may_serve_locally(self) -> bool:
        return self.lease_valid

    def removal_unknown_ms(self) -> int:
        return 1_800


class Cluster:
    """Three cache nodes, each with its own HTTP server."""

    def __init__(self) -> None:
        self.log = SharedLog()
        self.clients: dict[str, TestClient] = {}
        self.hosts: dict[str, Host] = {}

    async def start(self) -> None:
        for node_id in NODES:
            nodes = ",".join(f"{each}=127.0.0.1:{8200 + n}" for n, each in enumerate(NODES))
            settings = load_settings(
                {
                    "MUFAKAT_NODE_ID": node_id,
                    "MUFAKAT_GROUPS": "cache",
                    "MUFAKAT_CLUSTER": nodes,
                    "MUFAKAT_CLUSTER_SECRET": "only for these tests",
                }
            )
            replica = Replica(node_id, self.log)
            self.hosts[node_id] = Host(settings, Metrics(), "boot", {"cache": replica})
            attach(self.hosts[node_id], replica)
            app = application(self.hosts[node_id], OPERATIONS)
            server = TestServer(app)
            await server.start_server()
            self.clients[node_id] = TestClient(server)
            self.replica(NODES[0]).withheld.begin()
            front = server.runner.server
            front.request_handler = in_front(self.hosts[node_id], Guard(settings, OPERATIONS), front.request_handler)

    async def post(self, path: str, body: Any, node: str = "node1", status: int = 200, **kwargs: Any) -> Any:
        async with self.clients[node].post(path, json=body, **kwargs) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def get(self, path: str, node: str = "node1", status: int = 200) -> Any:
        async with self.clients[node].get(path) as response:
            assert response.status == status, await response.text()
            return await response.json()

    def replica(self, node: str) -> Replica:
        return self.hosts[node].nodes["cache"]

    def metric(self, name: str, node: str = "node1", **labels: str) -> float | None:
        return self.hosts[node].metrics.registry.get_sample_value(name, labels)
