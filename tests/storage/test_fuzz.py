"""Whatever bytes a file holds, opening it gives a state or a typed error: never a crash, a hang, or an allocation
beyond the file's size (known bug 60: CVE-2020-15106, CVE-2020-15112)."""

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from zlib import crc32

import pytest

from raft.core.ready import Persist
from raft.core.types import HardState
from raft.storage import Recovered, RejectedChunk, StorageError, recovery, snapshot_file
from raft.storage.dump import dump, verify
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles, open_memory_storage
from raft.storage.record import (
    FILE_HEADER_BYTES,
    LOG_MAGIC,
    MARK,
    EntryRun,
    MalformedBody,
    decode_chunk,
    decode_end,
    decode_hard_state,
    decode_meta,
    decode_segment_start,
    encode_file_header,
    read_records,
)
from raft.storage.recovery import LogContents, read_log, segment_name
from raft.storage.snapshots import snapshot_name
from tests.storage.builders import SEGMENT_BYTES, entry, meta, write_of

SEEDS = range(150)
#: Opening a file of a few kB takes well under a millisecond; this bounds a hang, not the speed.
OPEN_SECONDS_MAX = 5.0


def sound() -> MemoryFiles:
    """Two segments, a snapshot, every kind of record."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files, segment_bytes=SEGMENT_BYTES)
    storage.write([write_of(1, 5, size=500, hard_state=HardState(1, "node1"))])
    storage.save_snapshot(meta(4), [b"first chunk", b"second" * 50])
    storage.mark_snapshot(meta(4))
    storage.write([write_of(6, 9, size=500)])
    storage.write([write_of(8, 9, term=2, hard_state=HardState(2))])
    storage.seal()
    storage.write([write_of(10, 12, term=2, size=30)])
    storage.close(seal=False)
    return files


def mutations(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """One of each kind of spoiling."""
    spoilt = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    yield bytes(spoilt)
    start, end = sorted(chance.sample(range(len(content)), 2))
    yield content[:start] + content[end:]
    yield content[:start] + content[start:end] * 2 + content[end:]
    yield content[:start] + bytes(end - start) + content[end:]
    yield content[:start] + chance.randbytes(end - start) + content[end:]
    number = chance.choice((0, 1, 2**31, 2**32 - 1, chance.getrandbits(32)))
    yield content[:start] + struct.pack("<I", number) + content[start + 4 :]
    yield chance.randbytes(chance.randrange(2000))


def resealed(content: bytes, chance: random.Random) -> bytes:
    """A file whose records have right checksums and wrong bodies: what a bug would leave, not a disk."""
    seed = struct.unpack_from("<I", content, FILE_HEADER_BYTES - 4)[0]
    spoilt = bytearray(content)
    for record in read_records(content, FILE_HEADER_BYTES, seed):
        if chance.random() < 0.2:
            for _ in range(chance.randint(1, 3)):
                # Everything but the mark and the length, which would move the records behind it.
                position = chance.choice([2, 3, *range(8, record.end - record.offset - 4)])
                spoilt[record.offset + position] = chance.choice((0, 1, 255, chance.randrange(256)))
            checksum_at = record.end - 4
            checksum = crc32(spoilt[record.offset : checksum_at], seed + record.offset & 0xFFFFFFFF)
            struct.pack_into("<I", spoilt, checksum_at, checksum)
    return bytes(spoilt)


def open_or_refuse(files: MemoryFiles) -> Recovered | None:
    """Open, and write where that went well. None where it was refused."""
    began = time.process_time()
    list(dump(MEMORY_DIRECTORY, files=files))
    sound_by_looks = verify(MEMORY_DIRECTORY, files=files).ok
    try:
        storage, recovered = open_memory_storage(files, segment_bytes=SEGMENT_BYTES)
    except StorageError:
        assert not sound_by_looks
        return None
    finally:
        assert time.process_time() - began < OPEN_SECONDS_MAX
    assert sound_by_looks
    check_consistent(recovered)
    storage.close()
    return recovered


def contents_or_refusal(files: MemoryFiles) -> LogContents | str:
    try:
        return read_log(files, MEMORY_DIRECTORY)
    except StorageError as refusal:
        return str(refusal)


def check_consistent(recovered: Recovered) -> None:
    base = recovered.snapshot.index if recovered.snapshot is not None else 0
    indexes = [entry.index for entry in recovered.entries]
    assert indexes == list(range(base + 1, base + 1 + len(indexes)))


@pytest.mark.parametrize("name", [segment_name(1), segment_name(2), snapshot_name(meta(4))])
@pytest.mark.parametrize("spoil", [mutations, resealed], ids=lambda spoil: spoil.__name__)
def test_a_spoilt_file_is_recovered_from_or_refused(name: str, spoil: Callable) -> None:
    original = sound().contents
    content = bytes(original[MEMORY_DIRECTORY / name])
    opened = refused = 0
    for seed in SEEDS:
        made = spoil(content, random.Random(seed))
        for spoilt in [made] if isinstance(made, bytes) else made:
            files = MemoryFiles()
            files.contents = {path: bytearray(old) for path, old in original.items()}
            files.contents[MEMORY_DIRECTORY / name] = bytearray(spoilt)

            if open_or_refuse(files) is None:
                refused += 1
            else:
                opened += 1

    assert opened + refused >= len(SEEDS)
    assert refused > 0


@pytest.mark.parametrize("spoil", [mutations, resealed], ids=lambda spoil: spoil.__name__)
def test_the_fast_way_over_entries_reads_what_the_plain_one_reads(
    spoil: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery takes runs of entries in one loop; without it, it must come to the same contents or refusal."""
    original = sound().contents
    path = MEMORY_DIRECTORY / segment_name(2)
    for seed in SEEDS:
        made = spoil(bytes(original[path]), random.Random(seed))
        for spoilt in [made] if isinstance(made, bytes) else made:
            files = MemoryFiles()
            files.contents = {**original, path: bytearray(spoilt)}
            fast = contents_or_refusal(files)
            with monkeypatch.context() as plainly:
                plainly.setattr(
                    recovery, "read_entries", lambda raw, at, seed, durable, first_index: EntryRun([], at, durable)
                )

                plain = contents_or_refusal(files)

            assert fast == plain


