"""The same cluster in containers: built from the Dockerfile, run by the compose files, used as in local mode."""

import json

import pytest

from services.cluster.engine import call_docker
from services.cluster.nodes import kill_leader, kill_nodes, start_nodes, stop_nodes
from services.cluster.status import cluster_status, state_of
from tests.cluster.recorded import play
from tests.cluster.test_recorded_use import (
    AFTER_NODE2_IS_BACK,
    COMBINED_USE,
    SEPARATED_USE,
    WHILE_NODE2_IS_AWAY,
)
from tests.cluster.tools import Cluster
from tests.docker.conftest import PROJECT

pytestmark = pytest.mark.docker


def test_the_recorded_use_of_separate_roles_works_in_containers(separated: Cluster) -> None:
    """Nine containers, one image."""
    play(SEPARATED_USE, port_offset=separated.port_offset)


def test_the_recorded_use_of_combined_nodes_works_in_containers(combined: Cluster) -> None:
    """With a container stopped and started on the way; its volume keeps what it stored."""
    play(COMBINED_USE, port_offset=combined.port_offset)
    stop_nodes(combined.surroundings, ["node2"])
    assert combined.backend.processes()["node2"].state == "stopped"
    play(WHILE_NODE2_IS_AWAY, port_offset=combined.port_offset)
    start_nodes(combined.surroundings, ["node2"])
    play(AFTER_NODE2_IS_BACK, port_offset=combined.port_offset)


def test_a_killed_container_stays_down_and_another_node_leads(
    combined: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """No restart policy brings it back; `start` does."""
    combined.leader("lock")

    kill_leader(combined.surroundings, "lock")

    dead = [seat.node.id for seat in cluster_status(combined.backend).seats if state_of(seat) == "dead"]
    assert len(dead) == 1
    victim = dead[0]
    assert combined.leader("lock") != victim
    printed = capsys.readouterr().out
    assert f"{victim} (pid" in printed and "leads lock now" in printed
    start_nodes(combined.surroundings, [victim])
    assert combined.backend.processes()[victim].is_running


def test_containers_are_shut_off_as_promised(combined: Cluster) -> None:
    """No root, client ports on this machine only, peer ports not published, no restarts."""
    ids = call_docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").split()

    found = json.loads(call_docker("inspect", *ids))

    assert len(found) == 3
    for container in found:
        assert container["Config"]["User"] == "mufakat"
        assert container["HostConfig"]["RestartPolicy"]["Name"] == "no"
        published = [bindings for bindings in container["NetworkSettings"]["Ports"].values() if bindings]
        assert [[binding["HostIp"] for binding in bindings] for bindings in published] == [["127.0.0.1"]]


def test_what_nodes_stored_outlives_their_kill(combined: Cluster) -> None:
    """The volumes are what counts, not the containers."""
    play(COMBINED_USE, port_offset=combined.port_offset)
    kill_nodes(combined.surroundings, ["node1", "node2", "node3"])

    start_nodes(combined.surroundings, ["node1", "node2", "node3"])

    play(AFTER_NODE2_IS_BACK, port_offset=combined.port_offset)
