"""The simulated disk does what the real one does, fails as it is told, and loses what a power loss may take."""

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from common.disk_space import DiskSpace
from raft.storage import DataDirectoryInUse, DiskFull, open_storage, snapshot_file
from raft.storage.files import File, Files, RealFiles
from services.world.disk import Disk
from tests.storage import power_loss
from tests.storage.builders import SEGMENT_BYTES, write_of
from tests.storage.oracle import Oracle, check_recovered
from tests.storage.power_loss import Image, PowerLossFiles
from tests.storage.work import anything

DIRECTORY = Path("/machine/data")
MIB = 1024 * 1024


def no_pause(seconds: float) -> None:
    raise AssertionError("nothing was to wait")


def new_disk(seed: int = 0, pause: Callable[[float], None] = no_pause, **settings) -> Disk:
    disk = Disk(Random(seed), pause, **settings)
    disk.files.make_directory(DIRECTORY)
    return disk


def content(files: Files, path: Path) -> bytes:
    file = files.open_readonly(path)
    found = file.read(0, file.size() + 1)
    file.close()
    return found


def written(files: Files, path: Path, data: bytes) -> File:
    """A new file that holds this, unsynced."""
    file = files.create(path)
    file.write(0, data)
    return file


def durable(files: Files, path: Path, data: bytes) -> File:
    file = written(files, path, data)
    file.sync()
    files.sync_directory(path.parent)
    return file


# Both sides of the seam


@dataclass(frozen=True)
class Side:
    files: Files
    directory: Path

    def path(self, *names: str) -> Path:
        return self.directory.joinpath(*names)

    def fails(self, call: Callable[[], object], code: int, *names: str) -> None:
        """The error has this number and names these files."""
        with pytest.raises(OSError) as raised:
            call()
        named = [str(name) for name in (raised.value.filename, raised.value.filename2) if name is not None]
        assert (raised.value.errno, named) == (code, [str(self.path(*name.split("/"))) for name in names])
        assert type(raised.value) is type(OSError(code, ""))


