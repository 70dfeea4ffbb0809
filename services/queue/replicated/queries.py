"""What can be asked of the queues without changing them. Plain functions of the state; `now_ms` is cluster time.

The rule: nothing here looks at more than it answers by a constant factor, except that a page of the list sorts the
names of all queues, of which there are the limit `queues_max` at most.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import islice
from typing import Any

import msgspec

from services.queue.replicated.limits import DELIVERY_BYTES_MAX
from services.queue.replicated.messages import Message, State
from services.queue.replicated.state import Queue, QueueCounters, QueueSettings, rising
from services.queue.replicated.store import QueueStore

#: Ids that one peek looks at: those of messages that are gone from the middle of an order are among them.
LOOKED_AT_PER_PEEK_MAX = 10_000

#: The names of the states in the HTTP contract.
STATES = tuple(state.name.lower() for state in State)


def describe(store: QueueStore, name: str) -> dict[str, Any]:
    """How a queue stands: counts by state, bytes, counters, settings. A queue that nobody ever used is empty."""
    queue = store.queues.get(name)
    return {"exists": queue is not None, **_described(Queue(name) if queue is None else queue)}


def page(store: QueueStore, prefix: str, after: str, limit: int) -> dict[str, Any]:
    """Queues by name, those after `after` only; `next` is the `after` of the next page, null on the last."""
    names = sorted(name for name in store.queues if name.startswith(prefix) and name > after)
    queues = [_described(store.queues[name]) for name in names[:limit]]
    return {"queues": queues, "next": names[limit - 1] if len(names) > limit else None}


def peek(store: QueueStore, name: str, state: str, limit: int, now_ms: int) -> list[dict[str, Any]]:
    """The first messages of a queue in one state, without delivering them: ready ones in order of delivery, the
    others by id. `payload` is JSON text as bytes."""
    queue = store.queues.get(name)
    if queue is None:
        return []
    messages = []
    size = 0
    for message_id, message in islice(_in_state(store, queue, state, limit), limit):
        messages.append(_peeked(message_id, message, queue.expires_ms(message), now_ms))
        size += len(message.payload)
        if size >= DELIVERY_BYTES_MAX:
            break
    return messages


def has_ready(store: QueueStore, name: str) -> bool:
    """Whether a consumer of this queue would be given something."""
    queue = store.queues.get(name)
    return queue is not None and queue.ready > 0 and not queue.settings.paused


def counts(store: QueueStore, count: Callable[[Queue], int]) -> list[tuple[tuple[str, ...], int]]:
    """`count` of every queue, as rows of a metric with the label `queue`."""
    return [((queue.name,), count(queue)) for queue in store.queues.values()]


def _in_state(store: QueueStore, queue: Queue, state: str, limit: int) -> Iterator[tuple[int, Message]]:
    if state == "ready":
        ids: Iterable[int] = (message_id for lane in queue.lanes for message_id in lane.ids())
    elif state == "dead":
        ids = rising(queue.dead)
    elif state == "delayed":
        ids = queue.delayed
    else:
        ids = nsmallest(limit, queue.in_flight)
    for message_id in islice(ids, LOOKED_AT_PER_PEEK_MAX):
        message = store.messages.get(message_id)
        if message is not None:
            yield message_id, message


def _peeked(message_id: int, message: Message, expires_ms: int, now_ms: int) -> dict[str, Any]:
    return {
        "msg_id": str(message_id),
        "payload": message.payload,
        "priority": message.priority,
        "deliveries": message.deliveries,
        "age_s": max(0, now_ms - message.enqueued_ms) / 1000,
        "due_in_s": max(0, message.due_ms - now_ms) / 1000 if message.due_ms else None,
        "expires_in_s": max(0, expires_ms - now_ms) / 1000 if expires_ms else None,
    }


def _described(queue: Queue) -> dict[str, Any]:
    counters: QueueCounters = queue.counters
    return {
        "queue": queue.name,
        "ready": queue.ready,
        "in_flight": len(queue.in_flight),
        "delayed": len(queue.delayed),
        "dead": len(queue.dead),
        "bytes": queue.bytes,
        "dead_bytes": queue.dead_bytes,
        **{f"{name}_total": value for name, value in msgspec.structs.asdict(counters).items()},
        "settings": _settings(queue.settings),
    }


def _settings(settings: QueueSettings) -> dict[str, Any]:
    """In the words and units of `/queue/config`."""
    return {
        "visibility": settings.visibility_ms / 1000,
        "max_deliveries": settings.max_deliveries,
        "max_messages": settings.max_messages,
        "max_bytes": settings.max_bytes,
        "message_ttl": settings.message_ttl_ms / 1000 or None,
        "paused": settings.paused,
        "max_dead": settings.max_dead,
        "max_dead_bytes": settings.max_dead_bytes,
        "dead_ttl": settings.dead_ttl_ms / 1000 or None,
    }
