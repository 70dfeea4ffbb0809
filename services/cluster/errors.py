"""What a cluster command says when it cannot do what was asked, and the exit code for it.

    ClusterError            exit 1: it was tried and failed
        UsageError          exit 2: the arguments mean nothing (an unknown node, for example)
        InTheWay            exit 3: something is in the way (a port in use, another cluster, a cluster half up)
        NoCluster           exit 4: no cluster is up

Every message is one or two sentences that say what is wrong and what to do.
"""

import errno
from pathlib import Path


class ClusterError(Exception):
    """The command was tried and failed."""

    exit_code = 1


class UsageError(ClusterError):
    """The command names something that does not exist."""

    exit_code = 2


class InTheWay(ClusterError):
    """Something is in the way, and the operator must remove it first."""

    exit_code = 3


class NoCluster(ClusterError):
    """No cluster was started from this folder, or it was taken down."""

    exit_code = 4


#: What to do about the system's errors that commands can get, by number.
_ADVICE = {
    errno.EACCES: "Run the command as the user whom it belongs to, or name another folder with MUFAKAT_HOME",
    errno.EPERM: "It is protected or belongs to another user (see `ls -ld`, `lsattr`)",
    errno.EROFS: "Make the file system writable, or name another folder with MUFAKAT_HOME",
    errno.ENOSPC: "Free some space, then try again",
    errno.EDQUOT: "Free some space, then try again",
    errno.ENOTDIR: "A part of that path is a file; set MUFAKAT_HOME to a folder",
    errno.EISDIR: "A folder is where a file should be",
    errno.EEXIST: "It is no folder, or a link that leads nowhere; move it away",
    errno.ENOTEMPTY: "Something was put there meanwhile; try again",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "Raise the limit of open files (`ulimit -n`)",
    errno.EIO: "See that the disk is sound (`dmesg`)",
}


def in_words(error: OSError) -> str:
    """An error of the system in one or two sentences: the file, the error, and what to do."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"{error}."
    file = f"{error.filename}: " if error.filename else ""
    what = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0)
    return f"{file}{what}." + (f" {advice}." if advice else "")


def unreadable(error: OSError, path: Path) -> str:
    """What the system said, in words: the file that it named, or `path`, and why the file cannot be read."""
    return f"{error.filename or path} cannot be read: {reason(error)}"


def reason(error: Exception) -> str:
    """Why something on a disk failed, in words, without the file."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (cause.strerror or repr(cause)).lower() if isinstance(cause, OSError) else str(error)
