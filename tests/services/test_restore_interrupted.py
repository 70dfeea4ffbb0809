"""A restore into a local cluster that was ended at any moment is recognised, goes on as one life, or is given up."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.clock import wall_us
from raft.storage import open_storage
from raft.storage.incarnation import take_incarnation
from services.cluster import backups
from services.cluster.backups import abandon_restore, restore_cluster, unfinished_restore
from services.cluster.errors import ClusterError, InTheWay
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.restoring import JOURNAL_NAME
from services.offline import restore
from services.offline.restore import is_empty, life_of
from tests.services.backups import ROOT
from tests.services.killing import STEPS_MAX, is_killed_at
from tests.services.test_cli_storage import run, told

LOCK, QUEUE = ROOT / "format2-lock.backup", ROOT / "format2-queue.backup"


def surroundings_of(home: Path) -> Surroundings:
    return Surroundings(Home(home), {})


def restore_into(home: Path, file: Path = LOCK, topology: str = "combined") -> None:
    restore_cluster(surroundings_of(home), file, topology)


def folders(home: Path, group: str = "lock") -> list[Path]:
    return [home / "combined" / node / "data" / group for node in ("node1", "node2", "node3")]


def published(home: Path) -> list[Path]:
    return [folder for folder in folders(home) if not is_empty(folder)]


def strays(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if ".restoring" in path.name or path.name.startswith(JOURNAL_NAME + ".")]


def snapshots(home: Path) -> set[bytes]:
    return {path.read_bytes() for folder in folders(home) for path in folder.glob("*.snapshot")}


def interrupt(home: Path, monkeypatch: pytest.MonkeyPatch, *, after: int, file: Path = LOCK) -> None:
    """Begin a restore and let the disk fail once so many folders are published."""
    real, done = restore.publish, []

    def broken(draft: Path, directory: Path) -> None:
        if len(done) == after:
            raise OSError(5, "Input/output error", str(draft))
        done.append(real(draft, directory))

    with monkeypatch.context() as patch:
        patch.setattr(restore, "publish", broken)
        with pytest.raises(ClusterError, match="broke off"):
            restore_into(home, file)


def test_a_restore_that_is_killed_at_any_step_is_recognised_and_goes_on(tmp_path: Path) -> None:
    """Some nodes never hold the group while others may be started without it, unseen; and all are of one life."""
    resumed = 0
    for step in range(STEPS_MAX):
        home = tmp_path / str(step)
        killed = is_killed_at(step, lambda home=home: restore_into(home))
        before = {path: life_of(path) for path in published(home)}
        if 0 < len(before) < 3:
            assert unfinished_restore(home) is not None, f"step {step}"
        if unfinished_restore(home) is None and len(before) == 3:
            assert not strays(home)
        else:
            restore_into(home)
            resumed += bool(before)
        assert unfinished_restore(home) is None
        assert len(snapshots(home)) == 1, f"step {step}"
        assert len(set(map(life_of, folders(home)))) == 1
        assert all(life_of(path) == life for path, life in before.items()), f"step {step}"
        assert not strays(home) and not (home / JOURNAL_NAME).exists()
        shutil.rmtree(home)
        if not killed:
            break

    # Before the second folder, before the third, and before the journal went.
    assert resumed >= 3


def test_giving_up_that_is_killed_at_any_step_is_given_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(STEPS_MAX):
        home = tmp_path / str(step)
        interrupt(home, monkeypatch, after=2)
        killed = is_killed_at(step, lambda home=home: abandon_restore(surroundings_of(home)))
        assert published(home) == [] or unfinished_restore(home) is not None, f"step {step}"
        abandon_restore(surroundings_of(home))
        assert published(home) == []
        assert not strays(home) and unfinished_restore(home) is None
        shutil.rmtree(home)
        if not killed:
            break

    assert step > 5


def test_an_unfinished_restore_says_how_to_finish_it_and_is_readable_for_its_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "a file.backup"
    shutil.copy(LOCK, backup)
    monkeypatch.chdir(tmp_path)

    interrupt(tmp_path / "home", monkeypatch, after=1, file=Path(backup.name))
    problem = unfinished_restore(tmp_path / "home")

    assert problem is not None
    assert f"`mufakat restore '{backup}' --topology combined` finishes it" in problem
    assert "`mufakat restore --abandon` gives it up" in problem
    assert (tmp_path / "home" / JOURNAL_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("file", "topology"), [(QUEUE, "combined"), (LOCK, "separated")], ids=["another backup", "another topology"]
)
def test_another_restore_is_refused_until_the_first_is_finished_or_given_up(
    file: Path, topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(tmp_path, monkeypatch, after=1)

    with pytest.raises(InTheWay, match=r"Another restore has to be finished first\. A restore of the group lock"):
        restore_into(tmp_path, file, topology)

    abandon_restore(surroundings_of(tmp_path))
    restore_into(tmp_path, file, topology)


def test_a_folder_that_is_a_link_is_written_and_emptied_where_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "other disk"
    elsewhere.mkdir()
    first = folders(home)[0]
    first.parent.mkdir(parents=True)
    first.symlink_to(elsewhere)

    interrupt(home, monkeypatch, after=2)
    assert life_of(elsewhere) == life_of(first) != ""
    abandon_restore(surroundings_of(home))
    assert published(home) == [] and is_empty(elsewhere)
    restore_into(home)

    assert first.is_symlink() and life_of(elsewhere) == life_of(folders(home)[2]) != ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "other disk"]


def test_what_a_node_has_started_on_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have acknowledged something since. The other folder is not removed either."""
    interrupt(tmp_path, monkeypatch, after=2)
    storage, recovered = open_storage(folders(tmp_path)[0])
    take_incarnation(folders(tmp_path)[0], fresh=recovered.fresh)

    def refused(problem: str) -> None:
        with pytest.raises(InTheWay, match=problem):
            abandon_restore(surroundings_of(tmp_path))
        assert published(tmp_path) == folders(tmp_path)[:2]

    refused("A node runs on it")
    storage.close()
    refused("node1 has started on what was restored")
    restore_into(tmp_path)
    assert len(set(map(life_of, folders(tmp_path)))) == 1


