"""Why a node's process ended, in words for its last log line, and what to do about it.

The rule of the file: the words name the file, and the advice fits the error. That a disk may be broken is said where
the system says that it is, and nowhere else.
"""

import errno

from common.runtime import DESCRIPTOR_ERRNOS
from raft.storage import (
    CorruptStorage,
    DataDirectoryGone,
    DataDirectoryInUse,
    DiskFull,
    RecoveryUnfinished,
    StorageError,
    WrongCluster,
)
from raft.storage.files import DISK_FULL_ERRNOS
from services.http.listeners import CannotListen
from services.replicated.versions import UnknownCommand

#: What to do where a node cannot listen, by what the system says of the address.
_ADDRESS_ADVICE = {
    errno.EADDRINUSE: "another program listens there: end it, or give the node another port",
    errno.EADDRNOTAVAIL: (
        "this machine has no such address: MUFAKAT_LISTEN_HOST and MUFAKAT_PEER_LISTEN_HOST must be one of its own"
    ),
    errno.EACCES: "the user that the node runs as may not use this port: give the node a port above 1023",
}

#: The device, or what the file system keeps on it, is not sound. Not every system knows all of them.
_BROKEN_DISK_ERRNOS = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ENXIO", "ENODEV", "EREMOTEIO", "EUCLEAN", "EBADMSG", "EILSEQ")
    if hasattr(errno, name)
)

_NOTHING_LOST = "nothing acknowledged is lost"
_ANOTHER_FOLDER = "name another folder with MUFAKAT_DATA_DIR"

#: What to do about an error of the file system, by what the system calls it.
_ADVICE = {
    errno.EACCES: (
        f"the user that the node runs as may not use it: give it to that user (chown, chmod), or {_ANOTHER_FOLDER}; "
        "then start the node again"
    ),
    errno.EROFS: (
        f"{_NOTHING_LOST}. The file system is mounted read-only: mount it for writing, or {_ANOTHER_FOLDER}. After "
        "an error of the disk a system does so by itself (dmesg tells)"
    ),
    errno.ENOTDIR: f"a file stands where a folder must be: move it away, or {_ANOTHER_FOLDER}",
    errno.EISDIR: "a folder stands where a file must be: move it away, then start the node again",
    errno.ENOENT: (
        "it was deleted, or its disk is not mounted. Bring it back, then start the node again. If it is lost, "
        "start the node with an empty folder: it says how the group takes it in again"
    ),
    errno.ENAMETOOLONG: f"the path is too long for the file system: {_ANOTHER_FOLDER} that has a shorter one",
    errno.ELOOP: f"symbolic links lead in a circle there: mend them, or {_ANOTHER_FOLDER}",
}
_ADVICE[errno.EPERM] = _ADVICE[errno.EACCES]
_ADVICE[errno.EEXIST] = _ADVICE[errno.ENOTDIR]


def describe(error: BaseException) -> str:
    """An error in words, with its file where it is about one, and with its kind where it says nothing by itself."""
    text = str(error)
    if isinstance(error, StorageError | UnknownCommand) and text:
        return text
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name]
        return f"{' to '.join(names)}: {error.strerror}" if names else error.strerror
    return repr(error)


def advice_for(error: BaseException) -> str:
    """What to do about an error that ended the process."""
    if isinstance(error, WrongCluster):
        return error.advice
    if isinstance(error, CorruptStorage):
        return "start the node again: it will say whether it can do without what is damaged"
    if isinstance(error, DataDirectoryInUse):
        return "another process uses this data directory: end it, or name another directory"
    if isinstance(error, DataDirectoryGone):
        return "start the node again: the group takes an empty one in, or says what to do"
    if isinstance(error, RecoveryUnfinished):
        return "finish the recovery with that command, then start the node"
    if isinstance(error, DiskFull):
        return "free some space, then start the node again"
    if isinstance(error, OSError):
        return _advice_for_system(error)
    if isinstance(error, UnknownCommand):
        return (
            f"{_NOTHING_LOST}. Start a release that knows it, such as that of the other nodes, or a newer one, on "
            "this node's data"
        )
    return "a fault of this program: report it with the lines above, then start the node again"


def _advice_for_system(error: OSError) -> str:
    number = error.errno or 0
    if number in DESCRIPTOR_ERRNOS:
        return (
            f"{_NOTHING_LOST}, and the disk is not to blame: this process, or the whole machine, had no "
            "file descriptor left. Raise the limit of open files (ulimit -n, LimitNOFILE, nofile), then start the "
            "node again"
        )
    if isinstance(error, CannotListen):
        otherwise = "MUFAKAT_LISTEN_HOST and MUFAKAT_PEER_LISTEN_HOST must be addresses of this machine"
        return _ADDRESS_ADVICE.get(number, otherwise)
    if number in DISK_FULL_ERRNOS:
        return f"{_NOTHING_LOST}. Free some space, then start the node again"
    if number in _BROKEN_DISK_ERRNOS:
        return (
            f"{_NOTHING_LOST}. See that the disk is sound (dmesg, SMART), then start the node again: "
            "it reads and checks everything that it kept"
        )
    if number in _ADVICE:
        return _ADVICE[number]
    return f"{_NOTHING_LOST}. Mend what the error names, then start the node again: it checks everything that it kept"
