"""What leaves a queue by its age or for want of room: messages past the queue's `message_ttl`, and dead letters.

The rule: both are decided at the head of an order that follows the age of messages, so nothing is searched, and a
setting that is changed holds at once for what is there already, however much that is.

- A ready message that brought no time to live of its own is dropped once it is past `message_ttl` and at the head of
  its order; further back it stays until it gets there, and nobody is given it (as in RabbitMQ). A delayed one is
  looked at when its delay ends, one in flight when it comes back.
- Dead letters lie by rising id, which is the order in which they were put in. The oldest go, by `dead_ttl` or because
  there are more than the queue or the group may have.

`Queue.due_ms` is exact after every entry: the store notes the queues in which something moved (`QueueStore.moved`).
"""

from collections.abc import Iterator

from services.queue.replicated.messages import Message
from services.queue.replicated.state import Queue
from services.queue.replicated.store import QueueStore

#: Before every cluster time: at once.
AT_ONCE_MS = 1


def advance(store: QueueStore, count_max: int) -> int:
    """Drop what is too old or too much in the queues that are due, at most `count_max` messages; gives how many."""
    dropped = 0
    while dropped < count_max and (name := store.queue_calendar.pop_due(store.time_ms)) is not None:
        queue = store.queues[name]
        store.set_due(queue, 0)
        store.moved[queue] = None
        dropped += _drop_dead(store, queue, count_max - dropped) + _drop_old(store, queue, count_max - dropped)
    return dropped


def drop_dead_of_all(store: QueueStore, bytes_max: int, count_max: int) -> None:
    """Let the dead letters of all queues take `bytes_max` at most: the queue with the most gives its oldest."""
    if store.dead_bytes <= bytes_max or count_max <= 0:
        return
    queue = max(store.queues.values(), key=lambda each: each.dead_bytes)
    while queue.dead and store.dead_bytes > bytes_max and count_max > 0:
        _drop_oldest_dead(store, queue)
        count_max -= 1


def reckon(store: QueueStore) -> None:
    """Note anew when the queues are due in which something moved."""
    for queue in store.moved:
        due_ms = min(_times_due(store, queue), default=0)
        if due_ms != queue.due_ms:
            store.set_due(queue, due_ms)
    store.moved.clear()


def _times_due(store: QueueStore, queue: Queue) -> Iterator[int]:
    if queue.dead:
        if _has_too_many_dead(queue):
            yield AT_ONCE_MS
        if queue.settings.dead_ttl_ms:
            yield queue.expires_ms(_message(store, queue.dead[0]))
    for _, message in _heads(store, queue):
        if not message.expires_ms:
            yield queue.expires_ms(message)


def _heads(store: QueueStore, queue: Queue) -> Iterator[tuple[int, Message]]:
    if queue.settings.message_ttl_ms and queue.ready:
        for lane in queue.lanes:
            for message_id in lane.heads(store.messages.__contains__):
                yield message_id, _message(store, message_id)


def _drop_dead(store: QueueStore, queue: Queue, count_max: int) -> int:
    dropped = 0
    while queue.dead and dropped < count_max:
        if store.is_expired(queue, _message(store, queue.dead[0])):
            store.drop_oldest_dead(queue)
            queue.counters.expired += 1
        elif _has_too_many_dead(queue):
            _drop_oldest_dead(store, queue)
        else:
            break
        dropped += 1
    return dropped


def _drop_old(store: QueueStore, queue: Queue, count_max: int) -> int:
    dropped = 0
    while dropped < count_max and (old := next(_too_old(store, queue), None)) is not None:
        store.remove(queue, *old)
        queue.counters.expired += 1
        dropped += 1
    return dropped


def _too_old(store: QueueStore, queue: Queue) -> Iterator[tuple[int, Message]]:
    for message_id, message in _heads(store, queue):
        if store.is_expired(queue, message):
            yield message_id, message


def _drop_oldest_dead(store: QueueStore, queue: Queue) -> None:
    store.drop_oldest_dead(queue)
    queue.counters.dead_dropped += 1


def _has_too_many_dead(queue: Queue) -> bool:
    return len(queue.dead) > queue.settings.max_dead or queue.dead_bytes > queue.settings.max_dead_bytes


def _message(store: QueueStore, message_id: int) -> Message:
    message = store.messages.get(message_id)
    assert message is not None, message_id
    return message
