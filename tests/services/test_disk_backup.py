"""A backup out of a data directory whose node does not run is what that node would have, and nothing is changed."""

import os
from pathlib import Path

import pytest

from common.wire import pack
from raft.core.ready import Persist
from raft.core.types import Entry, EntryKind, HardState, SnapshotMeta
from raft.storage import open_storage
from raft.storage.backup import backup_chunks, verify_backup
from services.cluster.disk_backup import back_up_disk
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.offline.restore import load_backup
from tests.services.disks import MEMBERS, TERM, applied, entries_of, write_disk
from tests.services.test_cli_storage import run, told
from tests.services.test_replicated_snapshots import restored
from tests.storage.builders import segments


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("group", ["lock", "queue", "cache"])
@pytest.mark.parametrize("snapshot_at", [0, 4, -1], ids=["log alone", "snapshot and log", "snapshot of all"])
def test_it_holds_the_snapshot_and_every_entry_behind_it(group: str, snapshot_at: int, tmp_path: Path) -> None:
    entries = entries_of(group)
    data, file = tmp_path / "data", tmp_path / "a.backup"
    write_disk(data / group, group, snapshot_at=snapshot_at % (len(entries) + 1))
    before = content_of(data)

    backup = back_up_disk(data, "", file)

    assert content_of(data) == before
    assert (backup.head.group, backup.head.node) == (group, "offline")
    assert backup == verify_backup(file)
    last = entries[-1]
    assert backup.meta == SnapshotMeta(last.index, TERM, last.time_ms, MEMBERS)
    machine = restored(group, backup_chunks(file))
    assert list(machine.snapshot()) == list(applied(group, entries).snapshot())
    assert load_backup(file).index > last.index


def test_it_says_whose_disk_it_is_and_that_it_is_one_disk(tmp_path: Path) -> None:
    """The record of the node's process tells its id; else who asks does."""
    write_disk(tmp_path / "data" / "lock", "lock")
    index = entries_of("lock")[-1].index

    given = run("backup", "--data-dir", tmp_path / "data", "--id", "node7", tmp_path / "a.backup")
    (tmp_path / "data" / "PROCESS").write_text("half of a recor")
    unread = run("backup", "--data-dir", tmp_path / "data", tmp_path / "a.backup")
    (tmp_path / "data" / "PROCESS").write_text('{"node": "node2", "pid": 4}\n')
    recorded = run("backup", "--data-dir", tmp_path / "data" / "lock", tmp_path / "a.backup")

    for result, node in ((given, "node7"), (unread, "offline"), (recorded, "node2")):
        assert result.exit_code == 0, result.output
        assert f"group lock at index {index}, " in told(result)
        assert f" at {node} by version " in told(result)
        assert "It is the state of one disk, not of the group: a write that only other nodes" in told(result)


def test_the_moment_at_which_it_was_taken_is_the_one_of_the_last_write(tmp_path: Path) -> None:
    """Numbers leap by the time since then: an old disk of a group that went on must leap further."""
    write_disk(tmp_path / "lock", "lock")
    for path in (tmp_path / "lock").iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))

    old = back_up_disk(tmp_path / "lock", "", tmp_path / "old.backup")

    assert old.head.taken_ms == 1_600_000_000_000


def test_which_group_is_meant_is_asked_for_where_it_is_not_clear(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "a.backup"
    for group in ("lock", "queue"):
        write_disk(data / group, group)
    write_disk(tmp_path / "copy", "lock")
    write_disk(data / "queue.damaged-20260131T120000", "queue")

    for root, group, problem in (
        (data, "", r"holds the groups lock, queue: say which one with `--group`"),
        (data, "cache", r"holds nothing of the group cache"),
        (data, "locks", r"There is no group 'locks'; the groups are lock, queue, cache"),
        (data / "lock", "queue", r"lock is of the group lock, not queue"),
        (tmp_path / "copy", "", r"The name of .*copy does not tell its group: say it with `--group`"),
        (tmp_path / "nowhere", "", r"There is no folder .*nowhere"),
    ):
        with pytest.raises(UsageError, match=problem):
            back_up_disk(root, group, file)
    assert not file.exists()

    assert back_up_disk(data, "queue", file).head.group == "queue"
    assert back_up_disk(tmp_path / "copy", "lock", file).head.group == "lock"
    assert back_up_disk(data / "queue.damaged-20260131T120000", "", file).head.group == "queue"


def test_a_directory_that_a_node_holds_is_refused(tmp_path: Path) -> None:
    write_disk(tmp_path / "data" / "lock", "lock")
    storage, _ = open_storage(tmp_path / "data" / "lock")
    try:
        with pytest.raises(InTheWay, match=r"A node runs on it: .* Stop it first\."):
            back_up_disk(tmp_path / "data", "", tmp_path / "a.backup")
    finally:
        storage.close()

    assert not (tmp_path / "a.backup").exists()


def test_a_damaged_log_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    write_disk(tmp_path / "data" / "lock", "lock")
    log = segments(tmp_path / "data" / "lock")[0]
    content = bytearray(log.read_bytes())
    content[300] ^= 1
    log.write_bytes(content)

    result = run("backup", "--data-dir", tmp_path / "data", tmp_path / "a.backup")

    assert result.exit_code == 1
    assert told(result).startswith(f"{log}: damaged at byte ")
    assert not list(tmp_path.glob("*.backup*"))


def test_what_a_newer_version_wrote_is_told(tmp_path: Path) -> None:
    write_disk(tmp_path / "lock", "lock")
    storage, recovered = open_storage(tmp_path / "lock")
    index = recovered.entries[-1].index + 1
    unknown = Entry(index, TERM, 99_000, EntryKind.COMMAND, pack(["later", [], None, None]))
    storage.write([Persist(HardState(TERM), (unknown,))])
    storage.close()

    with pytest.raises(ClusterError, match=rf"entry {index} holds the command .later.*use the version that wrote it"):
        back_up_disk(tmp_path / "lock", "", tmp_path / "a.backup")


def test_a_file_in_the_directory_that_is_read_is_refused(tmp_path: Path) -> None:
    """A segment of the log is a regular file, too."""
    write_disk(tmp_path / "data" / "lock", "lock")
    before = content_of(tmp_path)

    for file in (segments(tmp_path / "data" / "lock")[0], tmp_path / "data" / "a.backup"):
        with pytest.raises(UsageError, match="which is only read"):
            back_up_disk(tmp_path / "data", "", file)

    assert content_of(tmp_path) == before


def test_an_empty_log_is_no_backup(tmp_path: Path) -> None:
    storage, _ = open_storage(tmp_path / "data" / "lock")
    storage.close()

    with pytest.raises(ClusterError, match="holds no entry of the group lock"):
        back_up_disk(tmp_path / "data", "", tmp_path / "a.backup")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x.backup"], "Say which group with `--group`."),
        (["--group", "lock", "--id", "node1", "x.backup"], "--id goes with --data-dir."),
        (["--data-dir", ".", "--node", "localhost:1", "x.backup"], "--node asks a node that runs"),
        (["--data-dir", ".", "--id", "no id", "/tmp/x.backup"], "--id: 'no id' is no node id"),
    ],
)
def test_options_that_do_not_go_together_are_told(arguments: list[str], problem: str) -> None:
    result = run("backup", *arguments)

    assert result.exit_code == 2
    assert problem in told(result)
