"""A filesystem in memory. With it the same storage works without a disk, for tests and simulations.

`open_memory_storage()` gives a fresh one; to pass the same `MemoryFiles` again is a restart.
"""

import errno
from pathlib import Path

from raft.storage.errors import DataDirectoryInUse
from raft.storage.storage import SEGMENT_BYTES_DEFAULT, Recovered, Storage, open_storage

MEMORY_DIRECTORY = Path("/memory")


class MemoryFile:
    """A file that is a byte array; everything is durable at once."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._content.extend(bytes(max(0, offset - len(self._content))))
        self._content[offset : offset + len(data)] = data

    def sync(self) -> None:
        pass

    def truncate(self, size: int) -> None:
        del self._content[size:]

    def preallocate(self, size: int) -> None:
        pass  # it would only cost memory

    def size(self) -> int:
        return len(self._content)

    def close(self) -> None:
        pass


class MemoryLock:
    def __init__(self, held: set[Path], path: Path) -> None:
        self._held = held
        self._path = path

    def close(self) -> None:
        self._held.discard(self._path)


class MemoryFiles:
    """Implements `Files`."""

    def __init__(self) -> None:
        self.contents: dict[Path, bytearray] = {}
        self._directories: set[Path] = set()
        self._held: set[Path] = set()

    def make_directory(self, path: Path) -> bool:
        made = path not in self._directories
        self._directories.add(path)
        return made

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in (*self.contents, *self._directories) if path.parent == directory)

    def create(self, path: Path) -> MemoryFile:
        self.contents[path] = bytearray()
        return MemoryFile(self.contents[path])

    def open(self, path: Path) -> MemoryFile:
        return MemoryFile(self._content(path))

    def open_readonly(self, path: Path) -> MemoryFile:
        return MemoryFile(self._content(path))

    def rename(self, old: Path, new: Path) -> None:
        if old in self._directories:
            self._directories.remove(old)
            self._directories.add(new)
            for path in [path for path in self.contents if path.parent == old]:
                self.contents[new / path.name] = self.contents.pop(path)
            return
        self.contents[new] = self._content(old)
        del self.contents[old]

    def remove(self, path: Path) -> None:
        self._content(path)
        del self.contents[path]

    def sync_directory(self, directory: Path) -> None:
        pass

    def lock(self, path: Path) -> MemoryLock:
        if path in self._held:
            raise DataDirectoryInUse(f"data directory {path.parent} is in use")
        self._held.add(path)
        return MemoryLock(self._held, path)

    def lock_shared(self, path: Path) -> MemoryLock:
        # Nobody shares a lock here, so the exclusive one does as well.
        return self.lock(path)

    def release_locks(self) -> None:
        """What happens when the process dies; do not use its `Storage` any more."""
        self._held.clear()

    def _content(self, path: Path) -> bytearray:
        content = self.contents.get(path)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return content


def open_memory_storage(
    files: MemoryFiles | None = None, *, segment_bytes: int = SEGMENT_BYTES_DEFAULT
) -> tuple[Storage, Recovered]:
    """As `open_storage`, on a filesystem in memory; with the same `files` again it is a restart. If the earlier
    storage was not closed, its process crashed (this calls `release_locks`)."""
    files = files if files is not None else MemoryFiles()
    files.release_locks()
    return open_storage(MEMORY_DIRECTORY, segment_bytes=segment_bytes, files=files)
