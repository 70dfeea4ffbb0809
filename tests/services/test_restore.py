"""From a backup file to data directories: old files are read, nothing is overwritten, nothing is left half-done."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raft import life
from raft.core.types import Configuration, HardState, SnapshotMeta
from raft.storage import CorruptSnapshot, DiskFull, Storage, open_storage
from raft.storage.backup import BackupEncoder, BackupHead, verify_backup
from raft.storage.record import FORMAT_VERSION
from services.catalogue import SERVICES
from services.lock.replicated.commands import Acquire
from services.offline import restore
from services.offline.restore import (
    NUMBERS_MAX,
    NUMBERS_SINCE_US,
    Leap,
    RestorableGroup,
    RestoreRefused,
    is_empty,
    load_backup,
    write_group,
)
from services.queue.bodies import MSG_ID_DIGITS_MAX
from services.queue.replicated.commands import Dequeue, Enqueue
from services.replicated.machine import ReplicatedMachine
from tests.services.backups import INDEX, ROOT
from tests.services.test_replicated_snapshots import LIVES, live, restored

OLD = sorted(ROOT.glob("*.backup"))
VOTERS = ("node1", "node2", "node3")
SECOND_US = 1_000_000
#: Some time after the old backups were taken.
NOON_US = 1_800_000_000 * SECOND_US


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_backup_of_an_earlier_version_is_restored_with_all_that_was_in_it(path: Path, tmp_path: Path) -> None:
    """What today's machine makes of the same life is what it must read out of yesterday's file, and what is asked of
    it afterwards gets the same answers."""
    group = load_backup(path)
    name = group.backup.head.group
    today = ReplicatedMachine(SERVICES[name].machine)
    live(today, LIVES[name][0](), first_index=1)
    leap = Leap.of(group.backup, group.life)
    today.inner.skip_numbers(leap.skipped, leap.floor)

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
    assert (meta.index, meta.configuration) == (leap(INDEX), Configuration(VOTERS, life=group.life))
    assert (recovered.hard_state, recovered.entries) == (HardState(3), [])


def test_every_service_has_a_backup_of_the_present_format() -> None:
    """A new format version brings new files; those that are there stay."""
    present = {path.stem.partition("-")[2] for path in OLD if path.stem.startswith(f"format{FORMAT_VERSION}-")}

    assert present == set(SERVICES)


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


# Numbers are given once


def at(monkeypatch: pytest.MonkeyPatch, us: int) -> None:
    """This machine's wall clock says so."""
    monkeypatch.setattr(restore, "restored_life", partial(life.restored_life, wall_us=lambda: us))
    monkeypatch.setattr(restore, "wall_us", lambda: us)


def oldest(name: str) -> Path:
    return ROOT / f"format1-{name}.backup"


