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

from common.sorted_set import SortedSet
from services.queue.replicated.fifo import Fifo
from services.queue.replicated.limits import (
    BYTES_DEFAULT,
    DEAD_BYTES_MAX_DEFAULT,
    DEAD_MAX_DEFAULT,
    DEAD_TTL_MS_DEFAULT,
    DELIVERIES_MAX_DEFAULT,
    MESSAGES_DEFAULT,
    VISIBILITY_MS_DEFAULT,
)
from services.queue.replicated.messages import DEAD, DELAYED, IN_FLIGHT, READY, Message

#: Removed ids that the heap of a lane may hold beyond as many as it holds live ones.
STALE_RETURNED_MAX = 64


class QueueSettings(msgspec.Struct, frozen=True):
    """What `/queue/config` can set; the order of the fields is in snapshots, new ones go to the end."""

    #: How long a delivered message is hidden where the consumer does not say.
    visibility_ms: int = VISIBILITY_MS_DEFAULT
    #: Deliveries after which a returning message becomes a dead letter; 0: never.
    max_deliveries: int = DELIVERIES_MAX_DEFAULT
    #: Messages ready, delayed and in flight.
    max_messages: int = MESSAGES_DEFAULT
    #: Their bytes, as `Message.counted_bytes` counts them.
    max_bytes: int = BYTES_DEFAULT
    #: Time to live of a message that brings none, whenever it was put in; 0: for ever.
    message_ttl_ms: int = 0
    #: Nothing is delivered while it is true.
    paused: bool = False
    #: Dead letters, and their bytes; beyond that the oldest are dropped.
    max_dead: int = DEAD_MAX_DEFAULT
    max_dead_bytes: int = DEAD_BYTES_MAX_DEFAULT
    #: A dead letter is dropped so long after it was put in as a message; 0: never.
    dead_ttl_ms: int = DEAD_TTL_MS_DEFAULT


class QueueCounters(msgspec.Struct):
    """What has happened to a queue since it came into being; order as in snapshots, new ones go to the end."""

    enqueued: int = 0
    #: Deliveries, repeated ones and pops included.
    delivered: int = 0
    #: Deliveries of a message that had been delivered before.
    redelivered: int = 0
    #: Acknowledged, pops included.
    acknowledged: int = 0
    #: Gone by their time to live, dead letters included.
    expired: int = 0
    #: Moved to the dead letters.
    dead_lettered: int = 0
    #: Dead letters that made room for later ones.
    dead_dropped: int = 0
    #: Dropped by a purge.
    purged: int = 0


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

    def heads(self, is_live: Callable[[int], bool]) -> Iterator[int]:
        """The first of those that came back and the first of the others, where there are such."""
        while self.returned and not is_live(self.returned[0]):
            heappop(self.returned)
        if self.returned:
            yield self.returned[0]
        fresh = self.fresh.head(is_live)
        if fresh is not None:
            yield fresh

    def ids(self) -> Iterator[int]:
        """In order of delivery, stale ones included; what is not asked for costs nothing. Nothing may be changed
        meanwhile."""
        yield from rising(self.returned)
        yield from self.fresh.copy()


def rising(heap: list[int]) -> Iterator[int]:
    """The items of a heap in order, without changing it; the first few cost little, however many there are."""
    #: `(item, place)` of those whose parent was given.
    front = [(heap[0], 0)] if heap else []
    while front:
        item, place = heappop(front)
        yield item
        for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
            heappush(front, (heap[child], child))


class Queue:
    """One queue."""

    __slots__ = (
        "bytes", "counters", "dead", "dead_bytes", "delayed", "due_ms", "empty_since_ms", "in_flight", "lanes",
        "name", "ready", "settings", "topic",
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
        #: Ids with consumers. Membership and counts; whoever lists them sorts.
        self.in_flight: set[int] = set()
        #: Ids that wait for their delay.
        self.delayed: SortedSet[int] = SortedSet()
        #: Heap of the dead letters' ids. They leave by rising id only, so none in it is ever stale.
        self.dead: list[int] = []
        #: Bytes in all states, and those of the dead letters among them.
        self.bytes = 0
        self.dead_bytes = 0
        #: When the queue is to be looked at because something in it got too old or too much (`aging`); 0: never.
        self.due_ms = 0
        #: When its last message left; means nothing while there are any.
        self.empty_since_ms = 0

    def __len__(self) -> int:
        return self.ready + len(self.in_flight) + len(self.delayed) + len(self.dead)

    def expires_ms(self, message: Message) -> int:
        """When a message of this queue is gone by its age; 0: never."""
        if message.state == DEAD:
            ttl_ms = self.settings.dead_ttl_ms
        elif message.expires_ms:
            return message.expires_ms
        else:
            ttl_ms = self.settings.message_ttl_ms
        return message.enqueued_ms + ttl_ms if ttl_ms else 0

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
            self.dead_bytes += message.counted_bytes
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
        else:
            self.dead_bytes -= message.counted_bytes
