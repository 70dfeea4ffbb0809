"""Backup files: what is written is read back, and what is not whole is refused before anything of it is used."""

from pathlib import Path

import pytest

from raft.storage import CorruptSnapshot, UnknownFormat
from raft.storage.backup import BackupEncoder, BackupHead, backup_chunks, verify_backup
from raft.storage.record import FILE_HEADER_BYTES, FORMAT_VERSION
from tests.storage.builders import meta

HEAD = BackupHead(1_700_000_000_000, "lock", "node1", "0.1.0")
CHUNKS = [b"first chunk", b"", b"second " * 50]


def backup_bytes() -> bytes:
    encoder = BackupEncoder(HEAD, meta(7))
    return b"".join([encoder.begin(), *map(encoder.chunk, CHUNKS), encoder.end()])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lock.backup"
    path.write_bytes(backup_bytes())
    return path


def test_a_backup_is_read_back_with_where_it_comes_from(path: Path) -> None:
    backup = verify_backup(path)

    assert (backup.head, backup.meta, backup.end.chunks) == (HEAD, meta(7), 3)
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


def test_another_file_is_no_backup(path: Path) -> None:
    """A snapshot file of a node is none either: it does not say of which group it is."""
    path.write_bytes(b"MUFAKSNP" + path.read_bytes()[8:])

    with pytest.raises(CorruptSnapshot, match="not a backup file"):
        verify_backup(path)
    assert len(path.read_bytes()) > FILE_HEADER_BYTES
