"""What lies beside the groups' own directories in a node's data directory, and how a directory gets its place there.

    lock                              the group's data, which its node opens
    lock.damaged-20260131T120000      put aside by a repair: the node refused to use it
    lock.recovered-20260131T120000    put aside by a recovery, which made another life of the group out of it
    lock.restoring, lock.recovering   written by a restore or a recovery that is under way or was interrupted

The rule of the file: the name of a group has no dot, and a directory whose name has one is no group's. It is never
opened by a node, and never deleted but by the one who was writing it.
"""

import shlex
import time
from pathlib import Path

from raft.storage.errors import RecoveryUnfinished
from raft.storage.files import Files, RealFiles

#: Behind the name of a directory that was put aside, before the time at which it was.
DAMAGED_SUFFIX, RECOVERED_SUFFIX = ".damaged-", ".recovered-"
#: Ends the name of a directory that is being written.
RESTORING_SUFFIX, RECOVERING_SUFFIX = ".restoring", ".recovering"


def is_beside(directory: Path) -> bool:
    """Whether a directory in a node's data directory is no group's."""
    return "." in directory.name


def check_recovered(directory: Path, *, files: Files) -> None:
    """See that no recovery of a directory was interrupted between its two renames.

    Raises:
        RecoveryUnfinished: one was.
    """
    try:
        names = files.names(directory.parent)
    except FileNotFoundError:
        return
    if directory.name not in names and directory.name + RECOVERING_SUFFIX in names:
        again = f"`mufakat recover {shlex.quote(str(directory))}`"
        raise RecoveryUnfinished(f"the recovery of {directory} was interrupted; {again} finishes it")


def put_aside(directory: Path, suffix: str, *, files: Files | None = None) -> Path:
    """Rename a group's directory so that nothing reads it again, durably; returns its new name.

    Raises:
        OSError: it is where it was.
    """
    files = files if files is not None else RealFiles()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    taken, number = set(files.names(directory.parent)), 0
    name = f"{directory.name}{suffix}{stamp}"
    while name in taken:
        number += 1
        name = f"{directory.name}{suffix}{stamp}-{number}"
    aside = directory.with_name(name)
    files.rename(directory, aside)
    files.sync_directory(directory.parent)
    return aside


def publish(draft: Path, directory: Path, *, files: Files | None = None) -> None:
    """Give a directory that was written as a draft its name, durably and in one step.

    Raises:
        OSError: it is a draft still, or its name may not be durable.
    """
    files = files if files is not None else RealFiles()
    files.rename(draft, directory)
    files.sync_directory(directory.parent)
