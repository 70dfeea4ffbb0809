"""No node runs that no command knows, and no command takes another's node for its own.

With stand-ins for the nodes. Where a command is to be cut off, it is a process of its own.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.start_mark import mark_from_ps
from raft.storage.cluster import keep_cluster
from raft.storage.errors import DataDirectoryInUse
from services.cluster import home, processes
from services.cluster.backend import Backend
from services.cluster.configuring import set_settings
from services.cluster.errors import ClusterError, InTheWay, NoCluster, in_words
from services.cluster.home import STARTING, Home
from services.cluster.lifecycle import Request, Surroundings, down, up
from services.cluster.nodes import kill_leader, start_nodes, stop_nodes
from services.cluster.roster import roster
from services.cluster.status import cluster_status, state_of, status_json
from services.node.process_file import PROCESS_NAME, look, reserve, take_process
from tests.cluster.tools import STUB, cluster_in, free_port_offset, wait_until

#: A command in a process of its own, with stand-ins for nodes: its home, its port offset, and after how many started
#: nodes it is cut off by which signal.
CUT_OFF = """
import os, sys
from pathlib import Path
from services.cluster.engine import NoEngine
from services.cluster.home import Home
from services.cluster.lifecycle import Request, Surroundings, up
from services.cluster.local import LocalBackend

home, offset, after, number, stub = Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5]
real, started = LocalBackend.start, []

def start(self, node):
    real(self, node)
    started.append(node)
    if len(started) == after:
        os.kill(os.getpid(), number)

LocalBackend.start = start
environ = {"PATH": "/usr/bin:/bin"}
command = (sys.executable, stub)
surroundings = Surroundings(Home(home), environ, detect=lambda: NoEngine("test"), serve_command=command)
up(surroundings, Request("combined", "local", offset))
"""

pytestmark = pytest.mark.cluster


def running(home: Home) -> list[Path]:
    """The data directories of this home that a process holds."""
    return [folder for folder in home.data_folders() if look(folder).is_held]


def cut_off(surroundings: Surroundings, request: Request, after: int, number: signal.Signals) -> None:
    """An `up` that ends by a signal after it has started so many nodes."""
    arguments = (surroundings.home.root, request.port_offset, after, number.value, STUB[1])
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, *map(str, arguments)], stderr=subprocess.DEVNULL, check=False
    )
    assert done.returncode != 0


def _status_json(backend: Backend) -> str:
    return status_json(backend, cluster_status(backend))


def folder(surroundings: Surroundings, node_id: str) -> Path:
    found = surroundings.home.root / "combined" / node_id
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_down_ends_what_an_interrupted_up_left_behind(
    surroundings: Surroundings, request_combined: Request, number: signal.Signals, after: int
) -> None:
    for node_id in ("node1", "node2", "node3"):
        (folder(surroundings, node_id) / "late").touch()
    cut_off(surroundings, request_combined, after, number)

    down(surroundings, wipe=False)

    assert running(surroundings.home) == []


def test_the_next_up_goes_on_with_an_interrupted_one(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(surroundings, request_combined, 2, signal.SIGKILL)
    assert len(running(surroundings.home)) == 2
    assert surroundings.home.require_cluster().state == STARTING

    backend = up(surroundings, request_combined)

    assert {process.state for process in backend.processes().values()} == {"running"}
    assert "did not come to its end" in capsys.readouterr().out


def test_status_shows_the_nodes_of_an_interrupted_up(surroundings: Surroundings, request_combined: Request) -> None:
    cut_off(surroundings, request_combined, 2, signal.SIGKILL)

    backend = surroundings.require_backend()

    wait_until(
        lambda: [state_of(seat) for seat in cluster_status(backend).seats] == ["running", "running", "stopped"],
        timeout_seconds=10,
        what="two nodes are shown",
    )


def test_down_finds_nodes_without_any_record(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """cluster.json is gone, or cannot be read."""
    up(surroundings, request_combined)
    surroundings.home.cluster_path.unlink()

    down(surroundings, wipe=False)

    assert running(surroundings.home) == []
    assert "combined/node1 ran here and was stopped" in capsys.readouterr().out


def test_a_home_whose_record_is_gone_goes_on_as_the_cluster_whose_data_it_holds(
    surroundings: Surroundings, request_combined: Request
) -> None:
    """The nodes would refuse to start as another one."""
    before = up(surroundings, request_combined).cluster.id
    down(surroundings, wipe=False)
    keep_cluster(folder(surroundings, "node1") / "data", before)
    surroundings.home.cluster_path.unlink()

    after = up(surroundings, request_combined).cluster.id

    assert after == before


def test_a_cluster_is_taken_down_on_a_full_disk(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has to be written for it."""
    up(surroundings, request_combined)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(home, "write_file", full)

    down(surroundings, wipe=False)

    assert running(surroundings.home) == []
    assert surroundings.home.record() is None


