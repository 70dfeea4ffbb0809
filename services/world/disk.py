"""One computer's simulated disk: it outlives the processes that use it, and a nemesis fills, breaks and slows it.

    disk = Disk(random, pause)
    node = start(files=disk.files)      # a process
    disk.process_died()                 # its handles and locks are void; what it wrote stays readable
    node = start(files=disk.files)      # the next one: `disk.files` is another object now
    disk.power_lost()                   # as well, and what was unsynced is kept, lost or torn

The rules of the file:

- What belongs to a process that died changes nothing any more and raises `OSError` with EBADF: its `disk.files`, its
  open files, and its threads that waited for the disk at that moment.
- An operation that fails has changed nothing; a sync that fails does as Linux does (`Inode.forget_until`).
- All chance comes from the `Random` that was given, and nothing depends on addresses or hashes.
- A rename stays in its directory: there is no promise which of two directories a lost one would be found in.

inodes.py has what is on the disk and what a power loss leaves of it.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from common.disk_space import DiskSpace
from raft.storage.errors import DataDirectoryInUse
from raft.storage.files import Files
from services.world.inodes import Directory, Inode, Node, PowerLoss

CAPACITY_BYTES_DEFAULT = 1 << 30
#: An operation on a disk that hangs looks so often whether it still does.
HANG_STEP_SECONDS = 0.05

#: The `life` of what was closed; those of processes count up from 0.
CLOSED = -1
#: In place of the number of holders of a lock.
EXCLUSIVE = -1


class Disk:
    """A nemesis calls what is here; a process uses `files`."""

    def __init__(
        self,
        random: Random,
        pause: Callable[[float], None],
        *,
        capacity_bytes: int = CAPACITY_BYTES_DEFAULT,
        count: Callable[[str], None] = lambda name: None,
    ) -> None:
        """
        Args:
            pause: lets so many seconds pass on the thread that calls. Meanwhile others may use the disk, the process
                may die and the power may fail.
            count: called with the name of each fault that took effect.
        """
        #: For the process that runs now. Take it anew after `process_died` and `power_lost`.
        self.files: Files = DiskFiles(self, 0)
        #: Least and most seconds that a sync of a file or of a directory takes.
        self.delay_s: tuple[float, float] = (0.0, 0.0)
        self.capacity_bytes = capacity_bytes
        #: There is no room for anything more, whatever the capacity.
        self.is_full = False
        #: How many processes have died: what was opened in another life is void.
        self.life = 0
        #: It hangs, or an operation is to fail: look closer.
        self.is_troubled = False
        self.root = Directory()
        #: Who holds the lock on a file: `EXCLUSIVE`, or so many that share it.
        self.locks: dict[Inode, int] = {}
        self._random = random
        self._pause = pause
        self._count = count
        self._hangs = False
        self._failing: set[str] = set()
        self._used_bytes = 0

    # -- for a nemesis -------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """From now on every operation waits that reads, changes or syncs something, until `resume`. What was under
        way already ends."""
        self._hangs = self.is_troubled = True

    def resume(self) -> None:
        self._hangs = False
        self.is_troubled = bool(self._failing)

    def heal(self) -> None:
        """It has room, works, and is fast."""
        self.resume()
        self._failing.clear()
        self.is_full = self.is_troubled = False
        self.delay_s = (0.0, 0.0)

    def wipe(self) -> None:
        """Another disk is put in its place, with nothing on it. No process has anything open."""
        self.root = Directory()
        self.process_died()

    def fail_next_sync(self) -> None:
        """The next sync raises EIO. If it is a file's, what was written stays readable, counts as clean and is not on
        the disk; if it is a directory's, the names are unsynced as before."""
        self._fail_next("sync")

    def fail_next_write(self) -> None:
        """The next write raises EIO and changes nothing."""
        self._fail_next("write")

    def fail_next_read(self) -> None:
        """The next read of a file raises EIO."""
        self._fail_next("read")

    def flip_bit(self, path: Path) -> int:
        """Damage one bit of this file, which holds something durable, in what is read and on the disk; returns the
        offset of its byte."""
        inode = self.lookup(path, path)
        assert isinstance(inode, Inode) and inode.durable.data, f"nothing to damage in {path}"
        offset, bit = self._random.randrange(len(inode.durable.data)), 1 << self._random.randrange(8)
        inode.durable.data[offset] ^= bit
        if offset < len(inode.cached.data):
            inode.cached.data[offset] ^= bit
        self._count("fault: bit flip on the disk")
        return offset

    def space(self) -> DiskSpace:
        """Room that is left. It never waits, even if the disk hangs."""
        free = 0 if self.is_full else max(0, self.capacity_bytes - self._used_bytes)
        return DiskSpace(free, self.capacity_bytes)

    def process_died(self) -> None:
        """Locks are let go and all that the process has open is void; what it wrote stays readable."""
        self.life += 1
        self.files = DiskFiles(self, self.life)
        self.locks.clear()
        self._used_bytes = _used_bytes(self.root)

    def power_lost(self) -> None:
        """The process died; of what was unsynced each piece is kept, lost or torn."""
        self.root = PowerLoss(self._random, self._count).left_of(self.root)
        self.process_died()

    # -- for the files -------------------------------------------------------------------------------------------

    def wait(self, user: "DiskFiles | DiskFile", path: Path, kind: str = "") -> None:
        """What comes before an operation of `user` on a disk in trouble.

        Args:
            kind: "read", "write" or "sync", if it is one that may be told to fail.
        """
        if self._hangs:
            self._count("fault: disk hangs")
        while self._hangs and user.life == self.life:
            self._pause(HANG_STEP_SECONDS)
        if kind == "sync" and self.delay_s[1] > 0:
            self._count("fault: slow disk")
            self._pause(self._random.uniform(*self.delay_s))
        if user.life != self.life:
            raise os_error(errno.EBADF, path)
        if kind in self._failing:
            self._failing.discard(kind)
            self.is_troubled = self._hangs or bool(self._failing)
            self._count(f"fault: {kind} failed")
            raise os_error(errno.EIO, path)

    def lookup(self, path: Path, *asked: Path) -> Node:
        """What is at this place. An error names what was `asked` for."""
        assert path.is_absolute(), f"a disk has no current directory for {path}"
        node: Node = self.root
        for name in path.parts[1:]:
            if not isinstance(node, Directory):
                raise os_error(errno.ENOTDIR, *asked)
            found = node.entries.get(name)
            if found is None:
                raise os_error(errno.ENOENT, *asked)
            node = found
        return node

    def reserve(self, inode: Inode, end: int, path: Path) -> None:
        """Take the room that the file needs to reach so far."""
        used_bytes = self._used_bytes + end - inode.room
        if self.is_full or used_bytes > self.capacity_bytes:
            self._count("fault: disk full")
            raise os_error(errno.ENOSPC, path)
        self._used_bytes = used_bytes
        inode.room = end

    def release(self, inode: Inode, end: int) -> None:
        """Give back the room that the file has from here on."""
        if inode.room > end:
            self._used_bytes -= inode.room - end
            inode.room = end

    def release_unused(self, inode: Inode) -> None:
        """A file without a name keeps its room until it is closed."""
        if not inode.named and not inode.handles:
            self.release(inode, 0)

    def _fail_next(self, kind: str) -> None:
        self._failing.add(kind)
        self.is_troubled = True


