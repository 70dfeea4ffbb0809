"""Purging and deleting queues, in bounded steps."""

import pytest

from services.queue.replicated.commands import (
    Ack,
    Configure,
    Delete,
    Dequeue,
    Enqueue,
    EnqueueBatch,
    Nack,
    Pop,
    Purge,
    Reject,
)
from services.queue.replicated.messages import DEAD, DELAYED, IN_FLIGHT, READY
from tests.services.queue.driving import Driver

ALL_BUT_IN_FLIGHT = (READY, DELAYED, DEAD)


@pytest.fixture
def queue() -> Driver:
    """One message of `q` in flight (1), dead (2), returned (3), delayed (4) and ready (5); one of `other` (6)."""
    driver = Driver()
    for _ in range(3):
        driver(Enqueue("q", b"1"))
    driver(Dequeue("q", 3, 60_000))
    driver(Reject(2))
    driver(Nack(3))
    driver(Enqueue("q", b"1", delay_ms=50_000))
    driver(Enqueue("q", b"1"))
    driver(Enqueue("other", b"1"))
    return driver


def ids(driver: Driver) -> list[int]:
    return [message_id for message_id, _ in driver.machine.store.messages.items()]


@pytest.mark.parametrize(
    ("states", "left"),
    [
        (ALL_BUT_IN_FLIGHT, [1, 6]),
        ((READY,), [1, 2, 4, 6]),
        ((DELAYED,), [1, 2, 3, 5, 6]),
        ((IN_FLIGHT,), [2, 3, 4, 5, 6]),
        ((DEAD,), [1, 3, 4, 5, 6]),
    ],
)
def test_a_purge_drops_what_is_in_the_states_that_are_named(
    queue: Driver, states: tuple[int, ...], left: list[int]
) -> None:
    """Of that queue, in every count, and a restored replica agrees."""
    answer = queue(Purge("q", states))

    assert (answer["ok"], answer["purged"], answer["more"]) == (True, 6 - len(left), False)
    assert ids(queue) == left
    assert queue.machine.store.queues["q"].bytes == 301 * (len(left) - 1)
    assert queue.machine.store.queues["q"].counters.purged == 6 - len(left)
    assert queue.restored().state() == queue.state()
    assert [message["msg_id"] for message in queue(Dequeue("q", 9))["messages"]] == [
        str(message_id) for message_id in left if message_id in (3, 5)
    ]


def test_what_is_with_a_consumer_is_acknowledged_after_a_purge_as_before(queue: Driver) -> None:
    """Or comes back where it is not: nobody's work is taken from under them."""
    queue(Purge("q", ALL_BUT_IN_FLIGHT))
    twin = queue.restored()

    twin.wait(60_000)

    assert queue(Ack(1))["ok"]
    assert twin(Pop("q"))["ok"]


def test_a_purge_goes_on_where_the_entry_before_it_stopped(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry drops and looks at a bounded number; what is put in or comes back meanwhile is not meant."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    monkeypatch.setattr("services.queue.replicated.sweeps.LOOKED_AT_PER_ENTRY_MAX", 3)
    queue(EnqueueBatch(tuple(("other", b"1", 0, 0, 0) for _ in range(7))))
    queue(EnqueueBatch((("q", b"1", 9, 0, 0), ("q", b"1", 0, 9_000, 0))))
    command, purged = Purge("q", ALL_BUT_IN_FLIGHT), []

    while True:
        answer = queue(command)
        purged.append(answer["purged"])
        if not answer["more"]:
            break
        command = Purge("q", ALL_BUT_IN_FLIGHT, answer["before_id"], answer["after_id"])
        queue(Enqueue("q", b"new", 9))

    kept = [message for _, message in queue.machine.store.messages.items() if message.queue == "q"]
    assert sum(purged) == 6
    assert max(purged) <= 2
    assert [message.payload for message in kept] == [b"1", *[b"new"] * (len(purged) - 1)]
    assert len(ids(queue)) == len(kept) + 8


def test_a_purge_ends_as_soon_as_nothing_is_left_to_find(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not walk over the messages of all other queues for nothing."""
    monkeypatch.setattr("services.queue.replicated.sweeps.LOOKED_AT_PER_ENTRY_MAX", 5)
    queue(EnqueueBatch(tuple(("other", b"1", 0, 0, 0) for _ in range(100))))

    assert queue(Purge("q", ALL_BUT_IN_FLIGHT))["more"] is False
    assert queue(Purge("never", ALL_BUT_IN_FLIGHT))["purged"] == 0


def test_a_purge_of_many_leaves_no_lasting_trace_in_the_order() -> None:
    """Stale ids are swept, and those that stay are skipped."""
    driver = Driver()
    for _ in range(10):
        driver(EnqueueBatch(tuple(("q", b"1", 0, 0, 0) for _ in range(1000))))
    command = Purge("q", (READY,))
    while (answer := driver(command))["more"]:
        command = Purge("q", (READY,), answer["before_id"], answer["after_id"])
    driver(Enqueue("q", b"new"))

    assert len(driver.machine.store.queues["q"].lanes[0].fresh) < 3 * 1024
    assert driver(Pop("q"))["item"] == b"new"


def test_a_queue_with_messages_at_consumers_is_deleted_by_force_only(queue: Driver) -> None:
    """With all that it holds, its settings and its counters."""
    queue(Configure("q", max_deliveries=3))
    refused = queue(Delete("q"))
    before = ids(queue)

    answer = queue(Delete("q", force=True))

    assert refused == {"ok": False, "reason": "in_flight", "in_flight": 1}
    assert before == [1, 2, 3, 4, 5, 6]
    assert (answer["deleted"], answer["purged"], answer["more"]) == (True, 5, False)
    assert list(queue.machine.store.queues) == ["other"]
    assert queue(Ack(1))["reason"] == "not_in_flight"
    queue.wait(100_000)
    assert ids(queue) == [6]
    assert queue(Delete("q"))["deleted"] is False


def test_what_is_put_in_while_a_queue_is_deleted_is_a_new_queues(
    queue: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a delivery meanwhile does not stop it: the first entry has looked."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    queue(Configure("q", paused=True))
    first = queue(Delete("q", force=True))
    queue(Enqueue("q", b"new"))
    command = Delete("q", False, first["before_id"], first["after_id"])
    while (answer := queue(command))["more"]:
        command = Delete("q", False, answer["before_id"], answer["after_id"])

    held = queue.machine.store.queues["q"]
    assert (held.settings.paused, held.counters.enqueued, held.counters.dead_lettered) == (False, 1, 0)
    assert queue.events[-1] == ("queue:q", 1)
    assert queue(Pop("q"))["item"] == b"new"
