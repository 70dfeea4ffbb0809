"""Backup of a cluster that runs, restore into one that never did, by the commands."""

from pathlib import Path

import pytest

from services.cluster.backups import restore_cluster, restore_node, take_backup
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.lifecycle import Request, down, up
from tests.cluster.load import Acknowledged, missing_messages, writers
from tests.cluster.tools import Cluster, ask, cluster_in, free_port_offset, wait_until

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


def test_one_node_can_be_restored_by_its_folder(combined: Cluster, tmp_path: Path) -> None:
    """For containers and supervisors of one's own."""
    file = tmp_path / "lock.backup"
    take_backup(combined.surroundings, "lock", file)
    cluster = "n1=127.0.0.1:8001,n2=127.0.0.1:8002"

    restore_node(file, tmp_path / "n1", cluster)
    with pytest.raises(InTheWay):
        restore_node(file, tmp_path / "n1", cluster)
    with pytest.raises(UsageError, match="--cluster"):
        restore_node(file, tmp_path / "n2", "n1")

    assert list((tmp_path / "n1" / "lock").glob("*.snapshot"))


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
