"""A filesystem in memory whose disk a test fills, breaks or slows down while a node runs on it."""

import errno
import threading
from pathlib import Path

from raft.storage.memory import MemoryFile, MemoryFiles


class FaultyFiles(MemoryFiles):
    """Implements `Files`; everything works until a test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        #: No write, reservation or new file finds room.
        self.full = False
        #: There is room in the files that are there, but for no new one.
        self.no_new_files = False
        #: The next sync fails with EIO, and so does every one after it.
        self.broken = False
        #: Syncs wait while this is not set.
        self.answers = threading.Event()
        self.answers.set()
        #: A sync has failed.
        self.failed = False
        #: Writes that were tried after that.
        self.writes_after_failure = 0

    def create(self, path: Path) -> "FaultyFile":
        if self.no_new_files:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.check_room()
        super().create(path)
        return FaultyFile(self, self.contents[path])

    def open(self, path: Path) -> "FaultyFile":
        return FaultyFile(self, self._content(path))

    def check_room(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")


class FaultyFile(MemoryFile):
    def __init__(self, files: FaultyFiles, content: bytearray) -> None:
        super().__init__(content)
        self._files = files

    def write(self, offset: int, data: bytes) -> None:
        self._files.writes_after_failure += self._files.failed
        self._files.check_room()
        super().write(offset, data)

    def preallocate(self, size: int) -> None:
        self._files.check_room()
        super().preallocate(size)

    def sync(self) -> None:
        self._files.answers.wait()
        if self._files.broken:
            self._files.failed = True
            raise OSError(errno.EIO, "input/output error")
