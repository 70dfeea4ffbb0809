"""A first-in first-out order of message ids, made for point-in-time copies and for removal by neglect.

The rule: chunks only ever grow at their end, so a copy is the list of chunks and two numbers. An id whose message
went away from the middle (it expired, it was purged) stays behind as a *stale* id that whoever pops must skip;
`note_removed` sweeps one chunk every now and then, so stale ids stay a bounded share of the whole and no single
call takes long.
"""

from collections import deque
from collections.abc import Callable, Iterator

#: Ids in one chunk.
CHUNK_IDS = 1024

#: One chunk is swept for so many removals: a chunk's worth of removals sweeps four chunks.
REMOVALS_PER_SWEEP = CHUNK_IDS // 4


class FrozenFifo:
    """What a `Fifo` held when it was copied."""

    __slots__ = ("_chunks", "_head", "_tail")

    def __init__(self, chunks: list[list[int]], head: int, tail: int) -> None:
        self._chunks = chunks
        #: Position of the first id in the first chunk.
        self._head = head
        #: Length of the last chunk at the time of the copy; the live order may have appended since.
        self._tail = tail

    def __iter__(self) -> Iterator[int]:
        last = len(self._chunks) - 1
        for number, chunk in enumerate(self._chunks):
            begin = self._head if number == 0 else 0
            end = self._tail if number == last else len(chunk)
            yield from chunk[begin:end]


class Fifo:
    """Ids in order of arrival, stale ones among them."""

    __slots__ = ("_chunks", "_cursor", "_head", "_removals")

    def __init__(self) -> None:
        #: Never empty; the first may be used up.
        self._chunks: deque[list[int]] = deque([[]])
        #: Position of the next id in the first chunk.
        self._head = 0
        #: Number of the chunk that was swept last.
        self._cursor = 0
        self._removals = 0

    def __len__(self) -> int:
        """Ids that are in the order, stale ones included."""
        return sum(map(len, self._chunks)) - self._head

    def append(self, message_id: int) -> None:
        tail = self._chunks[-1]
        if len(tail) < CHUNK_IDS:
            tail.append(message_id)
        else:
            self._chunks.append([message_id])

    def pop(self) -> int | None:
        """Take the first id off; None where there is none."""
        chunk = self._chunks[0]
        if self._head == len(chunk):
            if len(self._chunks) == 1:
                return None
            self._chunks.popleft()
            chunk = self._chunks[0]
            self._head = 0
        message_id = chunk[self._head]
        self._head += 1
        return message_id

    def head(self, is_live: Callable[[int], bool]) -> int | None:
        """The first id that is not stale, left in its place; None where there is none."""
        while (message_id := self.pop()) is not None:
            if is_live(message_id):
                self._head -= 1
                return message_id
        return None

    def copy(self) -> FrozenFifo:
        return FrozenFifo(list(self._chunks), self._head, len(self._chunks[-1]))

    def note_removed(self, is_live: Callable[[int], bool]) -> None:
        """One id in here has just become stale: now and then, rid one chunk of stale ids."""
        self._removals += 1
        if self._removals % REMOVALS_PER_SWEEP == 0 and len(self._chunks) > 2:
            self._sweep_next(is_live)

    def _sweep_next(self, is_live: Callable[[int], bool]) -> None:
        """Sweep the chunk after the one swept last, and join it to its forerunner where both fit into one.
        The first chunk (being popped) and the last (being filled) are left alone. A swept chunk is a new
        list: copies may hold the old one."""
        chunks = self._chunks
        cursor = self._cursor + 1
        if cursor >= len(chunks) - 1:
            cursor = 1
        kept = [message_id for message_id in chunks[cursor] if is_live(message_id)]
        if cursor > 1 and len(chunks[cursor - 1]) + len(kept) <= CHUNK_IDS:
            chunks[cursor - 1] = chunks[cursor - 1] + kept
            kept = []
        if kept:
            chunks[cursor] = kept
            self._cursor = cursor
        else:
            del chunks[cursor]
            self._cursor = cursor - 1
