"""Real nodes that are killed, stopped and started again: nothing that was acknowledged is lost."""

import http.client
import os
import signal

import pytest

from services.cluster.nodes import kill_nodes, start_nodes
from services.cluster.waiting import wait_ready
from tests.cluster.load import Acknowledged, missing_lines, missing_messages, write_once, writers
from tests.cluster.tools import Cluster, RunningClock, ask, call, wait_until

pytestmark = pytest.mark.cluster

#: A generous bound, for machines that are busy with other things too; what is usual is measured elsewhere.
FIRST_WRITE_SECONDS_MAX = 6.0

#: An answer of "not possible now" has to come this soon, with room for a slow machine.
REFUSAL_SECONDS_MAX = 3.0


def kill_process_of(cluster: Cluster, node_id: str) -> None:
    """SIGKILL by process id, as somebody outside the project would."""
    pid = cluster.backend.processes()[node_id].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # The system takes a moment to clear it away, and until then it counts as running.
    wait_until(
        lambda: not cluster.backend.processes()[node_id].is_running, timeout_seconds=5, what=f"{node_id} is gone"
    )


def put(port: int, key: str, value: int) -> bool:
    """Whether one write was acknowledged."""
    try:
        status, answer = call(port, "/cache/put", {"key": key, "val": value}, timeout_seconds=3)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and answer["ok"] is True


def test_a_leader_killed_under_load_loses_no_acknowledged_write(combined: Cluster) -> None:
    """An `ok` means that a majority has it on disk, whoever dies next."""
    victim = combined.leader("cache")
    with writers(combined.ports()) as done:
        wait_until(lambda: len(done.times) >= 50, timeout_seconds=20, what="50 writes before the kill")
        kill_process_of(combined, victim)
        before = len(done.times)
        wait_until(
            lambda: len(done.times) >= before + 50, timeout_seconds=30, what="50 writes after the kill"
        )

    survivor = combined.ports(without=victim)[0]
    assert missing_lines(survivor, done) == []
    assert missing_messages(survivor, done) == set()


def test_all_nodes_killed_at_once_and_started_again_lose_nothing(combined: Cluster) -> None:
    """What is on the disks is enough; no node has to have survived."""
    with writers(combined.ports()) as done:
        wait_until(lambda: len(done.times) >= 50, timeout_seconds=20, what="50 writes before the kill")
        for node in combined.backend.topology.nodes:
            kill_process_of(combined, node.id)

    start_nodes(combined.surroundings, ["node1", "node2", "node3"])
    wait_ready(combined.backend, combined.backend.topology.nodes, timeout_seconds=30)

    for port in combined.ports():
        assert missing_lines(port, done) == []
    assert missing_messages(combined.port("node2"), done) == set()


def test_a_follower_that_was_away_catches_up_and_counts_again(combined: Cluster) -> None:
    """It serves what was written without it, and a majority can be made with it."""
    leader = combined.leader("cache")
    follower, other = sorted({"node1", "node2", "node3"} - {leader})
    kill_nodes(combined.surroundings, [follower])
    done = Acknowledged()
    for number in range(50):
        # The one that was killed may have led the queue; then the first write waits for another leader.
        wait_until(
            lambda number=number: write_once(combined.port(other), "away", number, done),
            timeout_seconds=10,
            what="a write without the follower",
        )

    start_nodes(combined.surroundings, [follower])
    wait_ready(combined.backend, combined.backend.topology.nodes, timeout_seconds=30)
    kill_nodes(combined.surroundings, [other])

    assert missing_lines(combined.port(follower), done) == []
    wait_until(
        lambda: put(combined.port(follower), "with the one that is back", 1),
        timeout_seconds=10,
        what="a write",
    )


def test_writes_go_on_soon_after_the_leader_was_killed(combined: Cluster) -> None:
    """Two of three nodes are a majority; they need a leader and little time."""
    leader = combined.leader("cache")
    port = combined.ports(without=leader)[0]
    assert ask(port, "/cache/put", {"key": "before", "val": 1})[1]["ok"] is True
    kill_process_of(combined, leader)

    with RunningClock() as clock:
        wait_until(lambda: put(port, "after", 2), timeout_seconds=20, what="a write without the old leader")
        seconds = clock.seconds()

    assert seconds < FIRST_WRITE_SECONDS_MAX


def test_a_node_without_a_majority_refuses_in_time_and_stays_up(combined: Cluster) -> None:
    """A client must hear soon that nothing was done, so that it can go elsewhere."""
    leader = combined.leader("lock")
    kill_nodes(
        combined.surroundings, [node_id for node_id in ("node1", "node2", "node3") if node_id != leader]
    )
    # The leader notices only after a while; until then it cannot know whether the write will be done.
    port, body = combined.port(leader), {"key": "alone", "client_id": "ana"}
    wait_until(
        lambda: call(port, "/lock/acquire", body)[0] == 503, timeout_seconds=10, what="the leader steps down"
    )

    with RunningClock() as clock:
        status, answer = call(port, "/lock/acquire", body)
        seconds = clock.seconds()

    assert (status, answer["ok"]) == (503, False)
    assert answer["reason"] in ("no_leader", "no_quorum")
    assert seconds < REFUSAL_SECONDS_MAX
    assert call(port, "/livez")[0] == 200
    assert call(port, "/readyz")[0] == 503


def test_a_killed_node_stays_down_until_it_is_started(combined: Cluster) -> None:
    """Nobody restarts it behind the back of whoever killed it."""
    kill_process_of(combined, "node3")

    wait_until(
        lambda: combined.backend.processes()["node3"].state == "dead", timeout_seconds=5, what="node3 is dead"
    )
    start_nodes(combined.surroundings, ["node3"])

    assert combined.backend.processes()["node3"].is_running
