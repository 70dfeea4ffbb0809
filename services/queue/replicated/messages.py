"""One message, and the table of all messages.

The rule: a `Message` never changes. A change of state puts a new record into the table, so a snapshot may hold on
to the old one. The table is cut into segments by message id and shares them with a snapshot until it next writes
to one (copy on write): taking a point-in-time copy of a million messages copies about a thousand references.

`Message` takes no part in the cyclic garbage collector (`gc=False`): a million tracked objects would cost the
event loop a pause of many milliseconds at each full collection, and a record of bytes, text and numbers can
form no cycle.
"""

from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from services.queue.replicated.limits import MESSAGE_OVERHEAD_BYTES

#: Ids of one segment share all bits above these: 1,024 messages, about 10 us to copy.
SEGMENT_BITS = 10


class State(IntEnum):
    """Where a message is. The numbers are in snapshots: never reuse one."""

    READY = 0
    DELAYED = 1
    IN_FLIGHT = 2
    DEAD = 3


#: Plain numbers for the hot path: comparing an enum member costs several times as much.
READY, DELAYED, IN_FLIGHT, DEAD = (int(state) for state in State)


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message in one state. Times are cluster time in milliseconds; 0 means none."""

    #: Name of its queue (the very string that the queue holds).
    queue: str
    #: JSON text.
    payload: bytes
    priority: int
    #: When it was put in.
    enqueued_ms: int
    #: When it stops being deliverable, by a time to live of its own; where it has none, the queue's decides
    #: (`Queue.expires_ms`).
    expires_ms: int
    #: A number of `State`.
    state: int
    #: End of the delay or of the visibility.
    due_ms: int
    #: The newest delivery's; 0 as long as there was none (or since a redrive).
    receipt: int
    #: How many times it was handed out.
    deliveries: int

    @property
    def deadline_ms(self) -> int:
        """When the calendar must look at this message next; 0 where never."""
        if self.state == IN_FLIGHT:
            return self.due_ms
        if self.state == READY:
            return self.expires_ms
        if self.state == DELAYED:
            return min(self.due_ms, self.expires_ms) if self.expires_ms else self.due_ms
        return 0

    @property
    def counted_bytes(self) -> int:
        """What it counts for against the bytes that a queue and the group may hold."""
        return MESSAGE_OVERHEAD_BYTES + len(self.payload)

    def moved(self, state: int, due_ms: int, receipt: int, deliveries: int) -> "Message":
        """The same message in another state."""
        return Message(
            self.queue, self.payload, self.priority, self.enqueued_ms, self.expires_ms,
            state, due_ms, receipt, deliveries,
        )  # fmt: skip


class MessageTable:
    """All messages by id, with point-in-time copies at the price of one reference a segment."""

    __slots__ = ("_owned", "_segments")

    def __init__(self) -> None:
        #: Segment number -> id -> message. No segment is empty.
        self._segments: dict[int, dict[int, Message]] = {}
        #: Numbers of the segments that no copy shares. Membership only, never iterated.
        self._owned: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._segments.values()))

    def __contains__(self, message_id: int) -> bool:
        return self.get(message_id) is not None

    def get(self, message_id: int) -> Message | None:
        segment = self._segments.get(message_id >> SEGMENT_BITS)
        return None if segment is None else segment.get(message_id)

    def put(self, message_id: int, message: Message) -> None:
        number = message_id >> SEGMENT_BITS
        if number in self._owned:
            self._segments[number][message_id] = message
            return
        segment = dict(self._segments.get(number, ()))
        segment[message_id] = message
        self._segments[number] = segment
        self._owned.add(number)

    def remove(self, message_id: int) -> None:
        """Raises KeyError where the message is not there."""
        number = message_id >> SEGMENT_BITS
        segment = self._segments[number]
        if number not in self._owned:
            segment = self._segments[number] = dict(segment)
            self._owned.add(number)
        del segment[message_id]
        if not segment:
            del self._segments[number]
            self._owned.discard(number)

    def following(self, after_id: int) -> Iterator[tuple[int, Message]]:
        """Every message whose id is above `after_id`, by rising id. Nothing may be written meanwhile."""
        numbers = sorted(self._segments)
        for number in numbers[bisect_left(numbers, after_id >> SEGMENT_BITS) :]:
            segment = self._segments[number]
            for message_id in sorted(segment):
                if message_id > after_id:
                    yield message_id, segment[message_id]

    def copy(self) -> "MessageTable":
        """A copy that later writes to this table do not reach, nor the other way round."""
        twin = MessageTable()
        twin._segments = dict(self._segments)
        self._owned = set()
        return twin

    def items(self) -> Iterator[tuple[int, Message]]:
        """Every message by rising id. Nothing may be written meanwhile."""
        for number in sorted(self._segments):
            segment = self._segments[number]
            for message_id in sorted(segment):
                yield message_id, segment[message_id]
