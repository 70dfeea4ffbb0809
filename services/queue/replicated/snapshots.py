"""The queues' state as records, and back.

The rule: equal states give equal records, byte for byte, whatever history led there: nothing that is only there for
speed (stale ids, chunk borders, heaps, the calendar) is written. The copy is made before `records_of` returns and
shares everything that is immutable; the records are made one by one while the machine goes on.

| record | content |
|---|---|
| `["group", next_id, next_receipt, time_ms]` | first, once |
| `["queue", name, [settings...], [counters...], empty_since_ms]` | every queue, in order of creation |
| `["messages", [[id, fields of Message...]...]]` | every message, by rising id |
| `["order", queue, priority, [id...]]` | ready messages that were never delivered, in order of delivery |

Fields are only ever added at the end of a list. The orders of the messages that came back, the deadlines and all
counts follow from the messages.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from services.queue.replicated import aging
from services.queue.replicated.fifo import Fifo, FrozenFifo
from services.queue.replicated.limits import FORGET_EVERY_MS
from services.queue.replicated.messages import Message, MessageTable
from services.queue.replicated.state import Queue, QueueCounters, QueueSettings
from services.queue.replicated.store import QueueStore

#: Messages in one record, and payload bytes after which a record takes up no more: under a millisecond each.
MESSAGES_PER_RECORD = 256
BYTES_PER_RECORD = 256 << 10

#: Ids in one record of an order.
IDS_PER_RECORD = 1024


def records_of(store: QueueStore) -> Iterator[list[Any]]:
    """Copies the state of `store` now; the iterator given back makes the records of that copy."""
    heads: list[list[Any]] = [["group", store.next_id, store.next_receipt, store.time_ms]]
    orders: list[tuple[str, int, FrozenFifo]] = []
    for queue in store.queues.values():
        settings = list(msgspec.structs.astuple(queue.settings))
        counters = list(msgspec.structs.astuple(queue.counters))
        empty_since_ms = 0 if queue.bytes else queue.empty_since_ms
        heads.append(["queue", queue.name, settings, counters, empty_since_ms])
        orders.extend((queue.name, lane.priority, lane.fresh.copy()) for lane in queue.lanes)
    return _records(heads, store.messages.copy(), orders)


def _records(
    heads: list[list[Any]], messages: MessageTable, orders: list[tuple[str, int, FrozenFifo]]
) -> Iterator[list[Any]]:
    yield from heads
    batch: list[list[Any]] = []
    batch_bytes = 0
    for message_id, message in messages.items():
        batch.append([message_id, *msgspec.structs.astuple(message)])
        batch_bytes += len(message.payload)
        if len(batch) >= MESSAGES_PER_RECORD or batch_bytes >= BYTES_PER_RECORD:
            yield ["messages", batch]
            batch = []
            batch_bytes = 0
    if batch:
        yield ["messages", batch]
    for name, priority, order in orders:
        ids: list[int] = []
        for message_id in order:
            if message_id in messages:
                ids.append(message_id)
                if len(ids) >= IDS_PER_RECORD:
                    yield ["order", name, priority, ids]
                    ids = []
        if ids:
            yield ["order", name, priority, ids]


def read_into(store: QueueStore, records: Iterable[list[Any]]) -> None:
    """Fill an empty `store`. Raises ValueError on a record that no version of this code ever wrote."""
    ordered: set[tuple[str, int]] = set()
    #: Queues of an earlier version, which wrote the queue's time to live into each message, and those times.
    stamped: dict[str, int] = {}
    for record in records:
        match record:
            case ["group", next_id, next_receipt, time_ms, *_]:
                store.next_id, store.next_receipt, store.time_ms = next_id, next_receipt, time_ms
                store.calendar.begin(time_ms)
                store.queue_calendar.begin(time_ms)
                store.forget_at_ms = (time_ms // FORGET_EVERY_MS + 1) * FORGET_EVERY_MS
            case ["queue", name, settings, counters, *added]:
                queue = store.queues[name] = Queue(name, QueueSettings(*settings), QueueCounters(*counters))
                store.moved[queue] = None
                if added:
                    queue.empty_since_ms = added[0]
                else:
                    queue.empty_since_ms = store.time_ms
                    stamped[name] = queue.settings.message_ttl_ms
            case ["messages", batch]:
                for message_id, name, *fields in batch:
                    message = Message(store.queues[name].name, *fields)
                    if message.expires_ms and message.expires_ms == message.enqueued_ms + stamped.get(name, 0):
                        message = msgspec.structs.replace(message, expires_ms=0)
                    store.reinstate(message_id, message)
            case ["order", name, priority, ids]:
                lane = store.queues[name].lane(priority)
                if (name, priority) not in ordered:
                    ordered.add((name, priority))
                    lane.fresh = Fifo()
                for message_id in ids:
                    lane.fresh.append(message_id)
            case _:
                raise ValueError(f"unknown record in a queue snapshot: {record[:1]!r}")
    aging.reckon(store)
