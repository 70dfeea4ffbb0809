"""A filesystem that knows what a power loss may leave of it.

It keeps, beside what a process reads, what is certainly on the disk and what was done since. From these it
enumerates the disks that a power loss at this moment may leave:

- each sector holds what it held after some unsynced write to it, or before them all, whatever its neighbours hold;
  one may be torn where all after it is lost;
- each unsynced change of a file's size is kept or lost;
- each create, rename and remove that no directory sync followed is kept or lost, on its own.

A sync that fails behaves as Linux does (Rebello et al., ATC'20): what was written stays readable, counts as clean,
and is not on the disk.
"""

import errno
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raft.storage.errors import DataDirectoryInUse

SECTOR_BYTES = 512
#: Up to so many unsynced pieces every combination is tried; above, chosen and random ones.
PIECES_EXHAUSTIVE_MAX = 7
RANDOM_COMBINATIONS = 20
#: A torn sector is tried at every so many bytes.
TORN_STEP = 67

#: What the tests went through in this run, by kind; tests/storage/conftest.py tells it at the end.
CHECKED: Counter[str] = Counter()

#: What a disk holds: content by name.
Image = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """One unsynced change of a file: a write of `data` at `offset`, or a new size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class Inode:
    #: What the process reads.
    cached: bytearray = field(default_factory=bytearray)
    #: What the disk certainly holds.
    durable: bytes = b""
    #: What was done since, in order.
    changes: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        change.apply(self.cached)
        self.changes.append(change)


@dataclass(frozen=True, slots=True)
class Naming:
    """One unsynced change of the directory: `name` now is this file, or none; and `gone` is no name any more."""

    name: str
    inode: Inode | None
    gone: str = ""

    def apply(self, names: dict[str, Inode]) -> None:
        if self.inode is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.inode
        names.pop(self.gone, None)


@dataclass(slots=True)
class PowerLossFiles:
    """Implements `Files` for one directory."""

    #: Called before each operation that changes anything, with the operation's name; may raise an `OSError` in
    #: its place.
    before: Callable[[str], None] = lambda operation: None
    #: Syncs for which this holds only pretend: a planted bug of the caller, or a disk that lies.
    pretends: Callable[[str], bool] = lambda operation: False
    names_cached: dict[str, Inode] = field(default_factory=dict)
    names_durable: dict[str, Inode] = field(default_factory=dict)
    namings: list[Naming] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    locked: bool = False

    @classmethod
    def from_image(cls, image: Image) -> "PowerLossFiles":
        files = cls()
        for name, content in image.items():
            files.names_durable[name] = Inode(bytearray(content), content)
        files.names_cached = dict(files.names_durable)
        return files

    def do(self, operation: str) -> None:
        self.before(operation)
        self.operations.append(operation)

    def restart(self) -> None:
        """The process died and the machine did not: what was written stays readable."""
        self.locked = False

    # -- Files ---------------------------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> bool:
        return False

    def names(self, directory: Path) -> list[str]:
        return sorted(self.names_cached)

    def create(self, path: Path) -> "PowerLossFile":
        self.do(f"create {path.name}")
        inode = self.names_cached.get(path.name)
        if inode is None:
            inode = Inode()
            self._name(Naming(path.name, inode))
        inode.change(Change(0, None))
        return PowerLossFile(self, inode, path.name)

    def open(self, path: Path) -> "PowerLossFile":
        return PowerLossFile(self, self._inode(path), path.name)

    def open_readonly(self, path: Path) -> "PowerLossFile":
        return PowerLossFile(self, self._inode(path), path.name)

    def rename(self, old: Path, new: Path) -> None:
        self.do(f"rename {new.name}")
        self._name(Naming(new.name, self._inode(old), gone=old.name))

    def remove(self, path: Path) -> None:
        self._inode(path)
        self.do(f"remove {path.name}")
        self._name(Naming(path.name, None))

    def sync_directory(self, directory: Path) -> None:
        self.do("sync_directory")
        if self.pretends("sync_directory"):
            return
        self.names_durable = dict(self.names_cached)
        self.namings = []

    def lock(self, path: Path) -> "PowerLossLock":
        if self.locked:
            raise DataDirectoryInUse(str(path))
        self.locked = True
        return PowerLossLock(self)

    def _name(self, naming: Naming) -> None:
        naming.apply(self.names_cached)
        self.namings.append(naming)

    def _inode(self, path: Path) -> Inode:
        inode = self.names_cached.get(path.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return inode

    # -- power loss ----------------------------------------------------------------------------------------------

    def freeze(self) -> "Moment":
        """What there is now, to be enumerated later."""
        return Moment(
            {name: _frozen(inode) for name, inode in self.names_durable.items()},
            [(naming, None if naming.inode is None else _frozen(naming.inode)) for naming in self.namings],
        )


class PowerLossFile:
    def __init__(self, files: PowerLossFiles, inode: Inode, name: str) -> None:
        self._files = files
        self._inode = inode
        self._name = name

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.cached[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._files.do(f"write {self._name}")
        self._inode.change(Change(offset, bytes(data)))

    def sync(self) -> None:
        try:
            self._files.do(f"sync {self._name}")
        except OSError:
            self._inode.changes = []  # clean now, and not on the disk
            raise
        if self._files.pretends(f"sync {self._name}"):
            return
        self._inode.durable = bytes(self._inode.cached)
        self._inode.changes = []

    def truncate(self, size: int) -> None:
        self._files.do(f"truncate {self._name}")
        self._inode.change(Change(size, None))

    def preallocate(self, size: int) -> None:
        if size > self.size():
            self._files.do(f"preallocate {self._name}")
            self._inode.change(Change(size, None))

    def size(self) -> int:
        return len(self._inode.cached)

    def close(self) -> None:
        pass


class PowerLossLock:
    def __init__(self, files: PowerLossFiles) -> None:
        self._files = files

    def close(self) -> None:
        self._files.locked = False


@dataclass(frozen=True, slots=True)
class FrozenInode:
    identity: int
    durable: bytes
    changes: tuple[Change, ...]

    def contents(self) -> list[bytes]:
        """Every content that a power loss may leave."""
        pieces = [piece for change in self.changes for piece in _pieces(change)]
        found = {
            self._after([pieces[number] for number in _with_earlier(pieces, kept)]): None
            for kept in _combinations(len(pieces))
        }
        for number, piece in enumerate(pieces):
            if piece.data is not None:
                for cut in range(1, len(piece.data), TORN_STEP):
                    torn = Change(piece.offset, piece.data[:cut])
                    found[self._after([*pieces[:number], torn])] = None
        return list(found)

    def _after(self, changes: list[Change]) -> bytes:
        content = bytearray(self.durable)
        for change in changes:
            change.apply(content)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Moment:
    """The disk and what is unsynced at one moment."""

    durable: dict[str, FrozenInode]
    namings: list[tuple[Naming, FrozenInode | None]]

    def images(self) -> Iterator[Image]:
        """Every disk that a power loss at this moment may leave."""
        contents: dict[int, list[bytes]] = {}
        for kept in _combinations(len(self.namings)):
            names = dict(self.durable)
            for number in kept:
                naming, inode = self.namings[number]
                if inode is None:
                    names.pop(naming.name, None)
                else:
                    names[naming.name] = inode
                names.pop(naming.gone, None)
            for inode in names.values():
                if inode.identity not in contents:
                    contents[inode.identity] = inode.contents()
            inodes = list({inode.identity: inode for inode in names.values()}.values())
            for choice in itertools.product(*(contents[inode.identity] for inode in inodes)):
                chosen = {inode.identity: content for inode, content in zip(inodes, choice, strict=True)}
                yield {name: chosen[inode.identity] for name, inode in names.items()}


def _frozen(inode: Inode) -> FrozenInode:
    return FrozenInode(id(inode), inode.durable, tuple(inode.changes))


def _pieces(change: Change) -> Iterator[Change]:
    """A write in pieces that a disk keeps or loses whole."""
    if change.data is None:
        yield change
        return
    position, end = change.offset, change.offset + len(change.data)
    while position < end:
        until = min(end, position - position % SECTOR_BYTES + SECTOR_BYTES)
        yield Change(position, change.data[position - change.offset : until - change.offset])
        position = until


def _with_earlier(pieces: list[Change], kept: tuple[int, ...]) -> list[int]:
    """A sector that was kept after one write to it holds the writes to it before that, too."""
    latest = {
        pieces[number].offset // SECTOR_BYTES: number for number in kept if pieces[number].data is not None
    }
    return [
        number
        for number, piece in enumerate(pieces)
        if number in kept
        or (piece.data is not None and number < latest.get(piece.offset // SECTOR_BYTES, -1))
    ]


def _combinations(count: int) -> Iterator[tuple[int, ...]]:
    """Which of so many things are kept: all combinations where they are few."""
    everything = range(count)
    if count <= PIECES_EXHAUSTIVE_MAX:
        for size in range(count + 1):
            yield from itertools.combinations(everything, size)
        return
    for number in range(count + 1):
        yield tuple(everything[:number])
        yield tuple(everything[number:])
        yield tuple(other for other in everything if other != number)
        yield tuple(other for other in everything if other == number)
    chance = random.Random(count)
    for _ in range(RANDOM_COMBINATIONS):
        yield tuple(number for number in everything if chance.random() < 0.5)
