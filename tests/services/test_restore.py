"""From a backup file to data directories: old files are read, nothing is overwritten, nothing is left half-done."""

import shutil
from pathlib import Path

import pytest

from raft.core.types import Configuration, HardState
from raft.storage import CorruptSnapshot, DiskFull, Storage, open_storage
from raft.storage.record import FORMAT_VERSION
from services.envelope import ReplicatedMachine
from services.restore import NUMBERS_SKIPPED, is_empty, load_backup, write_group
from services.roles import ROLES
from tests.services.backups import INDEX, ROOT
from tests.services.test_replicated_snapshots import LIVES, live, restored

OLD = sorted(ROOT.glob("*.backup"))
VOTERS = ("node1", "node2", "node3")


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_backup_of_an_earlier_version_is_restored_with_all_that_was_in_it(path: Path, tmp_path: Path) -> None:
    """What today's machine makes of the same life is what it must read out of yesterday's file, and what is asked of
    it afterwards gets the same answers."""
    group = load_backup(path)
    name = group.backup.head.group
    today = ReplicatedMachine(ROLES[name].machine)
    live(today, LIVES[name][0](), first_index=1)
    today.inner.skip_numbers(NUMBERS_SKIPPED)

    meta = write_group(group, tmp_path / name, voters=VOTERS)
    storage, recovered = open_storage(tmp_path / name)
    loaded = storage.load_snapshot()
    assert loaded is not None
    machine = restored(name, loaded[1])
    storage.close()

    assert list(machine.inner.snapshot()) == list(today.inner.snapshot())
    afterlife = LIVES[name][1]()
    assert live(machine, afterlife, first_index=200) == live(today, afterlife, first_index=200)
    assert recovered.snapshot == meta
    assert (meta.index, meta.configuration) == (INDEX + NUMBERS_SKIPPED, Configuration(VOTERS))
    assert (recovered.hard_state, recovered.entries) == (HardState(3), [])


def test_every_service_has_a_backup_of_the_present_format() -> None:
    """A new format version brings new files; those that are there stay."""
    present = {path.stem.partition("-")[2] for path in OLD if path.stem.startswith(f"format{FORMAT_VERSION}-")}

    assert present == set(ROLES)


def test_a_directory_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "lock"
    storage, _ = open_storage(directory)
    storage.close()
    before = sorted(directory.iterdir())

    with pytest.raises(FileExistsError):
        write_group(load_backup(OLD[0]), directory, voters=VOTERS)

    assert sorted(directory.iterdir()) == before
    assert not is_empty(directory)
    assert is_empty(tmp_path / "elsewhere")


def test_a_restore_that_finds_no_room_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = load_backup(OLD[0])

    def no_room(*_: object) -> None:
        raise DiskFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "save_snapshot", no_room)
        with pytest.raises(DiskFull):
            write_group(group, tmp_path / "lock", voters=VOTERS)
    nothing = is_empty(tmp_path / "lock")
    write_group(group, tmp_path / "lock", voters=VOTERS)

    assert nothing
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_backup_whose_content_no_version_wrote_is_refused(tmp_path: Path) -> None:
    """Whole by its checksums and still not ours: told as such, not by a trace."""
    path = tmp_path / "strange.backup"
    queue = next(path for path in OLD if path.stem.endswith("queue"))
    content = queue.read_bytes()
    shutil.copy(queue, path)
    assert load_backup(path).backup.head.group == "queue"
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(CorruptSnapshot):
        load_backup(path)
