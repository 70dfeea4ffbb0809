"""A set in order whose calls are short however much it holds: a list of short sorted lists.

The rule of this file: one call moves `CHUNK_MAX` references at most, plus one for each chunk. There are no leftovers
and no clean-up. So the result of a call depends only on the items in the set, and is the same on every replica,
whatever its history.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar


class Ordered(Protocol):
    """An item that can be compared with others of its type."""

    def __lt__(self, other: Any, /) -> bool: ...


Item = TypeVar("Item", bound=Ordered)

#: Items of one chunk before it is cut into two.
CHUNK_MAX = 1024


class SortedSet(Generic[Item]):
    """Different items that can be compared with each other."""

    __slots__ = ("_chunks", "_lasts", "_length")

    def __init__(self, items: Sequence[Item] = ()) -> None:
        """`items` are in order and different."""
        #: No chunk is empty; every item of a chunk is less than all of the next.
        self._chunks: list[list[Item]] = [
            list(items[start : start + CHUNK_MAX]) for start in range(0, len(items), CHUNK_MAX)
        ]
        #: The greatest item of each chunk.
        self._lasts: list[Item] = [chunk[-1] for chunk in self._chunks]
        self._length = len(items)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for chunk in self._chunks:
            yield from chunk

    def __contains__(self, item: Item) -> bool:
        place = bisect_left(self._lasts, item)
        if place == len(self._lasts):
            return False
        chunk = self._chunks[place]
        return chunk[bisect_left(chunk, item)] == item

    def clear(self) -> None:
        self._chunks.clear()
        self._lasts.clear()
        self._length = 0

    def add(self, item: Item) -> None:
        """Add an item that is not there."""
        lasts = self._lasts
        self._length += 1
        if not lasts:
            self._chunks.append([item])
            lasts.append(item)
            return
        place = bisect_left(lasts, item)
        if place == len(lasts):
            place -= 1
            chunk = self._chunks[place]
            chunk.append(item)
            lasts[place] = item
        else:
            chunk = self._chunks[place]
            insort(chunk, item)
        if len(chunk) > CHUNK_MAX:
            self._split(place)

    def remove(self, item: Item) -> None:
        """Remove an item that is there. Raises: KeyError."""
        place = bisect_left(self._lasts, item)
        if place == len(self._lasts):
            raise KeyError(item)
        chunk = self._chunks[place]
        offset = bisect_left(chunk, item)
        if chunk[offset] != item:
            raise KeyError(item)
        self._take(place, offset)

    def discard(self, item: Item) -> None:
        """Remove an item, if it is there."""
        if item in self:
            self.remove(item)

    def first(self) -> Item | None:
        """The least item; None if there is none."""
        return self._chunks[0][0] if self._chunks else None

    def pop_first(self) -> Item:
        """Remove and return the least item, which must be there."""
        item = self._chunks[0][0]
        self._take(0, 0)
        return item

    def after(self, item: Item) -> Iterator[Item]:
        """The items greater than this one, in order. Nothing may be changed meanwhile."""
        place = bisect_right(self._lasts, item)
        if place < len(self._lasts):
            chunk = self._chunks[place]
            yield from chunk[bisect_right(chunk, item) :]
        for number in range(place + 1, len(self._chunks)):
            yield from self._chunks[number]

    def begins_with(self: "SortedSet[str]", prefix: str, after: str = "") -> Iterator[str]:
        """The texts greater than `after` that begin with `prefix`, in order. Nothing may be changed meanwhile."""
        if after < prefix:
            if prefix in self:
                yield prefix
            after = prefix
        for item in self.after(after):
            if not item.startswith(prefix):
                return
            yield item

    def _take(self, place: int, offset: int) -> None:
        chunk = self._chunks[place]
        del chunk[offset]
        self._length -= 1
        if not chunk:
            del self._chunks[place], self._lasts[place]
        elif offset == len(chunk):
            self._lasts[place] = chunk[-1]

    def _split(self, place: int) -> None:
        chunk = self._chunks[place]
        # Items that come in order fill their chunks: the cut is then at the end.
        half = CHUNK_MAX if place == len(self._chunks) - 1 else CHUNK_MAX // 2
        self._chunks[place : place + 1] = [chunk[:half], chunk[half:]]
        self._lasts[place : place + 1] = [chunk[half - 1], chunk[-1]]
