"""The file of a backup: what it may replace, and how it gets its place, whole and checked or not at all.

The rule: FILE is a regular file or nothing. A device, say, would be replaced by a file of that name, for everybody on
this machine; and a symbolic link says that the file of that name is somebody else's business.
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

#: What a path may lead to that is no regular file, in words. A symbolic link is not followed.
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_target(file: Path) -> None:
    """See that a backup can be written to `file`, as far as that can be seen without writing.

    Raises:
        UsageError: it would replace what is no regular file, or there is no folder for it.
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
    """Make `file` the backup that `pieces` add up to. They are not asked for before the file can be written.

    Raises:
        UsageError: see `check_target`.
        ClusterError: it cannot be written, or the pieces are no whole backup. The old file is left as it was.
        Whatever `pieces` raises, with the same outcome.
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
    """What the system said, in words, of the file or of the folder that it lies in."""
    return f"{file.parent if isinstance(error, PermissionError) else file}: {reason(error)}"
