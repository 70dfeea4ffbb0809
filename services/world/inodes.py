"""What a simulated disk holds: files and directories, and what a power loss leaves of them.

Each file and each directory is kept twice, as the process reads it and as the disk certainly holds it, with the
changes between the two in order. A sync carries these changes over, so it costs what is unsynced, whatever the size.

A power loss draws one of the outcomes that tests/storage/power_loss.py enumerates:

- each sector holds what it held after some unsynced write to it, or before them all, whatever its neighbours hold;
  one of a file may be torn, where all before it is kept and all after it is lost;
- each unsynced change of a file's size is kept or lost;
- each create, rename and remove that no sync of its directory followed is kept or lost, on its own.
"""

from collections.abc import Callable
from random import Random
from typing import Union

SECTOR_BYTES = 512
#: How likely it is that one sector of a file with unsynced writes is torn.
TORN_CHANCE = 0.2

#: A change of a file: bytes that were written at an offset, or with None a new size.
Change = tuple[int, bytes | None]
#: A file or a directory.
Node = Union["Inode", "Directory"]
#: A change of a directory: this name now is this node, or none; and the second name is none any more.
Naming = tuple[str, Node | None, str]


class Content:
    """The bytes of a file. What lies between the last byte that was written and the size are zeroes that nobody
    stores, so that reserved space costs nothing."""

    __slots__ = ("data", "size")

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0

    def read(self, offset: int, size: int) -> bytes:
        wanted = min(size, self.size - offset)
        if wanted <= 0:
            return b""
        with memoryview(self.data) as view:
            found = bytes(view[offset : offset + wanted])
        return found if len(found) == wanted else found + bytes(wanted - len(found))

    def apply(self, offset: int, data: bytes | None) -> None:
        held = self.data
        if data is None:
            if offset < len(held):
                del held[offset:]
            self.size = offset
            return
        if offset > len(held):
            held.extend(bytes(offset - len(held)))
        end = offset + len(data)
        held[offset:end] = data
        if end > self.size:
            self.size = end

    def copy(self) -> "Content":
        copied = Content()
        copied.data, copied.size = self.data[:], self.size
        return copied


class Inode:
    """A file, whatever its name."""

    __slots__ = ("cached", "changes", "durable", "handles", "named", "passed", "room")

    def __init__(self, durable: Content | None = None) -> None:
        #: What the disk certainly holds.
        self.durable = durable if durable is not None else Content()
        #: What a process reads.
        self.cached = self.durable.copy()
        #: What was done since, in order; the first one has the number `passed`.
        self.changes: list[Change] = []
        self.passed = 0
        #: Bytes that it takes of the disk's capacity.
        self.room = self.durable.size
        #: How often it is open, and whether it has a name: without both it takes no room.
        self.handles = 0
        self.named = True

    def change(self, offset: int, data: bytes | None) -> None:
        self.cached.apply(offset, data)
        self.changes.append((offset, data))

    def sync(self) -> None:
        """Make durable what was changed."""
        durable, changes = self.durable, self.changes
        for offset, data in changes:
            durable.apply(offset, data)
        self.passed += len(changes)
        changes.clear()
        if durable.size != self.cached.size:  # a write that a failed sync forgot had made the file longer
            durable.apply(self.cached.size, None)

    def sync_until(self, number: int) -> None:
        """Make durable what was changed before the change with this number."""
        count = max(0, number - self.passed)
        if count == len(self.changes):
            self.sync()
            return
        for offset, data in self.changes[:count]:
            self.durable.apply(offset, data)
        del self.changes[:count]
        self.passed += count

    def forget_until(self, number: int) -> None:
        """A sync of these failed: what was written reads well, counts as clean and is not on the disk
        (Rebello et al., ATC'20). A new size is kept in the file system's journal, and is unsynced as before."""
        count = max(0, number - self.passed)
        sizes = [change for change in self.changes[:count] if change[1] is None]
        self.changes[:count] = sizes
        self.passed += count - len(sizes)


