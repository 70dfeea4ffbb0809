"""One queue: its settings, its counters and the order of its ready messages.

The rule: a queue holds ids, the machine's table holds the messages. `Queue` keeps its counters and id sets true as
messages come, move and go; it decides nothing.

Order: priorities from high to low; within one, messages that came back go first, the oldest of them first (they
were ahead of everything that has not been delivered yet, and among themselves they keep the order in which they
came), then the others in the order in which they became ready.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

import msgspec

from services.queue.fifo import Fifo
from services.queue.limits import (
    BYTES_PER_QUEUE_MAX,
    DELIVERIES_MAX_DEFAULT,
    MESSAGES_PER_QUEUE_MAX,
    VISIBILITY_MS_DEFAULT,
)
from services.queue.messages import DELAYED, IN_FLIGHT, READY, Message

#: Removed ids that the heap of a lane may hold beyond as many as it holds live ones.
STALE_RETURNED_MAX = 64


class QueueSettings(msgspec.Struct, frozen=True):
    """What `/queue/config` can set; the order of the fields is in snapshots, new ones go to the end."""

    #: How long a delivered message is hidden where the consumer does not say.
    visibility_ms: int = VISIBILITY_MS_DEFAULT
    #: Deliveries after which a returning message becomes a dead letter; 0: never.
    max_deliveries: int = DELIVERIES_MAX_DEFAULT
    #: Messages in all states together.
    max_messages: int = MESSAGES_PER_QUEUE_MAX
    #: Bytes in all states together, as `Message.counted_bytes` counts them.
    max_bytes: int = BYTES_PER_QUEUE_MAX
    #: Time to live of a message that brings none; 0: for ever.
    message_ttl_ms: int = 0
    #: Nothing is delivered while it is true.
    paused: bool = False


class QueueCounters(msgspec.Struct):
    """What has happened to a queue since it came into being; order as in snapshots, new ones go to the end."""

    enqueued: int = 0
    #: Deliveries, repeated ones and pops included.
    delivered: int = 0
    #: Deliveries of a message that had been delivered before.
    redelivered: int = 0
    #: Acknowledged, pops included.
    acknowledged: int = 0
    expired: int = 0
    #: Moved to the dead letters.
    dead_lettered: int = 0


class Lane:
    """The ready messages of one queue and one priority, as ids. Stale ids (see `Fifo`) are skipped by the
    caller, who knows the messages."""

    __slots__ = ("_stale_returned", "fresh", "priority", "returned")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        #: Never delivered, in the order in which they became ready.
        self.fresh = Fifo()
        #: Heap of those that came back.
        self.returned: list[int] = []
        self._stale_returned = 0

    def pop(self) -> int | None:
        if self.returned:
            return heappop(self.returned)
        return self.fresh.pop()

    def note_removed(self, message: Message, is_live: Callable[[int], bool]) -> None:
        """A message that is in here was dropped; `is_live` no longer knows it."""
        if not message.receipt:
            self.fresh.note_removed(is_live)
            return
        self._stale_returned += 1
        if self._stale_returned > len(self.returned) // 2 + STALE_RETURNED_MAX:
            self.returned = [message_id for message_id in self.returned if is_live(message_id)]
            heapify(self.returned)
            self._stale_returned = 0

    def ids(self) -> Iterator[int]:
        """In order of delivery, stale ones included. Nothing may be changed meanwhile."""
        yield from sorted(self.returned)
        yield from self.fresh.copy()


class Queue:
    """One queue."""

    __slots__ = (
        "bytes", "counters", "dead", "delayed", "in_flight", "lanes", "name", "ready", "settings", "topic",
    )  # fmt: skip

    def __init__(
        self, name: str, settings: QueueSettings | None = None, counters: QueueCounters | None = None
    ) -> None:
        self.name = name
        #: Where `context.events` says that messages became ready; the body is how many.
        self.topic = "queue:" + name
        self.settings = settings or QueueSettings()
        self.counters = counters or QueueCounters()
        #: By falling priority; a lane comes into being with the first message of its priority.
        self.lanes: list[Lane] = []
        #: How many messages are ready.
        self.ready = 0
        #: Ids with consumers, and ids that wait for their delay. Membership and counts; whoever lists them sorts.
        self.in_flight: set[int] = set()
        self.delayed: set[int] = set()
        #: Heap of the dead letters' ids. They leave by rising id only, so none in it is ever stale.
        self.dead: list[int] = []
        #: Bytes in all states.
        self.bytes = 0

    def __len__(self) -> int:
        return self.ready + len(self.in_flight) + len(self.delayed) + len(self.dead)

    def lane(self, priority: int) -> Lane:
        position = 0
        for lane in self.lanes:
            if lane.priority == priority:
                return lane
            if lane.priority > priority:
                position += 1
        lane = Lane(priority)
        self.lanes.insert(position, lane)
        return lane

    def enter(self, message_id: int, message: Message) -> None:
        """Count a message in, by its state; a ready one takes its place in the order."""
        state = message.state
        if state == READY:
            self.ready += 1
            lane = self.lane(message.priority)
            if message.receipt:
                heappush(lane.returned, message_id)
            else:
                lane.fresh.append(message_id)
        elif state == IN_FLIGHT:
            self.in_flight.add(message_id)
        elif state == DELAYED:
            self.delayed.add(message_id)
        else:
            heappush(self.dead, message_id)

    def leave(self, message_id: int, message: Message) -> None:
        """Count a message out of its state. The order forgets a ready one by `Lane.pop` or as a stale id; a
        dead one is taken off the heap by whoever moves it."""
        state = message.state
        if state == READY:
            self.ready -= 1
        elif state == IN_FLIGHT:
            self.in_flight.discard(message_id)
        elif state == DELAYED:
            self.delayed.discard(message_id)
