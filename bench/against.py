"""This checkout beside another one, such as the commit before: what a change costs, as ratios in one run.

    git worktree add /tmp/before HEAD~1 && make -C /tmp/before .venv/.installed-run
    python -m bench.against /tmp/before [--rounds 9] [--seconds 2]      (`make bench-against BEFORE=/tmp/before`)

Three nodes of each run at the same time on this machine, with all three services. They take turns under one load,
in another order in each round, and a ratio is the median over the rounds: this checkout / the other one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.request import urlopen

from bench.cache import once
from bench.host import StolenTime
from bench.load import Address, Result, load, post
from common.runtime import run

#: Below it a change costs more than the noise of a run.
RATIO_MIN = 0.97
#: Keys that are hit, and keys that one round fills.
HIT_KEYS, FILLED_KEYS = 100, 1_000

_numbers = count()


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of request, `connections` of them under way."""

    name: str
    group: str
    connections: int
    request: Callable[[Address], bytes | None]
    #: On how many of the nodes.
    nodes: int = 3


def acquire(address: Address) -> bytes:
    return post(address, "/lock/acquire", b'{"key":"lock-%d","client_id":"bench"}' % next(_numbers))


def enqueue(address: Address) -> bytes:
    return post(address, "/queue/enq", b'{"queue":"bench","key":"k","value":%d}' % next(_numbers))


def put(address: Address) -> bytes:
    return post(address, "/cache/put", b'{"key":"put-%d","val":{"n":1}}' % (next(_numbers) % HIT_KEYS))


def hit(address: Address) -> bytes:
    return post(address, "/cache/get", b'{"key":"hit-%d"}' % (next(_numbers) % HIT_KEYS))


def read(address: Address) -> bytes:
    host, port = address
    key = next(_numbers) % HIT_KEYS
    return f"GET /cache/read?key=hit-{key} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


MEASURES = (
    Measure("lock acquires", "lock", 64, acquire),
    Measure("messages put in", "queue", 64, enqueue),
    Measure("cache writes", "cache", 16, put),
    Measure("cache hits by POST", "cache", 16, hit, nodes=1),
    Measure("cache hits by GET", "cache", 16, read, nodes=1),
)
#: One connection: how long a request takes.
LATENCIES = (Measure("lock acquire, alone", "lock", 1, acquire), Measure("cache write, alone", "cache", 1, put))


@contextmanager
def cluster(checkout: Path, port_offset: int) -> Iterator[tuple[Address, ...]]:
    """The nodes of a cluster that runs the code of `checkout`."""
    mufakat = str(checkout / ".venv" / "bin" / "mufakat")
    with tempfile.TemporaryDirectory(prefix="mufakat-bench-") as home:
        environ = {**os.environ, "MUFAKAT_HOME": home}
        up = [mufakat, "up", "--mode", "local", "--topology", "combined", "--port-offset", str(port_offset)]
        subprocess.run(up, env=environ, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        try:
            yield tuple(("127.0.0.1", 8001 + port_offset + number) for number in range(3))
        finally:
            subprocess.run([mufakat, "down"], env=environ, cwd=checkout, check=True, stdout=subprocess.DEVNULL)


async def prepare(nodes: tuple[Address, ...]) -> None:
    """Let the first node hold what is to be hit."""
    for number in range(HIT_KEYS):
        await once(nodes[0], "/cache/put", {"key": f"hit-{number}", "val": {"name": "Arya", "score": 99}})


def led_by_the_first(nodes: tuple[Address, ...], group: str) -> tuple[Address, ...]:
    """The same nodes, the leader of the group first: what a node does depends on that, and not on its code."""
    host, port = nodes[0]
    with urlopen(f"http://{host}:{port}/health") as answer:
        leader = json.load(answer)["groups"][group]["leader"]
    first = int(leader.removeprefix("node")) - 1
    return nodes[first:] + nodes[:first]


async def fill(nodes: tuple[Address, ...], seconds: float) -> Result:
    """Read once at the third node what the first has just written."""
    nodes = led_by_the_first(nodes, "cache")
    begin = next(_numbers)
    items = [{"key": f"fill-{begin}-{number}", "val": number} for number in range(FILLED_KEYS)]
    await once(nodes[0], "/cache/mput", {"items": items})
    keys = iter(items)

    def request(address: Address) -> bytes | None:
        item = next(keys, None)
        return None if item is None else post(address, "/cache/get", json.dumps({"key": item["key"]}).encode())

    return await load(nodes[2:], request, connections=16, seconds=seconds)


async def measure(ours: tuple[Address, ...], others: tuple[Address, ...], rounds: int, seconds: float) -> int:
    stolen = StolenTime()
    for nodes in (ours, others):
        await prepare(led_by_the_first(nodes, "cache"))
    worst = 10.0
    for each in (*MEASURES, *LATENCIES):

        async def loaded(nodes: tuple[Address, ...], each: Measure = each) -> Result:
            led = led_by_the_first(nodes, each.group)
            return await load(led[: each.nodes], each.request, connections=each.connections, seconds=seconds)

        worst = min(worst, await compare(each.name, loaded, ours, others, rounds, by_time=each.connections == 1))

    async def filled(nodes: tuple[Address, ...]) -> Result:
        return await fill(nodes, seconds)

    worst = min(worst, await compare("cache fills", filled, ours, others, rounds))
    print(f"worst ratio: {worst:.3f} (wanted: {RATIO_MIN} or more)")
    print(stolen.sentence())
    return 0 if worst >= RATIO_MIN else 1


async def compare(
    name: str,
    loaded: Callable[[tuple[Address, ...]], object],
    ours: tuple[Address, ...],
    others: tuple[Address, ...],
    rounds: int,
    *,
    by_time: bool = False,
) -> float:
    """The median ratio of what `loaded` gives for both; of times, the other way round: more is better."""
    ratios: list[float] = []
    rates: list[float] = []
    for number in range(-1, rounds):
        results = {}
        for nodes in (ours, others) if number % 2 else (others, ours):
            results[nodes] = await loaded(nodes)
            assert not results[nodes].failures, f"{name}: {results[nodes].failures} requests failed"
        if number < 0:
            continue
        ratios.append(results[others].percentile(0.5) / results[ours].percentile(0.5) if by_time
                      else results[ours].per_second / results[others].per_second)  # fmt: skip
        rates.append(results[ours].per_second)
    ratio = statistics.median(ratios)
    print(
        f"{name:20}: {statistics.median(rates):8.0f} per second, ratio {ratio:.3f} "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)",
        flush=True,
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with ExitStack() as stack:
        ours = stack.enter_context(cluster(Path(__file__).resolve().parents[1], 700))
        others = stack.enter_context(cluster(options.before.resolve(), 1_700))
        return run(measure(ours, others, options.rounds, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