class Directory:
    __slots__ = ("durable", "entries", "namings")

    def __init__(self) -> None:
        #: What a process finds in it.
        self.entries: dict[str, Node] = {}
        #: What the disk certainly holds.
        self.durable: dict[str, Node] = {}
        #: What was done since, in order.
        self.namings: list[Naming] = []

    def name(self, name: str, node: Node | None, gone: str = "") -> None:
        naming = (name, node, gone)
        _apply(naming, self.entries)
        self.namings.append(naming)

    def sync(self, count: int) -> None:
        """Make the first changes durable. (If another sync did so meanwhile, later ones may be among them, which is
        never wrong.)"""
        for naming in self.namings[:count]:
            _apply(naming, self.durable)
        del self.namings[:count]


class PowerLoss:
    """One power loss. What it leaves of a file or a directory is drawn once, however many names that has."""

    def __init__(self, random: Random, count: Callable[[str], None]) -> None:
        """
        Args:
            count: called with the name of each kind of damage that occurred.
        """
        self._random = random
        self._count = count
        self._contents: dict[Inode, Content] = {}
        self._entries: dict[Directory, dict[str, Node]] = {}

    def left_of(self, directory: Directory) -> Directory:
        """The directory as it is after the power loss, with all that is under it. What was there before is not used
        any more, so whoever still holds a part of it changes nothing."""
        left = Directory()
        for name, node in sorted(self._entries_of(directory).items()):
            if isinstance(node, Directory):
                left.durable[name] = self.left_of(node)
            else:
                left.durable[name] = Inode(self._content_of(node).copy())
        left.entries = dict(left.durable)
        return left

    def _entries_of(self, directory: Directory) -> dict[str, Node]:
        found = self._entries.get(directory)
        if found is None:
            found = self._entries[directory] = dict(directory.durable)
            for naming, is_kept in zip(directory.namings, self._draw(len(directory.namings)), strict=True):
                if is_kept:
                    _apply(naming, found)
                self._count(f"fault: unsynced name {'kept' if is_kept else 'lost'}")
        return found

    def _content_of(self, inode: Inode) -> Content:
        found = self._contents.get(inode)
        if found is None:
            found = self._contents[inode] = inode.durable.copy()
            if inode.changes:
                for offset, data in self._left_of(_pieces(inode.changes)):
                    found.apply(offset, data)
        return found

    def _left_of(self, pieces: list[Change]) -> list[Change]:
        if self._random.random() < TORN_CHANCE:
            torn = self._random.randrange(len(pieces))
            offset, data = pieces[torn]
            if data is not None and len(data) > 1:
                self._count("fault: unsynced sector torn")
                return [*pieces[:torn], (offset, data[: self._random.randrange(1, len(data))])]
        left, kept_sectors = [], set()
        kept = self._draw(len(pieces))
        # From the last one on: a sector that was kept after a write to it holds the writes to it before that, too.
        for piece, is_kept in zip(reversed(pieces), reversed(kept), strict=True):
            offset, data = piece
            if data is None:
                self._count(f"fault: unsynced size {'kept' if is_kept else 'lost'}")
            else:
                sector = offset // SECTOR_BYTES
                is_kept = is_kept or sector in kept_sectors
                if is_kept:
                    kept_sectors.add(sector)
                self._count(f"fault: unsynced sector {'kept' if is_kept else 'lost'}")
            if is_kept:
                left.append(piece)
        left.reverse()
        return left

    def _draw(self, count: int) -> list[bool]:
        """Which of so many changes in a row are kept: any combination; all of them, none or the first ones more often
        than by the chance of each alone."""
        if not count:
            return []
        way = self._random.random()
        if way < 0.2:
            return [True] * count
        if way < 0.35:
            return [False] * count
        if way < 0.5:
            first = self._random.randrange(count + 1)
            return [number < first for number in range(count)]
        return [self._random.random() < 0.5 for _ in range(count)]


def _apply(naming: Naming, names: dict[str, Node]) -> None:
    name, node, gone = naming
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node
    names.pop(gone, None)


def _pieces(changes: list[Change]) -> list[Change]:
    """The changes, with each write in pieces that a disk keeps or loses whole."""
    pieces: list[Change] = []
    for offset, data in changes:
        if data is None:
            pieces.append((offset, None))
            continue
        position, end = offset, offset + len(data)
        while position < end:
            until = min(end, position - position % SECTOR_BYTES + SECTOR_BYTES)
            pieces.append((position, data[position - offset : until - offset]))
            position = until
    return pieces
