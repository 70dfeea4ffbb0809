"""A group of one is made out of one disk, by agreement only, and nothing is lost on the way whenever it is killed."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raft.core.types import HardState
from raft.life import is_restored
from raft.storage import Recovered, RecoveryUnfinished, open_storage
from raft.storage.beside import unfinished_recovery
from raft.storage.files import RealFile
from raft.storage.incarnation import take_incarnation
from raft.storage.reading import reading
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.local import SERVE_COMMAND
from services.cluster.recovering import recover
from services.lock.replicated.commands import Acquire
from services.offline import recovery
from services.offline.disks import load_disk
from services.offline.restore import Leap
from services.queue.replicated.commands import Enqueue
from services.replicated.machine import ReplicatedMachine
from tests.cluster.tools import free_port_offset
from tests.services.disks import LIFE, TERM, applied, entries_of, write_disk
from tests.services.killing import STEPS_MAX, is_killed_at
from tests.services.test_cli_storage import run, told
from tests.services.test_disk_backup import content_of
from tests.services.test_replicated_snapshots import live, restored
from tests.storage.builders import segments


def node_data(root: Path, *groups: str, node: str = "node1") -> Path:
    """A node's data directory, where local mode has it."""
    data = root / node / "data"
    for group in groups or ("lock",):
        write_disk(data / group, group, snapshot_at=4)
    return data


def agreed(root: Path, group: str = "", *, node: str = "") -> None:
    recover(root, group, node=node, agree=lambda: True)


def opened(directory: Path) -> tuple[Recovered, ReplicatedMachine]:
    """What a node that starts on it recovers, and its machine."""
    storage, recovered = open_storage(directory)
    loaded = storage.load_snapshot()
    assert loaded is not None
    machine = restored(directory.name, loaded[1])
    storage.close()
    return recovered, machine


@pytest.mark.parametrize("group", ["lock", "queue", "cache"])
def test_the_disk_becomes_the_beginning_of_a_new_life_with_one_voter(group: str, tmp_path: Path) -> None:
    """All that it held is there, and the former folder is kept."""
    data = node_data(tmp_path, group)
    before = content_of(data / group)

    agreed(data)
    recovered, machine = opened(data / group)

    [aside] = data.glob(f"{group}.recovered-*")
    assert list(content_of(aside).values()) == list(before.values())
    assert sorted(path.name for path in data.iterdir()) == [group, aside.name]
    assert (recovered.hard_state, recovered.entries) == (HardState(TERM), [])
    assert recovered.snapshot is not None
    members = recovered.snapshot.configuration
    assert (members.voters, members.learners, members.incarnations) == (("node1",), (), ())
    assert members.addresses == (("node1", "127.0.0.1:8001"),)
    assert is_restored(members.life) and members.life != LIFE
    with reading(aside) as contents:
        leap = Leap.since(load_disk(contents, group).written_us, members.life)
    expected = applied(group, entries_of(group))
    expected.inner.skip_numbers(leap.skipped, leap.floor)
    assert list(machine.snapshot()) == list(expected.snapshot())


@pytest.mark.parametrize("group", ["lock", "queue", "cache"])
def test_no_number_is_given_twice(group: str, tmp_path: Path) -> None:
    """The others may have given a million a second since this disk was written to for the last time."""
    data = node_data(tmp_path, group)
    hour_ago = max(path.stat().st_mtime for path in (data / group).iterdir()) - 3_600
    for path in (data / group).iterdir():
        os.utime(path, (hour_ago, hour_ago))
    entries = entries_of(group)

    agreed(data)
    recovered, machine = opened(data / group)

    assert recovered.snapshot is not None
    assert recovered.snapshot.index > entries[-1].index + 3_600 * 1_000_000
    if group != "cache":
        ask = [(99_000, Acquire("new", "me") if group == "lock" else Enqueue("new", b"1"), None)]
        field = "token" if group == "lock" else "msg_id"
        [(former, _)] = live(applied(group, entries), ask, first_index=entries[-1].index + 1)
        [(given, _)] = live(machine, ask, first_index=recovered.snapshot.index + 1)
        assert int(given[field]) > int(former[field]) + 3_600 * 1_000_000


