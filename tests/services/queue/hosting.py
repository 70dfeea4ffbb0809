"""A host whose queue group is one machine in memory: what a route needs, without Raft."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestClient

from common.config import Settings
from common.metrics import Metrics
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.state_machine import ApplyContext
from services.catalogue import OPERATIONS
from services.http.application import application
from services.node.host import Host
from services.queue.operations import attach
from services.queue.replicated.machine import QueueMachine
from services.replicated.machine import ReplicatedMachine
from tests.helpers import serving


class LoneNode:
    """Applies each proposal in a later turn of the loop, as a group of one would."""

    def __init__(self) -> None:
        self.machine = ReplicatedMachine(QueueMachine)
        self.time_ms = 1_000_000
        self.index = 0
        #: How many proposals were ever made.
        self.proposed = 0
        #: Commands that were applied.
        self.applied: list[bytes] = []
        #: Raised by the next proposals and reads.
        self.failure: RaftError | None = None
        #: Proposals wait until it is set.
        self.open = asyncio.Event()
        self.open.set()
        #: Called after each command.
        self.on_applied: Callable[[], None] = lambda: None
        self.before_leaving: list[Callable[[], Awaitable[None]]] = []
        #: Why nothing is accepted any more.
        self.closed: RaftError | None = None
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}

    async def propose(self, command: bytes, *, parting: bool = False) -> Any:
        if self.closed is not None and not parting:
            raise self.closed
        self.proposed += 1
        await asyncio.sleep(0)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return self.apply(command)

    def apply(self, command: bytes) -> Any:
        """Apply an entry now, as one that another node proposed."""
        self.applied.append(command)
        context = self._context()
        answer = self.machine.apply(context, command)
        self._tell(context)
        self.on_applied()
        return answer

    async def read_index(self) -> None:
        if self.failure is not None:
            raise self.failure

    def cluster_time_ms(self) -> int:
        return self.time_ms

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self._listeners.setdefault(topic, []).append(callback)
        return lambda: self._listeners[topic].remove(callback)

    def close(self, why: RaftError) -> None:
        """Take no more requests, as a node that stops."""
        self.closed = why
        self.announce(CLOSED_TOPIC, why)

    def announce(self, topic: str, body: Any) -> None:
        for callback in list(self._listeners.get(topic, ())):
            callback(body)

    def pass_time(self, passed_ms: int) -> None:
        """As an ADVANCE entry does."""
        self.time_ms += passed_ms
        context = self._context()
        self.machine.advance(context)
        self._tell(context)

    def _context(self) -> ApplyContext:
        self.index += 1
        return ApplyContext(self.index, self.time_ms)

    def _tell(self, context: ApplyContext) -> None:
        for topic, body in context.events:
            self.announce(topic, body)


class Queues:
    """A served host, its node, and shorthands for its clients."""

    def __init__(self, client: TestClient, node: LoneNode, host: Host) -> None:
        self.client = client
        self.node = node
        self.host = host

    async def post(self, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        async with self.client.post("/queue/" + path, json={} if body is None else body, **options) as response:
            return response.status, await response.json()

    async def ok(self, path: str, body: Any = None, **options: Any) -> Any:
        """JSON of an answer whose status is 200."""
        status, answer = await self.post(path, body, **options)
        assert status == 200, answer
        return answer

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        async with self.client.get("/queue/" + path, params=query) as response:
            return response.status, await response.json()


@asynccontextmanager
async def queues(**settings: Any) -> AsyncIterator[Queues]:
    """A host of the queue group alone, on a loopback port."""
    node = LoneNode()
    metrics = Metrics()
    known = Settings(**{"groups": ("queue",), **settings})
    here = Host(settings=known, metrics=metrics, boot="b", nodes={"queue": node})
    app = application(here, OPERATIONS)
    attach(here, node)
    async with serving(app) as client:
        yield Queues(client, node, here)
