"""Real nodes that join, leave and lose their disks, by the command and over HTTP."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from services.cli.main import main
from services.cluster.lifecycle import Request, Surroundings, down, up
from services.cluster.nodes import kill_nodes, start_nodes, stop_nodes
from services.cluster.probe import get_json
from services.cluster.roster import Seat, roster
from services.cluster.status import state_of
from services.node.process_file import look
from tests.cluster.tools import Cluster, RunningClock, ask, call, wait_until

pytestmark = pytest.mark.cluster

GROUPS = ("lock", "queue", "cache")


def members(port: int, group: str = "lock") -> dict[str, str]:
    """Id to role."""
    _, answer = call(port, f"/admin/members?group={group}")
    return {member["id"]: member["role"] for member in answer["groups"][group]["members"]}


def change(port: int, **body: dict[str, str]) -> tuple[int, Any]:
    return ask(port, "/admin/members", body, timeout_seconds=30)


def remove_by_itself(port: int, node_id: str, other_port: int) -> None:
    """Ask a node to remove itself from all its groups. Where it lost the leader on the way, another is asked again:
    whoever may be no member any more may never hear from the group."""
    status, answer = call(port, "/admin/members", {"remove": {"id": node_id}}, timeout_seconds=30)
    if status in (503, 504):
        status, answer = change(other_port, remove={"id": node_id})
        assert answer["ok"] is True or answer["reason"] == "not_a_member"
    else:
        assert (status, answer["ok"], answer["changed"]) == (200, True, True)


def is_bound(port: int, node_id: str) -> bool:
    """Whether each group knows the node's data directory: before that, a wiped node is taken in like a late one."""
    _, answer = call(port, "/admin/members")
    listed = [member for group in answer["groups"].values() for member in group["members"]]
    return all(member["bound"] for member in listed if member["id"] == node_id)


