"""What leaves a queue by its age or for want of room, and queues that nobody uses."""

import pytest

from services.queue.replicated.commands import (
    Ack,
    Configure,
    Dequeue,
    Enqueue,
    EnqueueBatch,
    Pop,
    Redrive,
    Reject,
)
from services.queue.replicated.limits import DEAD_TTL_MS_DEFAULT, IDLE_MS
from services.queue.replicated.machine import QueueMachine
from tests.services.queue.driving import Driver

HOUR_MS = 3_600_000


@pytest.fixture
def queue() -> Driver:
    return Driver()


def bury(driver: Driver, count: int = 1, queue: str = "q", payload: bytes = b"1") -> list[int]:
    """Put messages in, deliver and reject them; gives the ids."""
    ids = [int(driver(Enqueue(queue, payload))["msg_id"]) for _ in range(count)]
    for message in driver(Dequeue(queue, count))["messages"]:
        driver(Reject(int(message["msg_id"])))
    return ids


def dead(driver: Driver, queue: str = "q") -> list[int]:
    return sorted(driver.machine.store.queues[queue].dead)


def taken(driver: Driver, count: int = 10) -> list[bytes]:
    return [message["payload"] for message in driver(Dequeue("q", count))["messages"]]


# Dead letters


def test_dead_letters_do_not_stop_a_queue_from_taking_in(queue: Driver) -> None:
    """Neither by number nor by bytes: nothing that a producer or consumer can do would make room."""
    queue(Configure("q", max_messages=2, max_bytes=602))
    bury(queue, 2)

    answers = [queue(Enqueue("q", b"1")) for _ in range(3)]

    assert [answer["ok"] for answer in answers] == [True, True, False]
    assert "purge" in answers[2]["detail"]
    assert "max_messages" in answers[2]["detail"]


def test_the_oldest_dead_letters_make_room(queue: Driver) -> None:
    """By number and by bytes, with the next entry."""
    queue(Configure("q", max_dead=3, max_dead_bytes=20 + 2 * 300))
    ids = bury(queue, 3)
    queue.wait(0)
    by_bytes = dead(queue)
    more = bury(queue, 2, payload=b"x" * 10)

    queue.wait(0)

    assert by_bytes == ids[1:]
    assert dead(queue) == more
    assert queue.machine.store.queues["q"].counters.dead_dropped == 3
    assert queue.machine.next_due_ms() > queue.time_ms


def test_a_dead_letter_goes_when_it_is_too_old(queue: Driver) -> None:
    """By the queue's `dead_ttl`, from when it was put in, whatever time to live it had as a message."""
    queue(Configure("q", dead_ttl_ms=5_000))
    queue(Enqueue("q", b"1", ttl_ms=2_000))
    queue(Reject(int(queue(Dequeue("q"))["messages"][0]["msg_id"])))
    queue.wait(4_999)
    kept = dead(queue)

    queue.wait(1)

    assert kept == [1]
    assert dead(queue) == []
    assert queue.machine.store.queues["q"].counters.expired == 1


def test_dead_letters_have_bounds_that_nobody_configured(queue: Driver) -> None:
    """A ttl, a number and bytes."""
    bury(queue)
    due_ms = queue.machine.next_due_ms()
    assert due_ms is not None

    queue.wait(due_ms - queue.time_ms + 1024)

    assert queue.time_ms - 1_000_000 < DEAD_TTL_MS_DEFAULT + 2048
    assert dead(queue) == []


