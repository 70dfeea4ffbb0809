"""The id of a cluster at real nodes that are started by hand: kept, learned, and never mixed up."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from raft.storage.cluster import CLUSTER_NAME
from tests.cluster.tools import ask, call, free_port_offset, wait_until

pytestmark = pytest.mark.cluster


class Nodes:
    """node1 founds a cluster of its own; others may be started beside it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        first = 8_001 + free_port_offset("combined")
        self.ports = {"node1": first, "node2": first + 1}

    def serve(self, id: str, *, knows: tuple[str, ...], **settings: str) -> None:
        """Run `mufakat serve` until the test ends, and wait until it answers."""
        self._stack.enter_context(self.running(id, knows=knows, **settings))

    @contextmanager
    def running(self, id: str, *, knows: tuple[str, ...], **settings: str) -> Iterator[None]:
        process = self.process(id, knows=knows, **settings)
        try:
            wait_until(lambda: self._answers(id), timeout_seconds=20, what=f"{id} answers")
            yield
        finally:
            process.kill()
            process.communicate()

    def process(self, id: str, *, knows: tuple[str, ...], **settings: str) -> subprocess.Popen:
        environ = {
            "PATH": os.environ["PATH"],
            "MUFAKAT_NODE_ID": id,
            "MUFAKAT_GROUPS": "lock,queue",
            "MUFAKAT_CLUSTER": ",".join(f"{each}=127.0.0.1:{self.ports[each]}" for each in knows),
            "MUFAKAT_CLUSTER_SECRET": "sixteen letters!",
            "MUFAKAT_DATA_DIR": str(self.data_dir(id)),
            **{f"MUFAKAT_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "services.cli", "serve"]
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)

    def _answers(self, id: str) -> bool:
        try:
            return call(self.ports[id], "/livez")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def data_dir(self, id: str) -> Path:
        return self._folder / id

    def told(self, id: str, path: str = "/status") -> Any:
        return call(self.ports[id], path)[1]

    def kept(self, id: str) -> str:
        path = self.data_dir(id) / CLUSTER_NAME
        return path.read_text() if path.exists() else ""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def test_a_node_keeps_its_clusters_id_and_does_not_start_with_another(nodes: Nodes) -> None:
    """The data of one cluster is never served as another's."""
    with nodes.running("node1", knows=("node1",), cluster_id="c-1"):
        status = nodes.told("node1")
        assert (status["cluster"], nodes.told("node1", "/health")["cluster"]) == ("c-1", "c-1")
        assert status["data_dir"] == str(nodes.data_dir("node1"))
        assert nodes.kept("node1") == "c-1\n"

    process = nodes.process("node1", knows=("node1",), cluster_id="c-2")
    _, log = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "is of the cluster c-1, and MUFAKAT_CLUSTER_ID says c-2" in log
    assert "set MUFAKAT_CLUSTER_ID to c-1 or leave it out" in log
    assert "Traceback" not in log

    with nodes.running("node1", knows=("node1",)):
        assert nodes.told("node1")["cluster"] == "c-1"


def test_a_node_that_joins_learns_the_id_and_keeps_it(nodes: Nodes) -> None:
    """It was started by hand, by somebody who does not know that there is an id."""
    nodes.serve("node1", knows=("node1",), cluster_id="c-1")
    nodes.serve("node2", knows=("node1", "node2"), join="true")
    assert nodes.told("node2")["cluster"] is None

    status, _ = ask(nodes.ports["node1"], "/admin/members", {"add": {"id": "node2", "address": addressed(nodes)}})

    assert status == 200
    wait_until(lambda: call(nodes.ports["node2"], "/readyz")[0] == 200, timeout_seconds=20, what="node2 is ready")
    wait_until(lambda: nodes.kept("node2") == "c-1\n", timeout_seconds=10, what="node2 keeps the id")
    assert nodes.told("node2")["cluster"] == "c-1"


def test_a_node_of_another_cluster_is_not_taken_in_and_says_why(nodes: Nodes) -> None:
    """It has the secret and is a member by its name; yet it is another's."""
    nodes.serve("node1", knows=("node1",), cluster_id="c-1")
    ask(nodes.ports["node1"], "/admin/members", {"add": {"id": "node2", "address": addressed(nodes)}})
    nodes.serve("node2", knows=("node1", "node2"), join="true", cluster_id="c-2")

    def reason() -> str:
        return nodes.told("node2", "/readyz").get("reasons", {}).get("lock", "")

    expected = f"the node at 127.0.0.1:{nodes.ports['node1']} is of the cluster c-1 and this one of c-2"
    wait_until(lambda: expected in reason(), timeout_seconds=10, what="node2 says why")
    assert nodes.told("node2")["groups"]["lock"]["term"] == 0


def addressed(nodes: Nodes) -> str:
    return f"127.0.0.1:{nodes.ports['node2']}"
