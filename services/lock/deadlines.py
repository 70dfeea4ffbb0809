"""What falls due next: a heap of (cluster time, id) with lazy deletion and no long clean-up.

An entry counts only while the table that it speaks of still gives that id this very due time; everything else in
the heap is a leftover. Leftovers are shed a few per `schedule`, so neither a million releases of locks with
a long ttl nor their clean-up ever shows as memory or as a pause. Ids of one due time come out in the order of
the ids, which is the same on every replica whatever the inner shape of the heap.
"""

from collections.abc import Callable, Sized
from heapq import heappop, heappush
from typing import Generic, TypeVar

Id = TypeVar("Id", int, str)

#: Leftovers that are tolerated however small the table is.
LEFTOVERS_MAX = 1024
#: Entries that one `schedule` moves out of a heap that is being cleaned.
MOVES_PER_SCHEDULE = 4


class Deadlines(Generic[Id]):
    """`due_of(id)` says when `id` is due by the table, None where it is not (any more); `table` bounds how many
    entries can count. With `repeats`, an id may be noted for the same time any number of times: it counts once."""

    __slots__ = ("_due_of", "_heap", "_noted", "_old", "_table")

    def __init__(self, table: Sized, due_of: Callable[[Id], int | None], *, repeats: bool = False) -> None:
        self._table = table
        #: With `repeats`, all entries kept. Two that are the same would both count, and never be shed.
        self._noted: set[tuple[int, Id]] | None = set() if repeats else None
        self._due_of = due_of
        self._heap: list[tuple[int, Id]] = []
        #: A heap that is being emptied into `_heap`, leftovers dropped on the way.
        self._old: list[tuple[int, Id]] = []

    def __len__(self) -> int:
        """Entries kept, leftovers included."""
        return len(self._heap) + len(self._old)

    def clear(self) -> None:
        self._heap.clear()
        self._old.clear()
        if self._noted is not None:
            self._noted.clear()

    def schedule(self, due_ms: int, id: Id) -> None:
        """Note that `id` is due at `due_ms`; call it after the table says so."""
        if self._noted is not None:
            if (due_ms, id) in self._noted:
                return
            self._noted.add((due_ms, id))
        heappush(self._heap, (due_ms, id))
        if self._old:
            self._clean()
        elif len(self._heap) > 2 * len(self._table) + LEFTOVERS_MAX:
            self._heap, self._old = self._old, self._heap

    def pop_due(self, now_ms: int) -> list[Id]:
        """Ids due at `now_ms` or before, earliest first, each once. The caller ends them."""
        due = []
        for heap in (self._heap, self._old):
            while heap and heap[0][0] <= now_ms:
                entry = self._take(heap)
                if self._due_of(entry[1]) == entry[0]:
                    due.append(entry)
        due.sort()
        return list(dict.fromkeys(id for _, id in due))

    def next_due_ms(self) -> int | None:
        next_ms = None
        for heap in (self._heap, self._old):
            while heap and self._due_of(heap[0][1]) != heap[0][0]:
                self._take(heap)
            if heap and (next_ms is None or heap[0][0] < next_ms):
                next_ms = heap[0][0]
        return next_ms

    def _clean(self) -> None:
        # Taking the last leaf off a heap leaves a heap: `_old` stays in order while it shrinks.
        for _ in range(min(MOVES_PER_SCHEDULE, len(self._old))):
            entry = self._old.pop()
            if self._due_of(entry[1]) == entry[0]:
                heappush(self._heap, entry)
            elif self._noted is not None:
                self._noted.discard(entry)

    def _take(self, heap: list[tuple[int, Id]]) -> tuple[int, Id]:
        entry = heappop(heap)
        if self._noted is not None:
            self._noted.discard(entry)
        return entry
