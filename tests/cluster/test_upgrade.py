"""A cluster of real nodes is upgraded node by node, and not downgraded (services/replicated/versions.py)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.cluster.lifecycle import Request, up
from services.cluster.nodes import start_nodes, stop_nodes
from services.cluster.status import cluster_status, status_text
from services.cluster.waiting import wait_ready
from services.replicated.versions import KNOWN
from tests.cluster.tools import Cluster, ask, call, cluster_in, free_port_offset, wait_until
from tests.services.releases import NEXT

pytestmark = pytest.mark.cluster

NODES = ("node1", "node2", "node3")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A combined one of today's release."""
    command = (sys.executable, "-m", "tests.cluster.next_node")
    environ = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with cluster_in(tmp_path / "home", environ, serve_command=command) as surroundings:
        request = Request("combined", "local", free_port_offset("combined"))
        yield Cluster(surroundings, up(surroundings, request), request.port_offset)


def install(cluster: Cluster, node_id: str, *, next: bool) -> None:
    """Another release is there when the node starts again."""
    topology = cluster.backend.topology
    marker = cluster.surroundings.home.node_folder(topology, topology.node(node_id)) / "next"
    stop_nodes(cluster.surroundings, [node_id])
    marker.touch() if next else marker.unlink()
    start_nodes(cluster.surroundings, [node_id])


def upgrade(cluster: Cluster, node_id: str) -> None:
    install(cluster, node_id, next=True)
    wait_ready(cluster.backend, [cluster.backend.topology.node(node_id)])


def lock(cluster: Cluster, node_id: str) -> dict[str, Any]:
    return call(cluster.port(node_id), "/status")[1]["groups"]["lock"]


def versions(cluster: Cluster) -> set[int]:
    """In force, of all groups on all nodes."""
    answers = [call(cluster.port(node_id), "/status")[1] for node_id in NODES]
    return {standing["version"] for answer in answers for standing in answer["groups"].values()}


def test_what_is_new_works_once_all_nodes_know_it_and_no_earlier_release_comes_back(cluster: Cluster) -> None:
    wait_until(lambda: versions(cluster) == {KNOWN}, timeout_seconds=20, what="all know what today's release does")
    for node_id in NODES[:2]:
        upgrade(cluster, node_id)
        for each in NODES:
            assert ask(cluster.port(each), "/lock/acquire", {"key": f"{node_id} {each}", "client_id": "me"})[0] == 200
    mixed = versions(cluster), {lock(cluster, node_id)["known"] for node_id in NODES}
    refused = call(cluster.port("node1"), "/lock/take", {"key": "k"})
    shown = status_text(cluster.backend, cluster_status(cluster.backend))

    upgrade(cluster, "node3")
    wait_until(lambda: versions(cluster) == {NEXT}, timeout_seconds=20, what="the version rises by itself")
    taken = [ask(cluster.port(node_id), "/lock/take", {"key": node_id}) for node_id in NODES]
    install(cluster, "node2", next=False)

    def reason() -> str:
        return call(cluster.port("node2"), "/readyz")[1].get("reasons", {}).get("lock", "")

    downgraded = wait_until(
        lambda: found if "this release knows" in (found := reason()) else "",
        timeout_seconds=20,
        what="an earlier release takes no part",
    )
    others = ask(cluster.port("node1"), "/lock/take", {"key": "another"})
    upgrade(cluster, "node2")

    assert mixed == ({KNOWN}, {KNOWN, NEXT})
    assert (refused[0], refused[1]["reason"]) == (503, "not_ready")
    assert refused[1]["detail"] == "Not every node of the group knows this yet; upgrade all of them first."
    assert f"lock: the log stays at version {KNOWN} until all members know version {NEXT}; node3 " in shown
    assert [status for status, _ in taken] == [200] * 3
    assert f"version {NEXT} of the group's log, and this release knows version {KNOWN}" in downgraded
    assert others[0] == 200
    assert ask(cluster.port("node2"), "/lock/status?key=another")[1]["held"]
