"""The cache's state machine: values, versions, expiry and the directory, all a pure function of the log.

The rule of this file: every change of a line goes through `_write`, `_touch` or `_drop`, which keep the four
views of it together (the line itself, the directory's count, the deadline, the bytes) and tell this node's
`services.cache.coherence` of the transition through `context.events`.

How it is held: lines are immutable, so that copying the table of references is a point-in-time copy. The
table is in order of last write or fill, oldest first, and eviction takes from that end; local hits never
reach the log and so do not count as use. An expired line is gone for every command from its exact
`expires_at` on; `advance` takes its room back a little later, at most `EXPIRED_PER_ENTRY_MAX` at a time so
that a mass expiry does not stop the node.

Lines are bounded by number and by the bytes of keys and values. Replicas must agree on what is evicted, so
the bounds are constants of the code, not settings of a node.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from raft.state_machine import ApplyContext
from services.cache.commands import Delete, Fill, FillMany, Incr, Put, PutMany
from services.cache.deadlines import Deadlines, sweep_time_ms
from services.cache.directory import Directories, I, M
from services.cache.line import Answered, Line, Statistics, Transition, decode_lines, encode_lines

#: Lines that the store holds; one more evicts the least recently written or filled.
LINES_MAX = 1_000_000
#: Bytes of keys and values (`Line.counted_bytes`) that the store holds.
STORE_BYTES_MAX = 256 * 1024 * 1024
#: Expired lines that one entry sweeps away.
EXPIRED_PER_ENTRY_MAX = 1000
#: Range of a number that `Incr` counts in.
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1

#: Topic in `context.events` of every `Transition`.
TRANSITION_TOPIC = "cache.line"

#: Topic in `context.events` of one `Answered` for each command.
ANSWER_TOPIC = "cache.answer"

#: Commands that make a node the owner of what it wrote.
WRITES = (Put, PutMany, Incr)

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")


class CacheMachine:
    """The cache as a pure function of its log."""

    COMMANDS = (Put, PutMany, Fill, FillMany, Delete, Incr)

    def __init__(self, *, lines_max: int = LINES_MAX, store_bytes_max: int = STORE_BYTES_MAX) -> None:
        """The bounds are arguments for tests only: every node of a group must have the same."""
        self._lines_max = lines_max
        self._store_bytes_max = store_bytes_max
        self._handlers = {
            Put: self._put,
            PutMany: self._put_many,
            Fill: self._fill,
            FillMany: self._fill_many,
            Delete: self._delete,
            Incr: self._incr,
        }
        self._clear()

    def _clear(self) -> None:
        #: Least recently written or filled first.
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._directories = Directories()
        self._deadlines = Deadlines()
        #: Sum of `counted_bytes` over all lines.
        self._bytes = 0
        #: Cluster time of the last entry, milliseconds.
        self._time_ms = 0
        self._evicted = 0
        self._expired = 0

    # Applying

    def apply(self, context: ApplyContext, command: Any) -> dict[str, Any]:
        """Carry out one command. Values in the answer are raw JSON bytes, under `val`; the answer to
        `FillMany` has one such answer per key under `items`."""
        self.advance(context)
        answer = self._handlers[type(command)](context, command)
        writer = command.node if answer.get("state") == M and isinstance(command, WRITES) else ""
        self._announce(context, command, writer)
        return answer

    def repeat(self, context: ApplyContext, command: Any) -> None:
        """An earlier answer to this very command is given again: it speaks of the same keys."""
        self.advance(context)
        self._announce(context, command, "")

    def _announce(self, context: ApplyContext, command: Any, writer: str) -> None:
        context.events.append((ANSWER_TOPIC, Answered(context.index, keys_of(command), writer)))

    def advance(self, context: ApplyContext) -> None:
        """Sweep lines whose bucket is due, at most `EXPIRED_PER_ENTRY_MAX`; what is left is due at once."""
        assert context.time_ms >= self._time_ms, "cluster time ran backward"
        self._time_ms = context.time_ms
        for _ in range(EXPIRED_PER_ENTRY_MAX):
            key = self._deadlines.pop_due(context.time_ms)
            if key is None:
                return
            self._expired += 1
            self._drop(context, self._lines[key], "expire")

    def next_due_ms(self) -> int | None:
        """Cluster time of the next sweep; None where no line expires."""
        return self._deadlines.next_due_ms()

    def _put(self, context: ApplyContext, command: Put) -> dict[str, Any]:
        line = self._live(context, command.key)
        if command.if_version is not None and command.if_version != _version(line):
            return _mismatch(command.key, line)
        self._write(context, line, command.key, command.value, command.node, self._expiry(command.ttl_ms))
        self._evict(context)
        return {"ok": True, "version": context.index, "state": M}

    def _put_many(self, context: ApplyContext, command: PutMany) -> dict[str, Any]:
        items = sorted(command.items, key=lambda item: item[0])
        for key, _, _, if_version in items:
            line = self._live(context, key)
            if if_version is not None and if_version != _version(line):
                return _mismatch(key, line)
        for key, value, ttl_ms, _ in items:
            self._write(context, self._lines.get(key), key, value, command.node, self._expiry(ttl_ms))
        self._evict(context)
        return {"ok": True, "version": context.index, "state": M}

    def _fill(self, context: ApplyContext, command: Fill) -> dict[str, Any]:
        return self._filled(context, command.key, command.node)

    def _fill_many(self, context: ApplyContext, command: FillMany) -> dict[str, Any]:
        keys = sorted(set(command.keys))
        return {"ok": True, "items": {key: self._filled(context, key, command.node) for key in keys}}

    def _filled(self, context: ApplyContext, key: str, node: str) -> dict[str, Any]:
        line = self._live(context, key)
        if line is None:
            return {"hit": False, "val": None, "state": I}
        line = self._touch(context, line, node)
        state = line.directory.state_of(node)
        return {"hit": True, "val": line.value, "state": state, "version": line.version, "source": "fill"}

    def _delete(self, context: ApplyContext, command: Delete) -> dict[str, Any]:
        line = self._live(context, command.key)
        if command.if_version is not None and command.if_version != _version(line):
            return _mismatch(command.key, line)
        if line is not None:
            self._drop(context, line, "delete")
        return {"ok": True, "deleted": line is not None}

    def _incr(self, context: ApplyContext, command: Incr) -> dict[str, Any]:
        line = self._live(context, command.key)
        value = b"0" if line is None else line.value
        if not _INTEGER.fullmatch(value) or not INTEGER_MIN <= int(value) <= INTEGER_MAX:
            return {"ok": False, "reason": "not_an_integer", "key": command.key, "version": _version(line)}
        number = int(value) + command.by
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            return {"ok": False, "reason": "out_of_range", "key": command.key, "value": int(value)}
        if command.ttl_ms is not None:
            expires_at = self._expiry(command.ttl_ms)
        else:
            expires_at = None if line is None else line.expires_at
        self._write(context, line, command.key, b"%d" % number, command.node, expires_at)
        self._evict(context)
        return {"ok": True, "value": number, "version": context.index, "state": M}

    # Changing one line

    def _expiry(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else self._time_ms + ttl_ms

    def _live(self, context: ApplyContext, key: str) -> Line | None:
        """The line, unless it has expired by this entry's time: then it goes now."""
        line = self._lines.get(key)
        if line is not None and line.expires_at is not None and line.expires_at <= self._time_ms:
            self._expired += 1
            self._drop(context, line, "expire")
            return None
        return line

    def _write(
        self,
        context: ApplyContext,
        line: Line | None,
        key: str,
        value: bytes,
        node: str,
        expires_at: int | None,
    ) -> None:
        """Put `value` in the place of `line` (None where the key is absent); `node` becomes its owner."""
        if line is None:
            before, version_before = self._directories.empty, 0
        else:
            before, version_before = line.directory, line.version
            before.lines -= 1
            self._bytes -= line.counted_bytes
            if line.sweep_at is not None:
                self._deadlines.remove(key, line.sweep_at)
        after = before.after_write(node)
        sweep_at = None
        if expires_at is not None:
            sweep_at = sweep_time_ms(self._time_ms, expires_at)
            self._deadlines.add(key, sweep_at)
        index = context.index
        written = Line(key, value, index, index, expires_at, sweep_at, after)
        self._lines[key] = written
        self._lines.move_to_end(key)
        after.lines += 1
        self._bytes += written.counted_bytes
        transition = Transition(key, "write", version_before, index, before, after, index, context.time_ms)
        context.events.append((TRANSITION_TOPIC, transition))

    def _touch(self, context: ApplyContext, line: Line, node: str) -> Line:
        """`node` reads the line. Returns the line as it is afterwards."""
        key, version, before = line.key, line.version, line.directory
        after = before.after_fill(node)
        line = Line(key, line.value, version, context.index, line.expires_at, line.sweep_at, after)
        self._lines[key] = line
        self._lines.move_to_end(key)
        if after is not before:
            before.lines -= 1
            after.lines += 1
            transition = Transition(
                key, "fill", version, version, before, after, context.index, context.time_ms
            )
            context.events.append((TRANSITION_TOPIC, transition))
        return line

    def _drop(self, context: ApplyContext, line: Line, cause: str) -> None:
        """Remove the line from every view: it is I everywhere."""
        key, before, after = line.key, line.directory, self._directories.empty
        del self._lines[key]
        before.lines -= 1
        self._bytes -= line.counted_bytes
        if line.sweep_at is not None:
            self._deadlines.remove(key, line.sweep_at)
        transition = Transition(key, cause, line.version, 0, before, after, context.index, context.time_ms)
        context.events.append((TRANSITION_TOPIC, transition))

    def _evict(self, context: ApplyContext) -> None:
        """Drop the least recently written or filled lines until the bounds hold, but never the newest."""
        lines = self._lines
        while (len(lines) > self._lines_max or self._bytes > self._store_bytes_max) and len(lines) > 1:
            self._evicted += 1
            self._drop(context, next(iter(lines.values())), "evict")

    # Looking

    def line(self, key: str) -> Line | None:
        """The row of `key` as of the last applied entry; None where it is absent or expired by then."""
        line = self._lines.get(key)
        if line is None or (line.expires_at is not None and line.expires_at <= self._time_ms):
            return None
        return line

    def has(self, key: str) -> bool:
        """Whether a line of `key` is there, expired or not: if so, only the log can tell what a read gets."""
        return key in self._lines

    def keys(self) -> list[str]:
        """Every key, in no order that means anything: a copy, to be searched in slices."""
        return list(dict.keys(self._lines))

    def census(self, node: str) -> dict[str, int]:
        """Lines by their state at `node`."""
        return self._directories.census(node)

    def statistics(self) -> Statistics:
        return Statistics(len(self._lines), self._bytes, self._evicted, self._expired)

    # Snapshots

    def snapshot(self) -> Iterator[list]:
        """Copy the table of references now; the iterator then encodes it row by row."""
        directories = sorted((d for d in self._directories if d.lines), key=lambda d: d.holders)
        # Unbound `dict.values` walks the table itself and not the recency order: several times as fast. Its
        # order is that in which the keys came, equal on all replicas; `restore` finds recency out again.
        lines = list(dict.values(self._lines))
        head = ["machine", self._time_ms, self._evicted, self._expired]
        return chain([head], encode_lines(directories, lines))

    def restore(self, records: Iterable[list]) -> None:
        """Replace all state by what `snapshot` produced."""
        self._clear()
        records = iter(records)
        table, self._time_ms, self._evicted, self._expired = next(records, (None, 0, 0, 0))
        if table != "machine":
            raise ValueError(f"a cache snapshot begins with the table 'machine', not {table!r}")
        for line in decode_lines(records, self._directories):
            self._lines[line.key] = line
            line.directory.lines += 1
            self._bytes += line.counted_bytes
        self._restore_orders()

    def skip_numbers(self, count: int) -> None:
        """Nothing to do: versions are log indexes, and those are skipped already."""

    def _restore_orders(self) -> None:
        """Find the recency order and the deadlines out again from the lines. One entry handles its keys in
        sorted order, so the index and then the key tell who came first."""
        lines = list(dict.values(self._lines))
        for line in sorted(lines, key=lambda line: (line.touched, line.key)):
            self._lines.move_to_end(line.key)
        expiring = [line for line in lines if line.sweep_at is not None]
        for line in sorted(expiring, key=lambda line: (line.version, line.key)):
            self._deadlines.add(line.key, line.sweep_at)


def keys_of(command: Any) -> tuple[str, ...]:
    """The keys that a command names."""
    if isinstance(command, PutMany):
        return tuple(item[0] for item in command.items)
    if isinstance(command, FillMany):
        return tuple(command.keys)
    return (command.key,)


def _version(line: Line | None) -> int:
    """The version that `if_version` is compared with; 0 where the key is absent."""
    return 0 if line is None else line.version


def _mismatch(key: str, line: Line | None) -> dict[str, Any]:
    return {"ok": False, "reason": "version_mismatch", "key": key, "version": _version(line)}
