"""A cluster on small disks under writes, with one disk filled on purpose: nothing acknowledged may be lost.

    python -m bench.soak_disk [--seconds N]            (`make soak-disk`; needs root, to mount)

Three nodes with all groups, each on a 64 MiB tmpfs of its own. Writers put numbered values of about 1 kB and count
with increments through all nodes, moving on to another node where one refuses. Meanwhile the disk of the cache
group's leader is filled until nothing fits any more, and freed again; then that of a follower. In the end every
value must be the last one acknowledged or one sent later, every counter at least what was acknowledged and at most
what was sent, and the nodes' states equal, hash for hash. The log must never have filled a disk by itself.
"""

import argparse
import asyncio
import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from common.runtime import run

SECONDS = 180.0
DISK_BYTES = 64 << 20
PORT_OFFSET = 900
PORTS = tuple(8001 + PORT_OFFSET + number for number in range(3))
NODES = ("node1", "node2", "node3")
GROUPS = ("lock", "queue", "cache")
#: Small files and frequent snapshots: what a disk of this size asks for.
SETTINGS = {
    "MUFAKAT_SNAPSHOT_ENTRIES": "5000",
    "MUFAKAT_SNAPSHOT_BYTES": str(4 << 20),
    "MUFAKAT_WAL_SEGMENT_BYTES": str(1 << 20),
}
WRITERS = 16
KEYS_PER_WRITER = 50
VALUE_BYTES = 1_000
REQUEST_SECONDS_MAX = 5.0
#: How long the nodes may take in the end to have applied the same.
SETTLE_SECONDS_MAX = 30.0
#: A node writes again this soon after its disk was freed; what it says until then is not held against it.
NOTICE_SECONDS_MAX = 2.0


@dataclass
class Account:
    """What the writers were told, and what was seen of the nodes."""

    acknowledged: int = 0
    #: Not done for certain, or unknown, by the reason given.
    refused: Counter[str] = field(default_factory=Counter)
    #: key -> number of the last value that was acknowledged, and of the last that was sent.
    values: dict[str, list[int]] = field(default_factory=dict)
    #: counter -> increments that were acknowledged, and those that were sent.
    counters: dict[str, list[int]] = field(default_factory=dict)
    #: Longest time without any acknowledgement, seconds.
    longest_pause: float = 0.0
    acknowledged_at: float = field(default_factory=time.monotonic)
    #: Most bytes that a node itself has used of its disk.
    used_bytes_max: int = 0
    #: Nodes that said that their disk is full, while it was filled on purpose and otherwise.
    full_on_purpose: int = 0
    full_by_itself: int = 0

    def acknowledge(self) -> None:
        now = time.monotonic()
        self.longest_pause = max(self.longest_pause, now - self.acknowledged_at)
        self.acknowledged_at = now
        self.acknowledged += 1


class Disks:
    """One tmpfs for each node, under the folders that `mufakat up` will use."""

    def __init__(self, home: Path) -> None:
        self.folders = {node: home / "combined" / node / "data" for node in NODES}
        self._mounted: list[Path] = []
        #: The node whose disk is full on purpose.
        self.filled = ""
        #: When a disk was freed last, by `time.monotonic`.
        self.freed_s = 0.0

    def mount(self) -> None:
        """Raises OSError where this is not allowed here."""
        for folder in self.folders.values():
            folder.mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(errno.EPERM, done.stderr.strip() or "mount failed")
            self._mounted.append(folder)

    def unmount(self) -> None:
        for folder in self._mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)

    def fill(self, node: str) -> None:
        """Leave not a single page free, again and again while it is asked for: the node frees some by itself."""
        self.filled = node
        # Without a buffer: what did not fit would be tried once more at the end, and raise there.
        with contextlib.suppress(OSError), open(self.folders[node] / "ballast", "ab", buffering=0) as file:
            while True:
                file.write(bytes(64 << 10))

    def free(self) -> None:
        (self.folders[self.filled] / "ballast").unlink()
        self.filled = ""
        self.freed_s = time.monotonic()

    def used_bytes(self, node: str) -> int:
        """Bytes that the node itself uses."""
        stat = os.statvfs(self.folders[node])
        ballast = self.folders[node] / "ballast"
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize - (ballast.stat().st_size if ballast.exists() else 0)


