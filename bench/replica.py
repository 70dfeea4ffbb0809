"""One replica of the queue group alone, on a real disk: what the measurements of storage and snapshots run on.

It is the node as `services.app` wires it, without HTTP: a cluster of one commits by its own fsync.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.clock import now_ms
from raft.core.config import CoreConfig
from raft.core.messages import Message
from raft.core.types import Role
from raft.disk import DiskQueue
from raft.node import RaftNode
from raft.status import NodeConfig
from raft.storage import open_storage
from services.queue.replicated.commands import EnqueueBatch
from services.queue.replicated.machine import QueueMachine
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine

#: Messages in one entry, the most that a client may send at once.
BATCH_MESSAGES = 1_000
#: How often the ticker wants to be woken: finer than any heartbeat.
TICK_SECONDS = 0.002


class NoPeers:
    """The transport of a cluster of one."""

    def send(self, message: Message) -> bool:
        return False

    def is_connected(self, peer: str) -> bool:
        return False


def open_replica(directory: Path, **config: int) -> RaftNode:
    """Recover (or begin) a replica in `directory`; inside a running loop. The caller starts and stops it."""
    storage, recovered = open_storage(directory)
    machine = ReplicatedMachine(QueueMachine)
    loaded = storage.load_snapshot()
    if loaded is not None:
        machine.restore(loaded[1])

    def on_fatal(error: BaseException) -> None:
        raise error

    disk = DiskQueue(storage, on_fatal=on_fatal, on_full=lambda full: node.disk_full(full))
    node = RaftNode(
        NodeConfig(group="queue", core=CoreConfig(id="node1"), voters=("node1",), **config),
        machine=machine,
        storage=storage,
        disk=disk,
        recovered=recovered,
        transport=NoPeers(),
        clock_ms=now_ms,
        on_fatal=on_fatal,
    )
    return node


async def wait_for(condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Raises TimeoutError where `condition` does not come true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(TICK_SECONDS)


async def wait_leading(node: RaftNode) -> None:
    await wait_for(lambda: node.core.state.role is Role.LEADER)


async def enqueue(node: RaftNode, messages: int, payload: bytes) -> None:
    """Put `messages` messages of this payload into one queue."""
    batch = tuple(("default", payload, 0, 0, 0) for _ in range(BATCH_MESSAGES))
    command = encode_command(EnqueueBatch(batch))
    for _ in range(messages // BATCH_MESSAGES):
        answer = await node.propose(command)
        assert answer["ok"], answer


def take_snapshot_soon(node: RaftNode) -> None:
    """The next applied entry begins a snapshot."""
    node.config = replace(node.config, snapshot_entries=1)


def take_no_more(node: RaftNode) -> None:
    node.config = replace(node.config, snapshot_entries=1 << 60)


@dataclass
class Ticker:
    """Measures how late the event loop wakes a task that wants to run every `TICK_SECONDS`."""

    #: Every gap between two wakings that was longer than asked, seconds.
    gaps: list[float] = field(default_factory=list)

    async def __aenter__(self) -> "Ticker":
        self._task = asyncio.create_task(self._tick(), name="ticker")
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            self.gaps.append(now - before)
            before = now

    @property
    def largest_ms(self) -> float:
        return max(self.gaps, default=0.0) * 1000

    @property
    def p99_ms(self) -> float:
        return sorted(self.gaps)[int(0.99 * len(self.gaps))] * 1000 if self.gaps else 0.0