def test_a_restore_that_was_interrupted_long_ago_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have been given its numbers since; but where a node has started on it, its group is that one."""
    interrupt(tmp_path, monkeypatch, after=1)
    later_us = wall_us() + restore.LIFE_AGE_US_MAX + 60_000_000
    monkeypatch.setattr(backups, "wall_us", lambda: later_us)
    monkeypatch.setattr(restore, "wall_us", lambda: later_us)

    with pytest.raises(InTheWay, match=r"more than a day ago: it has to begin anew\. `mufakat restore --abandon`"):
        restore_into(tmp_path)
    storage, recovered = open_storage(folders(tmp_path)[0])
    take_incarnation(folders(tmp_path)[0], fresh=recovered.fresh)
    storage.close()
    restore_into(tmp_path)

    assert len(set(map(life_of, folders(tmp_path)))) == 1


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUFAKAT_HOME", str(tmp_path / "home"))
    os.mkfifo(tmp_path / "pipe")

    into_cluster = run("restore", tmp_path / "pipe")
    into_node = run("restore", tmp_path / "pipe", "--data-dir", tmp_path / "d", "--cluster", "node1=h:1")

    for result in (into_cluster, into_node):
        assert result.exit_code == 2
        assert told(result) == f"{tmp_path / 'pipe'} is no regular file. Name the file of a backup."


def test_data_that_came_since_is_neither_written_over_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another life is not this restore's."""
    interrupt(tmp_path / "one", monkeypatch, after=1)
    restore_into(tmp_path / "two")
    shutil.copytree(folders(tmp_path / "two")[2], folders(tmp_path / "one")[2], dirs_exist_ok=True)
    other = life_of(folders(tmp_path / "one")[2])

    with pytest.raises(InTheWay, match=r"there is data in \S+/node3/data/lock\."):
        restore_into(tmp_path / "one")
    abandon_restore(surroundings_of(tmp_path / "one"))

    assert [life_of(folder) for folder in folders(tmp_path / "one")] == ["", "", other]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda journal: journal.write_text("{"),
        lambda journal: journal.write_text(json.dumps({"group": "lock"})),
        lambda journal: journal.write_text("[]"),
    ],
    ids=["no JSON", "another object", "no object"],
)
def test_a_journal_that_cannot_be_read_is_told_in_one_sentence(
    spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(tmp_path, monkeypatch, after=1)
    spoil(tmp_path / JOURNAL_NAME)
    monkeypatch.setenv("MUFAKAT_HOME", str(tmp_path))

    results = [run("restore", "--abandon"), run("restore", "--topology", "combined", LOCK)]

    for result in results:
        assert result.exit_code == 1
        assert "restoring.json says that a restore was interrupted, and cannot be read" in told(result)
    assert "cannot be read" in (unfinished_restore(tmp_path) or "")


def test_the_command_ends_with_how_to_start_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wrote the folders of local mode, so this is the mode to start."""
    monkeypatch.setenv("MUFAKAT_HOME", str(tmp_path))

    nothing, done = run("restore", "--abandon"), run("restore", "--topology", "combined", LOCK)

    assert told(nothing) == "No restore is unfinished. Nothing was removed."
    assert done.exit_code == 0, done.output
    assert "Start the cluster: `mufakat up --mode local --topology combined`." in told(done)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [([], "Name the FILE to restore from."), (["--abandon", str(LOCK)], "--abandon stands alone")],
)
def test_a_restore_that_is_asked_for_wrongly_is_told(arguments: list[str], problem: str) -> None:
    result = run("restore", *arguments)

    assert result.exit_code == 2
    assert problem in told(result)
