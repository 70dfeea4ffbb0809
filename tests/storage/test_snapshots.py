"""Snapshot files: complete or absent, checked at every byte, sent in resumable chunks, two kept."""

import errno
from pathlib import Path
from zlib import crc32

import pytest

from raft.core.ready import Persist
from raft.core.types import Configuration, SnapshotMeta
from raft.storage import (
    CorruptSnapshot,
    DiskFull,
    RejectedChunk,
    Storage,
    StorageError,
    UnknownFormat,
    open_storage,
    snapshot_file,
)
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFile, MemoryFiles, open_memory_storage
from tests.storage.builders import crash, indexes, meta, recover, reopen, write_of
from tests.storage.work import snapshot_file as file_of


def with_snapshots(directory: Path, *places: int) -> Storage:
    """A log of 20 entries with a snapshot of our own at each of these places."""
    storage, _ = reopen(directory)
    storage.write([write_of(1, 20)])
    for index in places:
        storage.save_snapshot(meta(index), [b"state at %d" % index, b"", b"x" * 1000])
        storage.mark_snapshot(meta(index))
    return storage


def loaded(storage: Storage) -> tuple[SnapshotMeta, list[bytes]] | None:
    found = storage.load_snapshot()
    return None if found is None else (found[0], list(found[1]))