def test_random_bytes_in_every_body_decode_or_raise_the_typed_error() -> None:
    chance = random.Random(1)
    for decode in (decode_meta, decode_hard_state, decode_segment_start, decode_chunk, decode_end):
        for _ in range(2000):
            body = chance.randbytes(chance.randrange(80))
            try:
                decode(body)
            except MalformedBody:
                continue


@pytest.mark.parametrize("claimed", [2**32 - 1, 2**31, 10**9])
def test_a_length_from_the_disk_is_not_believed(claimed: int) -> None:
    """No more is allocated than a few times the file's size."""
    files = sound()
    segment = files.contents[MEMORY_DIRECTORY / segment_name(2)]
    struct.pack_into("<I", segment, FILE_HEADER_BYTES + 4, claimed)
    snapshot = files.contents[MEMORY_DIRECTORY / snapshot_name(meta(4))]
    struct.pack_into("<I", snapshot, FILE_HEADER_BYTES + 4, claimed)
    size = sum(map(len, files.contents.values()))
    tracemalloc.start()
    try:
        with pytest.raises(StorageError):
            open_memory_storage(files)
        with pytest.raises(StorageError):
            snapshot_file.inspect(files, MEMORY_DIRECTORY / snapshot_name(meta(4)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 20 * size + 500_000


def test_data_that_looks_like_records_everywhere_does_not_hang_recovery() -> None:
    """Behind a damaged place every mark could begin a record of almost the file's length: quadratic work, were it
    not bounded. Refusing is the safe answer."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files, segment_bytes=64 * 1024 * 1024)
    storage.write([write_of(1, 1)])
    storage.close(seal=False)
    segment = files.contents[MEMORY_DIRECTORY / segment_name(1)]
    size = 2 * 1024 * 1024
    fake = struct.pack("<2sBBII", MARK, 3, 0, size, 0)
    segment += b"?" + fake * (2 * size // len(fake))

    began = time.process_time()
    with pytest.raises(StorageError, match="cannot be told apart"):
        open_memory_storage(files)

    assert time.process_time() - began < OPEN_SECONDS_MAX


def test_data_made_to_look_like_the_log_itself_is_only_data() -> None:
    """A client that writes pieces of a log as values changes nothing about the log, torn or whole."""
    forged = encode_file_header(LOG_MAGIC, seed=1) + bytes(
        sound().contents[MEMORY_DIRECTORY / segment_name(1)]
    )
    files = MemoryFiles()
    storage, _ = open_memory_storage(files, segment_bytes=64 * 1024)
    storage.write([write_of(1, 1)])
    before = storage.log_bytes
    storage.write([Persist(None, (entry(2, data=forged),))])
    storage.close(seal=False)
    segment = files.contents[MEMORY_DIRECTORY / segment_name(1)]
    whole = bytes(segment)
    for cut in range(before, len(whole), 97):
        segment[:] = whole[:cut]

        _, recovered = open_memory_storage(files, segment_bytes=64 * 1024)

        assert [found.index for found in recovered.entries] == [1]


def test_chunks_of_anything_under_any_id_are_refused_or_kept_apart() -> None:
    """A peer's bytes are not believed before the whole was checked."""
    chance = random.Random(7)
    files = MemoryFiles()
    storage, _ = open_memory_storage(files)
    storage.write([write_of(1, 1)])
    for _ in range(500):
        data = chance.randbytes(chance.randrange(60))
        snapshot_id = f"{chance.randrange(3):x}-1-{chance.randrange(100):x}-0000000{chance.randrange(3)}"
        checksum = crc32(data) if chance.random() < 0.9 else 0
        try:
            storage.receive_snapshot(snapshot_id, chance.choice((0, 0, 30)), data, checksum)
            if chance.random() < 0.3:
                storage.finish_snapshot(snapshot_id)
        except RejectedChunk:
            continue

    assert storage.load_snapshot() is None
    assert not [name for name in files.names(MEMORY_DIRECTORY) if name.endswith(".snapshot")]
