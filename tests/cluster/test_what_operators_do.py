"""Mistakes and mishaps of operators, tried on a local cluster by a hostile reader: each is one sentence, or harmless.

With stand-ins for the nodes, but for the last ones.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.cluster.backend import NodeProcess
from services.cluster.configuring import set_settings
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.home import STARTING, Home
from services.cluster.lifecycle import Request, Surroundings, down, up
from services.cluster.local import LocalBackend
from services.cluster.members import Whom, add_member
from services.cluster.nodes import kill_nodes, start_nodes, stop_nodes
from services.cluster.processes import holder
from services.cluster.roster import roster
from services.cluster.status import cluster_status, state_of, status_text
from services.node.process_file import PROCESS_NAME, look, reserve
from tests.cluster.tools import STUB, Cluster, ask, call, cluster_in, free_port_offset, wait_until

pytestmark = pytest.mark.cluster


def data_of(surroundings: Surroundings, node_id: str) -> Path:
    return surroundings.home.root / "combined" / node_id / "data"


def running(home: Home) -> list[Path]:
    return [folder for folder in home.data_folders() if look(folder).is_held]


def mufakat(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"MUFAKAT_HOME": str(home.root)})


# Deleting and copying


def test_a_wipe_leaves_what_a_link_of_somebody_elses_leads_to(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    up(surroundings, request_combined)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    (data_of(surroundings, "node1").parent / "notes").symlink_to(tmp_path / "precious")
    (data_of(surroundings, "node2") / "notes").symlink_to(tmp_path / "precious")

    down(surroundings, wipe=True)

    assert (tmp_path / "precious" / "thesis.txt").exists()
    assert not (surroundings.home.root / "combined").exists()


def test_a_wipe_behind_links_ends_the_cluster_with_its_settings(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    data_of(surroundings, "node1").parent.mkdir(parents=True)
    data_of(surroundings, "node1").symlink_to(tmp_path / "disk")
    set_settings(surroundings, ["SNAPSHOT_ENTRIES=700"])
    up(surroundings, request_combined)

    down(surroundings, wipe=True)

    assert surroundings.home.cluster() is None
    assert list((tmp_path / "disk").iterdir()) == []


def test_settings_without_a_cluster_are_wiped_too(surroundings: Surroundings) -> None:
    set_settings(surroundings, ["SNAPSHOT_ENTRIES=700"])

    down(surroundings, wipe=True)

    assert surroundings.home.cluster() is None


def test_the_copy_of_a_home_forgets_nodes_that_lie_elsewhere(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    """They are the original's."""
    backend = up(surroundings, request_combined)
    elsewhere = replace(backend.topology.nodes[0], id="node4", client_port=20_000, data_dir=str(tmp_path / "node4"))
    surroundings.home.keep(surroundings.home.require_cluster().with_added_here((elsewhere,)))
    shutil.copytree(surroundings.home.root, tmp_path / "copy")

    assert Home(tmp_path / "copy").require_cluster().added_here() == ()
    assert surroundings.home.require_cluster().added_here() == (elsewhere,)


# Processes


