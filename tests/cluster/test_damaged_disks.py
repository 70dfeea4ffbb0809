"""Real nodes whose disks fail, fill up or come back damaged."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.cluster.calls import Calls
from services.cluster.errors import ClusterError
from services.cluster.lifecycle import Request, down, up
from services.cluster.nodes import kill_nodes, start_nodes
from services.cluster.repair import repair_node
from services.cluster.topology import Node
from services.cluster.waiting import wait_ready
from tests.cluster.load import missing_lines, missing_messages, writers
from tests.cluster.tools import Cluster, ask, call, cluster_in, free_port_offset, wait_until

pytestmark = pytest.mark.cluster


def log_lines(cluster: Cluster, node_id: str) -> list[dict[str, Any]]:
    """The node's log, a line each."""
    lines = cluster.backend.log_tail(cluster.backend.topology.node(node_id), 200)
    return [json.loads(line) for line in lines if line.startswith("{")]


def data_folder(cluster: Cluster, node_id: str, group: str) -> Path:
    topology = cluster.backend.topology
    return cluster.surroundings.home.node_folder(topology, topology.node(node_id)) / "data" / group


def wait_on_disk(cluster: Cluster, node_id: str, group: str) -> None:
    """Until the node itself has on disk what is committed: the disks of the others may have been enough for that."""

    def is_on_disk() -> bool:
        standing = call(cluster.port(node_id), "/status")[1]["groups"][group]
        return standing["durable_index"] >= standing["commit_index"]

    wait_until(is_on_disk, timeout_seconds=10, what=f"{node_id} has all of {group} on disk")


def damage_log(folder: Path) -> None:
    """Flip a bit in one of the first entries of the oldest segment: with intact ones behind it, no power loss does
    that."""
    segment = min(folder.glob("*.wal"))
    content = bytearray(segment.read_bytes())
    at = content.index(b"MR", 150)
    assert content.find(b"MR", at + 2) > 0, "what is damaged at the end would be taken for torn"
    content[at + 30] ^= 1
    segment.write_bytes(content)


def reasons(cluster: Cluster, node_id: str) -> dict[str, str]:
    status, answer = call(cluster.port(node_id), "/readyz")
    return answer["reasons"] if status == 503 else {}


def test_a_failed_sync_ends_the_process_with_a_clear_last_line_and_a_restart_recovers(tmp_path: Path) -> None:
    """Exit code 1, what failed and what to do; nothing acknowledged is lost."""
    command = (sys.executable, "-m", "tests.cluster.faulty_node")
    with cluster_in(tmp_path / "home", serve_command=command) as surroundings:
        surroundings.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # type: ignore[index]
        request = Request("combined", "local", free_port_offset("combined"))
        cluster = Cluster(surroundings, up(surroundings, request), request.port_offset)
        victim = cluster.leader("cache")
        broken = data_folder(cluster, victim, "cache").parents[1] / "broken"
        with writers(cluster.ports()) as done:
            wait_until(lambda: len(done.times) >= 30, timeout_seconds=20, what="writes before the fault")
            broken.touch()
            wait_until(
                lambda: not cluster.backend.processes()[victim].is_running,
                timeout_seconds=15,
                what="the node ends by itself",
            )
            before = len(done.times)
            wait_until(lambda: len(done.times) >= before + 30, timeout_seconds=20, what="the others go on")
        last = log_lines(cluster, victim)[-1]
        broken.unlink()
        start_nodes(surroundings, [victim])
        wait_ready(cluster.backend, [cluster.backend.topology.node(victim)])

        assert "Input/output error" in last["error"]
        assert "start the node again" in last["advice"]
        assert missing_lines(cluster.port(victim), done) == []
        assert missing_messages(cluster.port(victim), done) == set()


def test_a_node_with_a_damaged_log_stays_up_and_takes_no_part_in_that_group(combined: Cluster) -> None:
    """Known bug 58: it may have lost what it promised, so it must not vote, lead or serve there."""
    victim = combined.leader("lock")
    _, held = ask(combined.port(victim), "/lock/acquire", {"key": "a", "client_id": "me"})
    wait_on_disk(combined, victim, "lock")
    kill_nodes(combined.surroundings, [victim])
    damage_log(data_folder(combined, victim, "lock"))

    start_nodes(combined.surroundings, [victim])
    others = combined.ports(without=victim)
    wait_until(
        lambda: set(reasons(combined, victim)) == {"lock"}, timeout_seconds=20, what="only lock is refused"
    )
    reason = reasons(combined, victim)["lock"]
    status, refused = call(combined.port(victim), "/lock/acquire", {"key": "b", "client_id": "me"})
    served, _ = ask(combined.port(victim), "/cache/put", {"key": "k", "val": 1})
    _, health = call(combined.port(victim), "/health")
    _, kept = ask(others[0], "/lock/status?key=a")
    critical = [line for line in log_lines(combined, victim) if line["level"] == "critical"]

    assert held["ok"]
    assert ".wal: damaged at byte" in reason and f"mufakat repair {victim}" in reason
    assert (status, refused["reason"]) == (503, "storage_failed")
    assert served == 200
    assert set(health["groups"]) == {"queue", "cache"}
    assert kept["held"]
    assert ".wal: damaged at byte" in critical[-1]["problem"] and "repair" in critical[-1]["advice"]