def test_a_lowered_bound_is_reached_in_bounded_steps(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`next_due_ms` is in the past until it is."""
    monkeypatch.setattr("services.queue.replicated.machine.DUE_PER_ENTRY_MAX", 3)
    ids = bury(queue, 8)
    queue(Configure("q", max_dead=1))
    left = []

    while (queue.machine.next_due_ms() or queue.time_ms + 1) <= queue.time_ms:
        queue.wait(0)
        left.append(dead(queue))

    assert left == [ids[3:], ids[6:], ids[7:]]


def test_dead_letters_of_all_queues_are_bounded_and_the_queue_with_the_most_gives(queue: Driver) -> None:
    """They never fill the room of the group, either: at most half of it."""
    queue.machine.limits.set([("bytes_max", 4 * 400)])
    first = bury(queue, 2, "a", b"x" * 100)
    other = bury(queue, 1, "b", b"x" * 100)

    queue.wait(0)

    assert (dead(queue, "a"), dead(queue, "b")) == (first[1:], other)
    assert queue.machine.used()["dead_bytes_max"] == 800
    assert [queue(Enqueue("c", b"x" * 100))["ok"] for _ in range(3)] == [True, True, False]
    assert queue.machine.next_due_ms() > queue.time_ms


def test_a_redriven_message_is_no_dead_letter_any_more(queue: Driver) -> None:
    """In no count."""
    bury(queue, 3)
    queue(Redrive("q"))

    assert queue.machine.used()["dead_bytes_max"] == queue.machine.store.queues["q"].dead_bytes == 0
    assert queue.machine.next_due_ms() is None


# The queue's own time to live


def test_a_time_to_live_holds_for_what_is_queued_already(queue: Driver) -> None:
    """As a policy of RabbitMQ and the retention of SQS do; a message with a time to live of its own keeps that."""
    queue(Enqueue("q", b"old"))
    queue(Enqueue("q", b"own", ttl_ms=60_000))
    queue.wait(5_000)
    queue(Enqueue("q", b"new"))

    queue(Configure("q", message_ttl_ms=5_000))
    queue.wait(0)

    assert queue.machine.store.queues["q"].ready == 2
    assert taken(queue) == [b"own", b"new"]
    assert queue.machine.store.queues["q"].counters.expired == 1


@pytest.mark.parametrize("ttl_ms", [60_000, 0])
def test_a_longer_time_to_live_lets_what_is_queued_live_longer(queue: Driver, ttl_ms: int) -> None:
    queue(Configure("q", message_ttl_ms=1_000))
    queue(Enqueue("q", b"1"))
    queue.wait(500)

    queue(Configure("q", message_ttl_ms=ttl_ms))
    queue.wait(10_000)

    assert taken(queue) == [b"1"]


def test_the_end_of_the_time_to_live_is_a_deadline(queue: Driver) -> None:
    """Also where nobody consumes: the room comes back by itself."""
    queue(Configure("q", message_ttl_ms=3_000))
    queue(Enqueue("q", b"1"))
    queue.wait(1_000)
    queue(Enqueue("q", b"2"))
    queue(Enqueue("q", b"high", priority=9))

    due = []
    while (due_ms := queue.machine.next_due_ms()) is not None and len(due) < 20:
        queue.wait(max(due_ms - queue.time_ms, 1))
        due.append((queue.time_ms, queue.machine.store.queues["q"].ready))

    assert due[-1][1] == 0
    assert due[-1][0] <= 1_000_000 + 4_000 + 1024
    assert queue.machine.store.bytes == 0


def test_nobody_is_given_what_is_too_old_wherever_it_stands(queue: Driver) -> None:
    """Behind one that is not, in flight at the time, or delayed until after it."""
    queue(Configure("q", message_ttl_ms=2_000))
    queue(Enqueue("q", b"own", ttl_ms=60_000))
    queue(Enqueue("q", b"behind"))
    queue(Enqueue("q", b"delayed", delay_ms=3_000))
    queue(Enqueue("q", b"in flight", priority=9))
    queue(Dequeue("q", 1, 2_500))

    queue.wait(3_000)

    assert taken(queue) == [b"own"]
    assert len(queue.machine.store.messages) == 1


def test_a_million_that_are_suddenly_too_old_go_in_bounded_steps(
    queue: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a consumer: what is too old is not given out, and not gone through at one time."""
    queue(EnqueueBatch(tuple(("q", b"%d" % number, 0, 0, 0) for number in range(20))))
    queue.wait(1_000)
    queue(Enqueue("q", b"new"))
    monkeypatch.setattr("services.queue.replicated.machine.DUE_PER_ENTRY_MAX", 3)

    queue(Configure("q", message_ttl_ms=1_000))
    steps = []
    while (given := taken(queue)) == []:
        steps.append(queue.machine.store.queues["q"].counters.expired)
        assert queue.machine.next_due_ms() <= queue.time_ms

    assert given == [b"new"]
    assert steps == [6, 12, 18]


def test_messages_of_an_earlier_version_follow_the_queue_too() -> None:
    """It had written the queue's time to live into each message, as if it were the message's own."""
    driver = Driver()
    driver(Configure("q", message_ttl_ms=1_000))
    driver(Enqueue("q", b"1"))
    old = []
    for record in driver.state():
        if record[0] == "queue":
            record = [*record[:2], record[2][:6], record[3][:6]]
        elif record[0] == "messages":
            record = ["messages", [[*fields[:5], fields[4] + 1_000, *fields[6:]] for fields in record[1]]]
        old.append(record)

    machine = QueueMachine()
    machine.restore(old)

    assert list(machine.snapshot()) == driver.state()


# Queues that nobody uses


def test_a_queue_that_is_empty_and_idle_is_forgotten(queue: Driver) -> None:
    """A day after its last message left, with the first entry of an hour, on a restored replica as well."""
    queue(Enqueue("q", b"1"))
    queue.wait(IDLE_MS)
    queue(Pop("q"))
    queue.wait(IDLE_MS - 1)
    names = [set(queue.machine.store.queues)]
    twin = queue.restored()

    for driver in (queue, twin):
        driver(Dequeue("q"))
        driver.wait(HOUR_MS)
        names.append(set(driver.machine.store.queues))

    assert names == [{"q"}, set(), set()]
    assert twin.state() == queue.state()


def test_a_queue_in_use_or_configured_is_not_forgotten(queue: Driver) -> None:
    queue(Enqueue("ready", b"1"))
    queue(Enqueue("dead", b"1"))
    queue(Reject(int(queue(Dequeue("dead"))["messages"][0]["msg_id"])))
    queue(Configure("configured", max_deliveries=3))
    queue(Enqueue("busy", b"1"))
    queue.wait(2 * IDLE_MS)
    busy = queue(Dequeue("busy"))["messages"][0]
    queue(Ack(int(busy["msg_id"])))

    queue.wait(HOUR_MS)

    assert set(queue.machine.store.queues) == {"ready", "dead", "configured", "busy"}


def test_forgotten_names_make_room_for_others(queue: Driver) -> None:
    queue.machine.limits.set([("queues_max", 1)])
    queue(Enqueue("a", b"1"))
    queue(Pop("a"))

    refused = queue(Enqueue("b", b"1"))
    queue.wait(IDLE_MS + HOUR_MS)

    assert refused["reason"] == "quota"
    assert queue(Enqueue("b", b"1"))["ok"]