def test_a_process_that_only_reads_the_note_is_not_taken_for_the_node(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be killed."""
    backend = up(surroundings, request_combined)
    pid = backend.process_of(backend.topology.node("node1")).pid
    path = data_of(surroundings, "node1") / PROCESS_NAME
    with subprocess.Popen(["sleep", "60"], stdin=os.open(path, os.O_RDONLY)) as reader:
        with open(path, "r+b") as file:
            file.write(b"xxxx")
        monkeypatch.setattr("services.cluster.processes.NAME_SECONDS_MAX", 0.5)

        found = holder(data_of(surroundings, "node1"))

        assert found is not None
        assert found.pid == pid
        reader.kill()


def test_a_data_directory_that_cannot_be_looked_into_stops_no_other(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """A dead mount, say. The others are shown and ended, and this one is named."""
    backend = up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1"])
    shutil.rmtree(data_of(surroundings, "node1"))
    data_of(surroundings, "node1").symlink_to("data")

    shown = status_text(backend, cluster_status(backend))
    with pytest.raises(ClusterError, match=r"All others are ended.*node1/data.*Too many levels of symbolic links"):
        down(surroundings, wipe=False)

    assert backend.process_of(backend.topology.node("node1")).state == "unknown"
    assert "Too many levels of symbolic links" in shown
    assert not any(look(data_of(surroundings, id)).is_held for id in ("node2", "node3"))


def test_a_note_that_cannot_be_written_does_not_keep_a_cluster_up(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1"])

    def refuse(_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("services.cluster.local.reserve", refuse)

    down(surroundings, wipe=False)

    assert surroundings.home.record() is None


def test_a_node_that_never_came_to_its_first_line_is_dead_not_stopped(
    surroundings: Surroundings, request_combined: Request
) -> None:
    backend = up(surroundings, request_combined)
    stop_nodes(surroundings, ["node1"])
    assert backend.processes()["node1"] == NodeProcess(None, "stopped")

    reserve(data_of(surroundings, "node1")).close()

    assert backend.processes()["node1"] == NodeProcess(None, "dead")


def test_a_copy_on_the_same_ports_is_not_taken_for_the_node(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    """It has the same id, and it answers."""
    up(surroundings, request_combined)
    down(surroundings, wipe=False)
    shutil.copytree(surroundings.home.root, tmp_path / "home2")
    copy = replace(surroundings, home=Home(tmp_path / "home2"))
    try:
        up(copy, request_combined)
        backend = surroundings.backend(surroundings.home.cluster())

        told = roster(replace_running(backend)).seat("node1").told

        assert "is a copy of node1 that runs on" in str(told)
    finally:
        down(copy, wipe=False)


def replace_running(backend: LocalBackend) -> LocalBackend:
    """The same, taking its nodes for running."""
    backend.processes = lambda: {node.id: NodeProcess(1, "running") for node in backend.topology.nodes}
    return backend


# Members


@pytest.mark.parametrize("member", ["../evil", "node 4", ""])
def test_an_id_that_is_none_is_refused_before_anything_is_written(
    surroundings: Surroundings, request_combined: Request, member: str
) -> None:
    up(surroundings, request_combined)

    with pytest.raises(UsageError, match="is no node id"):
        add_member(surroundings, Whom(), member, "")

    assert surroundings.home.require_cluster().added_here() == ()


@pytest.mark.parametrize("address", ["127.0.0..1:8000", "x" * 70 + ":8000", "a..b:1"])
def test_an_address_that_nobody_can_look_up_is_refused(
    surroundings: Surroundings, request_combined: Request, address: str
) -> None:
    up(surroundings, request_combined)

    for arguments in (["member", "add", "node4", address], ["member", "list", "--node", address]):
        result = mufakat(surroundings.home, *arguments)
        assert "is no address" in result.output
        assert result.exit_code == 2


def test_a_node_is_not_added_to_a_group_that_it_does_not_carry(surroundings: Surroundings) -> None:
    up(surroundings, Request("separated", "local", free_port_offset("separated")))

    with pytest.raises(UsageError, match="queue1 carries queue, not 'lock'"):
        add_member(surroundings, Whom(group="lock"), "queue1", "127.0.0.1:9000")


def test_added_nodes_move_with_the_others_and_wait_for_their_topology(
    surroundings: Surroundings, request_combined: Request
) -> None:
    backend = up(surroundings, request_combined)
    first = backend.topology.nodes[0]
    added = replace(first, id="node4", client_port=first.client_port + 9 - request_combined.port_offset)
    surroundings.home.keep(surroundings.home.require_cluster().with_added_here((added,)))
    down(surroundings, wipe=False)

    up(surroundings, Request("separated", "local", free_port_offset("separated")))
    assert len(running(surroundings.home)) == 9
    down(surroundings, wipe=False)
    offset = free_port_offset("combined")
    backend = up(surroundings, Request("combined", "local", offset))

    assert backend.topology.node("node4").client_port == 8010 + offset
    assert backend.processes()["node4"].is_running


# The record


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": 2, "id": "a", "home": "", "settings": {}, "record": null, "added": {"combined": [{"id": 7}]}}',
        b"[" * 100_000,
        b'{"format": 2}',
        b"\xff",
    ],
)
def test_a_damaged_record_is_one_sentence(surroundings: Surroundings, content: bytes) -> None:
    surroundings.home.create()
    surroundings.home.cluster_path.write_bytes(content)

    result = mufakat(surroundings.home, "status")

    assert f"{surroundings.home.cluster_path} cannot be read" in result.output
    assert result.exit_code == 1


def test_a_damaged_secret_is_one_sentence(surroundings: Surroundings) -> None:
    surroundings.home.create()
    (surroundings.home.root / "cluster_secret").write_bytes(b"\xff\xff")

    result = mufakat(surroundings.home, "config", "show")

    assert "cluster_secret is damaged" in result.output
    assert result.exit_code == 1


def test_an_up_after_a_power_cut_that_was_interrupted_goes_on(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1", "node2", "node3"])
    real = LocalBackend.start

    def fail_at_second(self: LocalBackend, node: object) -> None:
        if node.id == "node2":
            raise ClusterError("no")
        real(self, node)

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "start", fail_at_second)
        with pytest.raises(ClusterError, match="no"):
            up(surroundings, request_combined)
    assert surroundings.home.require_cluster().state == STARTING

    up(surroundings, request_combined)

    assert len(running(surroundings.home)) == 3


def test_a_home_whose_record_was_deleted_begins_with_the_topology_of_its_data(
    surroundings: Surroundings, request_combined: Request
) -> None:
    up(surroundings, request_combined)
    down(surroundings, wipe=False)
    (data_of(surroundings, "node1") / "lock").mkdir()
    (data_of(surroundings, "node1") / "lock" / "1.wal").touch()
    surroundings.home.cluster_path.unlink()

    up(surroundings, replace(request_combined, topology=None))

    assert surroundings.home.record().topology == "combined"


def test_a_node_can_be_started_alone_where_the_cluster_is_down(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """As after the recovery of its disk."""
    up(surroundings, request_combined)
    down(surroundings, wipe=False)

    start_nodes(surroundings, ["node2"])

    assert running(surroundings.home) == [data_of(surroundings, "node2")]
    assert [state_of(seat) for seat in cluster_status(surroundings.require_backend()).seats] == [
        "stopped",
        "running",
        "stopped",
    ]


def test_a_secret_that_was_lost_while_nodes_run_is_not_replaced(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """A node with another one would find nobody."""
    up(surroundings, request_combined)
    stop_nodes(surroundings, ["node1"])
    (surroundings.home.root / "cluster_secret").unlink()

    with pytest.raises(ClusterError, match="Bring `cluster_secret` back"):
        start_nodes(surroundings, ["node1"])

    down(surroundings, wipe=False)
    up(surroundings, request_combined)


def test_another_cluster_on_the_ports_is_named(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    with cluster_in(tmp_path / "other", serve_command=STUB, detect=surroundings.detect) as other:
        cluster = up(other, request_combined).cluster.id

        with pytest.raises(InTheWay, match=f"taken by node1 of the cluster {cluster}"):
            up(surroundings, request_combined)


# Settings


def test_tokens_without_an_admin_are_refused(surroundings: Surroundings, request_combined: Request) -> None:
    """The commands could not ask the nodes anything, and `up` would wait in vain."""
    with_tokens = replace(surroundings, environ={**surroundings.environ, "MUFAKAT_AUTH_TOKENS": "client:abcdefgh1"})

    with pytest.raises(UsageError, match="one must be admin:token"):
        up(with_tokens, request_combined)


def test_a_wrong_setting_beside_the_secret_changes_neither(surroundings: Surroundings) -> None:
    with pytest.raises(UsageError):
        set_settings(surroundings, ["CLUSTER_SECRET=a secret of the cluster", "CLUSTER_ID=no id!"])

    assert surroundings.home.kept_secret() == ""


def test_status_tells_the_authentication_that_the_nodes_have(
    surroundings: Surroundings, request_combined: Request
) -> None:
    up(surroundings, request_combined)
    set_settings(surroundings, ["AUTH_TOKENS=admin:abcdefgh1"])
    backend = surroundings.require_backend()

    shown = status_text(backend, cluster_status(backend))

    assert "authentication off (on once the nodes are started again)" in shown
    assert "Whoever reaches a port may do anything" in shown


def test_no_token_is_sent_to_another_cluster(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    """It is asked for its id first, which is told without one."""
    tokens = {**surroundings.environ, "MUFAKAT_AUTH_TOKENS": "admin:abcdefgh1"}
    asked: list[tuple[str, object]] = []
    from services.cluster import probe

    real = probe.get_json

    def recorded(host: str, port: int, path: str, **options: object) -> object:
        asked.append((path, options.get("headers")))
        return real(host, port, path, **options)

    ours = replace(surroundings, environ=tokens)
    with cluster_in(tmp_path / "other", serve_command=STUB, detect=surroundings.detect) as other:
        up(other, request_combined)
        backend = up(ours, Request("combined", "local", free_port_offset("combined")))
        record = replace(backend.cluster.record, port_offset=request_combined.port_offset)
        ours.home.keep(replace(backend.cluster, record=record))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(probe, "get_json", recorded)
            roster(ours.require_backend())

    assert {path for path, _ in asked} == {"/health"}
    assert not any(headers for _, headers in asked)


# With real nodes


def test_empty_disks_begin_no_group_beside_one_that_holds_it(combined: Cluster) -> None:
    """Two of three are a majority. What the third holds would be gone."""
    surroundings, home = combined.surroundings, combined.surroundings.home
    assert ask(combined.ports()[0], "/lock/acquire", {"key": "A", "client_id": "ana"})[1]["ok"] is True
    wait_until(lambda: roster(combined.backend).leaders("lock"), timeout_seconds=10, what="a leader")
    down(surroundings, wipe=False)
    for node_id in ("node2", "node3"):
        shutil.rmtree(home.root / "combined" / node_id / "data")

    backend = surroundings.backend(home.cluster())
    joins = {node.id: backend.node_environ(node).get("MUFAKAT_JOIN") for node in backend.topology.nodes}
    start_nodes(surroundings, ["node2", "node3"])

    assert joins == {"node1": None, "node2": "true", "node3": "true"}
    _, answer = call(combined.port("node2"), "/readyz")
    assert answer["ok"] is False
    with pytest.raises(InTheWay, match="half up"):
        up(surroundings, Request())
