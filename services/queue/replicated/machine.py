"""The replicated queues: what each command does.

The rule: a handler checks, then changes; a refused command changes nothing. Everything is a pure function of the log:
time is the entry's cluster time, and what fell due by then happens before the command.

Waiting consumers are not in here: each node wakes its own by the events under `queue:<name>`, whose body is the
number of messages that became ready, and lets them ask again. Until then they are told `{"waiting": True}`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from raft.state_machine import ApplyContext
from services.queue.replicated import aging, commands, snapshots, sweeps
from services.queue.replicated.limits import DELIVERY_BYTES_MAX, DUE_PER_ENTRY_MAX, LIMITS
from services.queue.replicated.messages import IN_FLIGHT, Message
from services.queue.replicated.room import Room, too_many_in_flight
from services.queue.replicated.state import Queue
from services.queue.replicated.store import QueueStore
from services.replicated.limits import Limits

Answer = dict[str, Any]


class QueueMachine:
    """All queues of the group. Answers are as the HTTP contract has them, except that `payload` and `item` are
    JSON text as bytes and that deliveries always come as a list under `messages`."""

    COMMANDS: tuple[type, ...] = (
        commands.Enqueue, commands.EnqueueBatch, commands.Dequeue, commands.Pop, commands.Ack, commands.AckBatch,
        commands.Nack, commands.GiveBack, commands.Extend, commands.Reject, commands.Configure, commands.Redrive,
        commands.Purge, commands.Delete,
    )  # fmt: skip

    def __init__(self) -> None:
        self.limits = Limits(LIMITS)
        self._limit = self.limits.in_force
        self._use(QueueStore())
        self._handlers: dict[type, Callable[[ApplyContext, Any], Answer]] = {
            commands.Enqueue: self._enqueue,
            commands.EnqueueBatch: self._enqueue_batch,
            commands.Dequeue: self._dequeue,
            commands.Pop: self._pop,
            commands.Ack: self._ack,
            commands.AckBatch: self._ack_batch,
            commands.Nack: self._nack,
            commands.GiveBack: self._give_back,
            commands.Extend: self._extend,
            commands.Reject: self._reject,
            commands.Configure: self._configure,
            commands.Redrive: self._redrive,
            commands.Purge: self._purge,
            commands.Delete: self._delete,
        }

    def apply(self, context: ApplyContext, command: Any) -> Answer:
        """Carry out one committed command; what fell due by then happens first."""
        self.advance(context)
        answer = self._handlers[type(command)](context, command)
        if self.store.moved:
            aging.reckon(self.store)
        return answer

    def kept(self, answer: Answer) -> Answer:
        """Deliveries without their payloads, which the messages hold as long as these deliveries stand."""
        if "messages" not in answer:
            return answer
        return {"messages": [{**message, "payload": b""} for message in answer["messages"]]}

    def repeat(self, context: ApplyContext, command: Any, kept: Answer) -> Answer:
        """An earlier answer is given again, with those of its deliveries that stand: the others have been
        acknowledged, or are somebody else's by now."""
        if "messages" not in kept:
            return kept
        standing = []
        for delivery in kept["messages"]:
            message = self.store.messages.get(int(delivery["msg_id"]))
            if message is not None and _not_current(message, delivery["receipt"]) is None:
                standing.append({**delivery, "payload": message.payload})
        return {"messages": standing}

    def advance(self, context: ApplyContext, command: object = None) -> None:
        """Let cluster time reach `context.time_ms`. At most `DUE_PER_ENTRY_MAX` deadlines are handled in one
        entry, so that a million in one second do not hold up the node; `next_due_ms` is then in the past."""
        store = self.store
        now_ms = store.time_ms = context.time_ms
        left = store.old_left = DUE_PER_ENTRY_MAX
        while left and (message_id := store.calendar.pop_due(now_ms)) is not None:
            store.on_due(context, message_id)
            left -= 1
        context.spend(DUE_PER_ENTRY_MAX - left)
        if store.queues_due:
            left -= aging.advance(store, left)
        if store.dead_bytes:
            aging.drop_dead_of_all(store, self._room.dead_bytes_max, left)
        if store.moved:
            aging.reckon(store)
        if now_ms >= store.forget_at_ms:
            store.forget_idle()

    def next_due_ms(self) -> int | None:
        """A cluster time before which `advance` has nothing to do: exact within the current second, else up to
        a second early."""
        store = self.store
        if store.dead_bytes > self._room.dead_bytes_max:
            return store.time_ms
        messages_ms = store.calendar.next_due_ms()
        queues_ms = store.queue_calendar.next_due_ms() if store.queues_due else None
        if messages_ms is None or queues_ms is None:
            return queues_ms if messages_ms is None else messages_ms
        return min(messages_ms, queues_ms)

    def used(self) -> dict[str, int]:
        """How much of the limits is taken."""
        store = self.store
        return {"queues_max": len(store.queues), "bytes_max": store.bytes, "dead_bytes_max": store.dead_bytes}

    def snapshot(self) -> Iterator[list[Any]]:
        """A point-in-time copy, made before this returns; `snapshots` describes the records."""
        return snapshots.records_of(self.store)

    def restore(self, records: Iterable[list[Any]]) -> None:
        """Replace the whole state by what `snapshot` gave."""
        store = QueueStore()
        snapshots.read_into(store, records)
        self._use(store)

    def _use(self, store: QueueStore) -> None:
        self.store = store
        self._room = Room(store, self._limit)

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """Never give the next `count` message ids and receipts, nor any below `floor`: after a restore, clients may
        hold them already."""
        store = self.store
        store.next_id, store.next_receipt = max(store.next_id + count, floor), max(store.next_receipt + count, floor)

    # Putting in

    def _enqueue(self, context: ApplyContext, command: commands.Enqueue) -> Answer:
        refusal = self._room.refusal_of_one(command.queue, len(command.payload))
        if refusal is not None:
            return refusal
        queue = self.store.queue(command.queue)
        message_id = self.store.add(
            context, queue, command.payload, command.priority, command.delay_ms, command.ttl_ms
        )
        return {"ok": True, "msg_id": str(message_id)}

    def _enqueue_batch(self, context: ApplyContext, command: commands.EnqueueBatch) -> Answer:
        wanted: dict[str, tuple[int, int]] = {}
        for name, payload, *_ in command.messages:
            count, size = wanted.get(name, (0, 0))
            wanted[name] = (count + 1, size + len(payload))
        refusal = self._room.refusal(wanted)
        if refusal is not None:
            return refusal
        ids = [
            self.store.add(context, self.store.queue(name), payload, priority, delay_ms, ttl_ms)
            for name, payload, priority, delay_ms, ttl_ms in command.messages
        ]
        context.spend(len(ids))
        return {"ok": True, "msg_ids": [str(message_id) for message_id in ids]}

    # Taking out

    def _dequeue(self, context: ApplyContext, command: commands.Dequeue) -> Answer:
        queue = self.store.queues.get(command.queue)
        if queue is None or not queue.ready or queue.settings.paused:
            return {"waiting": True} if command.waits else {"messages": []}
        room = self._room.for_deliveries(queue)
        if room <= 0:
            return too_many_in_flight(queue)
        due_ms = context.time_ms + (command.visibility_ms or queue.settings.visibility_ms)
        messages: list[Answer] = []
        size = 0
        for _ in range(min(command.max, room)):
            taken = self.store.take(queue)
            if taken is None:
                break
            message_id, message = taken
            messages.append(self._deliver(queue, message_id, message, due_ms))
            size += len(message.payload)
            if size >= DELIVERY_BYTES_MAX:
                break
        context.spend(len(messages))
        if not messages and command.waits:
            return {"waiting": True}
        return {"messages": messages}

    def _deliver(self, queue: Queue, message_id: int, message: Message, due_ms: int) -> Answer:
        receipt = self.store.next_receipt
        self.store.next_receipt = receipt + 1
        delivered = message.moved(IN_FLIGHT, due_ms, receipt, message.deliveries + 1)
        self.store.move(queue, message_id, message, delivered)
        queue.counters.delivered += 1
        if delivered.deliveries > 1:
            queue.counters.redelivered += 1
        return {
            "msg_id": str(message_id),
            "payload": message.payload,
            "receipt": str(receipt),
            "delivery": delivered.deliveries,
            "queue": queue.name,
        }

    def _pop(self, context: ApplyContext, command: commands.Pop) -> Answer:
        queue = self.store.queues.get(command.queue)
        taken = None
        if queue is not None and not queue.settings.paused:
            taken = self.store.take(queue)
        if queue is None or taken is None:
            return {"waiting": True} if command.waits else {"ok": False, "reason": "empty"}
        message_id, message = taken
        self.store.drop(queue, message_id, message)
        queue.counters.delivered += 1
        queue.counters.acknowledged += 1
        if message.deliveries:
            queue.counters.redelivered += 1
        return {
            "ok": True,
            "item": message.payload,
            "msg_id": str(message_id),
            "delivery": message.deliveries + 1,
            "queue": queue.name,
        }

    # Ending a delivery

    def _ack(self, context: ApplyContext, command: commands.Ack) -> Answer:
        return self._acknowledge(command.msg_id, command.receipt)

    def _ack_batch(self, context: ApplyContext, command: commands.AckBatch) -> Answer:
        results = []
        reason = None
        context.spend(len(command.messages))
        for message_id, receipt in command.messages:
            result = self._acknowledge(message_id, receipt)
            reason = reason or result.get("reason")
            results.append({"msg_id": str(message_id), **result})
        if reason is None:
            return {"ok": True, "results": results}
        return {"ok": False, "reason": reason, "results": results}

    def _acknowledge(self, message_id: int, receipt: str | None) -> Answer:
        message = self.store.messages.get(message_id)
        if message is None:
            return _not_in_flight()
        refusal = _not_current(message, receipt)
        if refusal is not None:
            return refusal
        queue = self.store.queues[message.queue]
        self.store.drop(queue, message_id, message)
        queue.counters.acknowledged += 1
        return {"ok": True}

    def _nack(self, context: ApplyContext, command: commands.Nack) -> Answer:
        message = self.store.messages.get(command.msg_id)
        if message is None:
            return _not_in_flight()
        refusal = _not_current(message, command.receipt)
        if refusal is not None:
            return refusal
        state = self.store.give_back(
            context, self.store.queues[message.queue], command.msg_id, message, command.delay_ms, command.unseen
        )
        return {"ok": True, "state": state}

    def _give_back(self, context: ApplyContext, command: commands.GiveBack) -> Answer:
        for message_id, receipt in command.deliveries:
            self._nack(context, commands.Nack(message_id, receipt, unseen=True))
        return {"ok": True}

    def _extend(self, context: ApplyContext, command: commands.Extend) -> Answer:
        message = self.store.messages.get(command.msg_id)
        if message is None:
            return _not_in_flight()
        refusal = _not_current(message, command.receipt)
        if refusal is not None:
            return refusal
        queue = self.store.queues[message.queue]
        visibility_ms = command.visibility_ms or queue.settings.visibility_ms
        extended = message.moved(
            IN_FLIGHT, context.time_ms + visibility_ms, message.receipt, message.deliveries
        )
        self.store.move(queue, command.msg_id, message, extended)
        return {"ok": True, "expires_in_s": visibility_ms / 1000}

    def _reject(self, context: ApplyContext, command: commands.Reject) -> Answer:
        message = self.store.messages.get(command.msg_id)
        if message is None:
            return _not_in_flight()
        refusal = _not_current(message, command.receipt)
        if refusal is not None:
            return refusal
        self.store.bury(self.store.queues[message.queue], command.msg_id, message)
        return {"ok": True}

    # Running a queue

    def _configure(self, context: ApplyContext, command: commands.Configure) -> Answer:
        if command.queue not in self.store.queues and len(self.store.queues) >= self._limit["queues_max"]:
            return self._room.too_many_queues()
        queue = self.store.queue(command.queue)
        was_paused = queue.settings.paused
        changes = {
            field: value
            for field in queue.settings.__struct_fields__
            if (value := getattr(command, field)) is not None
        }
        queue.settings = msgspec.structs.replace(queue.settings, **changes)
        self.store.moved[queue] = None
        if was_paused and queue.ready:
            self.store.tell_ready(context, queue, queue.ready)
        return {"ok": True}

    def _redrive(self, context: ApplyContext, command: commands.Redrive) -> Answer:
        return sweeps.redrive(self.store, context, command)

    def _purge(self, context: ApplyContext, command: commands.Purge) -> Answer:
        return sweeps.purge(self.store, context, command)

    def _delete(self, context: ApplyContext, command: commands.Delete) -> Answer:
        return sweeps.delete(self.store, context, command)


def _not_current(message: Message, receipt: str | None) -> Answer | None:
    """The refusal where there is no such delivery; None where the message is in flight and `receipt`, if
    any, names its current delivery."""
    if message.state == IN_FLIGHT:
        if receipt is None or receipt == str(message.receipt):
            return None
        return {"ok": False, "reason": "stale_receipt"}
    if message.receipt and receipt is not None:
        return {"ok": False, "reason": "stale_receipt"}
    return _not_in_flight()


def _not_in_flight() -> Answer:
    return {"ok": False, "reason": "not_in_flight"}
