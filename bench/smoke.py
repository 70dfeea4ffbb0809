"""How fast a write is, as ratios to a bare aiohttp handler that is loaded the same way in the same run.

    python -m bench.smoke            (`make bench-smoke`)

Throughput: lock acquires on distinct keys, 64 connections spread over three lock nodes of a local cluster with
fsync on, against 64 connections spread over two processes of the floor. Latency: one connection each. The two
sides take turns, and the ratio is the median over the rounds.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from bench.host import StolenTime
from bench.load import Address, Result, load, post
from common.runtime import run

ROUNDS = 5
SECONDS = 3.0
WARM_UP_SECONDS = 1.5
CONNECTIONS = 64
PORT_OFFSET = 700
FLOOR_PORTS = (8790, 8791)
NODES: tuple[Address, ...] = tuple(("127.0.0.1", 8000 + PORT_OFFSET + number) for number in range(3))
FLOORS: tuple[Address, ...] = tuple(("127.0.0.1", port) for port in FLOOR_PORTS)

#: What the design was laid out for.
THROUGHPUT_RATIO_MIN = 0.40
LATENCY_RATIO_MAX = 7.0

_numbers = count()


def acquire(address: Address) -> bytes:
    """An acquire of a key that nobody has asked for yet."""
    return post(address, "/lock/acquire", b'{"key":"bench-%d","client_id":"bench"}' % next(_numbers))


def answer(address: Address) -> bytes:
    """The same body for the floor."""
    return post(address, "/answer", b'{"key":"bench-%d","client_id":"bench"}' % next(_numbers))


async def measure() -> int:
    stolen = StolenTime()
    await load(FLOORS, answer, connections=CONNECTIONS, seconds=WARM_UP_SECONDS)
    await load(NODES, acquire, connections=CONNECTIONS, seconds=WARM_UP_SECONDS)
    rates, latencies = [], []
    for number in range(1, ROUNDS + 1):
        floor = await load(FLOORS, answer, connections=CONNECTIONS, seconds=SECONDS)
        ours = await load(NODES, acquire, connections=CONNECTIONS, seconds=SECONDS)
        rates.append(ours.per_second / floor.per_second)
        show(f"round {number}, {CONNECTIONS} connections", floor, ours, "per second", rates[-1])
        floor = await load(FLOORS[:1], answer, connections=1, seconds=SECONDS / 2)
        ours = await load(NODES[number % 3 :], acquire, connections=1, seconds=SECONDS / 2)
        latencies.append(ours.percentile(0.5) / floor.percentile(0.5))
        show(f"round {number}, 1 connection", floor, ours, "p50 us", latencies[-1])
        if ours.failures:
            print(f"{ours.failures} requests failed")
            return 1
    rate, latency = statistics.median(rates), statistics.median(latencies)
    print(f"writes per second, ours / floor: {rate:.2f} (median of {ROUNDS}; wanted: {THROUGHPUT_RATIO_MIN} or more)")
    print(f"p50 of a write, ours / floor: {latency:.1f} (median of {ROUNDS}; wanted: {LATENCY_RATIO_MAX} or less)")
    print(stolen.sentence())
    return 0 if rate >= THROUGHPUT_RATIO_MIN and latency <= LATENCY_RATIO_MAX else 1


def show(title: str, floor: Result, ours: Result, unit: str, ratio: float) -> None:
    if unit == "per second":
        figures = f"floor {floor.per_second:8.0f}, ours {ours.per_second:8.0f} {unit}"
    else:
        figures = f"floor {floor.percentile(0.5) * 1e6:8.0f}, ours {ours.percentile(0.5) * 1e6:8.0f} {unit}"
    print(f"{title:24}: {figures}, ratio {ratio:.2f}", flush=True)


def main() -> int:
    mufakat = str(Path(sys.executable).with_name("mufakat"))
    with tempfile.TemporaryDirectory(prefix="mufakat-bench-") as home:
        environ = {**os.environ, "MUFAKAT_HOME": home}
        up = [mufakat, "up", "--mode", "local", "--port-offset", str(PORT_OFFSET)]
        subprocess.run(up, env=environ, check=True, stdout=subprocess.DEVNULL)
        floors = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.floor", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for port in FLOOR_PORTS
        ]
        try:
            for floor in floors:
                floor.stdout.readline()
            return run(measure())
        finally:
            for floor in floors:
                floor.communicate()
            subprocess.run([mufakat, "down"], env=environ, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
