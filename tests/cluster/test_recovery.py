"""A majority of the disks is lost for good: real nodes go on from the one that is left."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli.main import main
from services.cluster.nodes import kill_nodes, start_nodes
from services.cluster.waiting import wait_ready
from tests.cluster.load import missing_lines, missing_messages, writers
from tests.cluster.test_damaged_disks import data_folder, hashes_at_one_index, reasons, wait_on_disk
from tests.cluster.tools import Cluster, ask, call, wait_until

pytestmark = pytest.mark.cluster

GROUPS = ("lock", "queue", "cache")
NODES = ("node1", "node2", "node3")


def command(cluster: Cluster, *arguments: str) -> str:
    """The output of `mufakat` for this cluster, once it has done what was asked."""
    environ = {"MUFAKAT_HOME": str(cluster.surroundings.home.root)}
    result = CliRunner().invoke(main, arguments, env=environ, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def data_of(cluster: Cluster, node_id: str) -> Path:
    return data_folder(cluster, node_id, "lock").parent


def take_in(cluster: Cluster, node_id: str) -> None:
    """As an operator does: start it with nothing, then make it a member."""
    start_nodes(cluster.surroundings, [node_id])
    command(cluster, "member", "add", node_id, f"127.0.0.1:{cluster.port(node_id)}")
    wait_ready(cluster.backend, [cluster.backend.topology.node(node_id)])


def test_two_of_three_disks_are_lost_and_the_third_goes_on_with_all_that_it_held(
    combined: Cluster, tmp_path: Path
) -> None:
    """It serves alone, takes the others in again with empty disks, and refuses one that comes back as it was."""
    _, before = ask(combined.port("node1"), "/lock/acquire", {"key": "a", "client_id": "me"})
    with writers(combined.ports()) as done:
        wait_until(lambda: len(done.times) >= 50, timeout_seconds=20, what="50 writes")
    for group in GROUPS:
        wait_on_disk(combined, "node1", group)
    kill_nodes(combined.surroundings, NODES)
    shutil.rmtree(data_of(combined, "node2"))
    shutil.move(data_of(combined, "node3"), tmp_path / "old")

    output = command(combined, "recover", str(data_of(combined, "node1")), "--yes")
    start_nodes(combined.surroundings, ["node1"])
    wait_ready(combined.backend, [combined.backend.topology.node("node1")])
    alone = combined.port("node1")
    _, kept = ask(alone, "/lock/status?key=a")
    _, after = ask(alone, "/lock/acquire", {"key": "b", "client_id": "you"})
    missing = missing_lines(alone, done), missing_messages(alone, done)

    take_in(combined, "node2")
    shutil.move(tmp_path / "old", data_of(combined, "node3"))
    start_nodes(combined.surroundings, ["node3"])
    refused = wait_until(
        lambda: {g: why for g, why in reasons(combined, "node3").items() if "another life" in why} or None,
        timeout_seconds=30,
        what="the old disk is refused",
    )
    kill_nodes(combined.surroundings, ["node3"])
    shutil.rmtree(data_of(combined, "node3"))
    take_in(combined, "node3")
    alike = {group: len(set(hashes_at_one_index(combined, group))) for group in GROUPS}
    wait_until(
        lambda: all(call(alone, "/status")[1]["groups"][group]["voters"] == list(NODES) for group in GROUPS),
        timeout_seconds=10,
        what="all three vote",
    )

    assert "Next: start node1 alone" in output
    assert f"mufakat member add node2 127.0.0.1:{combined.port('node2')}\n" in output
    assert kept["holders"][0]["token"] == before["token"] < after["token"]
    assert missing == ([], set())
    assert set(refused) <= set(GROUPS)
    assert all("stop node3, move its folder" in why for why in refused.values())
    assert alike == dict.fromkeys(GROUPS, 1)