def test_repair_puts_the_damaged_files_aside_and_the_group_heals_the_node(combined: Cluster) -> None:
    """It comes back as a learner, is brought up to date by the others and votes again; nothing is deleted."""
    with writers(combined.ports()) as done:
        wait_until(lambda: len(done.times) >= 50, timeout_seconds=20, what="50 writes")
    victim = combined.leader("cache")
    kill_nodes(combined.surroundings, [victim])
    folder = data_folder(combined, victim, "cache")
    damage_log(folder)
    damaged = min(folder.glob("*.wal")).read_bytes()

    repair_node(combined.surroundings, victim)
    wait_until(lambda: victim in voters(combined, "cache"), timeout_seconds=20, what="it is a voter again")

    aside = list(folder.parent.glob("cache.damaged-*"))
    assert [min(each.glob("*.wal")).read_bytes() for each in aside] == [damaged]
    assert missing_lines(combined.port(victim), done) == []
    assert len(set(hashes_at_one_index(combined, "cache"))) == 1


def test_a_repair_that_ended_half_way_is_done_by_asking_again(
    combined: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group has taken the node in anew, its damaged files are still there."""
    ask(combined.port("node1"), "/lock/acquire", {"key": "a", "client_id": "me"})
    wait_on_disk(combined, "node1", "lock")
    kill_nodes(combined.surroundings, ["node1"])
    damage_log(data_folder(combined, "node1", "lock"))
    real = Calls.ask

    def broken(calls: Calls, node: Node, path: str, *rest: Any) -> Any:
        if path == "/admin/repair":
            raise ClusterError("broken off")
        return real(calls, node, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Calls, "ask", broken)
        with pytest.raises(ClusterError, match="broken off"):
            repair_node(combined.surroundings, "node1")
    assert not list(data_folder(combined, "node1", "lock").parent.glob("lock.damaged-*"))

    repair_node(combined.surroundings, "node1")

    wait_until(lambda: "node1" in voters(combined, "lock"), timeout_seconds=20, what="it is a voter again")
    assert ask(combined.port("node1"), "/lock/status?key=a")[1]["held"]


def test_repair_is_refused_where_nothing_is_damaged_or_the_others_are_too_few(combined: Cluster) -> None:
    """What only the damaged node may hold is not given up without an operator's decision."""
    with pytest.raises(ClusterError, match="Nothing is damaged"):
        repair_node(combined.surroundings, "node1")
    assert ask(combined.port("node1"), "/lock/acquire", {"key": "a", "client_id": "me"})[1]["ok"] is True
    wait_on_disk(combined, "node1", "lock")
    kill_nodes(combined.surroundings, ["node1", "node2"])
    damage_log(data_folder(combined, "node1", "lock"))
    wait_until(
        lambda: "lock" in reasons(combined, "node3"), timeout_seconds=10, what="node3 knows that it is alone"
    )

    with pytest.raises(ClusterError, match=r"Only 0 of the 3 voters of lock .* and 2 are needed"):
        repair_node(combined.surroundings, "node1")

    assert list(data_folder(combined, "node1", "lock").glob("*.wal"))


def voters(cluster: Cluster, group: str) -> list[str]:
    _, answer = call(cluster.ports()[0], "/status")
    return answer["groups"][group]["voters"] if group in answer["groups"] else []


def hashes_at_one_index(cluster: Cluster, group: str) -> list[str]:
    """Each node's hash of its state, at a moment when all have applied the same entries: a leader may add one at any
    time."""

    def told() -> list[str]:
        answers = [ask(port, f"/admin/hash?group={group}")[1] for port in cluster.ports()]
        is_one_index = len({answer["applied_index"] for answer in answers}) == 1
        return [answer["hash"] for answer in answers] if is_one_index else []

    return wait_until(told, timeout_seconds=10, what="all nodes have applied the same entries")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_node_whose_disk_fills_up_refuses_and_resumes_by_itself(tmp_path: Path) -> None:
    """On a real filesystem: 503 while there is no room, everything as before once there is."""
    home = tmp_path / "home"
    folder = home / "combined" / "node1" / "data"
    with small_disk(folder, "32m"), cluster_in(home) as surroundings:
        surroundings.environ["MUFAKAT_WAL_SEGMENT_BYTES"] = str(1 << 20)  # type: ignore[index]
        request = Request("combined", "local", free_port_offset("combined"))
        cluster = Cluster(surroundings, up(surroundings, request), request.port_offset)
        port = cluster.port("node1")
        with open(folder / "ballast", "wb") as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 16))
                ballast.flush()
        value = "x" * 100_000

        with writers(cluster.ports(without="node1")) as done:
            wait_until(
                lambda: call(cluster.ports()[1], "/cache/put", {"key": "big", "val": value})[0] == 200
                and "disk is full" in reasons(cluster, "node1").get("cache", ""),
                timeout_seconds=30,
                what="node1 notices that its disk is full",
            )
            status, refused = call(port, "/cache/put", {"key": "k", "val": 1})
            (folder / "ballast").unlink()
            wait_until(lambda: call(port, "/readyz")[0] == 200, timeout_seconds=20, what="node1 resumes")
        served, _ = ask(port, "/cache/put", {"key": "k", "val": 2})

        assert (status, refused["reason"]) == (503, "storage_failed")
        assert served == 200
        assert missing_lines(port, done) == []
        down(surroundings, wipe=False)