def test_it_says_what_it_found_what_may_be_lost_and_what_to_do_next(tmp_path: Path) -> None:
    data = node_data(tmp_path)
    index = entries_of("lock")[-1].index

    result = run("recover", data, "--yes")

    assert result.exit_code == 0, result.output
    text = told(result)
    assert f"lock: {data / 'lock'}, the disk of node1: up to index {index} of term {TERM}, last written 20" in text
    assert f"voters node1, node2, node3; life {LIFE}, begun " in text
    assert "What only the other disks hold will be lost, even where it was acknowledged" in text
    assert f"The former disk is kept in {data / 'lock.recovered-'}" in text
    assert "Next: start node1 alone and wait until it is ready." in text
    assert "mufakat member add node2 127.0.0.1:8002 --group lock" in text
    assert "mufakat member add node3 HOST:PORT --group lock" in text


def test_nothing_is_changed_before_it_is_agreed_to(tmp_path: Path) -> None:
    """Without a terminal nobody can agree."""
    data = node_data(tmp_path, "lock", "queue")
    before = content_of(data)

    without_terminal = run("recover", data)
    with pytest.raises(ClusterError, match="Nothing was changed"):
        recover(data, "", node="", agree=lambda: False)

    assert without_terminal.exit_code == 2
    assert told(without_terminal).endswith("`--yes` goes on without asking.")
    assert content_of(data) == before
    assert sorted(path.name for path in data.iterdir()) == ["lock", "queue"]


def test_a_disk_that_a_node_holds_is_refused(tmp_path: Path) -> None:
    data = node_data(tmp_path)
    storage, _ = open_storage(data / "lock")

    with pytest.raises(InTheWay, match=r"A node runs on it: .* Stop it first\."):
        agreed(data)
    storage.close()

    agreed(data)


def test_a_damaged_disk_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    """Also where another group's is sound: all or none is what was asked for."""
    data = node_data(tmp_path, "lock", "queue")
    log = segments(data / "queue")[0]
    content = bytearray(log.read_bytes())
    content[300] ^= 1
    log.write_bytes(content)

    result = run("recover", data, "--yes")

    assert result.exit_code == 1
    assert told(result).startswith(f"{log}: damaged at byte ")
    assert sorted(path.name for path in data.iterdir()) == ["lock", "queue"]


def test_one_group_of_several_can_be_recovered(tmp_path: Path) -> None:
    data = node_data(tmp_path, "lock", "queue")

    agreed(data, "queue")

    assert [path.name.partition("-")[0] for path in sorted(data.iterdir())] == ["lock", "queue", "queue.recovered"]


def test_a_disk_that_is_full_is_told_and_everything_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = node_data(tmp_path)
    before = content_of(data)

    def full(self: RealFile, offset: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RealFile, "write", full)
        with pytest.raises(ClusterError, match=r"broke off: no space left on device\. The same command goes on"):
            agreed(data)

    assert content_of(data) == before
    agreed(data)


