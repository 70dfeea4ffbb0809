"""Calls of Python functions that one request costs a node: what a change costs where time is too noisy to say.

    python -m bench.calls [/tmp/before]                     (`make bench-calls BEFORE=/tmp/before`)

A cluster of one node runs in this process. Its client is on a thread beside it, which is not counted, and has one
request under way: how many requests share a turn differs from run to run. With another checkout, such as the commit
before (`bench.against` says how to make one), its node is counted as well, by its own Python.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from socket import create_connection
from typing import Any

from aiohttp import web

from bench.load import post
from common.config import load_settings
from common.runtime import run
from services.app import create_app

HERE = Path(__file__).resolve().parents[1]
ADDRESS = ("127.0.0.1", 18_700)
REQUESTS, SLICES = 400, 5
#: Below it a change costs too much (calls of the other checkout / calls of this one).
RATIO_MIN = 0.97

#: Path and body of each kind of request; `%d` is a number that no other request has.
KINDS = {
    "lock acquire": ("/lock/acquire", '{"key":"lock-%d","client_id":"bench"}'),
    "message put in": ("/queue/enq", '{"queue":"bench","key":"k","value":%d}'),
    "cache write": ("/cache/put", '{"key":"put","val":%d}'),
    "cache hit": ("/cache/get", '{"key":"put"}'),
    "cache miss": ("/cache/get", '{"key":"none-%d"}'),
}


def ask(kind: str, numbers: range) -> None:
    """Ask the node once for each number, on the calling thread."""
    path, body = KINDS[kind]
    with create_connection(ADDRESS) as connection:
        for number in numbers:
            connection.sendall(post(ADDRESS, path, body.replace("%d", str(number)).encode()))
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 "), answer


async def calls_of(kind: str) -> float:
    """Calls of Python functions for each request of this kind: the median of some slices, since timers fall into some
    of them."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    found = []
    for first in range(0, (1 + SLICES) * REQUESTS, REQUESTS):
        calls = 0
        sys.setprofile(count)
        await asyncio.to_thread(ask, kind, range(first, first + REQUESTS))
        sys.setprofile(None)
        found.append(calls / REQUESTS)
    # In the first slice things are made that are kept.
    return statistics.median(found[1:])


async def counted(directory: str) -> dict[str, float]:
    """What each kind of request costs the node whose code is found first."""
    host, port = ADDRESS
    settings = {
        "MUFAKAT_NODE_ID": "node1",
        "MUFAKAT_CLUSTER": f"node1={host}:{port}",
        "MUFAKAT_CLUSTER_SECRET": "0123456789abcdef",
        "MUFAKAT_GROUPS": "lock,queue,cache",
        "MUFAKAT_DATA_DIR": directory,
    }
    runner = web.AppRunner(create_app(load_settings(settings)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        # A request waits for the first leader.
        return {kind: await calls_of(kind) for kind in KINDS}
    finally:
        await runner.cleanup()


def count_in(checkout: Path) -> dict[str, float]:
    """The same, of that checkout and in a process of its own."""
    python = checkout / ".venv" / "bin" / "python"
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [str(python), str(Path(__file__).resolve()), "--inside"],
        cwd=checkout, env=environ, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: list[str]) -> int:
    if arguments == ["--inside"]:
        with tempfile.TemporaryDirectory(prefix="mufakat-bench-") as directory:
            print(json.dumps(run(counted(directory))))
        return 0
    ours = count_in(HERE)
    others = count_in(Path(arguments[0]).resolve()) if arguments else {}
    for kind, calls in ours.items():
        beside = f", before {others[kind]:6.1f}, ratio {others[kind] / calls:.3f}" if others else ""
        print(f"{kind:15}: {calls:6.1f} calls of Python functions{beside}")
    if not others:
        return 0
    worst = min(others[kind] / calls for kind, calls in ours.items())
    print(f"worst ratio: {worst:.3f} (wanted: {RATIO_MIN} or more)")
    return 0 if worst >= RATIO_MIN else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
