"""The lines of the machine and every view of them: directory, recency, deadlines, bytes, tags.

The rule of this file: every change of a line goes through `_write`, `_touch` or `_drop`, which keep the views
together and tell this node's listeners of the transition through `context.events`.

How it is held: lines are immutable, so that copying the table of references is a point-in-time copy. The
table is in order of last write or fill, oldest first, and eviction takes from that end; local hits never
reach the log and so do not count as use. A line that has expired, or whose tag was invalidated, is gone for every
command from that very moment of the log on; `_sweep` takes its room back a little later, at most
`SWEPT_PER_ENTRY_MAX` at a time, so that a mass expiry or a tag of a million lines does not stop the node.

Lines are bounded by number and by bytes. Replicas must agree on what is evicted, so the bounds are limits of the
group (`services.replicated.limits`), not settings of a node. One large value may drive out more small lines than
one entry may evict: later entries go on, and until then the store is over its bound, by `OVER_SHARE` of it and one
entry at most; writes that would make it more are refused (`_is_crowded`).
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from common.runs import in_order
from common.sorted_set import SortedSet
from raft.state_machine import ApplyContext
from services.cache.replicated.deadlines import Deadlines, sweep_time_ms
from services.cache.replicated.directory import Directories, State
from services.cache.replicated.fill_leases import FillLease, FillLeases
from services.cache.replicated.limits import LIMITS, TAG_OVERHEAD_BYTES
from services.cache.replicated.line import (
    Invalidated,
    Line,
    Statistics,
    Transition,
    decode_lines,
    encode_lines,
)
from services.cache.replicated.tags import Tags
from services.replicated.limits import Limits

#: Lines that have expired, lines whose tag was invalidated, and leases that have ended: so many of each kind one
#: entry sweeps away.
SWEPT_PER_ENTRY_MAX = 1000
#: And so many a command sweeps for each key that it names: more than it leaves behind, and little enough that all who
#: wait for their answers behind the end of a million lines get them in time.
SWEPT_PER_KEY = 16
#: Lines that one entry evicts: no fewer than it can write, so that the number of lines never passes its bound.
EVICTED_PER_ENTRY_MAX = 1000
#: The store may be over its bytes by one part in so many, for as long as earlier entries' evictions are under way.
OVER_SHARE = 16

#: Topic in `context.events` of every `Transition`.
TRANSITION_TOPIC = "cache.line"

#: Topic in `context.events` of every `Invalidated`.
INVALIDATED_TOPIC = "cache.tag"

#: Topic in `context.events` of each key whose lease to fill has ended, whatever ended it.
LEASE_ENDED_TOPIC = "cache.lease"

#: Topic in `context.events` of each `FillLease` that an entry tells somebody of, for the first time or again.
LEASE_TOLD_TOPIC = "cache.lease_told"

_HEAD_TABLES = frozenset({"lease", "invalidated", "forgotten"})


class LineStore:
    """Lines, and the leases to fill those that are absent."""

    def __init__(self, **limits: int) -> None:
        """Limits are set here by tests only: every node of a group must have the same."""
        self.limits = Limits(LIMITS)
        self.limits.set(limits.items())
        self._limit = self.limits.in_force
        self._clear()

    def _clear(self) -> None:
        #: Least recently written or filled first.
        self._lines: OrderedDict[str, Line] = OrderedDict()
        #: The same keys in order.
        self._keys: SortedSet[str] = SortedSet()
        #: Lines that the present entry may still evict.
        self._evictable = 0
        self._directories = Directories()
        self._deadlines = Deadlines()
        self._tags = Tags()
        self._fill_leases = FillLeases()
        #: Sum of `counted_bytes` over all lines.
        self._bytes = 0
        #: Cluster time of the last entry, milliseconds.
        self._time_ms = 0
        self._evicted = 0
        self._expired = 0

    # Time

    def next_due_ms(self) -> int | None:
        """Cluster time of the next sweep; None where there is nothing to sweep, now or later."""
        if self._tags.has_dead or self._is_over(self._limit["bytes_max"]):
            return self._time_ms
        lines, leases = self._deadlines.next_due_ms(), self._fill_leases.next_due_ms()
        if lines is None or leases is None:
            return leases if lines is None else lines
        return min(lines, leases)

    def _sweep(self, context: ApplyContext, keys: int) -> None:
        """Let cluster time reach the entry's, and take back the room of what is gone by then, as much as an entry
        that names so many keys may; what is left is due at once."""
        assert context.time_ms >= self._time_ms, "cluster time ran backward"
        self._time_ms = context.time_ms
        most = min(SWEPT_PER_ENTRY_MAX, SWEPT_PER_KEY * keys)
        for _ in range(most):
            key = self._deadlines.pop_due(context.time_ms)
            if key is None:
                break
            self._drop_gone(context, self._lines[key])
        self._sweep_dead(context, most)
        for _ in range(most):
            key = self._fill_leases.pop_due(context.time_ms)
            if key is None:
                break
            context.events.append((LEASE_ENDED_TOPIC, key))
        self._evictable = EVICTED_PER_ENTRY_MAX
        self._evict(context)

    def _sweep_dead(self, context: ApplyContext, most: int) -> None:
        for _ in range(most):
            key = self._tags.pop_dead()
            if key is None:
                return
            self._drop_gone(context, self._lines[key])

    # Changing one line

    def _expiry(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else self._time_ms + ttl_ms

    def _is_expired(self, line: Line) -> bool:
        return line.expires_at is not None and line.expires_at <= self._time_ms

    def _live(self, context: ApplyContext, key: str) -> Line | None:
        """The line, unless it is gone by this entry's time and place: then it goes now."""
        line = self._lines.get(key)
        if line is not None and (self._is_expired(line) or (line.tags and self._tags.is_dead(line))):
            self._drop_gone(context, line)
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
        tags: tuple[str, ...] = (),
    ) -> None:
        """Put `value` in the place of `line` (None where the key is absent); `node` becomes its owner."""
        if line is None:
            before, version_before = self._directories.empty, 0
            self._keys.add(key)
        else:
            before, version_before = line.directory, line.version
            self._take_out(line)
        after = before.after_write(node)
        sweep_at = None
        if expires_at is not None:
            sweep_at = sweep_time_ms(self._time_ms, expires_at)
            self._deadlines.add(key, sweep_at)
        index = context.index
        written = Line(key, value, index, index, expires_at, sweep_at, after, tags)
        self._lines[key] = written
        self._lines.move_to_end(key)
        after.lines += 1
        self._bytes += written.counted_bytes
        if tags:
            self._tags.add(written)
        transition = Transition(key, "write", version_before, index, before, after, index, context.time_ms)
        context.events.append((TRANSITION_TOPIC, transition))
        self._end_lease(context, key)

    def _touch(self, context: ApplyContext, line: Line, node: str) -> Line:
        """`node` reads the line. Returns the line as it is afterwards."""
        key, version, before = line.key, line.version, line.directory
        after = before.after_fill(node)
        line = Line(key, line.value, version, context.index, line.expires_at, line.sweep_at, after, line.tags)
        self._lines[key] = line
        self._lines.move_to_end(key)
        if after is not before:
            before.lines -= 1
            after.lines += 1
            if line.tags:
                self._tags.on_fill(line, before)
            transition = Transition(
                key, "fill", version, version, before, after, context.index, context.time_ms
            )
            context.events.append((TRANSITION_TOPIC, transition))
        return line

    def _drop(self, context: ApplyContext, line: Line, cause: str) -> None:
        """Remove the line from every view: it is I everywhere."""
        key, before, after = line.key, line.directory, self._directories.empty
        del self._lines[key]
        self._keys.remove(key)
        self._take_out(line)
        transition = Transition(key, cause, line.version, 0, before, after, context.index, context.time_ms)
        context.events.append((TRANSITION_TOPIC, transition))

    def _drop_gone(self, context: ApplyContext, line: Line) -> None:
        """Remove a line that has expired or whose tag was invalidated."""
        if line.tags and self._tags.is_dead(line):
            self._drop(context, line, "invalidate")
        else:
            self._expired += 1
            self._drop(context, line, "expire")

    def _take_out(self, line: Line) -> None:
        """Out of every view but the table itself."""
        line.directory.lines -= 1
        self._bytes -= line.counted_bytes
        if line.sweep_at is not None:
            self._deadlines.remove(line.key, line.sweep_at)
        if line.tags:
            self._tags.remove(line)

    def _invalidate(self, context: ApplyContext, tag: str) -> int:
        """Every line that carries `tag` is gone from here on. Returns how many those were."""
        generation = self._tags.invalidate(tag, context.index)
        self._fill_leases.on_invalidated(tag, context.index)
        holders, lines = ((), 0) if generation is None else (generation.holders(), len(generation.keys))
        # Also where none is left: somebody may still serve one that was replaced or removed just before.
        context.events.append((INVALIDATED_TOPIC, Invalidated(tag, context.index, holders, lines)))
        self._sweep_dead(context, SWEPT_PER_ENTRY_MAX)
        return lines

    def _end_lease(self, context: ApplyContext, key: str) -> None:
        if self._fill_leases.end(key):
            context.events.append((LEASE_ENDED_TOPIC, key))

    def _evict(self, context: ApplyContext) -> None:
        """Drop the least recently written or filled lines until the bounds hold, as many as one entry may, but never
        the newest."""
        while self._evictable and self._is_over(self._limit["bytes_max"]):
            self._evictable -= 1
            self._evicted += 1
            self._drop(context, next(iter(self._lines.values())), "evict")

    def _is_over(self, bytes_max: int) -> bool:
        """Whether a line must go."""
        count = len(self._lines)
        counted_bytes = self._bytes + TAG_OVERHEAD_BYTES * len(self._tags.live)
        return (counted_bytes > bytes_max or count > self._limit["lines_max"]) and count > 1

    def _is_crowded(self) -> bool:
        """Whether evictions are so far behind that no more may be written."""
        bytes_max = self._limit["bytes_max"]
        return self._is_over(bytes_max + bytes_max // OVER_SHARE)

    # Looking

    def line(self, key: str) -> Line | None:
        """The row of `key` as of the last applied entry; None where it is absent, expired or invalidated by then."""
        line = self._lines.get(key)
        if line is None or (line.expires_at is not None and line.expires_at <= self._time_ms):
            return None
        if line.tags and self._tags.is_dead(line):
            return None
        return line

    def has(self, key: str) -> bool:
        """Whether a line of `key` is there, gone or not: if so, only the log can tell what a read gets."""
        return key in self._lines

    def lease_token(self, key: str) -> int | None:
        """The token of the lease to fill `key`; None where nobody has it."""
        lease = self.fill_lease(key)
        return None if lease is None else lease.token

    def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first `count` keys in order that begin with `prefix` and come after `after`. One that is gone may be
        among them as long as no entry has swept it."""
        return list(islice(self._keys.begins_with(prefix, after), count))

    def fill_lease(self, key: str) -> FillLease | None:
        """The lease to fill `key`; None where nobody has it."""
        return self._fill_leases.of(key, self._time_ms)

    def fill_leases_of(self, asker: str) -> list[FillLease]:
        """The leases that this life of a node was told and has not given back; looks at all of them."""
        return [lease for lease in self._fill_leases.all() if lease.told_to(asker) is not None]

    def census(self, node: str) -> dict[State, int]:
        """Lines by their state at `node`."""
        return self._directories.census(node)

    def statistics(self) -> Statistics:
        return Statistics(
            len(self._lines),
            self._counted_bytes(),
            self._evicted,
            self._expired,
            tags=len(self._tags),
            fill_leases=len(self._fill_leases),
        )

    def used(self) -> dict[str, int]:
        """How much of the limits is taken."""
        return {
            "lines_max": len(self._lines),
            "bytes_max": self._counted_bytes(),
            "fill_leases_max": len(self._fill_leases),
        }

    def _counted_bytes(self) -> int:
        return self._bytes + TAG_OVERHEAD_BYTES * len(self._tags)

    # Snapshots

    def snapshot(self) -> Iterator[list[Any]]:
        """Copy the table of references now; the iterator then encodes it row by row."""
        directories = sorted((d for d in self._directories if d.lines), key=lambda d: d.holders)
        # Unbound `dict.values` walks the table itself and not the recency order: several times as fast. Its
        # order is that in which the keys came, equal on all replicas; `restore` finds recency out again.
        lines = list(dict.values(self._lines))
        head: list[list[Any]] = [["machine", self._time_ms, self._evicted, self._expired]]
        head += [["dead", tag, index] for tag, index in self._tags.dead()]
        return chain(head, self._fill_leases.rows(), encode_lines(directories, lines))

    def restore(self, records: Iterable[list[Any]]) -> None:
        """Replace all state by what `snapshot` produced."""
        self._clear()
        records = iter(records)
        table, self._time_ms, self._evicted, self._expired = next(records, (None, 0, 0, 0))
        if table != "machine":
            raise ValueError(f"a cache snapshot begins with the table 'machine', not {table!r}")
        dead: list[tuple[str, int]] = []
        for line in decode_lines(self._without_head(records, dead), self._directories):
            self._lines[line.key] = line
            self._keys.add(line.key)
            line.directory.lines += 1
            self._bytes += line.counted_bytes
        self._restore_orders(dead)

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """Nothing to do: versions and tokens are log indexes, and those are skipped already."""

    def _without_head(self, records: Iterator[list[Any]], dead: list[tuple[str, int]]) -> Iterator[list[Any]]:
        """The rows of lines; the others are taken in on the way."""
        for record in records:
            if record[0] == "dead":
                dead.append((record[1], record[2]))
            elif record[0] in _HEAD_TABLES:
                self._fill_leases.restore_row(record)
            else:
                yield record

    def _restore_orders(self, dead: list[tuple[str, int]]) -> None:
        """Find the recency order, the deadlines and the tags out again from the lines. One entry handles its keys in
        sorted order, so the index and then the key tell who came first."""
        lines = list(dict.values(self._lines))
        for line in in_order(lines, key=lambda line: (line.touched, line.key)):
            self._lines.move_to_end(line.key)
        tagged = []
        due = [line for line in lines if line.sweep_at is not None or line.tags]
        for line in in_order(due, key=lambda line: (line.version, line.key)):
            if line.sweep_at is not None:
                self._deadlines.add(line.key, line.sweep_at)
            if line.tags:
                tagged.append(line)
        self._tags.restore(dead, tagged)
