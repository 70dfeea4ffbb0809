"""The waiting room of one node, without HTTP."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from common.api_error import ApiError
from services.queue.node.waiting import WaitingRoom


class Bell:
    """The part of a node that the room needs."""

    def __init__(self) -> None:
        self.listeners: dict[str, list[Callable[[Any], None]]] = {}

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners.setdefault(topic, []).append(callback)
        return lambda: self.listeners[topic].remove(callback)

    def ring(self, queue: str, count: int = 1) -> None:
        for callback in list(self.listeners.get("queue:" + queue, ())):
            callback(count)


def test_one_message_wakes_the_first_in_line_only() -> None:
    """And two messages the first two."""
    bell = Bell()
    room = WaitingRoom(bell)
    with ExitStack() as stack:
        tickets = [stack.enter_context(room.place("q")) for _ in range(4)]

        bell.ring("q")
        after_one = [ticket.awake for ticket in tickets]
        bell.ring("q", 2)
        after_three = [ticket.awake for ticket in tickets]

    assert after_one == [True, False, False, False]
    assert after_three == [True, True, True, False]


def test_waking_costs_the_same_however_many_are_awake() -> None:
    """2,000 messages of one entry, one event each, and no consumer runs in between."""
    bell = Bell()
    room = WaitingRoom(bell)
    with ExitStack() as stack:
        tickets = [stack.enter_context(room.place("q")) for _ in range(2_000)]
        line = room._lines["q"]
        line.tickets = CountedTickets(line.tickets)

        for _ in tickets:
            bell.ring("q")
        woken = [ticket.awake for ticket in tickets]

        assert all(woken)
        assert line.tickets.looked_at <= len(tickets)


def test_who_goes_back_to_sleep_keeps_its_place() -> None:
    bell = Bell()
    room = WaitingRoom(bell)
    with room.place("q") as first, room.place("q") as second:
        bell.ring("q", 2)
        second.awake = False
        first.awake = False
        bell.ring("q")

        assert (first.awake, second.awake) == (True, False)


class CountedTickets(dict):
    """Tickets of a line, and how often one was looked at."""

    looked_at = 0

    def __getitem__(self, number):
        self.looked_at += 1
        return super().__getitem__(number)

    def __iter__(self):
        for each in super().__iter__():
            self.looked_at += 1
            yield each


def test_whoever_leaves_awake_wakes_the_next() -> None:
    """A wake-up is not lost with a client that went away."""
    bell = Bell()
    room = WaitingRoom(bell)
    with room.place("q") as stays:
        with ExitStack() as stack:
            # A line is in order of arrival: this one stands behind, so ring for both.
            leaves = stack.enter_context(room.place("q"))
            bell.ring("q", 2)
            stays.awake = False
            assert leaves.awake
        assert stays.awake


async def test_a_wake_up_before_the_wait_is_not_lost() -> None:
    """Between joining the line and falling asleep a consumer asks: what comes meanwhile must wake it at once."""
    bell = Bell()
    with WaitingRoom(bell).place("q") as ticket:
        bell.ring("q")

        assert await ticket.wait_woken(0.0)
        assert not await ticket.wait_woken(0.0)


async def test_a_sleeper_is_woken() -> None:
    """Long before its time is over."""
    bell = Bell()
    with WaitingRoom(bell).place("q") as ticket:
        asyncio.get_running_loop().call_soon(bell.ring, "q")

        assert await asyncio.wait_for(ticket.wait_woken(60), 5)


def test_queues_wake_their_own_and_an_empty_line_stops_listening() -> None:
    """Nothing stays behind for a queue that nobody waits for."""
    bell = Bell()
    room = WaitingRoom(bell)
    with room.place("a") as a, room.place("b") as b:
        bell.ring("b")
        awake = a.awake, b.awake

    assert awake == (False, True)
    assert room.waiting == 0
    assert not any(listeners for topic, listeners in bell.listeners.items() if topic.startswith("queue:"))


def test_too_many_waiting_consumers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with `quota`; the line is as before."""
    monkeypatch.setattr("services.queue.node.waiting.WAITING_MAX", 1)
    room = WaitingRoom(Bell())

    with room.place("q"), pytest.raises(ApiError) as refused, room.place("q"):
        pass

    assert (refused.value.status, refused.value.reason) == (429, "quota")
    assert room.waiting == 0