class DiskFile:
    """Implements `File`."""

    __slots__ = ("_disk", "_inode", "life", "path")

    def __init__(self, disk: Disk, inode: Inode, path: Path) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path
        #: Of the process that opened it; `CLOSED` after `close`.
        self.life = disk.life
        inode.handles += 1

    def read(self, offset: int, size: int) -> bytes:
        self._begin("read")
        return self._inode.cached.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        disk, inode = self._disk, self._inode
        if disk.is_troubled or self.life != disk.life:
            self._begin("write")
        if not data:
            return
        end = offset + len(data)
        if end > inode.room:
            disk.reserve(inode, end, self.path)
        inode.change(offset, bytes(data))

    def sync(self) -> None:
        disk, inode = self._disk, self._inode
        if not (disk.is_troubled or disk.delay_s[1] > 0 or self.life != disk.life):
            inode.sync()
            return
        self._check_open()
        number = inode.passed + len(inode.changes)  # what others write while it lasts is for the next sync
        try:
            disk.wait(self, self.path, "sync")
        except OSError as error:
            if error.errno == errno.EIO:
                inode.forget_until(number)
            raise
        inode.sync_until(number)

    def truncate(self, size: int) -> None:
        self._begin()
        self._disk.release(self._inode, size)
        self._inode.change(size, None)

    def preallocate(self, size: int) -> None:
        self._begin()
        if size > self._inode.room:
            self._disk.reserve(self._inode, size, self.path)
        if size > self._inode.cached.size:
            self._inode.change(size, None)

    def size(self) -> int:
        self._check_open()
        return self._inode.cached.size

    def close(self) -> None:
        if self.life == self._disk.life:
            self._inode.handles -= 1
            self._disk.release_unused(self._inode)
        elif self.life == CLOSED:
            raise os_error(errno.EBADF, self.path)
        self.life = CLOSED

    def _begin(self, kind: str = "") -> None:
        self._check_open()
        if self._disk.is_troubled:
            self._disk.wait(self, self.path, kind)

    def _check_open(self) -> None:
        if self.life != self._disk.life:
            raise os_error(errno.EBADF, self.path)


class ReadonlyFile(DiskFile):
    __slots__ = ()

    def write(self, offset: int, data: bytes) -> None:
        raise os_error(errno.EBADF, self.path)

    def truncate(self, size: int) -> None:
        raise os_error(errno.EINVAL, self.path)

    def preallocate(self, size: int) -> None:
        raise os_error(errno.EBADF, self.path)