def taken_of(group: RestorableGroup, path: Path, *, taken_us: int, later: int = 0) -> Path:
    """A backup of a restored group, `later` entries on."""
    meta = SnapshotMeta(group.index + later, 3, 0, Configuration(VOTERS, life=group.life))
    head = BackupHead(taken_us // 1_000, group.backup.head.group, "node1", "0.1.0")
    encoder = BackupEncoder(head, meta)
    path.write_bytes(b"".join([encoder.begin(), *map(encoder.chunk, group.chunks), encoder.end()]))
    return path


def given(group: RestorableGroup, count: int = 3) -> dict[str, list[int]]:
    """The first numbers of each kind that a restored group gives."""
    name = group.backup.head.group
    machine = restored(name, group.chunks)
    asked: list[Any] = [Acquire(f"new{number}", "me") for number in range(count)]
    if name == "queue":
        asked = [Enqueue("new", b"1")] * count + [Dequeue("new", count)]
    if name == "cache":
        return {"version": [group.index + number for number in range(1, count + 1)]}
    afterlife = [(10_000_000, ask, None) for ask in asked]
    answers = [answer for answer, _ in live(machine, afterlife, first_index=group.index + 1)]
    if name == "lock":
        return {"token": [answer["token"] for answer in answers]}
    return {
        "msg_id": [int(answer["msg_id"]) for answer in answers[:-1]],
        "receipt": [int(message["receipt"]) for message in answers[-1]["messages"]],
    }


@pytest.mark.parametrize("name", ["lock", "queue", "cache"])
@pytest.mark.parametrize("apart_us", [1, SECOND_US // 2, 86_400 * SECOND_US])
def test_the_same_backup_restored_twice_gives_no_number_twice(
    name: str, apart_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one begins above all that the earlier one can have given meanwhile, at a million a second."""
    at(monkeypatch, NOON_US)
    first = load_backup(oldest(name))
    at(monkeypatch, NOON_US + apart_us)
    second = load_backup(oldest(name))

    before, after = given(first), given(second)

    assert first.life != second.life
    for kind in before:
        assert after[kind][0] >= before[kind][0] + apart_us
        assert after[kind][0] < NUMBERS_MAX
    assert len(str(max(map(max, after.values())))) <= MSG_ID_DIGITS_MAX


@pytest.mark.parametrize("name", ["lock", "queue", "cache"])
def test_a_backup_of_a_restored_group_begins_above_it_and_so_does_the_first_one_again(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In whichever order backups are taken and restored."""
    at(monkeypatch, NOON_US)
    first = load_backup(oldest(name))
    third_us = NOON_US + 7_200 * SECOND_US
    own = taken_of(first, tmp_path / "own", taken_us=NOON_US + 3_600 * SECOND_US, later=3_600 * SECOND_US)
    at(monkeypatch, third_us)
    of_restored = load_backup(own)
    at(monkeypatch, third_us + 60 * SECOND_US)
    of_first = load_backup(oldest(name))

    numbers = [given(first), given(of_restored), given(of_first)]

    for kind in numbers[0]:
        lows = [each[kind][0] for each in numbers]
        assert lows == sorted(lows)
        assert lows[1] - lows[0] >= 7_200 * SECOND_US
        assert lows[2] > lows[1]


@pytest.mark.parametrize("behind_us", [0, 1, 5 * SECOND_US - 3, -60 * SECOND_US])
def test_a_clock_that_is_somewhat_behind_gives_no_number_twice(
    behind_us: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A backup of a group that began a minute ago, restored on a machine that believes it was not taken yet."""
    at(monkeypatch, NOON_US)
    first = load_backup(oldest("lock"))
    taken_us = NOON_US + 60 * SECOND_US
    file = taken_of(first, tmp_path / "own", taken_us=taken_us)
    lows = [given(first)["token"][0]]
    for again in range(3):
        at(monkeypatch, taken_us - behind_us + again)
        lows.append(given(load_backup(file))["token"][0])

    assert lows[1] > lows[0]
    assert lows == sorted(set(lows))


def test_a_clock_that_is_clearly_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """All numbers follow it: nothing is restored by a clock that lost its battery, or that is centuries ahead."""
    taken_us = verify_backup(oldest("lock")).head.taken_ms * 1_000

    for wrong_us in (0, taken_us - 6 * SECOND_US, NUMBERS_MAX + NUMBERS_SINCE_US + 1):
        at(monkeypatch, wrong_us)
        with pytest.raises(RestoreRefused, match="set it right first"):
            load_backup(oldest("lock"))


def test_a_number_that_is_ahead_of_the_clock_stays_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that was restored by a clock which ran ahead: the backup's own numbers count then."""
    backup = verify_backup(oldest("lock"))
    ahead = NOON_US
    taken_us = backup.head.taken_ms * 1_000
    leaps = []
    for began_us in (taken_us + SECOND_US, taken_us + 2 * SECOND_US):
        at(monkeypatch, began_us)
        leaps.append(Leap.of(backup, restore.restored_life(1))(ahead))

    assert leaps[0] > ahead
    assert leaps[1] == leaps[0] + SECOND_US


# All nodes of a group are restored alike


def test_the_nodes_of_a_group_restored_one_by_one_are_alike_with_one_life(tmp_path: Path) -> None:
    """Every machine runs the command by itself, at another moment."""
    first = load_backup(oldest("queue"))
    second = load_backup(oldest("queue"), life=first.life)

    metas = {write_group(group, tmp_path / name, voters=VOTERS) for name, group in (("1", first), ("2", second))}

    assert len(metas) == 1
    assert first == second
    assert load_backup(oldest("queue")).life != first.life


@pytest.mark.parametrize(
    "wrong",
    [
        lambda first: "r0",
        lambda first: life.given_life(),
        lambda first: load_backup(oldest("lock")).life,
    ],
    ids=["no life", "not of a restore", "of another backup"],
)
def test_a_life_that_no_restore_of_this_backup_has_named_is_refused(wrong: Callable[[RestorableGroup], str]) -> None:
    """Two backups under one life would be two states at one index."""
    first = load_backup(oldest("queue"))

    with pytest.raises(RestoreRefused):
        load_backup(oldest("queue"), life=wrong(first))


def test_a_life_is_for_the_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day later a node whose data is missing has lost it, and with it what it promised."""
    at(monkeypatch, NOON_US)
    first = load_backup(oldest("queue"))
    at(monkeypatch, NOON_US + 86_400 * SECOND_US)
    assert load_backup(oldest("queue"), life=first.life) == first

    at(monkeypatch, NOON_US + 86_401 * SECOND_US)
    with pytest.raises(RestoreRefused, match="start it empty"):
        load_backup(oldest("queue"), life=first.life)


def test_all_directories_of_a_group_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the third of three nodes: none of them begins, with half of the group."""
    group = load_backup(oldest("lock"))
    folders = [tmp_path / name / "lock" for name in VOTERS]
    for folder in folders:
        folder.parent.mkdir()
    save, saved = Storage.save_snapshot, []

    def no_room_at_the_third(storage: Storage, *arguments: Any) -> None:
        saved.append(storage)
        if len(saved) == 3:
            raise DiskFull("no space left")
        save(storage, *arguments)

    monkeypatch.setattr(Storage, "save_snapshot", no_room_at_the_third)
    with pytest.raises(DiskFull):
        write_group(group, *folders, voters=VOTERS)
    left = [path for folder in folders for path in folder.parent.iterdir()]
    write_group(group, *folders, voters=VOTERS)

    assert left == []
    assert not any(map(is_empty, folders))


def test_a_restored_directory_says_of_which_life_it_is(tmp_path: Path) -> None:
    """From the first moment: an old disk that finds itself beside it is told apart (tests/node/test_lives.py)."""
    group = load_backup(oldest("lock"))

    write_group(group, tmp_path / "lock", voters=VOTERS)
    storage, recovered = open_storage(tmp_path / "lock")
    storage.close()

    assert recovered.snapshot is not None
    assert recovered.snapshot.configuration == replace(Configuration(VOTERS), life=group.life)
    assert life.is_restored(group.life)
