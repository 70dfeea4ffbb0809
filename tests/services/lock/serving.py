"""Two lock nodes over HTTP with one shared log in the place of Raft."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from common.config import load_settings
from common.metrics import Metrics
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.state_machine import ApplyContext
from services.catalogue import OPERATIONS
from services.http.application import application
from services.lock.operations import attach
from services.lock.replicated.machine import LockMachine
from services.node.host import Host
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine

NODES = ("node1", "node2")


class Replica:
    """As much of `raft.node.RaftNode` as the routes use."""

    def __init__(self, cluster: "LockCluster") -> None:
        self.machine = ReplicatedMachine(LockMachine)
        self._cluster = cluster
        self._listeners: list[tuple[str, Callable[[Any], None]]] = []
        #: Rounds that linearizable reads cost.
        self.read_rounds = 0
        self.before_leaving: list[Any] = []
        self.closed: RaftError | None = None
        #: Raised by the next proposals, one each, which are not carried out.
        self.troubles: list[RaftError] = []

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        if self.closed is not None and not parting:
            raise self.closed
        if self.troubles:
            raise self.troubles.pop(0)
        return self._cluster.append(command)[self]

    async def read_index(self) -> None:
        self.read_rounds += 1

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self._listeners.append((topic, callback))
        return lambda: self._listeners.remove((topic, callback))

    def cluster_time_ms(self) -> int:
        return self._cluster.time_ms

    def tell(self, events: list[tuple[str, Any]]) -> None:
        for topic, body in events:
            for wanted, callback in tuple(self._listeners):
                if wanted == topic:
                    callback(body)

    def close(self, why: RaftError) -> None:
        """Take no more requests, as a node that stops."""
        self.closed = why
        self.tell([(CLOSED_TOPIC, why)])

    async def leave(self) -> None:
        """Say what is left to be said."""
        for said in self.before_leaving:
            await said()


class LockCluster:
    """The shared log, the nodes that apply it, and a client for each."""

    def __init__(self) -> None:
        self.index = 0
        self.time_ms = 1_000
        self.replicas = {node: Replica(self) for node in NODES}
        self.hosts: dict[str, Host] = {}
        self.clients: dict[str, TestClient] = {}

    @property
    def machine(self) -> LockMachine:
        return self.replicas["node1"].machine.inner

    def append(self, command: bytes) -> dict[Replica, dict[str, Any]]:
        """One log entry, applied everywhere; the answer of each replica."""
        return self._entry(lambda machine, context: machine.apply(context, command))

    def apply(self, command: Any) -> None:
        self.append(encode_command(command))

    def advance(self, milliseconds: int) -> None:
        """Let cluster time pass, with an entry that carries nothing but the time."""
        self.time_ms += milliseconds
        self._entry(lambda machine, context: machine.advance(context))

    def _entry(self, step: Callable[[ReplicatedMachine, ApplyContext], Any]) -> dict[Replica, Any]:
        self.index += 1
        answers = {}
        for replica in self.replicas.values():
            context = ApplyContext(self.index, self.time_ms)
            answers[replica] = step(replica.machine, context)
            replica.tell(context.events)
        return answers

    async def start(self) -> None:
        for number, node in enumerate(NODES):
            settings = load_settings(
                {
                    "MUFAKAT_NODE_ID": node,
                    "MUFAKAT_GROUPS": "lock",
                    "MUFAKAT_CLUSTER": "node1=127.0.0.1:8000,node2=127.0.0.1:8001",
                    "MUFAKAT_CLUSTER_SECRET": "only for these tests",
                }
            )
            metrics = Metrics()
            self.hosts[node] = Host(settings, metrics, f"boot{number}", {"lock": self.replicas[node]})
            app = application(self.hosts[node], OPERATIONS)
            attach(self.hosts[node], self.replicas[node])
            self.clients[node] = TestClient(TestServer(app))
            await self.clients[node].start_server()

    async def post(
        self, path: str, body: Any, *, node: str = "node1", status: int = 200, **options: Any
    ) -> dict[str, Any]:
        async with self.clients[node].post(path, json=body, **options) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def get(self, path: str, *, node: str = "node1", status: int = 200) -> dict[str, Any]:
        async with self.clients[node].get(path) as response:
            assert response.status == status, await response.text()
            return await response.json()


@asynccontextmanager
async def lock_cluster() -> AsyncIterator[LockCluster]:
    cluster = LockCluster()
    await cluster.start()
    try:
        yield cluster
    finally:
        for client in cluster.clients.values():
            await client.close()
