"""The machine's snapshots: whole, canonical, and untouched by what happens after."""

import random

import pytest

from services.queue.replicated.commands import Ack, Configure, Dequeue, Enqueue, Nack, Pop, Reject
from services.queue.replicated.machine import QueueMachine
from services.queue.replicated.messages import Message, MessageTable
from tests.services.queue.driving import Driver
from tests.services.queue.test_machine_random import note_deliveries, random_command


def lived_in() -> Driver:
    """A machine with something in every corner."""
    driver = Driver()
    driver(Configure("q", max_deliveries=2, visibility_ms=700, message_ttl_ms=50_000))
    for number in range(12):
        driver(Enqueue("q", b"%d" % number, number % 3, 400 * (number == 5), 900 * (number == 6)))
    driver(Enqueue("other", b"1"))
    driver(Enqueue("empty", b"1"))
    driver(Pop("empty"))
    delivered = driver(Dequeue("q", 5, 1000))["messages"]
    driver(Ack(int(delivered[0]["msg_id"])))
    driver(Nack(int(delivered[1]["msg_id"])))
    driver(Nack(int(delivered[2]["msg_id"]), delay_ms=600))
    driver(Reject(int(delivered[3]["msg_id"])))
    return driver


def test_a_restored_machine_goes_on_like_the_original() -> None:
    """Ready, returned, delayed, in flight, dead, counters, settings, ids, receipts, deadlines: all of it lives on."""
    original = lived_in()
    restored = original.restored()
    rng = random.Random(5)
    delivered: list[tuple[int, str]] = []

    assert restored.state() == original.state()
    assert restored.machine.next_due_ms() == original.machine.next_due_ms()
    for _ in range(400):
        passed_ms = rng.choice((0, 100, 1500))
        original.wait(passed_ms)
        restored.wait(passed_ms)
        command = random_command(rng, delivered, original.machine.store.next_id)
        answer = original(command)
        note_deliveries(answer, delivered)
        assert restored(command) == answer
        assert restored.machine.next_due_ms() == original.machine.next_due_ms()
    assert restored.state() == original.state()


def test_ids_and_receipts_rise_on_after_a_restore() -> None:
    """Also where no message is left that would tell how far they were."""
    driver = Driver()
    driver(Enqueue("q", b"1"))
    receipt = driver(Dequeue("q"))["messages"][0]["receipt"]
    driver(Ack(1))

    restored = driver.restored()

    assert restored(Enqueue("q", b"2"))["msg_id"] == "2"
    assert int(restored(Dequeue("q"))["messages"][0]["receipt"]) > int(receipt)


def test_a_snapshot_is_of_one_moment() -> None:
    """Its records may be drawn while the machine goes on; they show nothing of that."""
    driver = lived_in()
    expected = driver.state()

    records = driver.machine.snapshot()
    first = next(records)
    driver.wait(100_000)
    while driver(Pop("q"))["ok"]:
        pass
    driver(Enqueue("q", b"later"))

    assert [first, *records] == expected


def test_equal_states_give_equal_records_whatever_led_there() -> None:
    """Stale ids and lanes that were used once are not state."""
    straight, crooked = Driver(), Driver()
    for driver in (straight, crooked):
        for number in range(2000):
            driver(Enqueue("q", b"x", ttl_ms=10 if number % 2 else 0))
    crooked = crooked.restored()

    straight.wait(10)
    crooked.wait(10)

    assert straight.restored().state() == crooked.state() == straight.state()


def test_records_are_small() -> None:
    """By count and by bytes, so that each is encoded in a moment."""
    driver = Driver()
    for _ in range(2000):
        driver(Enqueue("q", b"x"))
    for _ in range(5):
        driver(Enqueue("big", b"x" * 200_000))

    sizes = [
        (len(record[1]), sum(len(message[2]) for message in record[1]))
        for record in driver.state()
        if record[0] == "messages"
    ]

    assert max(count for count, _ in sizes) <= 256
    assert max(size for _, size in sizes) <= 2 * 256 << 10


def test_a_record_that_nobody_wrote_is_refused() -> None:
    """A snapshot of another service, or of a newer version, must not be half understood."""
    machine = QueueMachine()

    with pytest.raises(ValueError, match="unknown record"):
        machine.restore([["lock", "a"]])


def test_a_table_and_its_copy_do_not_see_each_others_writes() -> None:
    """Copy on write, per segment, in both directions and through a second copy."""
    table = MessageTable()
    messages = [Message("q", b"%d" % number, 0, 0, 0, 0, 0, 0, 0) for number in range(5000)]
    for number, message in enumerate(messages):
        table.put(number, message)

    copy = table.copy()
    table.remove(7)
    table.put(8, messages[0])
    second = table.copy()
    copy.put(9, messages[0])
    copy.remove(4999)
    table.remove(10)

    assert [table.get(number) for number in (7, 8, 9, 10)] == [None, messages[0], messages[9], None]
    assert [copy.get(number) for number in (7, 8, 9, 10)] == [messages[7], messages[8], messages[0], messages[10]]
    assert [second.get(number) for number in (7, 8, 9, 10)] == [None, messages[0], messages[9], messages[10]]
    assert (len(table), len(copy), len(second)) == (4998, 4999, 4999)
