"""The file of a backup: what it may replace, and how it gets its name, whole and checked or not at all.

The rule: FILE is a regular file, or nothing is there. Otherwise the backup could replace a device by a file, for
everybody on this machine. A symbolic link says that somebody else decides about that file.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from raft.storage import StorageError
from raft.storage.backup import Backup, verify_backup
from raft.storage.files import RealFiles
from services.cluster.errors import ClusterError, UsageError, reason

#: Things that are not regular files, in words. Symbolic links are not followed.
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_target(file: Path) -> None:
    """Check that a backup can be written to `file`, as far as that is possible without writing.

    Raises:
        UsageError: it would replace something that is not a regular file, or there is no folder for it.
        ClusterError: the system does not let us look.
    """
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        if not file.parent.is_dir():
            raise UsageError(f"There is no folder {file.parent}. Make it first, or name another FILE.") from None
        return
    except NotADirectoryError:
        raise UsageError(f"{file.parent} is no folder. Name another FILE.") from None
    except OSError as error:
        raise ClusterError(f"No backup was written: {_said(error, file)}.") from error
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
        raise UsageError(f"{file} is {kind}, and a backup replaces nothing but a regular file. Name another FILE.")


def write_backup(file: Path, pieces: Iterable[bytes]) -> Backup:
    """Make `file` the backup that consists of `pieces`. Do not ask for the pieces before the file can be written.

    Raises:
        UsageError: see `check_target`.
        ClusterError: it cannot be written, or the pieces are no whole backup. The old file stays as it was.
        Everything that `pieces` raises; the old file stays as it was, too.
    """
    check_target(file)
    draft = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        _write_draft(draft, pieces)
        try:
            backup = verify_backup(draft)
        except StorageError as error:
            raise ClusterError(f"The backup did not come whole: {error}. Nothing was written; try again.") from error
        check_target(file)
        os.replace(draft, file)
        RealFiles().sync_directory(file.absolute().parent)
    except OSError as error:
        raise ClusterError(f"No backup was written: {_said(error, file)}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return replace(backup, path=file)


def _write_draft(draft: Path, pieces: Iterable[bytes]) -> None:
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        for piece in pieces:
            output.write(piece)
        output.flush()
        os.fsync(output.fileno())


def describe_backup(backup: Backup) -> str:
    """A backup in one line."""
    head, taken = backup.head, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(backup.head.taken_ms / 1000))
    life = f", of life {backup.meta.configuration.life}" if backup.meta.configuration.life else ""
    of_cluster = f" of the cluster {head.cluster}" if head.cluster else ""
    return (
        f"{backup.path}: group {head.group} at index {backup.meta.index}, {backup.end.size} bytes, taken {taken} "
        f"at {head.node}{of_cluster} by version {head.version}{life}"
    )


def _said(error: OSError, file: Path) -> str:
    """What the system said, in words, about the file or its folder."""
    return f"{file.parent if isinstance(error, PermissionError) else file}: {reason(error)}"
