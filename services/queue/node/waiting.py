"""Consumers that wait at this node for a message. They are not replicated: a node that dies takes none with it that
its client would not notice.

The rule: a consumer joins its queue's line before it first asks, so nothing that becomes ready after that goes
unnoticed; one ready message wakes one consumer, the first in line that is not awake yet; whoever leaves while
awake wakes the next, so a wake-up is never lost with a client that went away. A wake-up is a hint: a consumer that
then finds nothing (another node's was faster) keeps its place.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from common.sorted_set import SortedSet
from raft.node import CLOSED_TOPIC
from services.operations.refusals import refused

#: Consumers that may wait at one node, all queues together.
WAITING_MAX = 20_000


class Subscribable(Protocol):
    """What is needed of a node."""

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...


class Ticket:
    """One consumer's place in a line."""

    __slots__ = ("_future", "_line", "number")

    def __init__(self, line: "ConsumerLine", number: int) -> None:
        self._line = line
        #: Rises along the line.
        self.number = number
        self._future: asyncio.Future[None] | None = None

    @property
    def awake(self) -> bool:
        """A message may be there for this consumer; it has not looked yet."""
        return self.number not in self._line.asleep

    @awake.setter
    def awake(self, awake: bool) -> None:
        if awake:
            self._line.asleep.discard(self.number)
        elif self.awake:
            self._line.asleep.add(self.number)

    def wake(self) -> None:
        self.awake = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait_woken(self, timeout_s: float) -> bool:
        """Wait for a wake-up, at most so long; uses it up."""
        if not self.awake:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._future, timeout_s)
            except TimeoutError:
                pass
            finally:
                self._future = None
        woken, self.awake = self.awake, False
        return woken


class ConsumerLine:
    """The consumers that wait for one queue, first come, first woken."""

    def __init__(self, node: Subscribable, queue: str) -> None:
        self.tickets: dict[int, Ticket] = {}
        #: Numbers of those that are not awake, in their order.
        self.asleep: SortedSet[int] = SortedSet()
        self._last_number = 0
        self._unsubscribe = node.subscribe("queue:" + queue, self.wake)

    def wake(self, count: int) -> None:
        """So many messages became ready."""
        for _ in range(count):
            number = self.asleep.first()
            if number is None:
                return
            self.tickets[number].wake()

    def join(self) -> Ticket:
        """A place at the end."""
        number = self._last_number = self._last_number + 1
        ticket = self.tickets[number] = Ticket(self, number)
        self.asleep.add(number)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        was_awake = ticket.awake
        del self.tickets[ticket.number]
        self.asleep.discard(ticket.number)
        if was_awake:
            self.wake(1)

    def close(self) -> None:
        self._unsubscribe()


class WaitingRoom:
    """All lines of one node."""

    def __init__(self, node: Subscribable) -> None:
        self._node = node
        node.subscribe(CLOSED_TOPIC, self._on_closed)
        self._lines: dict[str, ConsumerLine] = {}
        #: Consumers in all lines.
        self.waiting = 0

    @contextmanager
    def place(self, queue: str) -> Iterator[Ticket]:
        """A place in the line of `queue` for as long as the block lasts.

        Raises:
            ApiError: 429, too many wait at this node.
        """
        if self.waiting >= WAITING_MAX:
            raise refused("quota", f"{WAITING_MAX} consumers wait at this node already; ask another node.")
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = ConsumerLine(self._node, queue)
        ticket = line.join()
        self.waiting += 1
        try:
            yield ticket
        finally:
            self.waiting -= 1
            line.leave(ticket)
            if not line.tickets:
                line.close()
                del self._lines[queue]

    def _on_closed(self, _: Any) -> None:
        """The node takes no more requests: whoever waits asks once more, and is told so."""
        for line in self._lines.values():
            line.wake(len(line.tickets))


_rooms: WeakKeyDictionary[Subscribable, WaitingRoom] = WeakKeyDictionary()


def waiting_room(node: Subscribable) -> WaitingRoom:
    """The waiting room of a node; made at the first call and gone with the node."""
    room = _rooms.get(node)
    if room is None:
        room = _rooms[node] = WaitingRoom(node)
    return room
