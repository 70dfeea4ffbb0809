"""Whether there is room for what is put in, and what a refusal says.

The rule: a refusal changes nothing, and names what helps. Dead letters have bounds of their own (`aging`) and are no
reason to refuse: a queue whose consumers fail would otherwise take nothing in until somebody cleared it away.
"""

from collections.abc import Mapping
from typing import Any

from services.queue.replicated.limits import MESSAGE_OVERHEAD_BYTES
from services.queue.replicated.state import Queue
from services.queue.replicated.store import QueueStore


class Room:
    """The bounds of the group, and of each queue, over what the store holds."""

    def __init__(self, store: QueueStore, limit: Mapping[str, int]) -> None:
        self._store = store
        #: The group's limits in force.
        self._limit = limit

    @property
    def dead_bytes_max(self) -> int:
        """Dead letters never leave less than half of the room to the living."""
        return min(self._limit["dead_bytes_max"], self._limit["bytes_max"] // 2)

    def refusal(self, wanted: Mapping[str, tuple[int, int]]) -> dict[str, Any] | None:
        """The refusal where the messages do not all fit in; None where they do. `wanted` says how many, and how many
        bytes of payload, by queue."""
        store = self._store
        new = [name for name in wanted if name not in store.queues]
        if new and len(store.queues) + len(new) > self._limit["queues_max"]:
            return self.too_many_queues()
        size = sum(count * MESSAGE_OVERHEAD_BYTES + size for count, size in wanted.values())
        if store.bytes + size > self._limit["bytes_max"]:
            return _quota(
                f"the queues together hold at most {self._limit['bytes_max']} bytes, of which {store.dead_bytes} are "
                "dead letters now; consume or purge some, or raise `bytes_max` with /admin/limits"
            )
        for name, (count, size) in wanted.items():
            queue = store.queues.get(name)
            refusal = None if queue is None else _full(queue, count, size)
            if refusal is not None:
                return refusal
        return None

    def refusal_of_one(self, name: str, size: int) -> dict[str, Any] | None:
        """The same for one message with `size` bytes of payload."""
        queue = self._store.queues.get(name)
        if queue is None or self._store.bytes + MESSAGE_OVERHEAD_BYTES + size > self._limit["bytes_max"]:
            return self.refusal({name: (1, size)})
        return _full(queue, 1, size)

    def too_many_queues(self) -> dict[str, Any]:
        return _quota(
            f"the group holds at most {self._limit['queues_max']} queues; delete one that is not in use with "
            "/queue/delete, or raise `queues_max` with /admin/limits"
        )

    def for_deliveries(self, queue: Queue) -> int:
        """How many more messages of a queue may be with consumers."""
        return self._limit["in_flight_per_queue_max"] - len(queue.in_flight)


def too_many_in_flight(queue: Queue) -> dict[str, Any]:
    return _quota(f"{len(queue.in_flight)} messages of this queue are with consumers; acknowledge some first")


def _full(queue: Queue, count: int, size: int) -> dict[str, Any] | None:
    settings = queue.settings
    if queue.ready + len(queue.in_flight) + len(queue.delayed) + count > settings.max_messages:
        return _quota(
            f"this queue holds at most {settings.max_messages} messages beside its dead letters; consume or purge "
            "some, or raise `max_messages` with /queue/config"
        )
    if queue.bytes - queue.dead_bytes + size + count * MESSAGE_OVERHEAD_BYTES > settings.max_bytes:
        return _quota(
            f"this queue holds at most {settings.max_bytes} bytes beside its dead letters, {MESSAGE_OVERHEAD_BYTES} "
            "and the payload for each message; consume or purge some, or raise `max_bytes` with /queue/config"
        )
    return None


def _quota(detail: str) -> dict[str, Any]:
    return {"ok": False, "reason": "quota", "detail": detail}
