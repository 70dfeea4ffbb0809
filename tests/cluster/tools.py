"""What the cluster tests share: a cluster in a folder and on ports of its own, and plain HTTP calls to it."""

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cluster.backend import Backend
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.nodes import leaders
from services.cluster.processes import is_port_free
from services.cluster.topology import TOPOLOGIES

#: Ports of test clusters end below the range from which the system hands out ports of its own.
PORT_OFFSET_MAX = 14_000


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
def cluster_in(folder: Path, **options: Any) -> Iterator[Surroundings]:
    """Surroundings for a test's own cluster; whatever still runs in the end is killed."""
    surroundings = Surroundings(Home(folder), {"PATH": "/usr/bin:/bin"}, **options)
    try:
        yield surroundings
    finally:
        record = surroundings.home.record()
        if record is not None:
            kill_all(surroundings.backend(record))


def kill_all(backend: Backend) -> None:
    """SIGKILL for every node that runs."""
    for node in backend.topology.nodes:
        backend.kill(node)


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
        found = wait_until(lambda: leaders(self.backend, group), timeout_seconds=10, what=f"{group} is led")
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