class Client:
    """Requests to the nodes, moving on where one refuses."""

    def __init__(self, session: aiohttp.ClientSession, account: Account) -> None:
        self._session = session
        self.account = account

    async def ask(self, node: int, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """One request; status 0 where no answer came."""
        url = f"http://127.0.0.1:{PORTS[node % len(PORTS)]}{path}"
        try:
            method = "GET" if body is None else "POST"
            async with self._session.request(method, url, json=body) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {"reason": "no answer"}

    async def until_acknowledged(self, node: int, path: str, body: Any, on_sent) -> int:
        """Send until a node says ok; returns the node that did."""
        while True:
            on_sent()
            status, answer = await self.ask(node, path, body)
            if status == 200 and answer.get("ok"):
                self.account.acknowledge()
                return node
            self.account.refused[answer.get("reason", str(status))] += 1
            node += 1
            await asyncio.sleep(0.02)


async def write(client: Client, number: int) -> None:
    """One writer with keys and a counter of its own."""
    chance, account, node = random.Random(number), client.account, number
    counter = f"counter-{number}"
    counts = account.counters[counter] = [0, 0]
    for sequence in range(1, 1 << 60):
        key = f"key-{number}-{chance.randrange(KEYS_PER_WRITER)}"
        told = account.values.setdefault(key, [0, 0])
        value = {"number": sequence, "padding": "x" * chance.randrange(VALUE_BYTES)}

        def sent(told: list[int] = told, sequence: int = sequence) -> None:
            told[1] = sequence

        node = await client.until_acknowledged(node, "/cache/put", {"key": key, "val": value}, sent)
        told[0] = sequence

        def counted() -> None:
            counts[1] += 1

        node = await client.until_acknowledged(node, "/cache/incr", {"key": counter, "by": 1}, counted)
        counts[0] += 1
        if sequence % 20 == 0:
            node += 1


async def watch(client: Client, disks: Disks) -> None:
    """Look at the disks and at what the nodes say of them."""
    account = client.account
    while True:
        for number, node in enumerate(NODES):
            account.used_bytes_max = max(account.used_bytes_max, disks.used_bytes(node))
            filled = disks.filled == node
            if filled:
                disks.fill(node)
            _, answer = await client.ask(number, "/readyz")
            if "disk is full" in str(answer.get("reasons", "")):
                if filled:
                    account.full_on_purpose += 1
                elif not disks.filled and time.monotonic() - disks.freed_s > NOTICE_SECONDS_MAX:
                    account.full_by_itself += 1
        await asyncio.sleep(0.5)


async def fill_and_free(client: Client, disks: Disks, seconds: float) -> None:
    """Fill the leader's disk for a sixth of the time and free it, then a follower's."""
    await asyncio.sleep(seconds / 6)
    for role in ("leader", "follower"):
        node = await _find(client, role)
        print(f"{time.strftime('%X')}  filling the disk of {node}, {role} of the cache group", flush=True)
        disks.fill(node)
        await asyncio.sleep(seconds / 6)
        disks.free()
        print(f"{time.strftime('%X')}  freed it", flush=True)
        await asyncio.sleep(seconds / 6)


async def _find(client: Client, role: str) -> str:
    while True:
        for number in range(len(NODES)):
            _, answer = await client.ask(number, "/health")
            if answer.get("groups", {}).get("cache", {}).get("role_name") == role:
                return NODES[number]
        await asyncio.sleep(0.2)


async def count_lost(client: Client) -> int:
    """Acknowledged writes that are not there any more."""
    lost = 0
    for key, (acknowledged, sent) in client.account.values.items():
        _, answer = await client.ask(0, "/cache/get", {"key": key})
        found = answer["val"]["number"] if answer.get("hit") else 0
        if acknowledged and not acknowledged <= found <= sent:
            lost += 1
            print(f"{key}: {found} found, {acknowledged} acknowledged, {sent} sent")
    for key, (acknowledged, sent) in client.account.counters.items():
        _, answer = await client.ask(1, "/cache/get", {"key": key})
        found = answer["val"] if answer.get("hit") else 0
        if not acknowledged <= found <= sent:
            lost += abs(acknowledged - found)
            print(f"{key}: {found} found, {acknowledged} acknowledged, {sent} sent")
    return lost


async def compare(client: Client) -> bool:
    """Print the hash of every group's state at every node; True where they are equal."""
    equal = True
    for group in GROUPS:
        until = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            answers = [(await client.ask(number, f"/admin/hash?group={group}"))[1] for number in range(len(NODES))]
            states = [(answer.get("applied_index"), answer.get("hash")) for answer in answers]
            if len(set(states)) == 1 or time.monotonic() > until:
                break
            await asyncio.sleep(0.2)
        equal = equal and len(set(states)) == 1
        for node, (index, digest) in zip(NODES, states, strict=True):
            print(f"  {group:6} {node}  applied {index}  hash {digest}")
    return equal


async def soak(disks: Disks, seconds: float) -> int:
    account = Account()
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        client = Client(session, account)
        work = [asyncio.create_task(write(client, number)) for number in range(WRITERS)]
        work.append(asyncio.create_task(watch(client, disks)))
        filling = asyncio.create_task(fill_and_free(client, disks, seconds))
        done, _ = await asyncio.wait({*work, filling}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in (*work, filling):
            task.cancel()
        await asyncio.gather(*work, filling, return_exceptions=True)
        for task in done:
            task.result()
        await _settle(client)
        lost = await count_lost(client)
        equal = await compare(client)
    print(f"acknowledged writes: {account.acknowledged:,} in {seconds:.0f} s")
    print(f"refused, or of unknown outcome, and sent again: {dict(account.refused)}")
    print(f"longest time without one: {account.longest_pause:.1f} s")
    print(f"most that a node used of its disk: {account.used_bytes_max / (1 << 20):.1f} of {DISK_BYTES >> 20} MiB")
    print(
        f"looks at a full disk: {account.full_on_purpose} while filled on purpose, "
        f"{account.full_by_itself} otherwise (must be 0)"
    )
    print(f"lost: {lost} (must be 0); states equal: {'yes' if equal else 'NO'}")
    fine = equal and not lost and account.acknowledged and account.full_on_purpose and not account.full_by_itself
    return 0 if fine else 1


async def _settle(client: Client) -> None:
    """Wait until every node is ready again."""
    until = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < until:
        if all([(await client.ask(number, "/readyz"))[0] == 200 for number in range(len(NODES))]):
            return
        await asyncio.sleep(0.1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=SECONDS)
    seconds = arguments.parse_args().seconds
    mufakat = str(Path(sys.executable).with_name("mufakat"))
    home = Path(tempfile.mkdtemp(prefix="mufakat-soak-"))
    environ = {**os.environ, **SETTINGS, "MUFAKAT_HOME": str(home)}
    disks = Disks(home)
    try:
        try:
            disks.mount()
        except OSError as error:
            print(f"No tmpfs can be mounted here ({error.strerror}). This needs root on Linux: sudo make soak-disk.")
            return 2
        up = [mufakat, "up", "--mode", "local", "--topology", "combined", "--port-offset", str(PORT_OFFSET)]
        subprocess.run(up, env=environ, check=True, stdout=subprocess.DEVNULL)
        try:
            return run(soak(disks, seconds))
        finally:
            subprocess.run([mufakat, "down"], env=environ, check=True, stdout=subprocess.DEVNULL)
    finally:
        disks.unmount()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