def test_what_an_administrator_recovers_is_its_nodes(tmp_path: Path) -> None:
    """Else the node, which runs as somebody else, could not open it."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    data = node_data(tmp_path)
    for path in (data, data / "lock", *(data / "lock").iterdir()):
        os.chown(path, 12_345, 54_321)

    agreed(data)

    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (data / "lock", *(data / "lock").iterdir())}
    assert owners == {(12_345, 54_321)}


# Whose disk it is


@pytest.mark.parametrize(
    ("record", "path", "given", "expected"),
    [
        ('{"node": "node3"}', "node2/data", "", "node3"),
        ("half a recor", "node2/data", "", "node2"),
        ("", "node2/data", "", "node2"),
        ("", "node2/data", "node3", "node3"),
        ("", "somewhere", "node3", "node3"),
    ],
    ids=["recorded", "the record is damaged", "by the path", "said, which is more than a path", "said"],
)
def test_the_node_is_the_recorded_one_or_the_one_that_was_said_or_told_by_the_path(
    record: str, path: str, given: str, expected: str, tmp_path: Path
) -> None:
    data = tmp_path / path
    write_disk(data / "lock", "lock")
    if record:
        (data / "PROCESS").write_text(record)

    agreed(data / "lock", node=given)

    recovered, _ = opened(data / "lock")
    assert recovered.snapshot is not None
    assert recovered.snapshot.configuration.voters == (expected,)


@pytest.mark.parametrize(
    ("record", "given", "problem"),
    [
        ("", "", r"It cannot be told whose disk \S+ is: say it with `--id`\. Its members are node1, node2, node3\."),
        ("", "node9", r"node9 is no member of the group as \S+ has it; its members are node1, node2, node3\."),
        ('{"node": "node9"}', "", "node9 is no member of the group"),
        ('{"node": "node1"}', "node2", "is the disk of node1, as its node has recorded"),
        ("", "no id", "--id: 'no id' is no node id"),
    ],
)
def test_a_disk_whose_node_is_not_clear_is_left_alone(record: str, given: str, problem: str, tmp_path: Path) -> None:
    write_disk(tmp_path / "lock", "lock")
    if record:
        (tmp_path / "PROCESS").write_text(record)

    with pytest.raises(UsageError, match=problem):
        agreed(tmp_path, node=given)

    assert (tmp_path / "lock").is_dir() and not list(tmp_path.glob("lock.*"))


def test_a_disk_that_does_not_tell_its_members_is_recovered_as_who_is_named(tmp_path: Path) -> None:
    """A group that was cut off before its first binding."""
    write_disk(tmp_path / "lock", "lock", members=None)

    result = run("recover", tmp_path, "--id", "node5", "--yes")

    assert result.exit_code == 0, result.output
    assert "voters not known; life it does not say which" in told(result)
    assert "mufakat member add ID HOST:PORT" in told(result)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: write_disk(root / "lock.damaged-20260131T120000", "lock"), "There is no log in"),
        (lambda root: open_storage(root / "lock")[0].close(), "holds no entry of the group lock"),
        (lambda root: None, "There is no log in"),
    ],
    ids=["put aside", "empty", "nothing"],
)
def test_what_is_no_groups_folder_is_told(make: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
    make(tmp_path)

    with pytest.raises(ClusterError, match=problem):
        agreed(tmp_path, node="node1")


def test_a_folder_that_no_node_opens_must_get_its_name_first(tmp_path: Path) -> None:
    aside = tmp_path / "node1" / "data" / "lock.damaged-20260131T120000"
    write_disk(aside, "lock")

    with pytest.raises(UsageError, match="has to be called lock"):
        agreed(aside)


# Interrupted


def test_a_recovery_that_is_killed_at_any_step_goes_on_or_has_changed_nothing(tmp_path: Path) -> None:
    """At no moment can a node start on an empty folder in the place of the one that is being recovered."""
    between = 0
    for step in range(STEPS_MAX):
        data = node_data(tmp_path / str(step), "lock", "queue")
        killed = is_killed_at(step, lambda data=data: agreed(data))
        for group in ("lock", "queue"):
            if not (data / group).exists():
                between += 1
                with pytest.raises(RecoveryUnfinished, match=f"mufakat recover {data / group}` finishes it"):
                    open_storage(data / group)
                assert not (data / group).exists()
        agreed(data)
        for group in ("lock", "queue"):
            recovered, _ = opened(data / group)
            assert recovered.snapshot is not None
            assert recovered.snapshot.configuration.voters == ("node1",), f"step {step}"
            assert len(list(data.glob(f"{group}.recovered-*"))) == 1, f"step {step}"
        assert not list(data.glob("*.recovering*"))
        shutil.rmtree(tmp_path / str(step))
        if not killed:
            break

    assert between == 2


def test_what_was_interrupted_is_finished_by_the_groups_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the node's last words have it; it was agreed to before."""
    data = node_data(tmp_path)

    def broken(draft: Path, directory: Path) -> None:
        raise OSError(5, "Input/output error", str(draft))

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "publish", broken)
        with pytest.raises(ClusterError, match=r"broke off: input/output error\. The same command"):
            agreed(data)
    missing = not (data / "lock").exists()
    result = run("recover", data / "lock")

    assert missing
    assert result.exit_code == 0, result.output
    assert "lock: a recovery was interrupted, and is finished now." in told(result)
    assert "Next: start node1 alone" in told(result)


