"""What binds a node's id to its disk: the incarnation of a data directory, and its way through snapshots."""

from dataclasses import replace
from pathlib import Path

import pytest

from raft.core.types import Configuration
from raft.storage import CorruptStorage, open_storage
from raft.storage.incarnation import INCARNATION_NAME, LIFE_NAME, keep_life, kept_life, take_incarnation
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles, open_memory_storage
from raft.storage.record import (
    FILE_HEADER_BYTES,
    SNAPSHOT_MAGIC,
    MalformedBody,
    decode_file_header,
    decode_meta,
    encode_meta,
)
from tests.storage.builders import meta, reopen, segments, write_of

BOUND = replace(
    meta(7),
    configuration=Configuration(
        ("node1", "node2"),
        ("nœud",),
        (("node1", "127.0.0.1:8000"), ("nœud", "[::1]:8002")),
        (("node2", "f" * 32),),
    ),
)
ALIVE = replace(BOUND, configuration=replace(BOUND.configuration, life="g0006449c1d2e3f-9c0d1e77a1b2"))


def open_and_take(directory: Path) -> str:
    storage, recovered = open_storage(directory)
    try:
        return take_incarnation(directory, fresh=recovered.fresh)
    finally:
        storage.close()


def test_a_directory_keeps_its_incarnation(tmp_path: Path) -> None:
    """A restart is the same node."""
    first = open_and_take(tmp_path)

    assert first == open_and_take(tmp_path)


def test_a_directory_whose_log_is_gone_is_another_one(tmp_path: Path) -> None:
    """Whoever deletes the log and leaves the name must not get the old node back without its votes."""
    first = open_and_take(tmp_path)
    for segment in segments(tmp_path):
        segment.unlink()

    assert first != open_and_take(tmp_path)


def test_no_two_directories_share_an_incarnation(tmp_path: Path) -> None:
    assert open_and_take(tmp_path / "a") != open_and_take(tmp_path / "b")


def test_a_crash_before_the_first_incarnation_was_durable_makes_it_anew() -> None:
    """A half-written draft counts for nothing."""
    files = MemoryFiles()
    storage, recovered = open_memory_storage(files)
    files.create(MEMORY_DIRECTORY / (INCARNATION_NAME + ".new")).write(0, b"12")
    storage.close()

    storage, recovered = open_memory_storage(files)
    taken = take_incarnation(MEMORY_DIRECTORY, fresh=recovered.fresh, files=files)

    assert len(taken) == 32
    assert taken == take_incarnation(MEMORY_DIRECTORY, fresh=False, files=files)


@pytest.mark.parametrize("content", [b"", b"0" * 32, b"0" * 31 + b"\n", b"G" * 32 + b"\n", b"0" * 80])
def test_a_damaged_incarnation_is_an_error(tmp_path: Path, content: bytes) -> None:
    """Neither guessed nor made anew: the node would be taken for a wiped one."""
    open_and_take(tmp_path)
    (tmp_path / INCARNATION_NAME).write_bytes(content)

    with pytest.raises(CorruptStorage):
        take_incarnation(tmp_path, fresh=False)


def test_a_directory_keeps_the_life_that_its_data_is_of(tmp_path: Path) -> None:
    """Known from the first moment after a start; of a directory whose log is gone it counts for nothing."""
    open_and_take(tmp_path)
    before = kept_life(tmp_path, fresh=False)

    keep_life(tmp_path, ALIVE.configuration.life)

    assert before == ""
    assert kept_life(tmp_path, fresh=False) == ALIVE.configuration.life
    assert kept_life(tmp_path, fresh=True) == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"g1", b"g 1\n", b"g" * 70 + b"\n"])
def test_a_damaged_life_is_an_error(tmp_path: Path, content: bytes) -> None:
    """Neither guessed nor left out: the disk would be taken for one that does not say."""
    open_and_take(tmp_path)
    (tmp_path / LIFE_NAME).write_bytes(content)

    with pytest.raises(CorruptStorage):
        kept_life(tmp_path, fresh=False)


def test_a_snapshot_carries_addresses_and_incarnations(tmp_path: Path) -> None:
    """A follower that gets a snapshot must know whom it may trust, and where they are."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 7)])
    storage.save_snapshot(BOUND, [b"state"])
    storage.mark_snapshot(BOUND)
    storage.close()

    storage, recovered = reopen(tmp_path)
    storage.close()

    assert BOUND == recovered.snapshot


def test_a_meta_without_addresses_is_written_and_read_as_before() -> None:
    """Directories that were written before there were any."""
    plain = meta(7)

    assert plain == decode_meta(encode_meta(plain))
    assert encode_meta(plain).endswith(b"\x05node4")
    assert BOUND == decode_meta(encode_meta(BOUND))
    assert ALIVE == decode_meta(encode_meta(ALIVE))


def test_only_a_file_that_names_a_life_is_of_the_new_format(tmp_path: Path) -> None:
    """While versions are mixed a group has none, and the files that go from node to node are read by all."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 9)])
    for place, version in ((meta(8), 1), (replace(ALIVE, index=9), 2)):
        storage.save_snapshot(place, [b"state"])
        storage.mark_snapshot(place)
        reader = storage.open_snapshot()
        assert reader is not None

        assert decode_file_header(reader.read(0, FILE_HEADER_BYTES), SNAPSHOT_MAGIC, "") is not None
        assert reader.read(0, FILE_HEADER_BYTES)[8] == version
        reader.close()
    storage.close()


def test_the_length_of_leases_that_was_agreed_upon_is_kept_with_a_snapshot() -> None:
    """Else a node that is started from one would not wait for leases that run."""
    for bare in (meta(7), BOUND):
        agreed = replace(bare, configuration=replace(bare.configuration, lease_ms=600))

        assert agreed == decode_meta(encode_meta(agreed))
        assert encode_meta(agreed)[:-5] in (encode_meta(bare), encode_meta(bare) + bytes(4))


def test_a_meta_cut_anywhere_is_an_error_or_the_one_without_addresses_or_life() -> None:
    """Nothing half-read: a body has one meaning or none."""
    body = encode_meta(ALIVE)
    bare = encode_meta(replace(BOUND, configuration=Configuration(("node1", "node2"), ("nœud",))))

    for length in range(len(body)):
        if length in (len(bare), len(encode_meta(BOUND))):
            continue
        with pytest.raises(MalformedBody):
            decode_meta(body[:length])
