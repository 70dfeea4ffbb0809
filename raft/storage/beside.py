"""Directories beside those of the groups in a node's data directory, and how a directory gets its name there.

    lock                              the group's data, which its node opens
    lock.damaged-20260131T120000      put aside by a repair: the node refused to use it
    lock.recovered-20260131T120000    put aside by a recovery, which began another life of the group with its data
    lock.restoring                    written by a restore that is under way or was interrupted
    lock.recovering-20260131T120000   the same of a recovery. If lock is missing and lock.recovered- of the same time
                                      is there, this directory must still get the name lock

The rule of the file: the name of a group has no dot, so a directory whose name has one belongs to no group. A node
never opens it, and only its writer deletes it.
"""

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from common.clock import wall_us
from raft.storage.errors import RecoveryUnfinished
from raft.storage.files import Files, RealFiles

#: Between the name of a directory that was put aside and the time at which that was done.
DAMAGED_SUFFIX, RECOVERED_SUFFIX = ".damaged-", ".recovered-"
#: Between the name of a directory that a recovery writes and the time at which it puts the old one aside.
RECOVERING_SUFFIX = ".recovering-"
#: The end of the name of a directory that a restore writes.
RESTORING_SUFFIX = ".restoring"


def is_beside(directory: Path) -> bool:
    """Whether a directory in a node's data directory belongs to no group."""
    return "." in directory.name


def real(directory: Path) -> Path:
    """Where a directory really is: it may be a link to another disk. Rename and replace what the link leads to; the
    link stays."""
    return directory.resolve() if directory.is_symlink() else directory


def unfinished_recovery(directory: Path, *, files: Files | None = None) -> Path | None:
    """The directory that a recovery has written and that only lacks its name, because the old directory is put aside;
    None if there is none.

    Raises:
        OSError: what lies beside the directory cannot be listed.
    """
    files = files if files is not None else RealFiles()
    directory = real(directory)
    try:
        names = set(files.names(directory.parent))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if directory.name in names:
        return None
    before = directory.name + RECOVERING_SUFFIX
    stamps = [name.removeprefix(before) for name in names if name.startswith(before)]
    whole = [stamp for stamp in stamps if directory.name + RECOVERED_SUFFIX + stamp in names]
    return directory.with_name(before + max(whole)) if whole else None


def check_recovered(directory: Path, *, files: Files) -> None:
    """Check that no recovery of a directory was interrupted between its two renames.

    Raises:
        RecoveryUnfinished: one was.
        OSError: what lies beside the directory cannot be listed.
    """
    if unfinished_recovery(directory, files=files) is not None:
        again = f"`mufakat recover {shlex.quote(str(directory))}`"
        raise RecoveryUnfinished(f"the recovery of {directory} was interrupted; {again} finishes it")


def new_stamp(
    directory: Path, *suffixes: str, files: Files | None = None, wall_us: Callable[[], int] = wall_us
) -> str:
    """The present time, with a number if needed, so that the directory's name with one of these suffixes is still
    free."""
    files = files if files is not None else RealFiles()
    taken, number = set(files.names(directory.parent)), 0
    now = stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(wall_us() // 1_000_000))
    while any(directory.name + suffix + stamp in taken for suffix in suffixes):
        number += 1
        stamp = f"{now}-{number}"
    return stamp


def put_aside(
    directory: Path,
    suffix: str,
    *,
    stamp: str = "",
    files: Files | None = None,
    wall_us: Callable[[], int] = wall_us,
) -> Path:
    """Rename a group's directory durably, so that nothing reads it again; returns its new name.

    Raises:
        OSError: it is where it was, or its new name may not be durable.
    """
    files = files if files is not None else RealFiles()
    stamp = stamp or new_stamp(directory, suffix, files=files, wall_us=wall_us)
    aside = directory.with_name(directory.name + suffix + stamp)
    publish(directory, aside, files=files)
    return aside


def publish(draft: Path, directory: Path, *, files: Files | None = None) -> None:
    """Give a directory that was written as a draft its final name, durably and in one step.

    Raises:
        OSError: it is a draft still, or its name may not be durable.
    """
    files = files if files is not None else RealFiles()
    files.rename(draft, directory)
    files.sync_directory(directory.parent)


def give_to_owner_of(model: Path, draft: Path) -> None:
    """Give a directory and all in it to the user and group that own `model`: an administrator may have written it for
    a node that runs as another user. There is nothing to do if they are ours.

    Raises:
        OSError: we may not.
    """
    owner = model.stat()
    for path in (draft, *draft.iterdir()):
        found = path.stat()
        if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
            os.chown(path, owner.st_uid, owner.st_gid)
