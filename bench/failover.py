"""How long a group is without writes when its leader fails: killed, frozen or stopped, under the load of 16 clients.

    python -m bench.failover [--kills 50] [--freezes 10] [--stops 10] [--seconds-max 600]   (`make bench-failover`)

Three lock nodes of a local cluster, fsync on, in a folder of their own. Measured is the time from the fault to the
first write that was *sent* after it and acknowledged by another node. A frozen leader (SIGSTOP) finds requests
waiting when it goes on (SIGCONT); what it then answers is compared with what has been written meanwhile.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.load import post
from common.runtime import run
from services.cluster.backend import Backend
from services.cluster.home import Cluster, Home, Record, new_cluster
from services.cluster.local import LocalBackend
from services.cluster.processes import is_port_free
from services.cluster.roster import roster
from services.cluster.topology import SEPARATED, Node
from services.cluster.waiting import wait_ready

CLIENTS = 16
#: How long the load runs before each fault.
BEFORE_SECONDS = 0.7
#: A fault after which nothing was written for so long ends the run.
GIVE_UP_SECONDS = 15.0
#: A client whose node is away or refuses asks again, or the next one, after this pause.
RETRY_SECONDS = 0.005
#: A request that is not answered within this time is asked elsewhere.
REQUEST_SECONDS_MAX = 2.5
#: Requests that wait in a frozen leader's sockets when it goes on.
STALE_READERS = 20

#: What is wanted, in seconds: of the median and of the worst; None where nothing is said.
WANTED: dict[str, tuple[float | None, float | None]] = {
    "SIGKILL": (0.15, 1.0),
    "SIGSTOP": (None, 1.1),
    "graceful stop": (None, None),
}


@dataclass(slots=True)
class Figures:
    """Seconds without writes, of each repetition."""

    seconds: list[float] = field(default_factory=list)

    def row(self, fault: str) -> str:
        if not self.seconds:
            return f"{fault:14} {'-':>9} {'-':>9} {'-':>9} {0:6}"
        ordered = sorted(self.seconds)
        cells = [_at(ordered, 0.5), _at(ordered, 0.99), ordered[-1]]
        return f"{fault:14} " + " ".join(f"{cell * 1000:6.0f} ms" for cell in cells) + f" {len(ordered):6}"


def _at(ordered: Sequence[float], fraction: float) -> float:
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class Http:
    """One keep-alive connection to one node; an async context."""

    def __init__(self, node: Node) -> None:
        self._address = ("127.0.0.1", node.client_port)
        self._writer: asyncio.StreamWriter | None = None
        #: The node did not answer in time, or not at all: the connection is of no use any more.
        self.broken = False

    async def __aenter__(self) -> "Http":
        try:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        except OSError:
            self.broken = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    async def post(self, path: str, body: dict[str, str]) -> tuple[int, bytes]:
        return await self.ask(post(self._address, path, json.dumps(body).encode()))

    async def get(self, path: str) -> tuple[int, bytes]:
        host, port = self._address
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; (0, b"") where there was no answer."""
        if self.broken or self._writer is None:
            return 0, b""
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                self._writer.write(request)
                head = await self._reader.readuntil(b"\r\n\r\n")
                start = head.lower().index(b"content-length:") + 15
                body = await self._reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
                return int(head[9:12]), body
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.broken = True
            return 0, b""


async def write_for_ever(number: int, nodes: Sequence[Node]) -> None:
    """One client of the load: acquires keys that nobody else asks for, through its node, or the next where that one
    does not answer."""
    for key in itertools.count():
        home = number % len(nodes)
        for node in (*nodes[home:], *nodes[:home]):
            async with Http(node) as http:
                while await acquire(http, f"{number}-{key}"):
                    key += 1
            await asyncio.sleep(RETRY_SECONDS)


async def first_write(node: Node, name: str) -> float:
    """Write through this node until it is done once; when that was."""
    for number in itertools.count():
        async with Http(node) as http:
            while not http.broken:
                if await acquire(http, f"{name}-{node.id}-{number}"):
                    return time.perf_counter()
        await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError("unreachable")


async def acquire(http: "Http", key: str) -> bool:
    """Whether the key was acquired for sure."""
    status, answer = await http.post("/lock/acquire", {"key": key, "client_id": "bench"})
    return status == 200 and b'"ok":true' in answer


