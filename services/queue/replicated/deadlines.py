"""When which message is due: the ends of delays, visibilities and times to live.

The rule: at most one deadline a message, and forgetting one costs as little as setting it. Most deadlines never
come (a message is acknowledged long before its visibility ends), so those beyond the current second lie in buckets of
about a second each, dicts, where setting and forgetting cost next to nothing. Only the bucket that has begun is in
order. A bucket that grows large is put in order while it grows: a hundred thousand deadlines of one second must not
wait to be sorted in the turn in which it begins.

Nothing in here is replicated: it follows from the messages and the cluster time, and a restore builds it anew.
"""

from typing import Generic, TypeVar

from common.sorted_set import SortedSet

#: A bucket spans 1,024 ms.
BUCKET_BITS = 10

#: Deadlines of one bucket that may be out of order: some 2 ms to sort.
UNSORTED_MAX = 4096

Id = TypeVar("Id", int, str)
#: `(deadline, id)`.
Sorted = SortedSet[tuple[int, Id]]


class DeadlineCalendar(Generic[Id]):
    """Deadlines by id, due in order of `(deadline, id)`."""

    __slots__ = ("_far", "_far_numbers", "_horizon", "_near")

    def __init__(self) -> None:
        #: Number of the newest bucket that has begun.
        self._horizon = 0
        #: Buckets that have not begun: number -> id -> deadline, or in order where they are large. None is empty.
        self._far: dict[int, dict[Id, int] | Sorted[Id]] = {}
        #: The numbers in `_far`.
        self._far_numbers: SortedSet[int] = SortedSet()
        #: Those of the buckets that have begun.
        self._near: Sorted[Id] = SortedSet()

    def __len__(self) -> int:
        return len(self._near) + sum(map(len, self._far.values()))

    def set(self, id: Id, deadline_ms: int) -> None:
        """Note the deadline of one that has none."""
        number = deadline_ms >> BUCKET_BITS
        if number <= self._horizon:
            self._near.add((deadline_ms, id))
            return
        bucket = self._far.get(number)
        if bucket is None:
            self._far[number] = {id: deadline_ms}
            self._far_numbers.add(number)
        elif isinstance(bucket, dict):
            bucket[id] = deadline_ms
            if len(bucket) > UNSORTED_MAX:
                self._far[number] = _in_order(bucket)
        else:
            bucket.add((deadline_ms, id))

    def clear(self, id: Id, deadline_ms: int) -> None:
        """Forget a deadline, which is `deadline_ms`; it may have been popped already."""
        number = deadline_ms >> BUCKET_BITS
        if number <= self._horizon:
            self._near.discard((deadline_ms, id))
            return
        bucket = self._far[number]
        if isinstance(bucket, dict):
            del bucket[id]
        else:
            bucket.remove((deadline_ms, id))
        if not bucket:
            del self._far[number]
            self._far_numbers.remove(number)

    def pop_due(self, now_ms: int) -> Id | None:
        """Take off the one that is due first by `now_ms`; None where none is."""
        if not self._near and now_ms >> BUCKET_BITS > self._horizon:
            self.begin(now_ms)
        first = self._near.first()
        if first is None or first[0] > now_ms:
            return None
        self._near.pop_first()
        return first[1]

    def next_due_ms(self) -> int | None:
        """A time before which nothing is due: the first deadline, or the beginning of its bucket where that
        has not begun. None where there is no deadline."""
        first = self._near.first()
        if first is not None:
            return first[0]
        number = self._far_numbers.first()
        return None if number is None else number << BUCKET_BITS

    def begin(self, now_ms: int) -> None:
        """Cluster time is `now_ms`, and what has begun is used up: the next bucket begins, if it is its time."""
        horizon = now_ms >> BUCKET_BITS
        number = self._far_numbers.first()
        if number is not None and number <= horizon:
            self._far_numbers.pop_first()
            bucket = self._far.pop(number)
            self._near = _in_order(bucket) if isinstance(bucket, dict) else bucket
            horizon = number
        self._horizon = horizon


def _in_order(bucket: dict[Id, int]) -> Sorted[Id]:
    return SortedSet(sorted((deadline_ms, id) for id, deadline_ms in bucket.items()))
