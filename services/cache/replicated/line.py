"""The nouns of the machine: a line, a transition, and how lines are written into a snapshot.

The rule of this file: plain data, and the one place where the snapshot's rows are laid out:

    ["machine", time_ms, evicted, expired]
    ["dead", tag, index]                                                one per generation of `Tags` to be swept
    ["lease", ...], ["invalidated", ...], ["forgotten", ...]            see `FillLeases.rows`
    ["directory", node, state, node, state, ...]                        one per set of holders, numbered from 0
    ["line", key, value, version, touched, expires_at, sweep_at, directory number, tag, ...]           one per line
"""

from collections.abc import Iterable, Iterator
from sys import intern
from typing import Any

import msgspec

from services.cache.replicated.directory import Directories, Directory
from services.cache.replicated.limits import LINE_OVERHEAD_BYTES, LINE_TAG_OVERHEAD_BYTES
from services.replicated.limits import text_bytes


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
    #: What it can be invalidated by.
    tags: tuple[str, ...] = ()

    @property
    def counted_bytes(self) -> int:
        """What the line counts for against the bytes that the store may hold."""
        key = self.key
        size = LINE_OVERHEAD_BYTES + (len(key) if key.isascii() else text_bytes(key)) + len(self.value)
        if self.tags:
            size += sum(LINE_TAG_OVERHEAD_BYTES + text_bytes(tag) for tag in self.tags)
        return size


class Transition(msgspec.Struct, frozen=True, gc=False):
    """What one entry did to one line, for this node's listeners."""

    key: str
    #: `write`, `fill`, `delete`, `expire`, `evict` or `invalidate`.
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


class Invalidated(msgspec.Struct, frozen=True, gc=False):
    """An entry made every line with a tag worthless, at once and for good; the transitions of the lines follow as
    they are met or swept."""

    tag: str
    #: Log index of the entry.
    index: int
    #: The nodes that held a line of it.
    holders: tuple[str, ...]
    lines: int


class Statistics(msgspec.Struct, frozen=True):
    """Figures of one machine."""

    lines: int
    bytes: int
    evicted: int
    expired: int
    #: Different tags that lines carry.
    tags: int = 0
    #: Absent keys that somebody has the lease to fill.
    fill_leases: int = 0


def encode_lines(directories: list[Directory], lines: list[Line]) -> Iterator[list[Any]]:
    """The rows of `lines`; `directories` are all that they refer to, in a fixed order."""
    number_of: dict[Directory, int] = {}
    for number, directory in enumerate(directories):
        number_of[directory] = number
        yield ["directory", *(text for holder in directory.holders for text in holder)]
    for line in lines:
        number = number_of[line.directory]
        times = (line.version, line.touched, line.expires_at, line.sweep_at)
        yield ["line", line.key, line.value, *times, number, *line.tags]


def decode_lines(records: Iterable[list[Any]], registry: Directories) -> Iterator[Line]:
    """What `encode_lines` wrote, with directories of `registry`."""
    directories: list[Directory] = []
    for table, *row in records:
        if table == "line":
            key, value, version, touched, expires_at, sweep_at, number, *tags = row
            holders = directories[number]
            carried = tuple(map(intern, tags)) if tags else ()
            yield Line(key, value, version, touched, expires_at, sweep_at, holders, carried)
        elif table == "directory":
            directories.append(registry.of(zip(row[::2], row[1::2], strict=True)))
        else:
            raise ValueError(f"a cache snapshot has no table {table!r}")
