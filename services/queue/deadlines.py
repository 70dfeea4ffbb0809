"""When which message is due: the ends of delays, visibilities and times to live.

The rule: at most one deadline a message, and forgetting one costs as little as setting it. Most deadlines never
come (a message is acknowledged long before its visibility ends), so a heap alone would fill with dead entries
and stall the node when it is cleaned. Deadlines beyond the current second therefore lie in buckets, dicts of
about a second each, where a deletion is exact; a bucket's content moves into a small heap when its second
begins. Entries of that heap that were forgotten are skipped when they come up, within a second.

Nothing in here is replicated: it follows from the messages and the cluster time, and a restore builds it anew.
"""

from heapq import heapify, heappop, heappush

#: A bucket spans 1,024 ms.
BUCKET_BITS = 10

#: Forgotten bucket numbers beyond the live ones before their heap is built anew.
STALE_NUMBERS_MAX = 64


class DeadlineCalendar:
    """Deadlines by message id, due in order of `(deadline, id)`."""

    __slots__ = ("_far", "_far_numbers", "_horizon", "_near", "_near_due")

    def __init__(self) -> None:
        #: Number of the newest bucket that has begun.
        self._horizon = 0
        #: Buckets that have not begun: number -> id -> deadline. None is empty.
        self._far: dict[int, dict[int, int]] = {}
        #: Heap of the numbers in `_far`, forgotten and double ones among them.
        self._far_numbers: list[int] = []
        #: Heap of `(deadline, id)` of the buckets that have begun, forgotten ones among them.
        self._near: list[tuple[int, int]] = []
        #: The deadlines in `_near` that count.
        self._near_due: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._near_due) + sum(map(len, self._far.values()))

    def set(self, message_id: int, deadline_ms: int) -> None:
        """Note the deadline of a message that has none."""
        number = deadline_ms >> BUCKET_BITS
        if number <= self._horizon:
            self._near_due[message_id] = deadline_ms
            heappush(self._near, (deadline_ms, message_id))
            return
        bucket = self._far.get(number)
        if bucket is not None:
            bucket[message_id] = deadline_ms
            return
        self._far[number] = {message_id: deadline_ms}
        heappush(self._far_numbers, number)
        if len(self._far_numbers) > 2 * len(self._far) + STALE_NUMBERS_MAX:
            self._far_numbers = sorted(self._far)

    def clear(self, message_id: int, deadline_ms: int) -> None:
        """Forget the deadline of a message, which is `deadline_ms`; it may have been popped already."""
        number = deadline_ms >> BUCKET_BITS
        if number <= self._horizon:
            self._near_due.pop(message_id, None)
            return
        bucket = self._far[number]
        del bucket[message_id]
        if not bucket:
            del self._far[number]

    def pop_due(self, now_ms: int) -> int | None:
        """Take off the message that is due first by `now_ms`; None where none is."""
        if now_ms >> BUCKET_BITS > self._horizon:
            self.begin(now_ms)
        near = self._near
        while near and near[0][0] <= now_ms:
            deadline_ms, message_id = heappop(near)
            if self._near_due.get(message_id) == deadline_ms:
                del self._near_due[message_id]
                return message_id
        return None

    def next_due_ms(self) -> int | None:
        """A time before which nothing is due: the first deadline, or the beginning of its bucket where that
        has not begun. None where there is no deadline."""
        near = self._near
        while near and self._near_due.get(near[0][1]) != near[0][0]:
            heappop(near)
        if near:
            return near[0][0]
        numbers = self._far_numbers
        while numbers and numbers[0] not in self._far:
            heappop(numbers)
        return numbers[0] << BUCKET_BITS if numbers else None

    def begin(self, now_ms: int) -> None:
        """Cluster time is `now_ms`: move the buckets that have begun into the heap."""
        horizon = self._horizon = now_ms >> BUCKET_BITS
        numbers = self._far_numbers
        while numbers and numbers[0] <= horizon:
            bucket = self._far.pop(heappop(numbers), None)
            if bucket is not None:
                self._near_due.update(bucket)
                self._near.extend((deadline_ms, message_id) for message_id, deadline_ms in bucket.items())
        heapify(self._near)
