"""What the cluster tests share: a cluster in a folder and on ports of its own, HTTP calls to it, and a clock.

The rule of these tests: a machine may stand still at any moment, and a leader that did so for 0.2 s steps down, by
design. So no test counts on who leads from one statement to the next, nor on a request that meets a leader: `ask` is
how a client calls, and `call` is for the tests that are about refusals themselves.
"""

import http.client
import json
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cluster.backend import Backend
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.processes import holder, is_port_free, kill_all
from services.cluster.roster import roster
from services.cluster.topology import TOPOLOGIES

#: What a stand-in for a node is started with.
STUB = (sys.executable, str(Path(__file__).with_name("stub_node.py")))

#: Ports of test clusters end below the range from which the system hands out ports of its own.
PORT_OFFSET_MAX = 14_000

#: How long a client asks again; an election takes a second or two, and a slow machine may need several.
ASK_SECONDS_MAX = 20.0

#: Pause before asking again.
ASK_AGAIN_SECONDS = 0.05

#: How often a running clock looks whether time goes on, and from which gap between two looks on it stood still.
TICK_SECONDS = 0.01
STANDSTILL_SECONDS_MIN = 0.1


def free_port_offset(topology: str) -> int:
    """An offset at which every port of a topology is free now."""
    for _ in range(100):
        offset = random.randrange(1_000, PORT_OFFSET_MAX, 10)
        nodes = TOPOLOGIES[topology].shifted(offset).nodes
        if all(
            is_port_free("127.0.0.1", port) for node in nodes for port in (node.client_port, node.peer_port)
        ):
            return offset
    raise AssertionError("no free range of ports was found")


def wait_until(condition: Callable[[], Any], *, timeout_seconds: float, what: str) -> Any:
    """Poll until `condition` gives something true and return that; fails with `what` once the time is over."""
    until = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)


@contextmanager
def cluster_in(folder: Path, environ: Mapping[str, str] | None = None, **options: Any) -> Iterator[Surroundings]:
    """Surroundings for a test's own cluster, `environ` besides a `PATH`; whatever still runs in the end is killed."""
    surroundings = Surroundings(Home(folder), {"PATH": "/usr/bin:/bin", **(environ or {})}, **options)
    try:
        yield surroundings
    finally:
        kill_nodes_of(surroundings.home)


def kill_nodes_of(home: Home) -> None:
    """SIGKILL for every node that runs on a data directory of this home."""
    kill_all([process for folder in home.data_folders() if (process := holder(folder)) is not None])


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of real nodes that a test may do with as it likes."""

    surroundings: Surroundings
    backend: Backend
    port_offset: int

    def port(self, node_id: str) -> int:
        """Where clients reach that node."""
        return self.backend.topology.node(node_id).client_port

    def ports(self, *, without: str = "") -> list[int]:
        """The client ports of all nodes, or of all but one."""
        return [node.client_port for node in self.backend.topology.nodes if node.id != without]

    def leader(self, group: str) -> str:
        """The id of the node that leads a group, once there is one."""
        found = wait_until(lambda: roster(self.backend).leaders(group), timeout_seconds=10, what=f"{group} is led")
        return max(found, key=lambda node_id: found[node_id].term)


def call(
    port: int,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 5.0,
) -> tuple[int, Any]:
    """One request, a POST where there is a body: the status and the decoded answer.

    Raises:
        OSError, http.client.HTTPException: the node cannot be reached or broke off.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        content = None if body is None else json.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})} if content else headers or {}
        connection.request("GET" if content is None else "POST", path, content, sent)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask(
    port: int,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 5.0,
    within_seconds: float = ASK_SECONDS_MAX,
) -> tuple[int, Any]:
    """`call` by a client that does what docs/http-api.md tells it to do in a change of leader.

    503 says "not done: send it again", and 504 "it may or may not have been done: send it again with the same
    Idempotency-Key". So it is sent again, and all tries carry one key, which makes them one request. Any other answer
    is returned as it came, the first time. Not for tests of 503 and 504.

    Raises:
        AssertionError: it was 503 or 504 until the time was over.
        OSError, http.client.HTTPException: the node cannot be reached or broke off.
    """
    sent = {"Idempotency-Key": uuid.uuid4().hex, **(headers or {})}
    until = time.monotonic() + within_seconds
    while True:
        status, answer = call(port, path, body, headers=sent, timeout_seconds=timeout_seconds)
        if status not in (503, 504):
            return status, answer
        assert time.monotonic() < until, f"{path} on {port} after {within_seconds} s: {status} {answer}"
        time.sleep(ASK_AGAIN_SECONDS)


class RunningClock:
    """How long something took while the machine ran: where it stood still for a moment, that time is left out.

    A virtual machine may be stopped for tenths of a second, the test and the nodes alike. That breaks no promise
    about the nodes, but by a clock on the wall it would seem so. Use as a context.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        #: When the last look was, and what stood still before it: one tuple, to be replaced at once.
        self._seen = (self._began, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "RunningClock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def seconds(self) -> float:
        """Since the beginning, without the standstills."""
        now = time.monotonic()
        return now - self._began - self._still(now)

    def _still(self, now: float) -> float:
        last, still = self._seen
        return still + (now - last if now - last >= STANDSTILL_SECONDS_MIN else 0.0)

    def _look(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            now = time.monotonic()
            self._seen = (now, self._still(now))