@pytest.fixture(params=["real", "simulated"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return Side(RealFiles(), tmp_path) if request.param == "real" else Side(new_disk().files, DIRECTORY)


def test_what_was_written_is_read(side: Side) -> None:
    file = written(side.files, side.path("a"), b"0123456789")
    file.write(3, b"xyz")
    file.sync()

    assert file.read(0, 10) == b"012xyz6789"
    assert file.read(2, 4) == b"2xyz"
    assert file.size() == 10
    assert content(side.files, side.path("a")) == b"012xyz6789"


def test_a_read_ends_with_the_file(side: Side) -> None:
    file = written(side.files, side.path("a"), b"0123")

    assert file.read(2, 100) == b"23"
    assert file.read(4, 1) == file.read(400, 10) == file.read(0, 0) == b""


def test_a_hole_reads_as_zeroes(side: Side) -> None:
    file = written(side.files, side.path("a"), b"ab")
    file.write(5, b"c")

    assert file.read(0, 100) == b"ab\0\0\0c"


def test_a_write_of_nothing_changes_nothing(side: Side) -> None:
    file = written(side.files, side.path("a"), b"ab")
    file.write(500, b"")

    assert file.size() == 2


def test_the_buffer_of_a_write_may_be_used_again(side: Side) -> None:
    buffer = bytearray(b"before")
    file = written(side.files, side.path("a"), buffer)
    buffer[:] = b"after!"

    assert file.read(0, 6) == b"before"


def test_truncate_shrinks_and_grows(side: Side) -> None:
    """What was cut reads as zeroes after that."""
    file = written(side.files, side.path("a"), b"0123456789")
    file.truncate(4)
    assert (file.read(0, 100), file.size()) == (b"0123", 4)

    file.truncate(8)
    assert (file.read(0, 100), file.size()) == (b"0123\0\0\0\0", 8)

    file.write(6, b"x")
    assert (file.read(0, 100), file.size()) == (b"0123\0\0x\0", 8)


def test_reserved_space_reads_as_zeroes_and_is_never_taken_back(side: Side) -> None:
    file = written(side.files, side.path("a"), b"ab")
    file.preallocate(8)
    assert (file.read(0, 100), file.size()) == (b"ab" + bytes(6), 8)

    file.preallocate(4)
    file.preallocate(0)
    file.write(4, b"cd")
    assert (file.read(0, 100), file.size()) == (b"ab\0\0cd\0\0", 8)
    assert file.read(7, 100) == b"\0"


def test_create_empties_a_file_and_leaves_it_to_those_who_have_it_open(side: Side) -> None:
    old = written(side.files, side.path("a"), b"before")
    new = side.files.create(side.path("a"))
    assert (old.size(), new.size()) == (0, 0)

    new.write(0, b"now")
    assert old.read(0, 10) == b"now"


def test_names_are_sorted_and_those_of_one_directory(side: Side) -> None:
    side.files.make_directory(side.path("d"))
    for names in (("b",), ("a",), ("d", "c"), ("B",)):
        side.files.create(side.path(*names)).close()

    assert side.files.names(side.directory) == ["B", "a", "b", "d"]
    assert side.files.names(side.path("d")) == ["c"]


def test_a_directory_is_made_once_with_its_parents(side: Side) -> None:
    assert side.files.make_directory(side.path("d", "e", "f"))
    assert not side.files.make_directory(side.path("d", "e", "f"))
    assert not side.files.make_directory(side.path("d"))
    assert side.files.make_directory(side.path("d", "g"))

    assert side.files.names(side.path("d")) == ["e", "g"]


def test_rename_replaces(side: Side) -> None:
    """Who had the old file open still reads it."""
    old, new = written(side.files, side.path("a"), b"old"), written(side.files, side.path("b"), b"new")
    side.files.rename(side.path("b"), side.path("a"))

    assert side.files.names(side.directory) == ["a"]
    assert content(side.files, side.path("a")) == b"new"
    assert (old.read(0, 9), new.read(0, 9)) == (b"old", b"new")
    side.files.rename(side.path("a"), side.path("a"))
    assert side.files.names(side.directory) == ["a"]


def test_a_directory_is_renamed_with_what_is_in_it(side: Side) -> None:
    side.files.make_directory(side.path("draft"))
    written(side.files, side.path("draft", "a"), b"x")
    side.files.rename(side.path("draft"), side.path("final"))

    assert side.files.names(side.directory) == ["final"]
    assert content(side.files, side.path("final", "a")) == b"x"


def test_a_removed_file_is_there_for_those_who_have_it_open(side: Side) -> None:
    file = written(side.files, side.path("a"), b"x")
    side.files.remove(side.path("a"))
    file.write(1, b"y")

    assert side.files.names(side.directory) == []
    assert file.read(0, 10) == b"xy"
    written(side.files, side.path("a"), b"z")
    assert file.read(0, 10) == b"xy"


def test_what_is_missing_is_an_error_that_names_it(side: Side) -> None:
    for names in ("no", "no/no"):
        path = side.path(*names.split("/"))
        for call in (
            side.files.open,
            side.files.open_readonly,
            side.files.names,
            side.files.remove,
            side.files.sync_directory,
            side.files.lock_shared,
        ):
            side.fails(lambda call=call, path=path: call(path), errno.ENOENT, names)
        side.fails(lambda path=path: side.files.rename(path, path.with_name("x")), errno.ENOENT, names,
                   str(Path(names).with_name("x")))  # fmt: skip
    side.fails(lambda: side.files.create(side.path("no", "no")), errno.ENOENT, "no/no")
    side.fails(lambda: side.files.lock(side.path("no", "no")), errno.ENOENT, "no/no")
    assert side.files.names(side.directory) == []


def test_a_file_is_no_directory_and_a_directory_no_file(side: Side) -> None:
    side.files.create(side.path("a")).close()
    side.files.make_directory(side.path("d"))
    side.files.create(side.path("d", "x")).close()
    side.files.make_directory(side.path("e"))

    side.fails(lambda: side.files.names(side.path("a")), errno.ENOTDIR, "a")
    side.fails(lambda: side.files.sync_directory(side.path("a")), errno.ENOTDIR, "a")
    side.fails(lambda: side.files.open(side.path("a", "b")), errno.ENOTDIR, "a/b")
    side.fails(lambda: side.files.create(side.path("a", "b")), errno.ENOTDIR, "a/b")
    side.fails(lambda: side.files.make_directory(side.path("a", "b")), errno.ENOTDIR, "a/b")
    side.fails(lambda: side.files.make_directory(side.path("a")), errno.EEXIST, "a")
    side.fails(lambda: side.files.open(side.path("d")), errno.EISDIR, "d")
    side.fails(lambda: side.files.create(side.path("d")), errno.EISDIR, "d")
    side.fails(lambda: side.files.lock(side.path("d")), errno.EISDIR, "d")
    side.fails(lambda: side.files.rename(side.path("a"), side.path("d")), errno.EISDIR, "a", "d")
    side.fails(lambda: side.files.rename(side.path("d"), side.path("a")), errno.ENOTDIR, "d", "a")
    side.fails(lambda: side.files.rename(side.path("e"), side.path("d")), errno.ENOTEMPTY, "e", "d")
    side.files.rename(side.path("d"), side.path("e"))
    assert side.files.names(side.directory) == ["a", "e"]
    assert side.files.names(side.path("e")) == ["x"]


def test_a_file_that_is_open_for_reading_cannot_be_changed(side: Side) -> None:
    written(side.files, side.path("a"), b"abc")
    file = side.files.open_readonly(side.path("a"))

    side.fails(lambda: file.write(0, b"x"), errno.EBADF, "a")
    side.fails(lambda: file.truncate(0), errno.EINVAL, "a")
    side.fails(lambda: file.preallocate(100), errno.EBADF, "a")
    file.sync()
    assert file.read(0, 10) == b"abc"


def test_a_closed_file_cannot_be_used(side: Side) -> None:
    file = written(side.files, side.path("a"), b"abc")
    file.close()

    for call in (
        lambda: file.read(0, 1),
        lambda: file.write(0, b"x"),
        lambda: file.truncate(0),
        file.sync,
        file.size,
    ):
        side.fails(call, errno.EBADF, "a")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.close()
    assert content(side.files, side.path("a")) == b"abc"


def test_one_holds_the_lock(side: Side) -> None:
    """Also if the file was there before; it keeps what it holds."""
    written(side.files, side.path("LOCK"), b"abc")
    lock = side.files.lock(side.path("LOCK"))
    for again in (side.files.lock, side.files.lock_shared):
        with pytest.raises(DataDirectoryInUse):
            again(side.path("LOCK"))
    other = side.files.lock(side.path("OTHER"))

    lock.close()
    side.files.lock(side.path("LOCK")).close()
    assert side.files.names(side.directory) == ["LOCK", "OTHER"]
    assert content(side.files, side.path("LOCK")) == b"abc"
    other.close()


def test_many_share_the_lock(side: Side) -> None:
    side.files.create(side.path("LOCK")).close()
    first, second = side.files.lock_shared(side.path("LOCK")), side.files.lock_shared(side.path("LOCK"))
    for _ in range(2):
        with pytest.raises(DataDirectoryInUse):
            side.files.lock(side.path("LOCK"))
        first.close()
        first = second

    side.files.lock(side.path("LOCK")).close()


# Processes


def test_what_a_process_wrote_outlives_it_and_what_it_holds_does_not() -> None:
    """Unsynced as well: the operating system has it. And the dead change nothing any more."""
    disk = new_disk()
    files, path = disk.files, DIRECTORY / "a"
    file, lock = written(files, path, b"abc"), files.lock(DIRECTORY / "LOCK")
    closed = files.open(path)
    closed.close()
    disk.process_died()
    for call in (
        lambda: file.write(0, b"x"),
        lambda: file.truncate(0),
        lambda: file.preallocate(10),
        lambda: file.read(0, 1),
        file.sync,
        file.size,
        lambda: files.create(path),
        lambda: files.remove(path),
        lambda: files.names(DIRECTORY),
        lambda: files.make_directory(DIRECTORY / "d"),
        lambda: files.lock(DIRECTORY / "LOCK"),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()

    held = disk.files.lock(DIRECTORY / "LOCK")
    lock.close()
    file.close()
    with pytest.raises(DataDirectoryInUse):
        disk.files.lock(DIRECTORY / "LOCK")
    held.close()
    assert content(disk.files, path) == b"abc"
    assert disk.files.names(DIRECTORY) == ["LOCK", "a"]


def calls(disk: Disk) -> list[Callable[[], object]]:
    """Everything that waits on a disk that hangs."""
    file, files = disk.files.open(DIRECTORY / "a"), disk.files
    return [
        file.sync,
        lambda: file.write(0, b"x"),
        lambda: file.truncate(0),
        lambda: file.preallocate(10),
        lambda: file.read(0, 1),
        lambda: files.create(DIRECTORY / "a"),
        lambda: files.create(DIRECTORY / "b"),
        lambda: files.open(DIRECTORY / "a"),
        lambda: files.open_readonly(DIRECTORY / "a"),
        lambda: files.names(DIRECTORY),
        lambda: files.rename(DIRECTORY / "a", DIRECTORY / "b"),
        lambda: files.remove(DIRECTORY / "a"),
        lambda: files.sync_directory(DIRECTORY),
        lambda: files.make_directory(DIRECTORY / "d"),
        lambda: files.lock(DIRECTORY / "LOCK"),
        lambda: files.lock_shared(DIRECTORY / "a"),
    ]


@pytest.mark.parametrize("end", [Disk.process_died, Disk.power_lost])
@pytest.mark.parametrize("number", range(16))
def test_a_thread_that_waited_when_its_process_died_changes_nothing(number: int, end: Callable[[Disk], None]) -> None:
    """It may go on after the next process has begun."""

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            end(disk)

    pauses: list[float] = []
    disk = new_disk(pause=pause)
    durable(disk.files, DIRECTORY / "a", b"abc")
    call = calls(disk)[number]
    disk.hang()
    with pytest.raises(OSError, match="Bad file descriptor"):
        call()

    disk.resume()
    assert pauses == [0.05] * 3
    assert disk.files.names(DIRECTORY) == ["a"]
    assert content(disk.files, DIRECTORY / "a") == b"abc"
    disk.files.lock(DIRECTORY / "a").close()


def test_a_thread_that_waited_when_its_file_was_closed_changes_nothing() -> None:
    disk = new_disk(pause=lambda seconds: (file.close(), disk.resume()))
    file = written(disk.files, DIRECTORY / "a", b"abc")
    disk.hang()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(0, b"x")

    assert content(disk.files, DIRECTORY / "a") == b"abc"


@pytest.mark.parametrize("of_file", [True, False])
def test_a_sync_that_was_under_way_when_the_process_died_has_not_been_done(of_file: bool) -> None:
    """Else a restarted node would find durable what its disk had not finished."""

    def left(seed: int) -> tuple[bytes, ...]:
        disk = new_disk(seed, lambda seconds: disk.process_died())
        file = durable(disk.files, DIRECTORY / "a", b"abc")
        file.write(0, b"xyz")
        disk.files.create(DIRECTORY / "b")
        disk.delay_s = (1.0, 2.0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.sync() if of_file else disk.files.sync_directory(DIRECTORY)
        disk.power_lost()
        return tuple(content(disk.files, DIRECTORY / name) for name in disk.files.names(DIRECTORY))

    assert {(b"abc",), (b"xyz",), (b"abc", b""), (b"xyz", b"")} <= {left(seed) for seed in range(60)}


# Faults


def test_a_sync_takes_as_long_as_it_is_told_and_nothing_else_does() -> None:
    pauses: list[float] = []
    disk = new_disk(pause=pauses.append)
    disk.delay_s = (0.5, 0.7)
    file = written(disk.files, DIRECTORY / "a", b"abc")
    file.read(0, 3)
    assert pauses == []

    file.sync()
    disk.files.sync_directory(DIRECTORY)
    assert len(pauses) == 2 and all(0.5 <= seconds <= 0.7 for seconds in pauses) and pauses[0] != pauses[1]


def test_what_is_written_while_a_sync_lasts_is_for_the_next_one() -> None:
    """The disk may have passed that place already."""

    def left(seed: int) -> bytes:
        disk = new_disk(seed, lambda seconds: file.write(1, b"b"))
        file = durable(disk.files, DIRECTORY / "a", b"")
        file.write(0, b"a")
        disk.delay_s = (0.1, 0.1)
        file.sync()
        disk.power_lost()
        return content(disk.files, DIRECTORY / "a")

    assert {left(seed) for seed in range(40)} == {b"a", b"ab"}


def test_a_disk_that_hangs_goes_on_when_it_is_told() -> None:
    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert other.size() == 3, "who asks only for the size does not wait"
        if len(pauses) == 4:
            disk.resume()

    pauses: list[float] = []
    disk = new_disk(pause=pause)
    other = written(disk.files, DIRECTORY / "a", b"abc")
    for call, found in (
        (lambda: other.read(0, 3), b"abc"),
        (lambda: other.write(0, b"x"), None),
        (other.sync, None),
        (lambda: disk.files.names(DIRECTORY), ["a"]),
    ):
        pauses.clear()
        disk.hang()
        assert disk.space() == DiskSpace(disk.capacity_bytes - 3, disk.capacity_bytes)
        assert call() == found
        assert len(pauses) == 4
    assert other.read(0, 3) == b"xbc"


def test_a_full_disk_takes_what_needs_no_room() -> None:
    counts: Counter[str] = Counter()
    disk = new_disk(capacity_bytes=100, count=lambda name: counts.update([name]))
    files, path = disk.files, DIRECTORY / "a"
    file = written(files, path, b"x" * 60)
    for call in (
        lambda: file.write(50, b"y" * 51),
        lambda: file.preallocate(101),
        lambda: written(files, DIRECTORY / "b", b"z" * 41),
    ):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.ENOSPC and str(DIRECTORY) in str(raised.value.filename)
    assert (file.size(), content(files, path), content(files, DIRECTORY / "b")) == (60, b"x" * 60, b"")

    file.preallocate(90)
    assert disk.space() == DiskSpace(10, 100)
    file.write(0, b"y" * 90)
    file.write(90, b"y" * 10)
    disk.is_full = True
    file.write(0, b"z" * 100)
    with pytest.raises(OSError, match="No space"):
        file.write(100, b"z")
    file.truncate(50)
    assert disk.space() == DiskSpace(0, 100)
    disk.is_full = False
    assert disk.space() == DiskSpace(50, 100)
    assert counts["fault: disk full"] == 4


def test_a_removed_file_keeps_its_room_until_it_is_closed() -> None:
    """Or until the process dies, which closes it."""
    disk = new_disk(capacity_bytes=100)
    first = written(disk.files, DIRECTORY / "a", b"x" * 10)
    second = written(disk.files, DIRECTORY / "b", b"x" * 20)
    written(disk.files, DIRECTORY / "c", b"x" * 30).close()
    disk.files.rename(DIRECTORY / "b", DIRECTORY / "a")
    assert disk.space().free_bytes == 40

    first.close()
    assert disk.space().free_bytes == 50
    disk.files.remove(DIRECTORY / "a")
    assert disk.space().free_bytes == 50
    disk.process_died()
    assert disk.space().free_bytes == 70
    second.close()
    disk.files.remove(DIRECTORY / "c")
    assert disk.space().free_bytes == 100
    written(disk.files, DIRECTORY / "d", b"x" * 40)
    disk.process_died()
    disk.files.remove(DIRECTORY / "d")
    assert disk.space().free_bytes == 100


def test_a_file_that_is_created_again_gives_its_room_back() -> None:
    disk = new_disk(capacity_bytes=100)
    written(disk.files, DIRECTORY / "a", b"x" * 80)
    written(disk.files, DIRECTORY / "a", b"x" * 10)

    assert disk.space().free_bytes == 90


def test_after_a_failed_sync_what_was_written_reads_well_and_is_not_on_the_disk() -> None:
    """Rebello et al., ATC'20; and a later sync that succeeds does not bring it there."""
    for seed in range(20):
        disk = new_disk(seed)
        file = durable(disk.files, DIRECTORY / "a", b"0123456789")
        file.write(2, b"xx")
        file.write(10, b"more")
        disk.fail_next_sync()
        with pytest.raises(OSError) as raised:
            file.sync()
        assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(DIRECTORY / "a"))
        assert file.read(0, 100) == b"01xx456789more"

        file.write(6, b"yy")
        file.sync()
        assert file.read(0, 100) == b"01xx45yy89more"
        disk.power_lost()
        assert content(disk.files, DIRECTORY / "a") == b"012345yy89\0\0\0\0"


def test_a_sync_that_fails_forgets_only_what_it_was_to_write() -> None:
    """Others synced and wrote while it lasted: they are told of no error."""

    def pause(seconds: float) -> None:
        disk.delay_s = (0.0, 0.0)
        disk.is_troubled, was = False, disk.is_troubled
        file.sync()
        disk.is_troubled = was
        file.write(1, b"b")

    disk = new_disk(pause=pause)
    file = durable(disk.files, DIRECTORY / "a", b"")
    file.write(0, b"a")
    disk.delay_s = (0.1, 0.1)
    disk.fail_next_sync()
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    disk.power_lost()

    assert content(disk.files, DIRECTORY / "a") == b"ab"


def test_a_new_size_is_not_forgotten_by_a_failed_sync() -> None:
    """It is kept in the journal of the file system: what was cut does not come back behind a later sync."""
    outcomes = set()
    for seed in range(40):
        disk = new_disk(seed)
        file = durable(disk.files, DIRECTORY / "a", b"0123456789")
        file.truncate(4)
        disk.fail_next_sync()
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        if seed % 2:
            file.write(0, b"x")
            file.sync()
        disk.power_lost()
        outcomes.add(content(disk.files, DIRECTORY / "a"))

    assert outcomes == {b"0123", b"0123456789", b"x123"}


def test_a_failed_sync_of_a_directory_leaves_names_unsynced() -> None:
    outcomes = set()
    for seed in range(40):
        disk = new_disk(seed)
        written(disk.files, DIRECTORY / "a", b"").sync()
        disk.fail_next_sync()
        with pytest.raises(OSError, match="Input/output"):
            disk.files.sync_directory(DIRECTORY)
        assert disk.files.names(DIRECTORY) == ["a"]
        disk.power_lost()
        outcomes.add(tuple(disk.files.names(DIRECTORY)))

    assert outcomes == {(), ("a",)}


def test_one_read_or_write_fails_and_changes_nothing() -> None:
    disk = new_disk()
    file = written(disk.files, DIRECTORY / "a", b"abc")
    disk.fail_next_write()
    disk.fail_next_read()
    for call in (lambda: file.write(0, b"x"), lambda: file.read(0, 3)):
        with pytest.raises(OSError, match="Input/output"):
            call()

    assert file.read(0, 3) == b"abc"
    file.write(0, b"x")
    assert file.read(0, 3) == b"xbc"
    assert not disk.is_troubled


def test_a_flipped_bit_is_read_at_once_and_after_a_power_loss() -> None:
    disk = new_disk()
    file = durable(disk.files, DIRECTORY / "a", bytes(100))
    offset = disk.flip_bit(DIRECTORY / "a")
    found = file.read(0, 100)
    assert found[offset].bit_count() == 1 and sum(found) == found[offset]

    disk.power_lost()
    assert content(disk.files, DIRECTORY / "a") == found


def test_reserved_space_costs_nothing() -> None:
    """Nor does a sync cost what the file holds: that is why no content is copied."""
    disk = new_disk()
    file = durable(disk.files, DIRECTORY / "a", b"abc")
    file.preallocate(64 * MIB)
    file.sync()
    file.write(3, b"def")
    file.sync()
    disk.power_lost()

    inode = disk.lookup(DIRECTORY / "a")
    assert file is not None and len(inode.durable.data) == len(inode.cached.data) == 6
    assert disk.files.open(DIRECTORY / "a").size() == 64 * MIB
    assert disk.space().free_bytes == disk.capacity_bytes - 64 * MIB


# Power loss

Step = Callable[[Files, Path], None]


@dataclass
class Script:
    """A few random operations on one directory, few enough that all that they may leave can be enumerated."""

    random: Random
    steps: list[Step] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def extend(self, count: int) -> None:
        for _ in range(count):
            ways = [self.create, self.sync_directory]
            if self.names:
                ways += [self.write, self.write, self.write, self.sync, self.resize, self.rename, self.remove]
            self.random.choice(ways)()

    def any_name(self) -> str:
        return self.random.choice(sorted(self.names))

    def on_file(self, change: Callable[[File], None]) -> None:
        name = self.any_name()
        self.steps.append(lambda files, directory: change(files.open(directory / name)))

    def create(self) -> None:
        name = self.random.choice("ab")
        self.names.add(name)
        self.steps.append(lambda files, directory: files.create(directory / name).close())

    def write(self) -> None:
        offset, data = self.random.choice((0, 2, 509, 511, 512)), self.random.randbytes(self.random.randint(1, 5))
        self.on_file(lambda file: file.write(offset, data))

    def sync(self) -> None:
        self.on_file(lambda file: file.sync())

    def resize(self) -> None:
        size, is_reserved = self.random.choice((0, 3, 511, 600)), self.random.random() < 0.5
        self.on_file(lambda file: file.preallocate(size) if is_reserved else file.truncate(size))

    def rename(self) -> None:
        old, new = self.random.sample("abc", 2)
        if old in self.names:
            self.names.discard(old)
            self.names.add(new)
            self.steps.append(lambda files, directory: files.rename(directory / old, directory / new))

    def remove(self) -> None:
        name = self.any_name()
        self.names.discard(name)
        self.steps.append(lambda files, directory: files.remove(directory / name))

    def sync_directory(self) -> None:
        self.steps.append(lambda files, directory: files.sync_directory(directory))

    def run(self, files: Files, directory: Path) -> None:
        for step in self.steps:
            step(files, directory)

    def allowed(self, at_most: int) -> set[frozenset[tuple[str, bytes]]] | None:
        """What the enumeration says of a power loss after it; None if that is too much."""
        files = PowerLossFiles()
        self.run(files, DIRECTORY)
        found = set()
        for number, image in enumerate(files.freeze().images()):
            if number == at_most:
                return None
            found.add(frozenset(image.items()))
        return found

    def left(self, seed: int) -> frozenset[tuple[str, bytes]]:
        """What the disk has after it and a power loss."""
        disk = new_disk(seed)
        self.run(disk.files, DIRECTORY)
        disk.power_lost()
        return frozenset(image_of(disk).items())


def image_of(disk: Disk) -> Image:
    return {name: content(disk.files, DIRECTORY / name) for name in disk.files.names(DIRECTORY)}


@pytest.fixture
def everything_is_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_loss, "TORN_STEP", 1)
    monkeypatch.setattr(power_loss, "PIECES_EXHAUSTIVE_MAX", 99)


def test_a_power_loss_leaves_what_the_enumeration_allows_and_nothing_else(everything_is_enumerated: None) -> None:
    judged = 0
    for seed in range(250):
        script = Script(Random(seed))
        script.extend(3 + seed % 10)
        allowed = script.allowed(at_most=3000)
        if allowed is None:
            continue
        judged += 1
        assert {script.left(chance) for chance in range(40)} <= allowed, f"seed {seed}"

    assert judged > 150


def test_every_outcome_that_the_enumeration_allows_occurs(everything_is_enumerated: None) -> None:
    judged = most = 0
    for seed in range(100):
        script = Script(Random(seed))
        script.extend(3 + seed % 6)
        allowed = script.allowed(at_most=60)
        if allowed is None or len(allowed) < 4:
            continue
        found: set[frozenset[tuple[str, bytes]]] = set()
        for chance in range(20_000):
            found.add(script.left(chance))
            if len(found) == len(allowed):
                break
        assert found == allowed, f"seed {seed}"
        judged, most = judged + 1, max(most, len(allowed))

    assert judged > 15 and most > 20


def test_a_power_loss_is_told_in_all_its_kinds() -> None:
    counts: Counter[str] = Counter()
    for seed in range(60):
        script = Script(Random(seed))
        script.extend(12)
        disk = new_disk(seed, count=lambda name: counts.update([name]))
        script.run(disk.files, DIRECTORY)
        disk.power_lost()

    ends = [f"{what} {end}" for what in ("name", "sector", "size") for end in ("kept", "lost")]
    assert set(counts) == {f"fault: unsynced {end}" for end in [*ends, "sector torn"]}


def test_with_an_unsynced_directory_all_in_it_is_kept_or_lost() -> None:
    """Its own names may be synced: without its name in its parent they are not found."""
    outcomes = set()
    for seed in range(100):
        disk = new_disk(seed)
        disk.files.make_directory(DIRECTORY / "draft")
        durable(disk.files, DIRECTORY / "draft" / "a", b"x")
        written(disk.files, DIRECTORY / "draft" / "b", b"y").sync()
        disk.files.rename(DIRECTORY / "draft", DIRECTORY / "final")
        disk.power_lost()
        (name,) = disk.files.names(DIRECTORY)
        outcomes.add((name, *disk.files.names(DIRECTORY / name)))
        assert content(disk.files, DIRECTORY / name / "a") == b"x"

    assert outcomes == {(name, *names) for name in ("draft", "final") for names in (("a",), ("a", "b"))}


def test_a_directory_that_is_found_under_two_names_holds_the_same_under_both() -> None:
    """Of two renames only the second may be kept."""
    twice = 0
    for seed in range(100):
        disk = new_disk(seed)
        disk.files.make_directory(DIRECTORY / "one")
        written(disk.files, DIRECTORY / "one" / "a", b"x")
        disk.files.rename(DIRECTORY / "one", DIRECTORY / "two")
        disk.files.rename(DIRECTORY / "two", DIRECTORY / "three")
        disk.power_lost()
        names = disk.files.names(DIRECTORY)
        twice += len(names) == 2
        assert len({tuple(disk.files.names(DIRECTORY / name)) for name in names}) == 1

    assert twice > 5


def test_made_directories_are_durable() -> None:
    for seed in range(20):
        disk = new_disk(seed)
        disk.files.make_directory(Path("/other/one/more"))
        disk.power_lost()

        assert disk.files.names(Path("/other/one")) == ["more"]
        assert disk.files.names(Path("/")) == ["machine", "other"]


def test_the_same_seed_loses_the_same() -> None:
    script = Script(Random(5))
    script.extend(30)

    assert all(script.left(seed) == script.left(seed) for seed in range(20))
    assert len({script.left(seed) for seed in range(20)}) > 1


# Storage on it


class PowerCut(BaseException):
    """Ends what a process was doing."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 1500)


@pytest.mark.parametrize("seed", range(60))
def test_storage_recovers_from_random_power_losses(seed: int, small_blocks: None) -> None:
    """Five lives of one data directory, each ended at a random sync, also of the recovery: what was acknowledged is
    there. Some end by a sync that fails, some by the death of the process alone."""
    random = Random(seed)
    syncs_left = 0

    def pause(seconds: float) -> None:
        nonlocal syncs_left
        syncs_left -= 1
        if syncs_left <= 0:
            raise PowerCut

    disk = Disk(Random(seed), pause)
    oracle = None
    for life in range(5):
        syncs_left = random.randrange(1, 30)
        disk.delay_s = (0.001, 0.002)
        try:
            storage, recovered = open_storage(DIRECTORY, segment_bytes=SEGMENT_BYTES, files=disk.files)
            if oracle is None:
                oracle = Oracle(storage)
            else:
                state = check_recovered(storage, recovered, oracle.allowed)
                oracle = Oracle(storage, state)
            if random.random() < 0.3:
                disk.fail_next_sync()
            anything(seed * 10 + life)(oracle)
        except PowerCut:
            pass
        except OSError as error:
            assert error.errno == errno.EIO
        if random.random() < 0.8:
            disk.power_lost()
        else:
            disk.process_died()
    disk.delay_s = (0.0, 0.0)
    storage, recovered = open_storage(DIRECTORY, segment_bytes=SEGMENT_BYTES, files=disk.files)
    if oracle is not None:
        check_recovered(storage, recovered, oracle.allowed)


@pytest.mark.parametrize("seed", range(20))
def test_storage_recovers_from_a_failed_sync_and_a_power_loss_after_the_restart(seed: int) -> None:
    """Known bug 55: what the restart read is on the disk after it."""
    disk = Disk(Random(seed), no_pause)
    storage, _ = open_storage(DIRECTORY, files=disk.files)
    oracle = Oracle(storage)
    oracle.write(write_of(1, 3, size=300))
    disk.fail_next_sync()
    with pytest.raises(OSError, match="Input/output"):
        oracle.write(write_of(4, 6, size=300))
    disk.process_died()
    storage, recovered = open_storage(DIRECTORY, files=disk.files)
    state = check_recovered(storage, recovered, oracle.allowed)
    assert len(state.entries) == 6

    disk.power_lost()
    check_recovered(*open_storage(DIRECTORY, files=disk.files), [state])


def test_storage_waits_for_room() -> None:
    disk = Disk(Random(1), no_pause)
    storage, _ = open_storage(DIRECTORY, segment_bytes=SEGMENT_BYTES, files=disk.files)
    disk.is_full = True
    with pytest.raises(DiskFull):
        for number in range(1, 100):
            storage.write([write_of(number, number, size=200)])
    disk.is_full = False
    storage.write([write_of(number, number, size=200)])
    disk.power_lost()

    _, recovered = open_storage(DIRECTORY, segment_bytes=SEGMENT_BYTES, files=disk.files)
    assert [entry.index for entry in recovered.entries] == list(range(1, number + 1))