def test_chunks_come_back_one_by_one_with_the_meta(tmp_path: Path) -> None:
    """What `restore` is given is what `snapshot` produced, chunk for chunk."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 1)])
    place = SnapshotMeta(1, 1, 5, Configuration(("a", "nœud"), ("z",)))
    chunks = [bytes([number % 256]) * (number * 997) for number in range(60)]
    none_yet = storage.load_snapshot()
    storage.save_snapshot(place, iter(chunks))
    before_marked = storage.load_snapshot()
    storage.mark_snapshot(place)
    here = loaded(storage)
    crash(storage)

    storage, recovered = reopen(tmp_path)

    assert (none_yet, before_marked) == (None, None)
    assert recovered.snapshot == place
    assert here == (place, chunks) == loaded(storage)
    storage.close()


def test_a_snapshot_may_have_no_chunks_and_no_members(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 1)])
    storage.save_snapshot(SnapshotMeta(1, 1), [])
    storage.mark_snapshot(SnapshotMeta(1, 1))
    crash(storage)

    storage, _ = reopen(tmp_path)

    assert loaded(storage) == (SnapshotMeta(1, 1), [])
    storage.close()


def test_a_chunk_larger_than_the_reading_block_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "BLOCK_BYTES", 100)
    storage, _ = open_memory_storage()
    storage.write([write_of(1, 1)])
    chunks = [b"small", b"x" * 5000, b"y" * 60, b"z" * 60]
    storage.save_snapshot(meta(1), chunks)
    storage.mark_snapshot(meta(1))

    assert loaded(storage) == (meta(1), chunks)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    storage = with_snapshots(tmp_path, 3, 6, 9, 12)
    storage.close()

    names = sorted(path.name.split("-")[0].lstrip("0") for path in tmp_path.glob("*.snapshot"))

    assert names == ["12", "9"]


def test_a_saved_snapshot_that_the_log_never_named_is_removed(tmp_path: Path) -> None:
    """A crash between the file and the marker: the file is as if it had never been."""
    storage = with_snapshots(tmp_path, 3)
    storage.save_snapshot(meta(9), [b"unnamed"])
    crash(storage)
    (tmp_path / "left.tmp").write_bytes(b"half")

    recovered = recover(tmp_path)

    assert recovered.snapshot == meta(3)
    assert len(list(tmp_path.glob("*.snapshot"))) == 1
    assert not (tmp_path / "left.tmp").exists()


def test_an_older_snapshot_of_our_own_does_not_set_the_log_back(tmp_path: Path) -> None:
    """Known bug 41: a leader's snapshot overtook the one that was being saved."""
    storage = with_snapshots(tmp_path, 9)
    storage.save_snapshot(meta(5), [b"late"])
    storage.mark_snapshot(meta(5))
    crash(storage)

    assert recover(tmp_path).snapshot == meta(9)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_an_older_snapshot_and_more_log_stand_in_for_a_damaged_one(tmp_path: Path, how: str) -> None:
    """Known bug 59: nothing is lost as long as the log reaches back; the damaged file is kept aside."""
    storage = with_snapshots(tmp_path, 5, 15)
    crash(storage)
    spoil(tmp_path, 15, how)

    storage, recovered = reopen(tmp_path)
    content = loaded(storage)
    storage.save_snapshot(meta(10), [b"again"])
    storage.mark_snapshot(meta(10))
    crash(storage)
    again = recover(tmp_path)

    assert (recovered.snapshot, indexes(recovered)) == (meta(5), list(range(6, 21)))
    assert recovered.damaged_snapshot.startswith("00000000000000000015-")
    assert content is not None
    assert content[1][0] == b"state at 5"
    assert (again.snapshot, again.damaged_snapshot) == (meta(10), "")
    assert len(list(tmp_path.glob("*.damaged"))) == (how != "missing")


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_damaged_snapshot_that_nothing_can_stand_in_for_is_refused(tmp_path: Path, how: str) -> None:
    """The log behind it was compacted: the node must refuse, naming the file, and change nothing."""
    storage, _ = reopen(tmp_path)
    for index in range(1, 21):
        storage.write([write_of(index, index, size=1000)])
    storage.save_snapshot(meta(15), [b"x" * 9000])
    storage.mark_snapshot(meta(15))
    storage.compact(15)
    crash(storage)
    path = spoil(tmp_path, 15, how)
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(CorruptSnapshot) as caught:
        reopen(tmp_path)

    assert caught.value.path == str(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def spoil(directory: Path, index: int, how: str) -> Path:
    (path,) = directory.glob(f"{index:020d}-*.snapshot")
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    return path


def test_a_flipped_bit_or_a_missing_end_is_found_at_every_byte() -> None:
    """Known bug 59, for each byte of a file: reading it stops with the typed error, before `restore` believes it."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files)
    storage.write([write_of(1, 3)])
    storage.save_snapshot(meta(3), [b"first", b"second" * 10])
    storage.mark_snapshot(meta(3))
    storage.close()
    (path,) = (path for path in files.contents if path.suffix == ".snapshot")
    whole = bytes(files.contents[path])
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        for spoilt in (flipped, whole[:position], whole[:position] + whole[position + 1 :], whole + b"\0"):
            files.contents[path][:] = spoilt

            with pytest.raises((CorruptSnapshot, UnknownFormat)):
                snapshot_file.inspect(files, path)


def test_a_snapshot_of_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    storage = with_snapshots(tmp_path, 5)
    storage.close()
    (path,) = tmp_path.glob("*.snapshot")
    content = bytearray(path.read_bytes())
    content[8] = 9
    path.write_bytes(content)

    with pytest.raises(UnknownFormat, match="format 9"):
        reopen(tmp_path)


# -- from a leader -------------------------------------------------------------------------------------------------


def send(storage: Storage, snapshot_id: str, content: bytes, offset: int, size: int) -> int:
    data = content[offset : offset + size]
    return storage.receive_snapshot(snapshot_id, offset, data, crc32(data))


def test_a_leaders_snapshot_comes_in_chunks_and_replaces_the_log(tmp_path: Path) -> None:
    """From the leader's reader to the follower's log: the same chunks, and the old entries are gone."""
    leader = with_snapshots(tmp_path / "leader", 15)
    reader = leader.open_snapshot()
    assert reader is not None
    follower, _ = reopen(tmp_path / "follower")
    follower.write([write_of(1, 4, term=9)])
    offset = 0
    while offset < reader.size:
        data = reader.read(offset, 100)
        offset = follower.receive_snapshot(reader.id, offset, data, crc32(data))
    received = follower.finish_snapshot(reader.id)
    before = follower.load_snapshot()
    follower.write([Persist(None, (), received)])
    reader.close()
    crash(follower)

    follower, recovered = reopen(tmp_path / "follower")

    assert before is None
    assert (recovered.snapshot, recovered.entries) == (meta(15), [])
    assert loaded(follower) == loaded(leader)
    assert not list((tmp_path / "follower").glob("*.part"))
    leader.close()
    follower.close()


def test_a_broken_transfer_goes_on_where_it_stopped_even_after_a_restart(tmp_path: Path) -> None:
    content, snapshot_id = file_of(meta(8, 2))
    storage, _ = reopen(tmp_path)
    expected = send(storage, snapshot_id, content, 0, 2000)
    crash(storage)
    storage, _ = reopen(tmp_path)
    resumed = storage.received_bytes(snapshot_id)
    send(storage, snapshot_id, content, resumed, len(content))

    received = storage.finish_snapshot(snapshot_id)

    assert expected == 2000
    assert 0 < resumed <= 2000
    assert received == meta(8, 2)
    storage.close()


def test_a_resumed_transfer_keeps_only_what_reads_back(tmp_path: Path) -> None:
    """After a power loss the part may end in zeroes or worse."""
    content, snapshot_id = file_of(meta(8, 2))
    storage, _ = reopen(tmp_path)
    send(storage, snapshot_id, content, 0, 2000)
    crash(storage)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(content[:900] + bytes(1100))
    storage, _ = reopen(tmp_path)
    resumed = storage.received_bytes(snapshot_id)
    send(storage, snapshot_id, content, resumed, len(content))

    assert 0 < resumed <= 900
    assert storage.finish_snapshot(snapshot_id) == meta(8, 2)
    storage.close()


class SmallFile(MemoryFile):
    """Reserves no more than `room_bytes`; finds only at a sync that there is no room where `late` says so."""

    def __init__(self, files: "SmallDisk", content: bytearray) -> None:
        super().__init__(content)
        self._files = files

    def preallocate(self, size: int) -> None:
        if size > self._files.room_bytes:
            raise OSError(errno.ENOSPC, "no space left on device")

    def sync(self) -> None:
        if self._files.late:
            raise OSError(errno.ENOSPC, "no space left on device")


class SmallDisk(MemoryFiles):
    room_bytes = 1 << 30
    late = False

    def create(self, path: Path) -> SmallFile:
        super().create(path)
        return SmallFile(self, self.contents[path])

    @property
    def parts(self) -> list[str]:
        return [name for name in self.names(MEMORY_DIRECTORY) if name.endswith(".part")]


def test_of_a_leaders_snapshot_that_does_not_fit_nothing_is_taken() -> None:
    """Half of it would only take the room that the log still has."""
    content, snapshot_id = file_of(meta(9, 2))
    files = SmallDisk()
    storage, _ = open_memory_storage(files)
    files.room_bytes = len(content) - 1

    with pytest.raises(DiskFull):
        send(storage, snapshot_id, content, 0, 100)

    assert not files.parts
    files.room_bytes = len(content)
    assert send(storage, snapshot_id, content, 0, 100) == 100


def test_a_filesystem_that_finds_only_at_the_sync_that_it_is_full_costs_the_transfer_and_no_more() -> None:
    """The part counts for nothing yet, so the node need not end for it."""
    content, snapshot_id = file_of(meta(9, 2))
    files = SmallDisk()
    storage, _ = open_memory_storage(files)
    send(storage, snapshot_id, content, 0, len(content))

    files.late = True
    with pytest.raises(DiskFull):
        storage.finish_snapshot(snapshot_id)

    files.late = False
    assert not files.parts
    assert storage.received_bytes(snapshot_id) == 0


def test_chunks_of_two_snapshots_never_mix() -> None:
    """Known bug 47: a stray chunk of another transfer is refused and does not disturb the one under way; another
    transfer's first chunk ends it."""
    first, first_id = file_of(meta(8, 2))
    second, second_id = file_of(meta(9, 2))
    storage, _ = open_memory_storage()
    send(storage, first_id, first, 0, 500)
    with pytest.raises(RejectedChunk) as stray:
        send(storage, second_id, second, 500, 500)
    went_on = send(storage, first_id, first, 500, 500)
    send(storage, second_id, second, 0, len(second))
    with pytest.raises(RejectedChunk) as ended:
        send(storage, first_id, first, 1000, 500)

    assert (stray.value.expected_offset, went_on, ended.value.expected_offset) == (0, 1000, 0)
    assert storage.finish_snapshot(second_id) == meta(9, 2)


def test_chunks_twice_out_of_order_or_damaged_are_refused_with_the_place_to_go_on() -> None:
    content, snapshot_id = file_of(meta(8, 2))
    storage, _ = open_memory_storage()
    send(storage, snapshot_id, content, 0, 300)
    expected = []
    for offset, checksum in ((0, None), (100, None), (600, None), (300, 12345)):
        data = content[offset : offset + 300]
        with pytest.raises(RejectedChunk) as caught:
            storage.receive_snapshot(snapshot_id, offset, data, crc32(data) if checksum is None else checksum)
        expected.append(caught.value.expected_offset)
    with pytest.raises(RejectedChunk) as early:
        storage.finish_snapshot(snapshot_id)
    send(storage, snapshot_id, content, 300, len(content))

    assert expected == [300, 300, 300, 300]
    assert early.value.expected_offset == 300
    assert storage.finish_snapshot(snapshot_id) == meta(8, 2)


def test_a_whole_that_is_not_what_its_id_says_is_dropped() -> None:
    """A leader that sends something else under the id; the next try begins anew."""
    content, snapshot_id = file_of(meta(8, 2))
    forged = bytearray(content)
    forged[len(forged) // 2] ^= 1
    files = MemoryFiles()
    storage, _ = open_memory_storage(files)
    send(storage, snapshot_id, bytes(forged), 0, len(content))

    with pytest.raises(RejectedChunk) as caught:
        storage.finish_snapshot(snapshot_id)
    left = files.names(MEMORY_DIRECTORY)
    send(storage, snapshot_id, content, 0, len(content))

    assert caught.value.expected_offset == 0
    assert not [name for name in left if name.endswith((".part", ".snapshot"))]
    assert storage.finish_snapshot(snapshot_id) == meta(8, 2)


@pytest.mark.parametrize(
    "snapshot_id", ["", "../../etc/passwd", "1-1-1", "1-1-1-zzzzzzzz", "1-1-1-00000000/..", "G-1-1-00000000"]
)
def test_an_id_that_is_none_is_refused(snapshot_id: str) -> None:
    """It becomes part of a file's name."""
    storage, _ = open_memory_storage()

    with pytest.raises(RejectedChunk):
        storage.receive_snapshot(snapshot_id, 0, b"data", crc32(b"data"))
    with pytest.raises(RejectedChunk):
        storage.finish_snapshot(snapshot_id)


def test_no_more_comes_in_than_the_id_says() -> None:
    """A peer cannot fill the disk."""
    storage, _ = open_memory_storage()

    with pytest.raises(RejectedChunk, match="longer"):
        storage.receive_snapshot("1-1-10-00000000", 0, b"x" * 17, crc32(b"x" * 17))


def test_equal_snapshots_are_equal_files_with_one_id(tmp_path: Path) -> None:
    """A transfer may go on from another leader that holds the same snapshot."""
    ids = []
    for node in ("one", "two"):
        storage = with_snapshots(tmp_path / node, 7)
        reader = storage.open_snapshot()
        assert reader is not None
        ids.append((reader.id, reader.read(0, reader.size)))
        reader.close()
        storage.close()

    assert ids[0] == ids[1]


def test_a_snapshot_being_sent_stays_readable_after_it_was_pruned(tmp_path: Path) -> None:
    """Slow followers are fed while newer snapshots are taken."""
    storage = with_snapshots(tmp_path, 3)
    reader = storage.open_snapshot()
    assert reader is not None
    content = reader.read(0, 50)
    for index in (6, 9, 12):
        storage.save_snapshot(meta(index), [b"next"])
        storage.mark_snapshot(meta(index))

    rest = reader.read(50, reader.size)
    reader.close()
    storage.close()

    assert len(content + rest) == reader.size
    assert not list(tmp_path.glob("00000000000000000003-*"))


def test_damage_is_found_before_it_is_sent(tmp_path: Path) -> None:
    storage = with_snapshots(tmp_path, 3)
    spoil(tmp_path, 3, "flipped")

    with pytest.raises(CorruptSnapshot):
        storage.open_snapshot()

    storage.close()


def test_a_raising_machine_leaves_no_half_snapshot(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 3)])

    def chunks():
        yield b"one"
        raise KeyError("broken machine")

    with pytest.raises(KeyError):
        storage.save_snapshot(meta(3), chunks())

    assert not list(tmp_path.glob("*snapshot*"))
    storage.close()


def test_the_errors_share_a_base(tmp_path: Path) -> None:
    """So that a caller can tell ours from the operating system's."""
    with pytest.raises(StorageError):
        storage, _ = open_storage(tmp_path)
        try:
            open_storage(tmp_path)
        finally:
            storage.close()
