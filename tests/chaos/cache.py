"""The cache under kill, freeze, partition and leader change, judged by the linearizability checker.

    python -m tests.chaos.cache [--seconds 180] [--seed n]            (`make chaos-cache`)

A real cluster of three nodes; 16 clients read, write and delete 20 keys through all of them and note when each
request was sent and answered. A request that was refused certainly had no effect; a request without an answer may
have had one. The history of each key must be that of a register. Prints the figures and the verdict; the exit code is
0 if the history is linearizable and enough of the reads were local hits.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

from bench.cache_nodes import CacheNodes
from common.runtime import run
from tests.chaos.networks import Networks, NoNamespaces
from tests.sim.check import Operation, check_history

CLIENTS = 16
KEYS = 20
FIRST_PORT = 13_220
#: Of the reads, so many must have been answered from the node's own memory.
HIT_SHARE_MIN = 0.60
REQUEST_TIMEOUT_S = 3.0
PAUSE_MAX_S = 0.06
#: Longer than a lease and an election.
FREEZE_S = 2.0
CALM_S = 2.5


class Chaos:
    """One run: the cluster, the clients' notes, the faults."""

    def __init__(self, nodes: CacheNodes, networks: Networks | None, seed: int) -> None:
        self.nodes = nodes
        self.networks = networks
        self.random = random.Random(seed)
        self.operations: list[Operation] = []
        self.reads = self.hits = self.written = 0
        self.faults: Counter[str] = Counter()
        self.refused = self.unknown = 0
        self._until = 0.0

    async def run(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            clients = [asyncio.create_task(self._client(session, number)) for number in range(CLIENTS)]
            await self._break_things(session)
            await asyncio.gather(*clients)

    # Clients

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        chance = random.Random(self.random.random())
        lives = 0
        while time.monotonic() < self._until:
            key = f"key-{chance.randrange(KEYS)}"
            url = "http://{}:{}".format(*chance.choice(self.nodes.addresses))
            what = chance.random()
            # A process whose request has no outcome never speaks again: another goes on.
            process = f"client-{number}-{lives}"
            if what < 0.92:
                await self._read(session, url, process, key)
            elif what < 0.99:
                self.written += 1
                lives += not await self._write(session, url, process, key, self.written)
            else:
                lives += not await self._write(session, url, process, key, None)
            await asyncio.sleep(chance.random() * PAUSE_MAX_S)

    async def _read(self, session: aiohttp.ClientSession, url: str, process: str, key: str) -> None:
        called = time.monotonic()
        status, answer = await self._ask(session, f"{url}/cache/get", {"key": key})
        if status == 200:
            self.reads += 1
            self.hits += answer.get("source") == "local"
            self._note(process, "read", key, None, called, True, answer["val"])

    async def _write(
        self, session: aiohttp.ClientSession, url: str, process: str, key: str, value: int | None
    ) -> bool:
        """Whether the outcome is known."""
        called = time.monotonic()
        if value is None:
            status, _ = await self._ask(session, f"{url}/cache/delete", {"key": key})
        else:
            status, _ = await self._ask(session, f"{url}/cache/put", {"key": key, "val": value})
        ok = {200: True, 503: False}.get(status)
        self.refused += ok is False
        self.unknown += ok is None
        self._note(process, "write", key, value, called, ok, None)
        return ok is not None

    async def _ask(self, session: aiohttp.ClientSession, url: str, body: dict) -> tuple[int, dict[str, Any]]:
        """Status and answer; 503 where no connection was made, 0 where nothing is known."""
        try:
            async with session.post(url, json=body) as response:
                return response.status, await response.json()
        except aiohttp.ClientConnectorError:
            return 503, {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0, {}

    def _note(
        self, process: str, op: str, key: str, value: Any, called: float, ok: bool | None, result: Any
    ) -> None:
        returned = None if ok is None else time.monotonic()
        self.operations.append(Operation(process, op, key, value, called, returned, ok, result))

    # Faults

    async def _break_things(self, session: aiohttp.ClientSession) -> None:
        faults = [self._kill, self._freeze, self._stop]
        if self.networks is not None:
            faults.append(self._cut)
        every = [(fault, on_leader) for fault in faults for on_leader in (True, False)]
        plan: list[tuple[Callable[[int], Awaitable[None]], bool]] = []
        await asyncio.sleep(CALM_S)
        while time.monotonic() < self._until - 2 * FREEZE_S:
            if not plan:
                plan = self.random.sample(every, len(every))
            fault, on_leader = plan.pop()
            leader = await self._leader(session)
            if leader is not None:
                others = [number for number in range(len(self.nodes.ids)) if number != leader]
                name = fault.__name__.strip("_")
                self.faults[f"{name} {'leader' if on_leader else 'follower'}"] += 1
                await fault(leader if on_leader else self.random.choice(others))
            await asyncio.sleep(CALM_S)

    async def _kill(self, target: int) -> None:
        await asyncio.to_thread(self.nodes.kill, target)
        await asyncio.sleep(1.5)
        self.nodes.start(target)

    async def _stop(self, target: int) -> None:
        """Told to stop, a leader hands over: leadership changes while its leases still run."""
        self.nodes.signal(target, signal.SIGTERM)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(self.nodes.kill, target)
        self.nodes.start(target)

    async def _freeze(self, target: int) -> None:
        self.nodes.signal(target, signal.SIGSTOP)
        await asyncio.sleep(FREEZE_S)
        self.nodes.signal(target, signal.SIGCONT)

    async def _cut(self, target: int) -> None:
        assert self.networks is not None
        self.networks.isolate(target)
        await asyncio.sleep(FREEZE_S)
        self.networks.heal()

    async def _leader(self, session: aiohttp.ClientSession) -> int | None:
        for host, port in self.nodes.addresses:
            try:
                async with session.get(f"http://{host}:{port}/health") as response:
                    leader = (await response.json())["leader"]
                    if leader:
                        return self.nodes.ids.index(leader)
            except (aiohttp.ClientError, TimeoutError):
                continue
        return None


def judge(chaos: Chaos, history: Path) -> int:
    """Print the figures and the verdict; the history is kept where it is not linearizable."""
    share = chaos.hits / max(1, chaos.reads)
    print(f"faults: {', '.join(f'{name} {count}' for name, count in sorted(chaos.faults.items()))}")
    print(
        f"operations: {len(chaos.operations)} ({chaos.reads} reads, {chaos.refused} writes refused, "
        f"{chaos.unknown} with an unknown outcome)"
    )
    print(f"local hits: {chaos.hits}, {share:.0%} of the reads (wanted: {HIT_SHARE_MIN:.0%} or more)", flush=True)
    began = time.monotonic()
    verdict = check_history(chaos.operations, "register")
    word = "linearizable" if verdict.linearizable else "NOT linearizable"
    print(f"verdict: {word} ({time.monotonic() - began:.1f} s of checking)")
    if not verdict.linearizable:
        history.write_text("".join(operation.to_json() + "\n" for operation in chaos.operations))
        for operation in verdict.offending:
            print(operation.to_json())
        print(f"the whole history: {history}")
    return 0 if verdict.linearizable and share >= HIT_SHARE_MIN else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cache")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mufakat-chaos-")))
        networks: Networks | None = None
        try:
            networks = stack.enter_context(Networks(3))
        except NoNamespaces as error:
            print(f"no partitions: {error}")
        hosts = networks.hosts if networks else ("127.0.0.1",) * 3
        addresses = [(host, FIRST_PORT + number) for number, host in enumerate(hosts)]
        nodes = CacheNodes(home, addresses, prefixes=networks.prefixes if networks else ())
        stack.callback(nodes.stop_all)
        nodes.start_all()
        nodes.wait_ready()
        chaos = Chaos(nodes, networks, options.seed)
        run(chaos.run(options.seconds))
    return judge(chaos, Path(tempfile.gettempdir()) / f"chaos-cache-{options.seed}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