def command(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `mufakat` for this cluster."""
    result = CliRunner().invoke(
        main, arguments, env={"MUFAKAT_HOME": str(cluster.surroundings.home.root)}, catch_exceptions=False
    )
    return result.exit_code, result.output


def reasons(port: int) -> str:
    """Why the node is not ready; empty where it is."""
    status, answer = call(port, "/readyz")
    return "" if status == 200 else " ".join(answer["reasons"].values())


@contextmanager
def newcomer(cluster: Cluster, port: int) -> Iterator[None]:
    """A fourth node, started as an operator would: `mufakat serve` with MUFAKAT_JOIN."""
    home = cluster.surroundings.home
    nodes = {node.id: node.client_port for node in cluster.backend.topology.nodes} | {"node4": port}
    environ = {
        "PATH": os.environ["PATH"],
        "MUFAKAT_NODE_ID": "node4",
        "MUFAKAT_JOIN": "true",
        "MUFAKAT_CLUSTER": ",".join(f"{id}=127.0.0.1:{number}" for id, number in nodes.items()),
        "MUFAKAT_CLUSTER_SECRET": home.cluster_secret({}),
        "MUFAKAT_DATA_DIR": str(home.root / "node4"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "serve"], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: get_json("127.0.0.1", port, "/livez")[0] == 200, timeout_seconds=20, what="node4 answers")
        yield
    finally:
        process.kill()
        process.wait()


def test_a_fourth_node_joins_and_serves_and_the_first_leader_leaves(combined: Cluster) -> None:
    """By HTTP through any node, in all groups; the cluster then does without the one that was removed."""
    port = max(combined.ports()) + 1
    leader = combined.leader("lock")
    entrance = combined.ports(without=leader)[0]
    with newcomer(combined, port):
        wait_until(lambda: "no member of the group" in reasons(port), timeout_seconds=10, what="node4 waits")

        status, answer = change(entrance, add={"id": "node4", "address": f"127.0.0.1:{port}"})
        assert (status, answer["ok"], answer["changed"]) == (200, True, True)
        wait_until(
            lambda: all(members(port, group).get("node4") == "voter" for group in GROUPS),
            timeout_seconds=20,
            what="node4 votes",
        )
        assert ask(port, "/lock/acquire", {"key": "A", "client_id": "ana"})[1]["ok"] is True

        remove_by_itself(combined.port(leader), leader, entrance)
        wait_until(
            lambda: not any(leader in members(entrance, group) for group in GROUPS),
            timeout_seconds=10,
            what="the leader left",
        )
        kill_nodes(combined.surroundings, [leader])

        status, answer = ask(port, "/lock/acquire", {"key": "A", "client_id": "ben"})
        assert (status, answer["reason"]) == (200, "locked")


def test_a_wiped_node_takes_no_part_until_it_was_removed_and_added(combined: Cluster) -> None:
    """By the command, as `/readyz` says (known bug 63)."""
    leader = combined.leader("lock")
    wiped = next(node.id for node in combined.backend.topology.nodes if node.id != leader)
    port = combined.port(wiped)
    wait_until(
        lambda: is_bound(combined.port(leader), wiped), timeout_seconds=10, what="each group knows its directory"
    )
    kill_nodes(combined.surroundings, [wiped])
    shutil.rmtree(combined.surroundings.home.root / "combined" / wiped / "data")
    start_nodes(combined.surroundings, [wiped])

    wait_until(
        lambda: f"`mufakat member remove {wiped}`" in reasons(port), timeout_seconds=10, what="it is refused"
    )
    health = call(port, "/health")[1]
    assert {each["term"] for each in health["groups"].values()} == {0}

    assert command(combined, "member", "remove", wiped)[0] == 0
    wait_until(lambda: "no member of the group" in reasons(port), timeout_seconds=10, what="it was removed")
    assert command(combined, "member", "add", wiped, f"127.0.0.1:{port}")[0] == 0

    wait_until(lambda: reasons(port) == "", timeout_seconds=20, what="it is ready again")
    wait_until(
        lambda: all(members(each).get(wiped) == "voter" for each in combined.ports()),
        timeout_seconds=20,
        what="every node knows that it votes again",
    )
    code, output = command(combined, "member", "list", "--group", "lock")
    assert code == 0
    assert output.count("voter") == 3


def test_a_new_cluster_begins_without_its_last_node_which_is_taken_in_later(separated: Cluster) -> None:
    """A group that has lost a node and its disk before it ever served looks the same: nothing is to be done."""
    # The cluster of the fixture is complete; begin anew with one node of the lock group missing.
    backend = separated.backend
    backend.end_all()
    backend.wipe()
    first, second, late = backend.topology.members("lock")
    backend.start(first)
    backend.start(second)
    wait_until(
        lambda: _acquired(first.client_port), timeout_seconds=20, what="two of three nodes serve"
    )

    backend.start(late)

    wait_until(lambda: _acquired(late.client_port), timeout_seconds=20, what="the late one serves")
    assert members(late.client_port) == {first.id: "voter", second.id: "voter", late.id: "voter"}


def _acquired(port: int) -> bool:
    try:
        return call(port, "/lock/acquire", {"key": "A", "client_id": "ana"})[1]["ok"] is True
    except OSError:
        return False


def test_a_node_beyond_the_topology_is_one_of_the_cluster(
    combined: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is started here, seen, ended by `down`, started again by `up`; one that was removed is not waited for."""
    surroundings, home = combined.surroundings, combined.surroundings.home
    request = Request("combined", "local", combined.port_offset)

    code, output = command(combined, "member", "add", "node4")
    assert code == 0, output
    port = max(combined.ports()) + 1
    everywhere = {group: "voter" for group in GROUPS}
    wait_until(
        lambda: seat(surroundings, "node4").memberships == everywhere, timeout_seconds=20, what="node4 votes"
    )
    kill_nodes(surroundings, ["node1"])
    assert command(combined, "member", "remove", "node1")[0] == 0
    assert state_of(seat(surroundings, "node4")) == "running"

    down(surroundings, wipe=False)
    assert not any(look(folder).is_held for folder in home.data_folders())
    with RunningClock() as clock:
        up(surroundings, request)
        assert clock.seconds() < 30

    assert seat(surroundings, "node1").is_removed
    assert "All 3 nodes are ready" in capsys.readouterr().out
    stop_nodes(surroundings, ["node1"])
    up(surroundings, request)
    told = capsys.readouterr().out
    assert "The cluster is up already" in told
    assert "All 3 nodes are ready" in told
    assert seat(surroundings, "node4").memberships == everywhere
    assert ask(port, "/lock/acquire", {"key": "A", "client_id": "ana"})[1]["ok"] is True
    code, output = command(combined, "member", "remove", "node4")
    assert (code, "was removed and stopped" in output) == (0, True)
    assert home.require_cluster().added_here() == ()


def test_a_node_that_was_started_by_hand_and_added_is_found_and_ended(combined: Cluster) -> None:
    """Its data directory is its own choice."""
    surroundings, port = combined.surroundings, max(combined.ports()) + 1
    home = surroundings.home
    with newcomer(combined, port):
        wait_until(lambda: "no member of the group" in reasons(port), timeout_seconds=10, what="node4 waits")
        assert command(combined, "member", "add", "node4", f"127.0.0.1:{port}")[0] == 0
        wait_until(
            lambda: set(seat(surroundings, "node4").memberships.values()) == {"voter"},
            timeout_seconds=20,
            what="node4 votes",
        )
        assert [node.data_dir for node in home.require_cluster().added_here()] == [str(home.root / "node4")]
        backend = surroundings.require_backend()

        found = roster(backend).seat("node4")
        assert found is not None
        assert found.process.pid == look(home.root / "node4").record.pid

        down(surroundings, wipe=False)

        assert not look(home.root / "node4").is_held


def seat(surroundings: Surroundings, node_id: str) -> Seat:
    found = roster(surroundings.require_backend()).seat(node_id)
    assert found is not None
    return found


def test_nonsense_is_refused_by_name(combined: Cluster) -> None:
    """A typo changes nothing."""
    port = combined.ports()[0]

    assert change(port)[0] == 400
    assert change(port, add={"id": "node4"})[0] == 400
    assert "add.address" in change(port, add={"id": "node4", "address": "here"})[1]["detail"]
    assert "remove.id" in change(port, remove={"id": "a;b"})[1]["detail"]
    assert "group" in change(port, remove={"id": "node1", "group": "locks"})[1]["detail"]
    assert change(port, remove={"id": "node9"})[1]["reason"] == "not_a_member"
    assert command(combined, "member", "remove", "node9")[0] == 1
    assert set(members(port)) == {"node1", "node2", "node3"}


def test_a_change_that_would_not_take_or_would_stop_the_group_is_refused_in_a_sentence(combined: Cluster) -> None:
    """Each says what to do, in the words of the command."""
    leader = combined.leader("lock")
    live, dead = sorted({node.id for node in combined.backend.topology.nodes} - {leader})
    port, other = combined.port(leader), combined.port(live)
    wait_until(lambda: is_bound(port, live), timeout_seconds=10, what="each group knows where it is")

    def refusal(**body: dict[str, str]) -> str:
        status, answer = change(port, **body)
        assert (status, answer["reason"]) == (409, "membership_refused")
        return answer["detail"]

    moved = refusal(add={"id": live, "address": "127.0.0.1:1"})
    assert moved.startswith(f"The group knows {live} at 127.0.0.1:{other}, and")
    taken = refusal(add={"id": "node9", "address": f"127.0.0.1:{other}"})
    assert taken.startswith(f"The address 127.0.0.1:{other} is that of {live}, which is a member already.")
    assert change(port, add={"id": live, "address": f"127.0.0.1:{other}"})[1]["changed"] is False

    kill_nodes(combined.surroundings, [dead])
    stopping = refusal(remove={"id": live, "group": "lock"})
    assert stopping.startswith(f"Without {live}, 2 of the voters ")
    assert stopping.endswith(f"and {dead} does not: start {dead}, or remove that one first.")
    assert change(port, remove={"id": dead, "group": "lock"})[1]["changed"] is True
