"""What a look at a queue costs: as much as it shows, however much there is."""

import heapq
import random
from itertools import islice

import pytest

from services.queue.replicated import queries
from services.queue.replicated.commands import Configure, Dequeue, Enqueue, Nack
from services.queue.replicated.state import Queue, rising
from tests.services.queue.driving import Driver

COUNT = 3_000


class CountedId(int):
    """An id that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        CountedId.compared += 1
        return int(self) < int(other)


@pytest.mark.parametrize("state", ["ready", "delayed", "dead"])
def test_the_first_of_many_are_found_without_sorting_them(state: str) -> None:
    """3,000 messages that came back, wait for their delay, or are dead; old ones among the returned are skipped."""
    driver = Driver()
    for _ in range(COUNT):
        driver(Enqueue("q", b"1", delay_ms=60_000 if state == "delayed" else 0))
    driver(Configure("q", max_deliveries=1 if state == "dead" else 0))
    for _ in range(0, 0 if state == "delayed" else COUNT, 1_000):
        for message in driver(Dequeue("q", 1_000))["messages"]:
            driver(Nack(int(message["msg_id"]), message["receipt"], delay_ms=0 if state == "dead" else 1))
    driver.wait(10)
    driver.wait(10)
    queue = driver.machine.store.queues["q"]
    for lane in queue.lanes:
        lane.returned = [CountedId(id) for id in lane.returned]
    queue.dead = [CountedId(id) for id in queue.dead]
    queue.delayed = type(queue.delayed)([CountedId(id) for id in queue.delayed])
    CountedId.compared = 0

    shown = queries.peek(driver.machine.store, "q", state, 10, driver.time_ms)

    assert [message["msg_id"] for message in shown] == [str(number) for number in range(1, 11)]
    assert CountedId.compared < 200


def test_a_look_gives_up_after_so_many_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "LOOKED_AT_PER_PEEK_MAX", 5)
    driver = Driver()
    driver(Enqueue("q", b"1"))
    lane = driver.machine.store.queues["q"].lanes[0]
    lane.returned = list(range(1_000, 1_010))

    assert queries.peek(driver.machine.store, "q", "ready", 10, driver.time_ms) == []


def test_a_heap_is_read_in_order() -> None:
    """Against `sorted`."""
    choose = random.Random(4)
    for _ in range(50):
        heap = [choose.randrange(100) for _ in range(choose.randrange(40))]
        heapq.heapify(heap)

        assert list(rising(heap)) == sorted(heap)
        assert list(islice(rising(heap), 3)) == sorted(heap)[:3]


def test_delayed_messages_are_counted_as_they_come_and_go() -> None:
    driver = Driver()
    driver(Enqueue("q", b"1", delay_ms=10))
    driver(Enqueue("q", b"1", delay_ms=20))
    queue: Queue = driver.machine.store.queues["q"]

    counts = [len(queue.delayed)]
    for _ in range(2):
        driver.wait(10)
        counts.append(len(queue.delayed))

    assert counts == [2, 1, 0]
