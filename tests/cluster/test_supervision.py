"""Starting, stopping and looking at nodes, with stand-ins for the nodes: the rules of `mufakat up` and its kin."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.start_mark import start_mark
from services.cluster.backend import NodeProcess
from services.cluster.containers import DockerBackend, ImageNotBuilt, container_process
from services.cluster.engine import Engine
from services.cluster.errors import ClusterError, InTheWay, NoCluster, UsageError
from services.cluster.home import Record
from services.cluster.lifecycle import Request, Surroundings, choose_mode, down, summary, up
from services.cluster.log_view import LogView
from services.cluster.nodes import kill_leader, kill_nodes, start_nodes, stop_nodes
from services.cluster.roster import Roster
from services.cluster.status import cluster_status, state_of, status_json
from services.cluster.waiting import wait_ready
from services.node.process_file import PROCESS_NAME
from tests.cluster.tools import STUB, cluster_in, wait_until

pytestmark = pytest.mark.cluster


def states(surroundings: Surroundings) -> dict[str, str]:
    backend = surroundings.require_backend()
    return {node_id: process.state for node_id, process in backend.processes().items()}


def make_file(surroundings: Surroundings, node_id: str, name: str) -> Path:
    """Put one of the files that the stand-in obeys where it looks for them."""
    folder = surroundings.home.root / "combined" / node_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_up_starts_every_node_of_the_topology(surroundings: Surroundings, request_combined: Request) -> None:
    """`up` ends with a cluster of which each node is a process of its own and ready."""
    backend = up(surroundings, request_combined)

    found = cluster_status(backend).seats
    assert [seat.node.id for seat in found] == ["node1", "node2", "node3"]
    assert {"running"} == {state_of(seat) for seat in found}
    assert len({seat.process.pid for seat in found}) == 3


def test_the_summary_names_three_things_to_try(surroundings: Surroundings, request_combined: Request) -> None:
    """After `up` one knows the addresses and what to do next."""
    text = summary(surroundings, up(surroundings, request_combined))

    port = 8001 + request_combined.port_offset
    assert f"node1  lock   127.0.0.1:{port}" in text
    assert len(text.partition("Try next:\n")[2].splitlines()) == 3


def test_status_json_has_the_fields_that_scripts_rely_on(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The format is a contract."""
    backend = up(surroundings, request_combined)

    told = json.loads(status_json(backend, cluster_status(backend)))

    assert list(told)[:3] == ["mode", "topology", "nodes"]
    first = told["nodes"][0]
    assert list(first)[:8] == ["id", "groups", "address", "pid", "state", "role", "term", "leader"]
    assert first["groups"] == ["lock", "queue", "cache"]
    assert f"127.0.0.1:{8001 + request_combined.port_offset}" == first["address"]
    assert (first["role"], first["term"], first["leader"]) == ("leader", 1, "node1")