def test_what_cannot_be_written_is_named(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(surroundings, request_combined)
    before = surroundings.home.cluster()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(home.os, "fsync", full)
    with pytest.raises(OSError) as raised:
        set_settings(surroundings, ["SNAPSHOT_ENTRIES=700"])

    words = in_words(raised.value)
    assert words == f"{surroundings.home.cluster_path}: No space left on device. Free some space, then try again."
    assert surroundings.home.cluster() == before
    assert not list(surroundings.home.root.glob("*.new"))


def test_down_ends_the_nodes_of_a_cluster_whose_record_is_damaged(
    surroundings: Surroundings, request_combined: Request
) -> None:
    up(surroundings, request_combined)
    surroundings.home.cluster_path.write_bytes(b"\xff{")

    with pytest.raises(ClusterError, match="cannot be read"):
        down(surroundings, wipe=False)

    assert running(surroundings.home) == []


def test_up_ends_what_an_interrupted_down_left_running(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = up(surroundings, request_combined)
    before = backend.processes()["node1"].pid
    surroundings.home.keep(replace(surroundings.home.require_cluster(), state="down"))

    after = up(surroundings, request_combined).processes()["node1"].pid

    assert before != after
    assert "node1 ran still from before and was stopped" in capsys.readouterr().out


def test_a_node_named_twice_is_started_once(surroundings: Surroundings, request_combined: Request) -> None:
    up(surroundings, request_combined)
    stop_nodes(surroundings, ["node1"])

    start_nodes(surroundings, ["node1", "node1"])
    stop_nodes(surroundings, ["node1"])

    assert len(running(surroundings.home)) == 2


def test_a_start_beside_a_running_node_is_refused_by_its_lock(
    surroundings: Surroundings, request_combined: Request
) -> None:
    backend = up(surroundings, request_combined)

    with pytest.raises(InTheWay, match="node1 runs already"):
        backend.start(backend.topology.node("node1"))


@pytest.mark.parametrize("note", [b"\0" * 40, b'{"node": "node1", "pid": 1, "started": "of another"}'])
def test_a_damaged_note_of_a_process_is_in_nobodys_way(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch, note: bytes
) -> None:
    """The process is found by the file that it holds, and no other is shown in its place."""
    monkeypatch.setattr(processes, "NAME_SECONDS_MAX", 2.0)
    backend = up(surroundings, request_combined)
    (pid,) = [seat.process.pid for seat in cluster_status(backend).seats if seat.node.id == "node1"]
    path = folder(surroundings, "node1") / "data" / PROCESS_NAME
    path.write_bytes(note)

    shown = {row["id"]: (row["pid"], row["state"]) for row in json.loads(_status_json(backend))["nodes"]}
    down(surroundings, wipe=False)

    assert shown["node1"] == (pid, "running")

    assert running(surroundings.home) == []


def test_a_copied_home_does_not_touch_the_nodes_of_the_original(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    """A copy of the folder holds no lock."""
    up(surroundings, request_combined)
    shutil.copytree(surroundings.home.root, tmp_path / "copy")
    copy = replace(surroundings, home=Home(tmp_path / "copy"))

    assert {state_of(seat) for seat in cluster_status(copy.require_backend()).seats} == {"dead"}
    with pytest.raises(ClusterError, match="has no leader"):
        kill_leader(copy, "lock")
    down(copy, wipe=True)

    assert len(running(surroundings.home)) == 3
    assert not (tmp_path / "copy" / "combined").exists()


def test_another_cluster_on_the_same_ports_is_not_taken_for_ours(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers says which cluster it is of."""
    with cluster_in(tmp_path / "other", serve_command=STUB, detect=surroundings.detect) as other:
        up(other, request_combined)
        backend = up(surroundings, Request("combined", "local", free_port_offset("combined")))
        record = replace(backend.cluster.record, port_offset=request_combined.port_offset)
        surroundings.home.keep(replace(backend.cluster, record=record))

        with pytest.raises(ClusterError, match="has no leader"):
            kill_leader(surroundings, "lock")
        told = {seat.node.id: seat.told for seat in roster(surroundings.require_backend()).seats}

        ours, theirs = surroundings.home.require_cluster().id, other.home.require_cluster().id
        assert f"is node1 of the cluster {theirs}, and not node1 of this one ({ours})" in str(told["node1"])
        assert len(running(other.home)) == len(running(surroundings.home)) == 3


def test_nodes_that_do_not_stop_are_waited_for_all_at_once(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three that hang take as long as one."""
    graces: list[float] = []
    real = processes.Process.wait_end
    monkeypatch.setattr(
        processes.Process, "wait_end", lambda self, seconds: graces.append(seconds) or real(self, min(seconds, 0.3))
    )
    for node_id in ("node1", "node2", "node3"):
        (folder(surroundings, node_id) / "hang").touch()
    up(surroundings, request_combined)

    down(surroundings, wipe=False)

    assert running(surroundings.home) == []
    assert sorted(graces[:3], reverse=True) == graces[:3]
    assert "node2 did not stop within" in capsys.readouterr().out


def test_a_start_mark_does_not_depend_on_the_zone_and_the_language_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no /proc, `ps` tells the time, and it tells it in the zone of whoever asks."""
    marks = set()
    for zone, language in (("UTC", "C"), ("America/New_York", "C"), ("Asia/Tokyo", "de_DE.UTF-8")):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LC_ALL", language)
        marks.add(mark_from_ps(os.getpid()))

    assert len(marks) == 1
    assert marks != {None}


def test_an_interrupt_while_a_command_is_being_imported_shows_no_traceback() -> None:
    """Ctrl-C right after Enter: what is being imported then is nobody's business."""
    program = (
        "import builtins, os, signal\n"
        "real = builtins.__import__\n"
        "def imported(name, *rest, **more):\n"
        "    if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = imported\n"
        "from services.cli.entry import main\n"
        "main()\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


# Wiping


def test_a_wipe_follows_links_and_leaves_them(
    surroundings: Surroundings, request_combined: Request, tmp_path: Path
) -> None:
    """The data lies on another disk: that is what goes."""
    big, bigger = tmp_path / "big", tmp_path / "bigger"
    (big / "node2").mkdir(parents=True)
    bigger.mkdir()
    surroundings.home.create()
    (surroundings.home.root / "combined").symlink_to(big)
    (big / "node2" / "data").symlink_to(bigger)
    up(surroundings, request_combined)
    assert list(bigger.iterdir())

    down(surroundings, wipe=True)

    assert [str(path.relative_to(big)) for path in sorted(big.rglob("*"))] == ["node2", "node2/data"]
    assert list(bigger.iterdir()) == []
    up(surroundings, request_combined)


def test_a_wipe_that_leaves_something_says_so(
    surroundings: Surroundings, request_combined: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immutable file, say."""
    up(surroundings, request_combined)
    stays = folder(surroundings, "node1") / "data" / "stays"
    stays.touch()
    real = os.unlink

    def unlink(path: str | Path, **options: int) -> None:
        if Path(path) == stays:
            raise PermissionError(1, "Operation not permitted", str(path))
        real(path, **options)

    monkeypatch.setattr("services.cluster.wiping.os.unlink", unlink)

    with pytest.raises(ClusterError, match=r"Not everything could be deleted.*stays: Operation not permitted"):
        down(surroundings, wipe=True)

    assert running(surroundings.home) == []
    assert stays.exists()


def test_a_cluster_that_is_down_can_be_wiped(
    surroundings: Surroundings, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    up(surroundings, request_combined)
    down(surroundings, wipe=False)

    down(surroundings, wipe=True)

    assert not (surroundings.home.root / "combined").exists()
    assert "was down already" in capsys.readouterr().out
    with pytest.raises(NoCluster):
        down(surroundings, wipe=True)


# The lock


def test_a_process_file_is_held_by_one_and_tells_who_ended_without_a_word(tmp_path: Path) -> None:
    first = take_process(str(tmp_path))
    first.note("node1")
    with pytest.raises(DataDirectoryInUse):
        reserve(tmp_path)
    assert look(tmp_path).record.pid == os.getpid()

    first.close()
    ended = look(tmp_path)
    again = reserve(tmp_path)

    assert (ended.is_held, ended.record.node) == (False, "node1")
    assert (look(tmp_path).is_held, look(tmp_path).record) == (True, None)
    again.close()


def test_what_a_starter_reserved_is_taken_over(tmp_path: Path) -> None:
    reserved = reserve(tmp_path)

    taken = take_process(str(tmp_path), str(reserved.descriptor))

    assert taken.descriptor == reserved.descriptor
    taken.close()


@pytest.mark.parametrize("inherited", ["", "no number", "0", "9999"])
def test_a_number_that_is_not_that_lock_is_no_lock(tmp_path: Path, inherited: str) -> None:
    """The variable may have been left over from another process."""
    taken = take_process(str(tmp_path), inherited)

    assert look(tmp_path).is_held
    taken.close()


def test_a_deleted_directory_is_noticed(tmp_path: Path) -> None:
    taken = take_process(str(tmp_path / "data"))
    assert taken.is_in_place()

    shutil.rmtree(tmp_path / "data")
    gone = taken.is_in_place()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / PROCESS_NAME).touch()

    assert (gone, taken.is_in_place()) == (False, False)
    taken.close()
