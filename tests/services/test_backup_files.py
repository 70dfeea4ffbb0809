"""The file of a backup is put in its place whole, replaces nothing but a file, and leaves nothing behind."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.backup_files import check_target, write_backup
from services.cluster.backups import take_backup
from services.cluster.errors import ClusterError, UsageError
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from tests.services.backups import backup_of


def pieces() -> Iterator[bytes]:
    whole = backup_of("lock")
    yield whole[:100]
    yield whole[100:]


def interrupted() -> Iterator[bytes]:
    yield backup_of("lock")[:100]
    raise KeyboardInterrupt


def never() -> Iterator[bytes]:
    raise AssertionError("it was asked for before the file was looked at")
    yield b""


def folder(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def named_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def device(path: Path) -> None:
    """A twin of /dev/null."""
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device is not allowed here")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (folder, "a folder"),
        (os.mkfifo, "a named pipe"),
        (link, "a symbolic link"),
        (named_socket, "a socket"),
        (device, "a device"),
    ],
)
def test_what_is_no_regular_file_is_refused_before_anybody_is_asked(
    make: object, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup to /dev/null would leave a machine without one."""
    monkeypatch.chdir(tmp_path)
    file = Path("file")
    make(file)  # type: ignore[operator]
    before = os.lstat(file)
    nobody = Surroundings(Home(tmp_path / "home"), {})

    for attempt in (lambda: write_backup(file, never()), lambda: take_backup(nobody, "lock", file)):
        with pytest.raises(UsageError, match=f"file is {kind}, and a backup replaces nothing but a regular file"):
            attempt()

    assert os.lstat(file) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_whose_folder_is_missing_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r"There is no folder .*/missing\. Make it first, or name another FILE\."):
        write_backup(tmp_path / "missing" / "lock.backup", never())
    with pytest.raises(UsageError, match="file is no folder"):
        check_target(tmp_path / "file" / "lock.backup")
    with pytest.raises(ClusterError, match="file name too long"):
        check_target(tmp_path / ("x" * 300))


def test_a_folder_that_cannot_be_written_into_is_told_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, *rest: object) -> int:
        if str(path).endswith(".partial"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ClusterError) as refused:
        write_backup(tmp_path / "lock.backup", never())

    assert str(refused.value) == f"No backup was written: {tmp_path}: permission denied."
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_interrupted_or_not_whole_leaves_the_old_file_alone(tmp_path: Path) -> None:
    """Ctrl-C, and an answer that ended too early."""
    file = tmp_path / "lock.backup"
    file.write_bytes(b"the last good one")

    with pytest.raises(KeyboardInterrupt):
        write_backup(file, interrupted())
    with pytest.raises(ClusterError, match="did not come whole"):
        write_backup(file, [backup_of("lock")[:-1]])

    assert [path.name for path in tmp_path.iterdir()] == ["lock.backup"]
    assert file.read_bytes() == b"the last good one"


def test_a_whole_backup_replaces_a_regular_file_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "lock.backup"
    file.write_bytes(b"the last good one")

    backup = write_backup(file, pieces())

    assert (backup.path, backup.head.group) == (file, "lock")
    assert file.read_bytes() == backup_of("lock")
    assert file.stat().st_mode & 0o777 == 0o600
