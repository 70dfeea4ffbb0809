"""What the queues hold: messages, queues, deadlines, counters, and the few changes of state there are.

The rule: a message changes only in `add`, `move` and `drop`, which keep the table, its queue, the byte counts and
the calendar in step; everything else in here is made of those three. Pure: time is an argument.
"""

from raft.state_machine import ApplyContext
from services.queue.deadlines import DeadlineCalendar
from services.queue.messages import DEAD, DELAYED, IN_FLIGHT, READY, Message, MessageTable
from services.queue.state import Queue


class QueueStore:
    """The replicated state of the group."""

    def __init__(self) -> None:
        #: By name, in order of creation.
        self.queues: dict[str, Queue] = {}
        #: Every message of every queue.
        self.messages = MessageTable()
        #: Bytes of all messages as `Message.counted_bytes` counts them.
        self.bytes = 0
        #: The next message's id; rises over the life of the group.
        self.next_id = 1
        #: The next delivery's receipt; rises over the life of the group.
        self.next_receipt = 1
        #: Cluster time of the last entry.
        self.time_ms = 0
        self.calendar = DeadlineCalendar()

    def add(
        self, context: ApplyContext, queue: Queue, payload: bytes, priority: int, delay_ms: int, ttl_ms: int
    ) -> int:
        """Put a new message in; gives its id."""
        now_ms = context.time_ms
        message_id = self.next_id
        self.next_id = message_id + 1
        ttl_ms = ttl_ms or queue.settings.message_ttl_ms
        message = Message(
            queue.name, payload, priority, now_ms,
            now_ms + ttl_ms if ttl_ms else 0,
            DELAYED if delay_ms else READY,
            now_ms + delay_ms if delay_ms else 0,
            0, 0,
        )  # fmt: skip
        self._enter(queue, message_id, message)
        queue.counters.enqueued += 1
        if not delay_ms:
            self.tell_ready(context, queue, 1)
        return message_id

    def move(self, queue: Queue, message_id: int, old: Message, new: Message) -> None:
        """Replace a message by itself in another state. A ready one's id has been popped by the caller."""
        deadline_ms = old.deadline_ms
        if deadline_ms:
            self.calendar.clear(message_id, deadline_ms)
        queue.leave(message_id, old)
        self.messages.put(message_id, new)
        queue.enter(message_id, new)
        deadline_ms = new.deadline_ms
        if deadline_ms:
            self.calendar.set(message_id, deadline_ms)

    def drop(self, queue: Queue, message_id: int, message: Message) -> None:
        """Forget a message. A ready one's id has been popped by the caller, or is reported to its lane."""
        deadline_ms = message.deadline_ms
        if deadline_ms:
            self.calendar.clear(message_id, deadline_ms)
        queue.leave(message_id, message)
        self.messages.remove(message_id)
        queue.bytes -= message.counted_bytes
        self.bytes -= message.counted_bytes

    def take(self, queue: Queue, now_ms: int) -> tuple[int, Message] | None:
        """Pop the message that is next in order off its lane; the caller moves or drops it."""
        if not queue.ready:
            return None
        for lane in queue.lanes:
            while (message_id := lane.pop()) is not None:
                message = self.messages.get(message_id)
                if message is None:
                    continue
                assert message.state == READY, (message_id, message.state)
                if not message.expires_ms or message.expires_ms > now_ms:
                    return message_id, message
                # Expired, but the calendar had more to do in this entry than it may.
                self.drop(queue, message_id, message)
                queue.counters.expired += 1
        return None

    def give_back(
        self, context: ApplyContext, queue: Queue, message_id: int, message: Message, delay_ms: int, unseen: bool
    ) -> str:
        """A delivery ended without an ack; gives what became of the message. `unseen`: it reached nobody, and
        does not count."""
        settings = queue.settings
        deliveries = message.deliveries - unseen
        if message.expires_ms and message.expires_ms <= context.time_ms:
            self.drop(queue, message_id, message)
            queue.counters.expired += 1
            return "expired"
        if settings.max_deliveries and deliveries >= settings.max_deliveries:
            self.bury(queue, message_id, message)
            return "dead"
        if delay_ms:
            due_ms = context.time_ms + delay_ms
            self.move(queue, message_id, message, message.moved(DELAYED, due_ms, message.receipt, deliveries))
            return "delayed"
        self.move(queue, message_id, message, message.moved(READY, 0, message.receipt, deliveries))
        self.tell_ready(context, queue, 1)
        return "ready"

    def bury(self, queue: Queue, message_id: int, message: Message) -> None:
        """Move a message to the dead letters."""
        self.move(queue, message_id, message, message.moved(DEAD, 0, message.receipt, message.deliveries))
        queue.counters.dead_lettered += 1

    def on_due(self, context: ApplyContext, message_id: int) -> None:
        """The calendar popped a message: its visibility or delay ended, or its time to live."""
        message = self.messages.get(message_id)
        assert message is not None, message_id
        queue = self.queues[message.queue]
        if message.state == IN_FLIGHT:
            self.give_back(context, queue, message_id, message, 0, False)
        elif message.state == DELAYED and message.due_ms <= context.time_ms and (
            not message.expires_ms or message.expires_ms > context.time_ms
        ):
            self.move(queue, message_id, message, message.moved(READY, 0, message.receipt, message.deliveries))
            self.tell_ready(context, queue, 1)
        else:
            self.drop(queue, message_id, message)
            queue.counters.expired += 1
            if message.state == READY:
                queue.lane(message.priority).note_removed(message, self.messages.__contains__)

    def tell_ready(self, context: ApplyContext, queue: Queue, count: int) -> None:
        """Let the consumers that wait at this node hear of `count` more ready messages."""
        if not queue.settings.paused:
            context.events.append((queue.topic, count))

    def reinstate(self, message_id: int, message: Message) -> None:
        """Put a message back where a snapshot had it."""
        self._enter(self.queues[message.queue], message_id, message)

    def _enter(self, queue: Queue, message_id: int, message: Message) -> None:
        self.messages.put(message_id, message)
        queue.enter(message_id, message)
        queue.bytes += message.counted_bytes
        self.bytes += message.counted_bytes
        deadline_ms = message.deadline_ms
        if deadline_ms:
            self.calendar.set(message_id, deadline_ms)
