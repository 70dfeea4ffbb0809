"""Backup of a cluster that runs, restore into one that never did, by the commands."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.cluster.backups import restore_cluster, restore_node, take_backup
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.home import UP
from services.cluster.lifecycle import Request, down, up
from services.cluster.processes import is_port_free
from tests.cluster.load import Acknowledged, missing_messages, writers
from tests.cluster.tools import Cluster, ask, call, cluster_in, free_port_offset, wait_until

pytestmark = pytest.mark.cluster


def written(cluster: Cluster) -> Acknowledged:
    with writers(cluster.ports()) as done:
        wait_until(lambda: len(done.times) >= 50, timeout_seconds=20, what="50 writes")
    return done


def test_a_group_that_was_lost_begins_anew_from_its_backup(combined: Cluster, tmp_path: Path) -> None:
    """All that was acknowledged before the backup is there, and no token is given a second time."""
    done = written(combined)
    _, before = ask(combined.ports()[0], "/lock/acquire", {"key": "a", "client_id": "me"})
    for group in ("queue", "lock"):
        take_backup(combined.surroundings, group, tmp_path / f"{group}.backup")
    _, after = ask(combined.ports()[0], "/lock/acquire", {"key": "b", "client_id": "me"})

    with cluster_in(tmp_path / "other") as surroundings:
        for group in ("queue", "lock"):
            restore_cluster(surroundings, tmp_path / f"{group}.backup", "combined")
        request = Request("combined", "local", free_port_offset("combined"))
        cluster = Cluster(surroundings, up(surroundings, request), request.port_offset)
        _, kept = ask(cluster.ports()[1], "/lock/status?key=a")
        _, anew = ask(cluster.ports()[2], "/lock/acquire", {"key": "b", "client_id": "you"})
        missing = missing_messages(cluster.ports()[0], done)
        down(surroundings, wipe=False)
        up(surroundings, request)
        _, still = ask(cluster.ports()[1], "/lock/status?key=a")

    assert kept["holders"][0]["token"] == before["token"] == still["holders"][0]["token"]
    assert anew["token"] > after["token"]
    assert missing == set()


def test_restore_refuses_what_is_up_and_what_is_not_empty(combined: Cluster, tmp_path: Path) -> None:
    """A backup never replaces anything."""
    file = tmp_path / "lock.backup"
    take_backup(combined.surroundings, "lock", file)

    with pytest.raises(InTheWay, match="A cluster is up"):
        restore_cluster(combined.surroundings, file, "combined")
    down(combined.surroundings, wipe=False)
    with pytest.raises(InTheWay, match="into an empty cluster only"):
        restore_cluster(combined.surroundings, file, "combined")


def test_a_backup_restored_twice_gives_no_number_twice_and_an_old_disk_is_refused(
    combined: Cluster, tmp_path: Path
) -> None:
    """Tokens, message ids and versions of two lives differ; a disk of the first among those of the second is told."""
    surroundings = combined.surroundings
    files = {group: tmp_path / f"{group}.backup" for group in ("lock", "queue", "cache")}
    for group, file in files.items():
        take_backup(surroundings, group, file)
    request = Request("combined", "local", combined.port_offset)
    home = surroundings.home.root / "combined"
    numbers, old_disk = [], tmp_path / "old"
    down(surroundings, wipe=True)
    for life in (1, 2):
        for file in files.values():
            restore_cluster(surroundings, file, "combined")
        if life == 2:
            shutil.rmtree(home / "node3" / "data" / "queue")
            shutil.move(old_disk, home / "node3" / "data" / "queue")
            break
        up(surroundings, request)
        numbers.append(numbers_given(combined))
        down(surroundings, wipe=False)
        shutil.move(home / "node3" / "data" / "queue", old_disk)
        shutil.rmtree(home)

    # Not `up`, which waits until all are ready.
    surroundings.home.keep(replace(surroundings.home.cluster(), state=UP))
    surroundings.require_backend().start_all()
    numbers.append(numbers_given(combined))
    refused = wait_until(lambda: not_ready(combined, "node3"), timeout_seconds=30, what="node3 is refused")
    sound = combined.ports(without="node3")
    wait_until(lambda: are_alike(sound, "queue"), timeout_seconds=30, what="the two others hold the same")

    for kind in numbers[0]:
        assert numbers[1][kind] > numbers[0][kind] + 100_000, kind
    assert list(refused) == ["queue"]
    assert refused["queue"].startswith("its data is of another life of the group (r")
    assert "stop node3, move its folder of the group queue away and start it again" in refused["queue"]


def are_alike(ports: list[int], group: str) -> bool:
    """Whether all have applied the same entries and hold the same."""
    states = [ask(port, f"/admin/hash?group={group}")[1] for port in ports]
    return len({(state["applied_index"], state["hash"]) for state in states}) == 1


def not_ready(cluster: Cluster, node: str) -> dict[str, str] | None:
    """Why, by group, once `/readyz` and `/status` agree that the node is of another life."""
    try:
        (status, readiness), (_, told) = call(cluster.port(node), "/readyz"), call(cluster.port(node), "/status")
    except OSError:
        return None
    same = status == 503 and readiness["reasons"] == told["not_ready"]
    return told["not_ready"] if same and "another life" in told["not_ready"].get("queue", "") else None


def numbers_given(cluster: Cluster) -> dict[str, int]:
    """The next number of each kind that a client gets, once a node answers."""
    port = cluster.ports()[0]
    wait_until(lambda: not is_port_free("127.0.0.1", port), timeout_seconds=30, what="a node listens")
    _, locked = ask(port, "/lock/acquire", {"key": "twice", "client_id": "me"})
    _, sent = ask(port, "/queue/enq", {"key": "k", "value": 1, "queue": "twice"})
    _, received = ask(port, "/queue/deq", {"queue": "twice", "wait": 5})
    _, put = ask(port, "/cache/put", {"key": "twice", "val": 1})
    return {
        "token": locked["token"],
        "msg_id": int(sent["msg_id"]),
        "receipt": int(received["receipt"]),
        "version": put["version"],
    }


def test_one_node_can_be_restored_by_its_folder(
    combined: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For containers and supervisors of one's own."""
    file = tmp_path / "lock.backup"
    take_backup(combined.surroundings, "lock", file)
    cluster = "n1=127.0.0.1:8001,n2=127.0.0.1:8002"

    restore_node(file, tmp_path / "n1", cluster)
    with pytest.raises(InTheWay):
        restore_node(file, tmp_path / "n1", cluster)
    with pytest.raises(UsageError, match="--cluster"):
        restore_node(file, tmp_path / "n2", "n1")
    told = re.search(r"with `--life (\S+)`", capsys.readouterr().out)
    assert told is not None
    restore_node(file, tmp_path / "n2", cluster, life=told[1])
    with pytest.raises(ClusterError, match="not what a restore of this very backup has named"):
        restore_node(file, tmp_path / "n3", cluster, life="l1")

    snapshots = [path.read_bytes() for name in ("n1", "n2") for path in (tmp_path / name / "lock").glob("*.snapshot")]
    assert len(snapshots) == 2
    assert len(set(snapshots)) == 1


def test_a_backup_that_cannot_be_had_leaves_the_old_file(combined: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "lock.backup"
    file.write_bytes(b"the last good one")

    with pytest.raises(UsageError, match="carries the group 'locks'"):
        take_backup(combined.surroundings, "locks", file)
    with pytest.raises(ClusterError, match="answered 400"):
        take_backup(combined.surroundings, "locks", file, address=f"127.0.0.1:{combined.ports()[0]}")
    with pytest.raises(ClusterError, match="No backup was written"):
        take_backup(combined.surroundings, "lock", file, address="127.0.0.1:1")

    assert [path.name for path in tmp_path.glob("lock*")] == ["lock.backup"]
    assert file.read_bytes() == b"the last good one"