def test_a_second_up_of_the_same_cluster_changes_nothing(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make up` twice is no mistake."""
    before = up(surroundings, request_combined).processes()

    after = up(surroundings, request_combined).processes()

    assert before == after
    assert "is up already" in capsys.readouterr().out


def test_up_of_another_topology_is_refused(surroundings: Surroundings, request_combined: Request) -> None:
    """Two clusters in one home would share node ids and a record."""
    up(surroundings, request_combined)

    with pytest.raises(InTheWay, match=r"combined, local mode.*you asked for separated.*mufakat down"):
        up(surroundings, Request("separated", "local"))


def test_up_of_half_a_cluster_is_refused_with_the_way_out(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """A node that somebody killed stays down until `start`; `up` must not bring it back by the way."""
    up(surroundings, request_combined)
    kill_nodes(surroundings, ["node2"])

    with pytest.raises(InTheWay, match=r"half up.*node2 \(dead\).*mufakat start node2"):
        up(surroundings, request_combined)

    assert states(surroundings) == {"node1": "running", "node2": "dead", "node3": "running"}


def test_up_starts_all_nodes_anew_when_none_runs(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """After the machine was switched off, the record is still there and the processes are not."""
    up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1", "node2", "node3"])

    up(surroundings, request_combined)

    assert {"running"} == set(states(surroundings).values())


def test_a_taken_port_is_named_and_nothing_is_started(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The sentence says which port, of which node, and what to do."""
    port = 8002 + request_combined.port_offset
    with socket.create_server(("127.0.0.1", port)), pytest.raises(InTheWay) as raised:
        up(surroundings, request_combined)

    assert f"Port {port} (node2) on 127.0.0.1" in str(raised.value)
    assert "--port-offset" in str(raised.value)
    assert surroundings.home.record() is None


def test_a_node_that_ends_while_starting_is_told_with_its_last_lines(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The reason stands in the node's log; nobody should have to look for it."""
    make_file(surroundings, "node3", "refuse")

    with pytest.raises(ClusterError, match=r"node3 ended while starting(.|\n)*the stub was told to refuse"):
        up(surroundings, request_combined)


def test_a_wait_for_nodes_that_never_get_ready_ends_with_their_reason(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """`up` never hangs."""
    backend = up(surroundings, request_combined)
    make_file(surroundings, "node2", "unready")

    with pytest.raises(ClusterError, match=r"Not ready after 0 s: node2 \(lock: no leader is known\)"):
        wait_ready(backend, backend.topology.nodes, timeout_seconds=0.2)


def test_a_wrong_variable_stops_up_before_anything_starts(tmp_path: Path, request_combined: Request) -> None:
    """Nine nodes that die of the same typo help nobody."""
    with cluster_in(tmp_path, serve_command=STUB) as made:
        typo = Surroundings(made.home, {**made.environ, "MUFAKAT_LOG_LEVLE": "debug"}, serve_command=STUB)

        with pytest.raises(UsageError, match="MUFAKAT_LOG_LEVLE"):
            up(typo, request_combined)

        assert made.home.record() is None


def test_a_killed_node_is_dead_and_a_stopped_one_is_stopped(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """Whoever killed it, and however: it stays down and the status tells the two apart."""
    backend = up(surroundings, request_combined)
    os.kill(backend.processes()["node1"].pid or 0, signal.SIGKILL)
    stop_nodes(surroundings, ["node2"])

    wait_until(lambda: states(surroundings)["node1"] == "dead", timeout_seconds=5, what="node1 is dead")
    assert states(surroundings) == {"node1": "dead", "node2": "stopped", "node3": "running"}


def test_start_brings_back_a_stopped_and_a_killed_node(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The only way back, for both."""
    up(surroundings, request_combined)
    stop_nodes(surroundings, ["node1"])
    kill_nodes(surroundings, ["node2"])

    start_nodes(surroundings, ["node1", "node2"])

    assert {"running"} == set(states(surroundings).values())


def test_start_of_a_running_node_and_stop_of_a_stopped_one_do_nothing(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking for what is already so is no mistake."""
    backend = up(surroundings, request_combined)
    stop_nodes(surroundings, ["node2"])
    before = backend.processes()

    start_nodes(surroundings, ["node1"])
    stop_nodes(surroundings, ["node2"])

    assert before == backend.processes()
    printed = capsys.readouterr().out
    assert "node1 runs already" in printed
    assert "node2 does not run (stopped)" in printed


def test_an_unknown_node_is_refused_with_the_list_of_nodes(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """A typo in a node's name must not be swallowed."""
    up(surroundings, request_combined)

    with pytest.raises(UsageError, match=r"'node9'.*node1, node2, node3"):
        stop_nodes(surroundings, ["node9"])


def test_kill_leader_kills_it_and_names_the_next(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who led, who leads, and how long that took."""
    up(surroundings, request_combined)

    kill_leader(surroundings, "queue")

    assert states(surroundings)["node1"] == "dead"
    printed = capsys.readouterr().out
    assert "led queue at term 1 and was killed" in printed
    assert "node2 leads queue now at term 2" in printed


def test_kill_leader_waits_for_a_group_that_is_electing(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the last leader was killed there may be none for a moment."""
    up(surroundings, request_combined)
    looks: list[str] = []

    def none_at_first(*arguments: Any) -> dict[str, Any]:
        looks.append("look")
        return {} if len(looks) < 3 else real(*arguments)

    real = Roster.leaders
    monkeypatch.setattr(Roster, "leaders", none_at_first)

    kill_leader(surroundings, "queue")

    assert states(surroundings)["node1"] == "dead"


def test_kill_leader_is_refused_where_nothing_runs(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """At once: nobody will be elected."""
    up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1", "node2", "node3"])

    with pytest.raises(ClusterError, match=r"'lock' has no leader now\. `.*mufakat status` shows why"):
        kill_leader(surroundings, "lock")


def test_kill_leader_of_an_unknown_group_is_refused(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The groups that there are stand in the sentence."""
    up(surroundings, request_combined)

    with pytest.raises(UsageError, match=r"'locks'.*lock, queue, cache"):
        kill_leader(surroundings, "locks")


def test_a_process_id_that_was_used_again_is_not_taken_for_the_node(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """Pid files outlive processes; `kill` must never hit a stranger."""
    backend = up(surroundings, request_combined)
    kill_nodes(surroundings, ["node1"])
    path = surroundings.home.root / "combined" / "node1" / "data" / PROCESS_NAME
    path.write_text(json.dumps({"node": "node1", "pid": os.getpid(), "started": "another boot/1"}))

    backend.kill(backend.topology.node("node1"))

    assert backend.processes()["node1"].state == "dead"


def test_a_start_mark_is_that_of_a_living_process_and_stays() -> None:
    """With the process id it says which process is meant; one that has ended has none, reaped or not."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = start_mark(child.pid)

    assert mark
    assert start_mark(child.pid) == mark
    child.kill()
    wait_until(lambda: start_mark(child.pid) is None, timeout_seconds=5, what="a zombie has no start mark")
    child.communicate()
    assert start_mark(child.pid) is None


def test_the_secret_and_the_home_are_for_their_owner_alone(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """Other users of the machine must not be able to speak to the nodes as a node."""
    up(surroundings, request_combined)

    root = surroundings.home.root
    assert stat.S_IMODE((root / "cluster_secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert len((root / "cluster_secret").read_text()) > 16


def test_down_ends_every_node_and_keeps_what_they_stored(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """Down is a switch, not an eraser, unless told."""
    backend = up(surroundings, request_combined)
    kept = make_file(surroundings, "node1", "anything")

    down(surroundings, wipe=False)

    assert {"stopped"} == {process.state for process in backend.processes().values()}
    assert kept.exists()
    assert surroundings.home.record() is None


def test_down_with_wipe_deletes_what_the_nodes_stored(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The way to an empty cluster."""
    up(surroundings, request_combined)
    kept = make_file(surroundings, "node1", "anything")

    down(surroundings, wipe=True)

    assert not kept.exists()


def test_commands_without_a_cluster_say_so(surroundings: Surroundings) -> None:
    """And name the folder in which they looked."""
    with pytest.raises(NoCluster, match="home"):
        down(surroundings, wipe=False)


def test_two_commands_at_once_do_not_start_nodes_twice(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The second one is told to wait."""
    with surroundings.home.exclusive(), pytest.raises(InTheWay, match="Another mufakat command"):
        up(surroundings, request_combined)


def test_logs_show_what_the_nodes_wrote(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a line, each with its node."""
    backend = up(surroundings, request_combined)
    capsys.readouterr()

    view = LogView([node.id for node in backend.topology.nodes])
    backend.show_logs(backend.topology.nodes, follow=False, lines=5, view=view)

    assert "node1  node1 serves" in capsys.readouterr().out


def following(surroundings: Surroundings) -> "subprocess.Popen[str]":
    """`mufakat logs --follow` of that cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", "logs", "--follow"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**surroundings.environ, "MUFAKAT_HOME": str(surroundings.home.root)},
    )


def test_followed_logs_go_on_over_a_roll_over_and_end_quietly_when_interrupted(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """Ctrl-C is how one leaves; it is no accident."""
    backend = up(surroundings, request_combined)
    log = surroundings.home.root / "combined" / "node2" / "node.log"

    with following(surroundings) as process:
        assert process.stdout is not None and process.stderr is not None
        begun = [process.stdout.readline() for _ in backend.topology.nodes]
        log.rename(log.with_name("node.log.1"))
        log.write_text("after the roll-over\n")
        after = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        code, complaints = process.wait(10), process.stderr.read()

    assert all("serves" in line for line in begun)
    assert after.endswith("node2  after the roll-over\n")
    assert (code, complaints) == (130, "")


def test_logs_end_quietly_when_nobody_reads_them_any_more(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """`mufakat logs | head`."""
    up(surroundings, request_combined)
    log = surroundings.home.root / "combined" / "node2" / "node.log"

    with following(surroundings) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        def ended() -> bool:
            with open(log, "a") as file:
                file.write("another line\n")
            return process.poll() is not None

        wait_until(ended, timeout_seconds=10, what="the command notices")
        complaints = process.stderr.read()

    assert (process.returncode, complaints) == (0, "")


def test_a_record_of_another_version_is_refused(surroundings: Surroundings) -> None:
    """Better a sentence than a guess about which processes are meant."""
    path = surroundings.home.root / "cluster.json"
    path.parent.mkdir()
    path.write_text('{"mode": "local", "topology": "of the future"}')

    with pytest.raises(ClusterError, match="of another version of mufakat"):
        surroundings.home.record()


def test_docker_mode_without_an_engine_is_refused_with_the_other_way(surroundings: Surroundings) -> None:
    """The sentence says why and what works instead."""
    with pytest.raises(ClusterError, match=r"this is a test.*--mode local"):
        choose_mode(surroundings, "docker")


def test_local_mode_is_chosen_where_no_engine_answers(
    surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which mode, and why."""
    chosen = choose_mode(surroundings, None)

    assert chosen == "local"
    assert "Mode: local, because this is a test." in capsys.readouterr().out


@pytest.fixture
def image_cannot_be_built(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """An engine answers, but the base image is out of reach."""

    def prepare(self: DockerBackend) -> None:
        raise ImageNotBuilt("The image could not be built.")

    monkeypatch.setattr(DockerBackend, "prepare", prepare)
    return replace(surroundings, detect=lambda: Engine("20.10", ("docker-compose",)))


def test_an_image_that_cannot_be_built_leads_to_local_mode(
    image_cannot_be_built: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first command of the README works on a machine with an engine and no way to the image."""
    up(image_cannot_be_built, replace(request_combined, mode=None))

    assert image_cannot_be_built.home.record() == Record("local", "combined", request_combined.port_offset)
    assert "Mode: local after all" in capsys.readouterr().out


def test_an_up_that_says_nothing_is_as_the_last_one(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it would start other nodes, on other ports, without the data of these."""
    up(surroundings, request_combined)
    up(surroundings, Request())
    down(surroundings, wipe=False)
    with_engine = replace(surroundings, detect=lambda: Engine("20.10", ("docker-compose",)))
    capsys.readouterr()

    up(with_engine, Request())

    assert surroundings.home.record() == Record("local", "combined", request_combined.port_offset)
    assert "Mode: local, as before." in capsys.readouterr().out


def test_docker_mode_that_was_asked_for_is_not_exchanged(
    image_cannot_be_built: Surroundings, request_combined: Request
) -> None:
    """Who says docker means it."""
    with pytest.raises(ImageNotBuilt):
        up(image_cannot_be_built, replace(request_combined, mode="docker"))

    assert image_cannot_be_built.home.record() is None


@pytest.mark.parametrize(
    ("running", "status", "exit_code", "expected"),
    [
        (True, "running", 0, "running"),
        (False, "created", 0, "stopped"),
        (False, "exited", 0, "stopped"),
        (False, "exited", 143, "stopped"),
        (False, "exited", 137, "dead"),
        (False, "exited", 1, "dead"),
    ],
)
def test_a_containers_state_tells_stopped_from_dead(
    running: bool, status: str, exit_code: int, expected: str
) -> None:
    """137 is SIGKILL, from whomever; 143 and 0 are what a request to stop leaves behind."""
    state = {"Running": running, "Status": status, "ExitCode": exit_code, "Pid": 4711 if running else 0}

    process = container_process({"State": state})

    assert process == NodeProcess(4711 if running else None, expected)
