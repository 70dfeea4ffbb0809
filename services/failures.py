"""Why a node's process ended, in words for its last log line, and what to do about it."""

import errno

from common.runtime import DESCRIPTOR_ERRNOS
from raft.storage import CorruptStorage, DataDirectoryGone, DataDirectoryInUse, DiskFull, StorageError

#: An address that cannot be listened on; every other `OSError` here but a want of descriptors is the disk's.
_ADDRESS_ERRNOS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})


def describe(error: BaseException) -> str:
    """An error in words, with its kind where it says nothing by itself."""
    text = str(error)
    return text if isinstance(error, StorageError) and text else repr(error)


def advice_for(error: BaseException) -> str:
    """What to do about an error that ended the process."""
    if isinstance(error, CorruptStorage):
        return "start the node again: it will say whether it can do without what is damaged"
    if isinstance(error, DataDirectoryInUse):
        return "another process uses this data directory: end it, or name another directory"
    if isinstance(error, DataDirectoryGone):
        return "start the node again: the group takes an empty one in, or says what to do"
    if isinstance(error, DiskFull):
        return "free some space, then start the node again"
    if isinstance(error, OSError) and error.errno in _ADDRESS_ERRNOS:
        return "another program listens there: end it, or give the node another port"
    if isinstance(error, OSError) and error.errno in DESCRIPTOR_ERRNOS:
        return (
            "nothing acknowledged is lost, and the disk is not to blame: this process, or the whole machine, had no "
            "file descriptor left. Raise the limit of open files (ulimit -n, LimitNOFILE, nofile), then start the "
            "node again"
        )
    if isinstance(error, OSError):
        return (
            "nothing acknowledged is lost. See that the disk is sound (dmesg, SMART), then start the node again: "
            "it reads and checks everything that it kept"
        )
    return "a fault of this program: report it with the lines above, then start the node again"