@pytest.mark.cluster
def test_a_node_whose_recovery_is_unfinished_ends_with_what_to_do(tmp_path: Path) -> None:
    """In a process of its own, as it is started."""
    data = node_data(tmp_path)
    shutil.copytree(data / "lock", data / "lock.recovering-20260131T120000")
    (data / "lock").rename(data / "lock.recovered-20260131T120000")
    port = 8_000 + free_port_offset("separated")
    node = ("--node-id", "node1", "--groups", "lock", "--cluster", f"node1=127.0.0.1:{port}", "--data-dir", str(data))

    ended = subprocess.run(
        [*SERVE_COMMAND, *node],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "MUFAKAT_LOG_FORMAT": "json"},
    )
    last = json.loads((ended.stdout + ended.stderr).splitlines()[-1])

    assert ended.returncode == 1
    assert f"`mufakat recover {data / 'lock'}` finishes it" in last["error"]
    assert last["advice"] == "finish the recovery with that command, then start the node"
    assert not (data / "lock").exists()


def test_a_folder_that_is_a_link_is_recovered_where_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the disk that the operator gave it, also where it was interrupted."""
    elsewhere = tmp_path / "other disk" / "locks"
    write_disk(elsewhere, "lock")
    data = tmp_path / "node1" / "data"
    data.mkdir(parents=True)
    (data / "lock").symlink_to(elsewhere)

    def broken(draft: Path, directory: Path) -> None:
        raise OSError(5, "Input/output error", str(draft))

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "publish", broken)
        with pytest.raises(ClusterError, match="input/output error"):
            agreed(data)
    with pytest.raises(RecoveryUnfinished):
        open_storage(data / "lock")
    agreed(data)
    recovered, _ = opened(data / "lock")

    assert (data / "lock").is_symlink() and list(data.iterdir()) == [data / "lock"]
    there = [path.name.partition("-")[0] for path in sorted(elsewhere.parent.iterdir())]
    assert there == ["locks", "locks.recovered"]
    assert recovered.snapshot is not None
    assert recovered.snapshot.configuration.voters == ("node1",)


def test_a_draft_whose_disk_was_not_put_aside_counts_for_nothing(tmp_path: Path) -> None:
    """A recovery was killed just before that; the node went on, and later its folder was moved away."""
    data = node_data(tmp_path)
    shutil.copytree(data / "lock", data / "lock.recovering-20260131T120000")
    (data / "lock").rename(data / "lock.damaged-20260131T120000")

    with pytest.raises(UsageError, match="There is no log in"):
        agreed(data)
    storage, recovered = open_storage(data / "lock")
    storage.close()

    assert recovered.fresh
    assert (data / "lock.recovering-20260131T120000").exists()


def test_where_a_folder_cannot_be_no_recovery_is_unfinished(tmp_path: Path) -> None:
    """What is wrong is said by who goes on to open it."""
    (tmp_path / "data").touch()

    assert unfinished_recovery(tmp_path / "data" / "lock") is None
    assert unfinished_recovery(tmp_path / "nowhere" / "lock") is None


def test_what_an_earlier_recovery_left_half_written_goes_with_the_next(tmp_path: Path) -> None:
    data = node_data(tmp_path)
    storage, recovered = open_storage(data / "lock.recovering-20260131T120000")
    take_incarnation(data / "lock.recovering-20260131T120000", fresh=recovered.fresh)
    storage.close()

    agreed(data)

    assert not list(data.glob("*.recovering*"))


def test_a_group_of_one_is_left_alone(tmp_path: Path) -> None:
    """Asked a second time, it is not given another life."""
    data = node_data(tmp_path)
    agreed(data)
    before = content_of(data)

    result = run("recover", data, "--yes")

    assert result.exit_code == 0
    assert "node1 is its only member already" in told(result)
    assert "There is nothing to recover: start node1." in told(result)
    assert content_of(data) == before
