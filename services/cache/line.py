"""The nouns of the machine: a line, a transition, and how lines are written into a snapshot.

The rule of this file: plain data, and the one place where the snapshot's rows are laid out:

    ["machine", time_ms, evicted, expired]
    ["directory", node, state, node, state, ...]                        one per set of holders, numbered from 0
    ["line", key, value, version, touched, expires_at, sweep_at, directory number]           one per line
"""

from collections.abc import Iterable, Iterator

import msgspec

from services.cache.directory import Directories, Directory


class Line(msgspec.Struct, frozen=True, gc=False):
    """One key's row. Never changed in place. (`gc=False`: it refers to nothing that refers back, and a
    million of them would make every full garbage collection stop the loop.)"""

    key: str
    #: Raw JSON.
    value: bytes
    #: Log index of the last write.
    version: int
    #: Log index of the last write or fill; the least is evicted first.
    touched: int
    #: Cluster time from which on the line is gone, milliseconds; None where it never expires.
    expires_at: int | None
    #: Bucket in `Deadlines`; None where it never expires.
    sweep_at: int | None
    directory: Directory

    @property
    def counted_bytes(self) -> int:
        """What the line counts for against the bytes that the store may hold."""
        return len(self.key) + len(self.value)


class Transition(msgspec.Struct, frozen=True, gc=False):
    """What one entry did to one line, for this node's listeners."""

    key: str
    #: `write`, `fill`, `delete`, `expire` or `evict`.
    cause: str
    #: Version before and after; 0 where there was or is no value.
    version_before: int
    version_after: int
    before: Directory
    after: Directory
    #: Log index of the entry, and its cluster time.
    index: int
    time_ms: int


class Answered(msgspec.Struct, frozen=True, gc=False):
    """An entry has an answer about these keys: it must not be given before nobody can serve anything older of
    them. `writer` is the node that wrote them, which holds its own answer back until it has applied the entry;
    empty where the entry only read, deleted or refused."""

    index: int
    keys: tuple[str, ...]
    writer: str


class Statistics(msgspec.Struct, frozen=True):
    """Figures of one machine."""

    lines: int
    bytes: int
    evicted: int
    expired: int


def encode_lines(directories: list[Directory], lines: list[Line]) -> Iterator[list]:
    """The rows of `lines`; `directories` are all that they refer to, in a fixed order."""
    number_of: dict[Directory, int] = {}
    for number, directory in enumerate(directories):
        number_of[directory] = number
        yield ["directory", *(text for holder in directory.holders for text in holder)]
    for line in lines:
        number = number_of[line.directory]
        yield [
            "line", line.key, line.value, line.version, line.touched, line.expires_at, line.sweep_at, number
        ]  # fmt: skip


def decode_lines(records: Iterable[list], registry: Directories) -> Iterator[Line]:
    """What `encode_lines` wrote, with directories of `registry`."""
    directories: list[Directory] = []
    for table, *row in records:
        if table == "line":
            yield Line(*row[:6], directories[row[6]])
        elif table == "directory":
            directories.append(registry.of(zip(row[::2], row[1::2], strict=True)))
        else:
            raise ValueError(f"a cache snapshot has no table {table!r}")
