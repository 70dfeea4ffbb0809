"""Backup files: what is written is read back, and what is not whole is refused before anything of it is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.parsers import CLUSTER_ID_LENGTH_MAX
from raft.storage import CorruptSnapshot, UnknownFormat, backup
from raft.storage.backup import BackupEncoder, BackupHead, backup_chunks, verify_backup
from raft.storage.record import (
    BACKUP_MAGIC,
    FILE_HEADER_BYTES,
    FORMAT_VERSION,
    RECORD_BYTES_MIN,
    decode_file_header,
    read_record,
)
from tests.storage.builders import meta

HEAD = BackupHead(1_700_000_000_000, "lock", "node1", "0.1.0", "c-7f3a")
CHUNKS = [b"first chunk", b"", b"second " * 50]


def backup_bytes() -> bytes:
    encoder = BackupEncoder(HEAD, meta(7))
    return b"".join([encoder.begin(), *map(encoder.chunk, CHUNKS), encoder.end()])


def earlier_head(*texts: str) -> bytes:
    """The body of a head as the versions wrote it that knew no clusters."""
    parts = (bytes((len(text),)) + text.encode() for text in texts)
    return HEAD.taken_ms.to_bytes(8, "little") + b"".join(parts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lock.backup"
    path.write_bytes(backup_bytes())
    return path


def test_a_backup_is_read_back_with_where_it_comes_from(path: Path) -> None:
    found = verify_backup(path)

    assert (found.head, found.meta, found.end.chunks) == (HEAD, meta(7), 3)
    assert list(backup_chunks(path)) == CHUNKS


def test_a_backup_cut_short_anywhere_is_refused(path: Path) -> None:
    """A download that broke off must not pass for a backup."""
    whole = path.read_bytes()

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptSnapshot):
            verify_backup(path)


def test_a_backup_with_any_byte_changed_is_refused(path: Path) -> None:
    """Known bug 59. A changed version number reads as a newer format."""
    whole = path.read_bytes()

    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + bytes((whole[offset] ^ 0x55,)) + whole[offset + 1 :])
        with pytest.raises((CorruptSnapshot, UnknownFormat)):
            verify_backup(path)


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(CorruptSnapshot):
        verify_backup(path)


def test_a_backup_of_a_newer_format_says_so(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8] = FORMAT_VERSION + 1
    path.write_bytes(content)

    with pytest.raises(UnknownFormat, match=f"has format {FORMAT_VERSION + 1}"):
        verify_backup(path)


def test_the_head_of_an_earlier_version_names_no_cluster(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends behind the software version."""
    monkeypatch.setattr(backup, "_encode_head", lambda head: earlier_head(head.group, head.node, head.version))
    path.write_bytes(backup_bytes())

    assert verify_backup(path).head == replace(HEAD, cluster="")


def test_an_earlier_version_reads_the_head_and_leaves_the_cluster_out(path: Path) -> None:
    """It takes three texts and looks no further; the record must fit what it reads of the file at once."""
    longest = BackupHead(HEAD.taken_ms, "cache", "n" * 64, "10.100.1000", "x" * CLUSTER_ID_LENGTH_MAX)
    path.write_bytes(BackupEncoder(longest, meta(7)).begin())

    raw = path.read_bytes()[: FILE_HEADER_BYTES + RECORD_BYTES_MIN + 8 + 3 * 256]
    record = read_record(raw, FILE_HEADER_BYTES, decode_file_header(raw, BACKUP_MAGIC, str(path)))

    assert record is not None
    assert record.body.startswith(earlier_head(longest.group, longest.node, longest.version))


def test_another_file_is_no_backup(path: Path) -> None:
    """A snapshot file of a node is none either: it does not say of which group it is."""
    path.write_bytes(b"MUFAKSNP" + path.read_bytes()[8:])

    with pytest.raises(CorruptSnapshot, match="not a backup file"):
        verify_backup(path)
    assert len(path.read_bytes()) > FILE_HEADER_BYTES
