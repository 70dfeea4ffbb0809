"""Commands that go through a whole queue in bounded steps: redrive, purge, delete.

The rule: one entry does as much as it may and says how far it came, and the route proposes the next with that. Only
messages with an id below `before_id` are meant, which the first entry fixed: what is put in while a sweep is under
way stays. Nothing is remembered between two entries, so a sweep that nobody goes on with is simply not finished.
"""

from heapq import heappop
from typing import Any

import msgspec

from raft.state_machine import ApplyContext
from services.queue.replicated.commands import Delete, Purge, Redrive
from services.queue.replicated.limits import LOOKED_AT_PER_ENTRY_MAX, SWEEP_PER_ENTRY_MAX
from services.queue.replicated.messages import DEAD, DELAYED, IN_FLIGHT, READY, Message
from services.queue.replicated.state import Queue, QueueCounters, QueueSettings
from services.queue.replicated.store import QueueStore

Answer = dict[str, Any]

#: So many messages that are only looked at cost as much as one thing of a turn's work.
LOOKED_AT_PER_WORK = 8

ALL_STATES = (READY, DELAYED, IN_FLIGHT, DEAD)


def redrive(store: QueueStore, context: ApplyContext, command: Redrive) -> Answer:
    """Dead letters go to the back as if they were new, by rising id. `more`: some are left for the next entry."""
    queue = store.queues.get(command.queue)
    before_id = command.before_id or store.next_id
    if queue is None:
        return {"ok": True, "moved": 0, "more": False, "before_id": before_id}
    ttl_ms = queue.settings.message_ttl_ms
    moved = 0
    while queue.dead and queue.dead[0] < before_id and moved < SWEEP_PER_ENTRY_MAX:
        message_id = heappop(queue.dead)
        dead = store.messages.get(message_id)
        assert dead is not None, message_id
        expires_ms = context.time_ms + ttl_ms if ttl_ms else 0
        fresh = msgspec.structs.replace(dead, expires_ms=expires_ms, state=READY, receipt=0, deliveries=0)
        store.move(queue, message_id, dead, fresh)
        moved += 1
    context.spend(moved)
    if moved:
        store.tell_ready(context, queue, moved)
    more = bool(queue.dead) and queue.dead[0] < before_id
    return {"ok": True, "moved": moved, "more": more, "before_id": before_id}


def purge(store: QueueStore, context: ApplyContext, command: Purge) -> Answer:
    """Drop messages in the states that are named."""
    queue = store.queues.get(command.queue)
    before_id = command.before_id or store.next_id
    if queue is None:
        return {"ok": True, "purged": 0, "more": False, "before_id": before_id, "after_id": 0}
    answer = _drop(store, context, queue, frozenset(command.states), before_id, command.after_id)
    queue.counters.purged += answer["purged"]
    return answer


def delete(store: QueueStore, context: ApplyContext, command: Delete) -> Answer:
    """Drop everything, then the queue. What is with consumers is looked at by the first entry only: a delivery while
    the queue is being deleted does not stop that. Messages that were put in meanwhile are a new queue's."""
    queue = store.queues.get(command.queue)
    before_id = command.before_id or store.next_id
    if queue is None:
        return {"ok": True, "deleted": False, "purged": 0, "more": False, "before_id": before_id, "after_id": 0}
    if queue.in_flight and not command.force and not command.before_id:
        return {"ok": False, "reason": "in_flight", "in_flight": len(queue.in_flight)}
    answer = _drop(store, context, queue, frozenset(ALL_STATES), before_id, command.after_id)
    if not answer["more"]:
        _end(store, context, queue)
    return {**answer, "deleted": True}


def _end(store: QueueStore, context: ApplyContext, queue: Queue) -> None:
    if not queue.bytes:
        store.forget(queue)
        return
    was_paused = queue.settings.paused
    queue.settings, queue.counters = QueueSettings(), QueueCounters(enqueued=len(queue))
    store.moved[queue] = None
    if was_paused and queue.ready:
        store.tell_ready(context, queue, queue.ready)


def _drop(
    store: QueueStore, context: ApplyContext, queue: Queue, states: frozenset[int], before_id: int, after_id: int
) -> Answer:
    """One step: dead letters off their heap, the others by a walk over the table of all messages. `after_id` is how
    far that walk came."""
    dropped = 0
    if DEAD in states:
        while queue.dead and queue.dead[0] < before_id and dropped < SWEEP_PER_ENTRY_MAX:
            store.drop_oldest_dead(queue)
            dropped += 1
    left = _count(queue, states)
    more = False
    found: list[tuple[int, Message]] = []
    looked_at = 0
    for looked_at, (message_id, message) in enumerate(store.messages.following(after_id)):
        if message_id >= before_id or len(found) == left:
            break
        if looked_at >= LOOKED_AT_PER_ENTRY_MAX or dropped + len(found) >= SWEEP_PER_ENTRY_MAX:
            more = True
            break
        after_id = message_id
        if message.state in states and message.state != DEAD and message.queue == queue.name:
            found.append((message_id, message))
    for message_id, message in found:
        store.remove(queue, message_id, message)
    context.spend(dropped + len(found) + looked_at // LOOKED_AT_PER_WORK)
    return {
        "ok": True,
        "purged": dropped + len(found),
        "more": more or (DEAD in states and bool(queue.dead) and queue.dead[0] < before_id),
        "before_id": before_id,
        "after_id": after_id,
    }


def _count(queue: Queue, states: frozenset[int]) -> int:
    """Messages of the queue in these states, dead letters aside."""
    sizes = {READY: queue.ready, DELAYED: len(queue.delayed), IN_FLIGHT: len(queue.in_flight)}
    return sum(size for state, size in sizes.items() if state in states)