class Bench:
    """The cluster, its load and the faults."""

    def __init__(self, backend: Backend, deadline: float) -> None:
        self.backend = backend
        self.nodes = backend.topology.members("lock")
        self.figures = {fault: Figures() for fault in WANTED}
        self.stale = 0
        self.answers_after_thaw = 0
        self._deadline = deadline
        self._keys = itertools.count()

    async def leader(self) -> tuple[Node, int]:
        """The node that leads, and the process that it runs in; everybody must be ready."""
        await asyncio.to_thread(wait_ready, self.backend, self.nodes)
        found: dict = {}
        while not found:
            found = (await asyncio.to_thread(roster, self.backend)).leaders("lock")
        node = self.backend.topology.node(max(found, key=lambda id: found[id].term))
        pid = self.backend.processes()[node.id].pid
        assert pid is not None
        return node, pid

    async def repeat(self, fault: str, times: int, once: Callable[[Node, int], Awaitable[float]]) -> None:
        for number in range(times):
            if time.perf_counter() > self._deadline:
                print(f"{fault}: the time is up after {number} of {times}", flush=True)
                return
            node, pid = await self.leader()
            await asyncio.sleep(BEFORE_SECONDS)
            seconds = await once(node, pid)
            self.figures[fault].seconds.append(seconds)
            print(f"{fault} {number + 1}/{times}: {node.id}, {seconds * 1000:.0f} ms", flush=True)

    async def fault(self, node: Node, do: Callable[[], None]) -> float:
        """Do it; seconds until somebody else has taken a write that was sent after."""
        do()
        began = time.perf_counter()
        name = f"first-{next(self._keys)}"
        others = [asyncio.create_task(first_write(each, name)) for each in self.nodes if each.id != node.id]
        done, waiting = await asyncio.wait(
            others, timeout=GIVE_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in waiting:
            task.cancel()
        if not done:
            raise TimeoutError(f"nothing was written for {GIVE_UP_SECONDS:.0f} s after {node.id} failed")
        return min(task.result() for task in done) - began

    async def kill(self, node: Node, pid: int) -> float:
        seconds = await self.fault(node, lambda: os.kill(pid, signal.SIGKILL))
        await asyncio.to_thread(self.backend.kill, node)
        await asyncio.to_thread(self.backend.start, node)
        return seconds

    async def stop(self, node: Node, pid: int) -> float:
        """SIGTERM: the leader hands over and ends by itself."""
        seconds = await self.fault(node, lambda: os.kill(pid, signal.SIGTERM))
        await asyncio.to_thread(self.backend.stop, node)
        await asyncio.to_thread(self.backend.start, node)
        return seconds

    async def freeze(self, node: Node, pid: int) -> float:
        """SIGSTOP; others write; SIGCONT with reads waiting, which must not see the old owner."""
        key = f"frozen-{next(self._keys)}"
        await self.insist(node, "/lock/acquire", {"key": key, "client_id": "before"})
        async with contextlib.AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(Http(node)) for _ in range(STALE_READERS)]
            try:
                seconds = await self.fault(node, lambda: os.kill(pid, signal.SIGSTOP))
                other = next(each for each in self.nodes if each.id != node.id)
                await self.insist(other, "/lock/release", {"key": key, "client_id": "before"})
                await self.insist(other, "/lock/acquire", {"key": key, "client_id": "after"})
                asked = [asyncio.create_task(reader.get(f"/lock/status?key={key}")) for reader in readers]
                await asyncio.sleep(0.05)
            finally:
                os.kill(pid, signal.SIGCONT)
            for status, answer in await asyncio.gather(*asked):
                self.answers_after_thaw += status != 0
                self.stale += status == 200 and b'"after"' not in answer
        return seconds

    async def insist(self, node: Node, path: str, body: dict[str, str]) -> None:
        """Ask until it is done."""
        give_up = time.perf_counter() + GIVE_UP_SECONDS
        while time.perf_counter() < give_up:
            async with Http(node) as http:
                status, answer = await http.post(path, body)
            if status == 200 and b'"ok":true' in answer:
                return
            await asyncio.sleep(RETRY_SECONDS)
        raise TimeoutError(f"{path} was not done in time")

    def table(self) -> tuple[str, bool]:
        """The figures, and whether all are as wanted."""
        lines = [f"{'fault':14} {'median':>9} {'p99':>9} {'worst':>9} {'count':>6}"]
        good = self.stale == 0
        for fault, figures in self.figures.items():
            lines.append(figures.row(fault))
            median, worst = WANTED[fault]
            ordered = sorted(figures.seconds) or [0.0]
            if (median is not None and _at(ordered, 0.5) > median) or (
                worst is not None and ordered[-1] > worst
            ):
                good = False
                lines[-1] += "   more than wanted"
        lines.append(
            f"after SIGCONT: {self.answers_after_thaw} answers of the old leader, {self.stale} of them stale"
        )
        return "\n".join(lines), good


async def measure(backend: Backend, options: argparse.Namespace) -> int:
    bench = Bench(backend, time.perf_counter() + options.seconds_max)
    clients = [asyncio.create_task(write_for_ever(number, bench.nodes)) for number in range(CLIENTS)]
    try:
        await bench.repeat("SIGSTOP", options.freezes, bench.freeze)
        await bench.repeat("graceful stop", options.stops, bench.stop)
        await bench.repeat("SIGKILL", options.kills, bench.kill)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    table, good = bench.table()
    print(table)
    return 0 if good else 1


def free_cluster() -> Cluster:
    """A cluster whose ports are taken by nobody; its lock nodes will run."""
    for offset in range(2_000, 14_000, 10):
        record = Record("local", SEPARATED.name, offset)
        ports = [port for node in record.nodes().members("lock") for port in (node.client_port, node.peer_port)]
        if all(is_port_free("127.0.0.1", port) for port in ports):
            return replace(new_cluster(), record=record)
    raise SystemExit("no free ports were found")


def main() -> int:
    parser = argparse.ArgumentParser(description="How long a group is without writes when its leader fails.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--freezes", type=int, default=10)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument(
        "--seconds-max", type=float, default=600.0, help="No new fault is made after this time."
    )
    parser.add_argument("--keep", action="store_true", help="Keep the nodes' folders, for their logs.")
    options = parser.parse_args()
    home = tempfile.mkdtemp(prefix="mufakat-failover-")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MUFAKAT_")}
    backend = LocalBackend(Home(Path(home)), free_cluster(), environ=environ)
    nodes = backend.topology.members("lock")
    try:
        for node in nodes:
            backend.start(node)
        wait_ready(backend, nodes)
        return run(measure(backend, options))
    finally:
        backend.end_all()
        if options.keep:
            print(f"kept: {home}")
        else:
            shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
