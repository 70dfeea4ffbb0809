"""When lines are to be swept away after their expiry: a queue of time buckets.

The rule of this file: a key stands in exactly one bucket and leaves it when its line is rewritten or removed,
so nothing stale piles up however often keys are rewritten (a heap with lazy deletion grows, and cleaning it
stops the node for as long as it takes). A line is *expired* by its exact `expires_at`, which the machine
checks whenever it touches the line; a bucket only says when the room is taken back, at most 1/32 of the time
to live later. With that precision there are never more than some 2,000 buckets.
"""

import heapq

#: Finest bucket: 2**4 ms.
_WIDTH_BITS_MIN = 4
#: A bucket is at most 2**-5 of the time to live wide.
_PRECISION_BITS = 6


def sweep_time_ms(now_ms: int, expires_at: int) -> int:
    """The bucket (its due time, cluster milliseconds) for a line written now that expires at `expires_at`."""
    bits = max(_WIDTH_BITS_MIN, (expires_at - now_ms).bit_length() - _PRECISION_BITS)
    return -(-expires_at >> bits) << bits


class Deadlines:
    """Keys by the time at which they are to be swept."""

    def __init__(self) -> None:
        #: Due time of a bucket -> its keys, in the order in which they came (a dict as an ordered set).
        self._buckets: dict[int, dict[str, None]] = {}
        #: The due times in `_buckets`, each once; a bucket that emptied stays until its time comes.
        self._times: list[int] = []

    def add(self, key: str, sweep_at: int) -> None:
        bucket = self._buckets.get(sweep_at)
        if bucket is None:
            bucket = self._buckets[sweep_at] = {}
            heapq.heappush(self._times, sweep_at)
        bucket[key] = None

    def remove(self, key: str, sweep_at: int) -> None:
        """Forget `key`; nothing happens where `pop_due` has just returned it."""
        bucket = self._buckets.get(sweep_at)
        if bucket is not None:
            bucket.pop(key, None)

    def next_due_ms(self) -> int | None:
        """Due time of the earliest bucket with a key in it; None where there is none."""
        times = self._times
        while times:
            if self._buckets[times[0]]:
                return times[0]
            del self._buckets[heapq.heappop(times)]
        return None

    def pop_due(self, now_ms: int) -> str | None:
        """Remove and return a key of the earliest bucket; None where no bucket is due."""
        if not self._times or self._times[0] > now_ms:
            return None
        due = self.next_due_ms()
        if due is None or due > now_ms:
            return None
        # The newest of the bucket: taking from the other end walks over all that was taken before.
        return self._buckets[due].popitem()[0]
