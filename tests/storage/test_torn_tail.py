"""A torn last write is cut at every byte, and what is damaged anywhere else is refused."""

import random
from pathlib import Path

import pytest

from raft.core.ready import Persist
from raft.core.types import HardState
from raft.storage import CorruptLog, Recovered, UnknownFormat
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles, open_memory_storage
from raft.storage.recovery import SECTOR_BYTES, segment_name
from tests.storage.builders import SEGMENT_BYTES, entries, indexes, meta, write_of

FIRST = MEMORY_DIRECTORY / segment_name(1)


class Log:
    """A log in memory whose segment can be spoilt, and the places where its batches end."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        self.storage, _ = open_memory_storage(self.files, segment_bytes=64 * 1024)
        self.ends = [self.storage.log_bytes]

    def write(self, *batch: Persist) -> None:
        self.storage.write(batch)
        self.ends.append(self.storage.log_bytes)

    @property
    def content(self) -> bytes:
        return bytes(self.files.contents[FIRST])

    def recover(self, content: bytes) -> Recovered:
        """Open a copy with this content."""
        storage, recovered = open_memory_storage(self.copy(content), segment_bytes=64 * 1024)
        storage.close(seal=False)
        return recovered

    def copy(self, content: bytes) -> MemoryFiles:
        files = MemoryFiles()
        files.contents = {path: bytearray(old) for path, old in self.files.contents.items()}
        files.contents[FIRST] = bytearray(content)
        return files


def three_and_two_more() -> Log:
    """Three entries and a hard state, then one entry by itself, then another."""
    log = Log()
    log.write(write_of(1, 3, hard_state=HardState(1, "node1")))
    log.write(write_of(4, 4, size=30))
    log.write(write_of(5, 5, size=30))
    return log


def garbage(lost: bytes) -> bytes:
    """As many bytes. The first is another than was there, or one lost byte in 256 would be the right one."""
    if not lost:
        return b""
    return bytes([lost[0] ^ 0xFF]) + random.Random(len(lost)).randbytes(len(lost) - 1)


@pytest.mark.parametrize("rest", ["missing", "blank", "garbage", "blank and preallocated", "other log"])
def test_a_tail_torn_at_any_byte_of_the_last_two_records_is_cut(rest: str) -> None:
    """Known bugs 56 and 57: everything before the torn record is kept, and what is appended then stays."""
    log = three_and_two_more()
    whole = log.content
    two_before = log.ends[1]
    for cut in range(two_before, len(whole) + 1):
        missing = len(whole) - cut
        content = (
            whole[:cut]
            + {
                "missing": b"",
                "blank": bytes(missing),
                "garbage": garbage(whole[cut:]),
                "blank and preallocated": bytes(missing + 8192),
                "other log": whole[:missing],
            }[rest]
        )

        files = log.copy(content)
        storage, recovered = open_memory_storage(files, segment_bytes=64 * 1024)
        last = indexes(recovered)[-1]
        storage.write([write_of(last + 1, last + 2, term=2)])
        storage.close(seal=False)
        _, again = open_memory_storage(files, segment_bytes=64 * 1024)

        assert last == sum(end <= cut for end in log.ends[1:]) + 2
        assert recovered.hard_state == HardState(1, "node1")
        assert recovered.entries == [*entries(1, 3), *entries(4, 5, size=30)][:last]
        assert again.entries == [*recovered.entries, *entries(last + 1, last + 2, term=2)]
        if cut in log.ends:
            assert (recovered.cut_bytes > 0) == (missing > 0 and rest in ("garbage", "other log"))


def test_a_flipped_bit_in_any_record_but_the_last_is_refused() -> None:
    """Known bug 58: never taken for the end of the log. The error names the file and the place."""
    log = three_and_two_more()
    whole = log.content
    for position in range(log.ends[-2]):
        for bit in range(8):
            spoilt = bytearray(whole)
            spoilt[position] ^= 1 << bit

            with pytest.raises((CorruptLog, UnknownFormat)) as caught:
                log.recover(bytes(spoilt))

            if isinstance(caught.value, CorruptLog):
                assert caught.value.path == str(FIRST)
                assert caught.value.offset <= position


def test_a_flipped_bit_in_the_last_record_of_a_log_in_use_cuts_it_and_no_more() -> None:
    """That record cannot be told from a torn one: nothing says that it ever was durable."""
    log = three_and_two_more()
    whole = log.content
    for position in range(log.ends[-2], len(whole)):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << position % 8

        recovered = log.recover(bytes(spoilt))

        assert indexes(recovered) == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["idle", "closed"])
def test_a_flipped_bit_in_a_sealed_log_is_refused_everywhere(how: str) -> None:
    """The seal says that the last batch was durable, so damage to it is damage."""
    log = three_and_two_more()
    if how == "idle":
        log.storage.seal()
    else:
        log.storage.close()
    whole = log.content
    for position in range(log.ends[-2], log.ends[-1]):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << position % 8

        with pytest.raises(CorruptLog):
            log.recover(bytes(spoilt))


def test_a_flipped_bit_inside_the_last_batch_is_refused_where_records_follow() -> None:
    """A disk that wrote a sector wrote all of it: no power loss flips a bit before intact records."""
    log = Log()
    log.write(write_of(1, 1))
    log.write(write_of(2, 4, size=200))
    whole = log.content
    record_bytes = (log.ends[2] - log.ends[1]) // 3
    for position in range(log.ends[1], log.ends[2] - record_bytes):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << position % 8

        with pytest.raises(CorruptLog):
            log.recover(bytes(spoilt))


def test_lost_sectors_of_the_last_batch_are_cut_and_of_an_earlier_one_refused() -> None:
    """Each sector of an unsynced write is kept or lost by itself; once another batch follows, none may be."""
    log = Log()
    log.write(write_of(1, 1, size=300))
    log.write(write_of(2, 9, size=250))
    batch = range(log.ends[1], log.ends[2])
    sectors = range(batch.start // SECTOR_BYTES, batch.stop // SECTOR_BYTES + 1)
    last_batch = log.content
    log.write(write_of(10, 10))
    followed = log.content
    for lost in range(1, 2 ** len(sectors)):
        kept = indexes(log.recover(without(last_batch, sectors, lost, batch)))

        with pytest.raises(CorruptLog):
            log.recover(without(followed, sectors, lost, batch))

        assert kept == list(range(1, len(kept) + 1))
        assert 1 <= len(kept) < 9


def without(content: bytes, sectors: range, lost: int, batch: range) -> bytes:
    """The content with some sectors as they were before the batch; `lost` is a bit set."""
    spoilt = bytearray(content)
    for number, sector in enumerate(sectors):
        if lost >> number & 1:
            start = max(batch.start, sector * SECTOR_BYTES)
            end = min(batch.stop, (sector + 1) * SECTOR_BYTES)
            spoilt[start:end] = bytes(end - start)
    return bytes(spoilt)


def test_an_earlier_segment_must_be_whole() -> None:
    """Only the last segment can have a torn end: the next one began after this one was durable."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files, segment_bytes=SEGMENT_BYTES)
    for index in range(1, 12):
        storage.write([write_of(index, index, size=700)])
    storage.close(seal=False)
    whole = bytes(files.contents[FIRST])
    for cut in range(0, len(whole), 13):
        for content in (whole[:cut], whole[:cut] + bytes(len(whole) - cut), whole[:cut] + whole[cut + 1 :]):
            files.contents[FIRST] = bytearray(content)

            with pytest.raises(CorruptLog) as caught:
                open_memory_storage(files, segment_bytes=SEGMENT_BYTES)

            assert (caught.value.path, caught.value.offset <= cut) == (str(FIRST), True)


def test_a_record_of_another_segment_or_place_is_not_taken_for_one_of_this() -> None:
    """A misdirected write carries a right checksum for the wrong file; the file's seed tells, and the place."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files, segment_bytes=SEGMENT_BYTES)
    for index in range(1, 9):
        storage.write([write_of(index, index, size=700)])
    storage.close(seal=False)
    second = files.contents[MEMORY_DIRECTORY / segment_name(2)]
    second[-760:] = files.contents[FIRST][-760:]

    _, recovered = open_memory_storage(files, segment_bytes=SEGMENT_BYTES)

    assert indexes(recovered)[-1] < 8


def test_refusing_changes_nothing_on_disk(tmp_path: Path) -> None:
    """What is damaged is kept as it is, for `repair` and for whoever wants to look."""
    log = three_and_two_more()
    log.storage.save_snapshot(meta(2), [b"unnamed"])
    spoilt = bytearray(log.content)
    spoilt[log.ends[0] + 5] ^= 1
    files = log.copy(bytes(spoilt))
    before = {path: bytes(content) for path, content in files.contents.items()}

    with pytest.raises(CorruptLog):
        open_memory_storage(files)

    assert {path: bytes(content) for path, content in files.contents.items()} == before
