"""The filesystem seam: the few operations that storage needs, as Protocols, and their real implementation.

Everything under `raft/storage` reaches the disk through a `Files` object. Tests replace it by a recording filesystem
that lists everything that a power loss may leave (tests/storage/power_loss.py). That filesystem models what POSIX
promises, and no more:

- a write is durable after `sync` of that file; until then each of its sectors may be kept or lost by itself;
- a created, renamed or removed name is durable after `sync_directory`;
- `rename` replaces atomically.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from raft.storage.errors import DataDirectoryInUse

try:
    import fcntl
except ImportError:  # Windows: nodes run in Docker there, but the command line must still be able to import this
    fcntl = None  # type: ignore[assignment]  # the type of the name is the module

#: Errors that mean "no room" and leave the earlier content unchanged.
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class ReadableFile(Protocol):
    """An open file, for reading. Offsets and sizes in bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""

    def size(self) -> int: ...


class File(ReadableFile, Protocol):
    """An open file, for reading and writing."""

    def write(self, offset: int, data: bytes) -> None:
        """All of `data`, not yet durable."""

    def sync(self) -> None:
        """Make what was written durable, with the size that it needs (fdatasync)."""

    def truncate(self, size: int) -> None:
        """Drop everything from `size` on; not durable before `sync`."""

    def preallocate(self, size: int) -> None:
        """Reserve space up to `size`, which reads as zeroes, so that a later `sync` does not have to write
        metadata."""

    def close(self) -> None: ...


class Lock(Protocol):
    """Held until closed, or until the process dies."""

    def close(self) -> None: ...


class Files(Protocol):
    """A filesystem. Every method raises `OSError` as the operating system does, with the name of the file."""

    def make_directory(self, path: Path) -> bool:
        """Create it and its parents, mode 0700, durably; False if it was there already."""

    def names(self, directory: Path) -> list[str]:
        """Names in the directory, sorted."""

    def create(self, path: Path) -> File:
        """A new empty file, mode 0600; an old file with that name becomes empty."""

    def open(self, path: Path) -> File:
        """An existing file, for reading and writing."""

    def open_readonly(self, path: Path) -> File: ...

    def rename(self, old: Path, new: Path) -> None:
        """Of a file, or of a directory with all in it."""

    def remove(self, path: Path) -> None: ...

    def sync_directory(self, directory: Path) -> None: ...

    def lock(self, path: Path) -> Lock:
        """Create this file if needed and take the exclusive lock on it. Raises `DataDirectoryInUse` if it is
        taken."""

    def lock_shared(self, path: Path) -> Lock:
        """Take the shared lock on this file, which must be there, without changing anything. Raises
        `DataDirectoryInUse` if the exclusive lock is taken."""


def _names_file(method: Callable[..., Any]) -> Callable[..., Any]:
    """Calls on an open descriptor fail without a name; the reader of the error needs to know which file it was."""

    @wraps(method)
    def call(self: "RealFile", *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except OSError as error:
            error.filename = str(self.path)
            raise

    return call


class RealFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self._descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)

    @_names_file
    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # one call returns at most about 2 GiB, and a signal may cut it short
        position = offset + len(data)
        while position < offset + size:
            data = os.pread(self._descriptor, offset + size - position, position)
            if not data:
                break
            parts.append(data)
            position += len(data)
        return b"".join(parts)

    @_names_file
    def write(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    @_names_file
    def sync(self) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the data in the drive's cache
            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._descriptor)

    @_names_file
    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    @_names_file
    def preallocate(self, size: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise

    @_names_file
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class RealLock:
    """flock(2): the lock belongs to the open file, so the kernel releases it when the process dies in any way."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no file locks on this platform; run the node in Docker", str(path))
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                error.filename = str(path)
                raise
            raise DataDirectoryInUse(f"data directory {path.parent} is in use by another process") from None

    def close(self) -> None:
        os.close(self._descriptor)


class RealFiles:
    """The operating system's filesystem."""

    def make_directory(self, path: Path) -> bool:
        if path.is_dir():
            with contextlib.suppress(PermissionError):  # not ours to change: a mounted volume
                path.chmod(0o700)
            return False
        missing = [path, *(parent for parent in path.parents if not parent.exists())]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(directory.parent)
        return True

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def create(self, path: Path) -> File:
        return RealFile(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def open(self, path: Path) -> File:
        return RealFile(path, os.O_RDWR)

    def open_readonly(self, path: Path) -> File:
        return RealFile(path, os.O_RDONLY)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        except OSError as error:
            error.filename = str(directory)
            raise
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> Lock:
        return RealLock(path)

    def lock_shared(self, path: Path) -> Lock:
        return RealLock(path, shared=True)
