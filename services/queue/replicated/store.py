"""What the queues hold: messages, queues, deadlines, counters, and the few changes of state there are.

The rule: a message changes only in `add`, `move` and `drop`, which keep the table, its queue, the byte counts and
the calendar in step; everything else in here is made of those three. Pure: time is an argument.
"""

from heapq import heappop

from raft.state_machine import ApplyContext
from services.queue.replicated.deadlines import DeadlineCalendar
from services.queue.replicated.limits import FORGET_EVERY_MS, IDLE_MS, MESSAGE_OVERHEAD_BYTES
from services.queue.replicated.messages import DEAD, DELAYED, IN_FLIGHT, READY, Message, MessageTable
from services.queue.replicated.state import Queue, QueueSettings


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
        #: Those of the dead letters among them.
        self.dead_bytes = 0
        #: Cluster time of the last entry.
        self.time_ms = 0
        self.calendar: DeadlineCalendar[int] = DeadlineCalendar()
        #: The same of queues, by name: their `due_ms`; see `aging`.
        self.queue_calendar: DeadlineCalendar[str] = DeadlineCalendar()
        #: How many have one.
        self.queues_due = 0
        #: Queues whose `due_ms` is to be reckoned anew before the entry ends (a dict as an ordered set).
        self.moved: dict[Queue, None] = {}
        #: The next full hour of cluster time: `forget_idle` is due.
        self.forget_at_ms = 0
        #: How many messages that are too old `take` may still drop in this entry.
        self.old_left = 0

    def add(
        self, context: ApplyContext, queue: Queue, payload: bytes, priority: int, delay_ms: int, ttl_ms: int
    ) -> int:
        """Put a new message in; gives its id."""
        now_ms = context.time_ms
        message_id = self.next_id
        self.next_id = message_id + 1
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
        if old.state == DEAD:
            self.dead_bytes -= old.counted_bytes
            self.moved[queue] = None
        elif new.state == DEAD:
            self.dead_bytes += new.counted_bytes
            self.moved[queue] = None
        elif queue.settings.message_ttl_ms:
            self.moved[queue] = None
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
        size = MESSAGE_OVERHEAD_BYTES + len(message.payload)
        queue.bytes -= size
        self.bytes -= size
        if not queue.bytes:
            queue.empty_since_ms = self.time_ms
        if message.state == DEAD:
            self.dead_bytes -= size
            self.moved[queue] = None
        elif queue.settings.message_ttl_ms:
            self.moved[queue] = None

    def remove(self, queue: Queue, message_id: int, message: Message) -> None:
        """Forget a message that may be ready and still in the order; not a dead one."""
        self.drop(queue, message_id, message)
        if message.state == READY:
            queue.lane(message.priority).note_removed(message, self.messages.__contains__)

    def drop_oldest_dead(self, queue: Queue) -> None:
        """Forget the oldest dead letter of a queue that has one."""
        message_id = heappop(queue.dead)
        message = self.messages.get(message_id)
        assert message is not None, message_id
        self.drop(queue, message_id, message)

    def is_expired(self, queue: Queue, message: Message) -> bool:
        """Whether a message is too old to be delivered, or to stay a dead letter."""
        expires_ms = queue.expires_ms(message)
        return expires_ms != 0 and expires_ms <= self.time_ms

    def take(self, queue: Queue) -> tuple[int, Message] | None:
        """Pop the message that is next in order off its lane; the caller moves or drops it. None where there is none,
        or where so many are too old that the entry has no time for the rest."""
        if not queue.ready:
            return None
        for lane in queue.lanes:
            while (message_id := lane.pop()) is not None:
                message = self.messages.get(message_id)
                if message is None:
                    continue
                assert message.state == READY, (message_id, message.state)
                may_expire = message.expires_ms or queue.settings.message_ttl_ms
                if not may_expire or not self.is_expired(queue, message):
                    return message_id, message
                # Expired, but there was more to do in this entry than it may, or it was not at the head.
                self.drop(queue, message_id, message)
                queue.counters.expired += 1
                self.old_left -= 1
                if self.old_left <= 0:
                    return None
        return None

    def give_back(
        self, context: ApplyContext, queue: Queue, message_id: int, message: Message, delay_ms: int, unseen: bool
    ) -> str:
        """A delivery ended without an ack; gives what became of the message. `unseen`: it reached nobody, and
        does not count."""
        settings = queue.settings
        deliveries = message.deliveries - unseen
        if self.is_expired(queue, message):
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
        elif message.state == DELAYED and message.due_ms <= context.time_ms and not self.is_expired(queue, message):
            self.move(queue, message_id, message, message.moved(READY, 0, message.receipt, message.deliveries))
            self.tell_ready(context, queue, 1)
        else:
            self.remove(queue, message_id, message)
            queue.counters.expired += 1

    def tell_ready(self, context: ApplyContext, queue: Queue, count: int) -> None:
        """Let the consumers that wait at this node hear of `count` more ready messages."""
        if not queue.settings.paused:
            context.events.append((queue.topic, count))

    def reinstate(self, message_id: int, message: Message) -> None:
        """Put a message back where a snapshot had it."""
        self._enter(self.queues[message.queue], message_id, message)

    def queue(self, name: str) -> Queue:
        """The queue of that name, which comes into being if need be."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
            queue.empty_since_ms = self.time_ms
        return queue

    def forget(self, queue: Queue) -> None:
        """A queue that holds nothing is no more."""
        assert not queue.bytes, queue.name
        del self.queues[queue.name]
        self.moved.pop(queue, None)
        self.set_due(queue, 0)

    def set_due(self, queue: Queue, due_ms: int) -> None:
        """When `aging` is to look at a queue next; 0 for never."""
        if queue.due_ms:
            self.queue_calendar.clear(queue.name, queue.due_ms)
            self.queues_due -= 1
        queue.due_ms = due_ms
        if due_ms:
            self.queue_calendar.set(queue.name, due_ms)
            self.queues_due += 1

    def forget_idle(self) -> None:
        """Forget the queues that nobody configured and nobody has used for `IDLE_MS`; call it from `forget_at_ms`
        on."""
        self.forget_at_ms = (self.time_ms // FORGET_EVERY_MS + 1) * FORGET_EVERY_MS
        plain = QueueSettings()
        before_ms = self.time_ms - IDLE_MS
        idle = [
            queue
            for queue in self.queues.values()
            if not queue.bytes and queue.empty_since_ms <= before_ms and queue.settings == plain
        ]
        for queue in idle:
            self.forget(queue)

    def _enter(self, queue: Queue, message_id: int, message: Message) -> None:
        self.messages.put(message_id, message)
        queue.enter(message_id, message)
        size = MESSAGE_OVERHEAD_BYTES + len(message.payload)
        queue.bytes += size
        self.bytes += size
        if message.state == DEAD:
            self.dead_bytes += size
        elif queue.settings.message_ttl_ms:
            self.moved[queue] = None
        deadline_ms = message.deadline_ms
        if deadline_ms:
            self.calendar.set(message_id, deadline_ms)