class DiskLock:
    """Implements `Lock`."""

    def __init__(self, disk: Disk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._life = disk.life

    def close(self) -> None:
        if self._life != self._disk.life:
            return
        self._life = CLOSED
        locks, inode = self._disk.locks, self._inode
        if locks[inode] in (EXCLUSIVE, 1):
            del locks[inode]
        else:
            locks[inode] -= 1


class DiskFiles:
    """Implements `Files` for one process."""

    def __init__(self, disk: Disk, life: int) -> None:
        self._disk = disk
        self.life = life

    def make_directory(self, path: Path) -> bool:
        self._begin(path)
        made = False
        for directory in (*reversed(path.parents), path):
            parent = self._directory(directory.parent, path)
            if directory.name and directory.name not in parent.entries:
                parent.name(directory.name, Directory())
                self.sync_directory(directory.parent)
                made = True
        if not isinstance(self._disk.lookup(path, path), Directory):
            raise os_error(errno.EEXIST, path)
        return made

    def names(self, directory: Path) -> list[str]:
        self._begin(directory)
        return sorted(self._directory(directory, directory).entries)

    def create(self, path: Path) -> DiskFile:
        self._begin(path)
        inode, made = self._file_or_new(path)
        if not made:
            self._disk.release(inode, 0)
            inode.change(0, None)
        return DiskFile(self._disk, inode, path)

    def open(self, path: Path) -> DiskFile:
        self._begin(path)
        return DiskFile(self._disk, self._file(path), path)

    def open_readonly(self, path: Path) -> DiskFile:
        self._begin(path)
        return ReadonlyFile(self._disk, self._file(path), path)

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent, f"{old} would leave its directory"
        self._begin(old, new)
        node, directory = self._disk.lookup(old, old, new), self._directory(old.parent, old, new)
        replaced = directory.entries.get(new.name)
        if replaced is node:
            return
        if isinstance(replaced, Directory):
            if not isinstance(node, Directory):
                raise os_error(errno.EISDIR, old, new)
            if replaced.entries:
                raise os_error(errno.ENOTEMPTY, old, new)
        elif replaced is not None and isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, old, new)
        directory.name(new.name, node, gone=old.name)
        self._without_name(replaced)

    def remove(self, path: Path) -> None:
        self._begin(path)
        inode = self._file(path)
        self._directory(path.parent, path).name(path.name, None)
        self._without_name(inode)

    def sync_directory(self, directory: Path) -> None:
        self._begin(directory)
        synced = self._directory(directory, directory)
        count = len(synced.namings)
        self._disk.wait(self, directory, "sync")
        synced.sync(count)

    def lock(self, path: Path) -> DiskLock:
        self._begin(path)
        inode, _ = self._file_or_new(path)
        if inode in self._disk.locks:
            raise _in_use(path)
        self._disk.locks[inode] = EXCLUSIVE
        return DiskLock(self._disk, inode)

    def lock_shared(self, path: Path) -> DiskLock:
        self._begin(path)
        inode = self._file(path)
        holders = self._disk.locks.get(inode, 0)
        if holders == EXCLUSIVE:
            raise _in_use(path)
        self._disk.locks[inode] = holders + 1
        return DiskLock(self._disk, inode)

    def _begin(self, *paths: Path) -> None:
        if self.life != self._disk.life:
            raise os_error(errno.EBADF, *paths)
        if self._disk.is_troubled:
            self._disk.wait(self, paths[0])

    def _directory(self, path: Path, *asked: Path) -> Directory:
        node = self._disk.lookup(path, *asked)
        if not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, *asked)
        return node

    def _file(self, path: Path) -> Inode:
        node = self._disk.lookup(path, path)
        if isinstance(node, Directory):
            raise os_error(errno.EISDIR, path)
        return node

    def _file_or_new(self, path: Path) -> tuple[Inode, bool]:
        """The file, and whether it was made for this."""
        directory = self._directory(path.parent, path)
        if path.name in directory.entries:
            return self._file(path), False
        inode = Inode()
        directory.name(path.name, inode)
        return inode, True

    def _without_name(self, node: Node | None) -> None:
        if isinstance(node, Inode):
            node.named = False
            self._disk.release_unused(node)


def os_error(code: int, path: Path, other: Path | None = None) -> OSError:
    """As the operating system's, with the names of the files."""
    if other is None:
        return OSError(code, os.strerror(code), str(path))
    return OSError(code, os.strerror(code), str(path), None, str(other))


def _in_use(path: Path) -> DataDirectoryInUse:
    return DataDirectoryInUse(f"data directory {path.parent} is in use by another process")


def _used_bytes(directory: Directory) -> int:
    """Room of all files, of which none is open."""
    used_bytes = 0
    for node in directory.entries.values():
        if isinstance(node, Directory):
            used_bytes += _used_bytes(node)
        else:
            node.handles = 0
            used_bytes += node.room
    return used_bytes
