"""A few rounds of random commands, the same for every run; and that its judge finds what is untrue."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.operator import judge
from tests.chaos.operator.__main__ import run
from tests.chaos.operator.judge import check_command, check_logs, check_world
from tests.chaos.operator.world import Command, Fault, World
from tests.cluster.tools import wait_until

pytestmark = pytest.mark.cluster

#: Seeds and their rounds: in less than a minute, data that is deleted while its node runs, a cluster.json that is
#: lost, and another cluster on the same ports.
SEEDS = ((11, 1), (12, 2))


@pytest.mark.parametrize(("seed", "rounds"), SEEDS)
def test_what_commands_say_is_so_and_no_acknowledged_write_is_gone(seed: int, rounds: int, tmp_path: Path) -> None:
    """Each round is a disaster, some commands and a healing; the number of rounds bounds it, not the time."""
    world = run(seed, tmp_path, rounds_max=rounds)

    assert world.counts["healings"] == rounds + 1
    assert all(world.clients.acknowledged().values()), "no client wrote anything"


@pytest.fixture
def stray(tmp_path: Path) -> Iterator[World]:
    """A home in which a process runs that looks like node1 and that no command has started."""
    world = World(tmp_path, 1, check_command)
    environ = {"MUFAKAT_DATA_DIR": str(world.data_dir("node1"))}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environ) as process:
        wait_until(lambda: world.pids("node1"), timeout_seconds=10, what="the process is found")
        yield world
        process.kill()


@pytest.mark.parametrize(
    "said",
    [
        "node1 was stopped. node1 stays down until `mufakat start node1`.",
        "node1 was killed. node1 stays down until `mufakat start node1`.",
        "node1 does not run (stopped).",
        "node1 runs already (pid 1).",
        "node1 runs (pid 1) and answers on 127.0.0.1:8001.",
        "The cluster is down (combined, local mode). What it stored is kept.",
        "/nowhere/lock.backup: group lock at index 12, 14 bytes",
        "Restored on node1, node2, node3. Start the cluster.",
        "All 3 nodes are ready (1.0 s).",
    ],
)
def test_a_command_that_says_what_is_not_so_is_found(
    stray: World, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 3; the process runs, and nothing else does."""
    monkeypatch.setattr(judge, "STILL_READY_SECONDS_MAX", 0.1)

    with pytest.raises(Fault, match="rule 3"):
        check_command(stray, Command(("test",), 0, said + "\n", "", 0.1))


def test_a_node_that_status_does_not_show_is_found(stray: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2."""
    monkeypatch.setattr(judge, "SEEN_SECONDS_MAX", 0.5)

    with pytest.raises(Fault, match="rule 2: no cluster is up by `status`"):
        check_world(stray)


@pytest.mark.parametrize(
    ("code", "err", "rule"),
    [(1, "Traceback (most recent", "rule 4"), (1, "", "rule 3"), (5, "No.", "rule 3"), (-9, "", "rule 3")],
)
def test_an_end_that_no_command_may_have_is_found(tmp_path: Path, code: int, err: str, rule: str) -> None:
    """Rules 3 and 4."""
    with pytest.raises(Fault, match=rule):
        check_command(World(tmp_path, 1, check_command), Command(("stop",), code, "", err, 0.1))


def test_a_traceback_in_the_log_of_a_node_is_found_once(tmp_path: Path) -> None:
    """Rule 4."""
    world = World(tmp_path, 1, check_command)
    log = world.data_dir("node1").with_name("node.log")
    log.parent.mkdir(parents=True)
    log.write_text('{"event": "x", "exception": "Traceback ..."}\n')

    with pytest.raises(Fault, match="rule 4"):
        check_logs(world)
    check_logs(world)
