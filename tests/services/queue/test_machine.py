"""What each command of the queues does, one fact a test."""

import pytest

from services.queue.replicated import limits
from services.queue.replicated.commands import (
    Ack,
    AckBatch,
    Configure,
    Dequeue,
    Enqueue,
    EnqueueBatch,
    Extend,
    Nack,
    Pop,
    Redrive,
    Reject,
)
from tests.services.queue.driving import Driver

NOTHING = {"messages": []}


@pytest.fixture
def queue() -> Driver:
    return Driver()


def put(driver: Driver, *payloads: bytes, **fields: int) -> list[int]:
    """Enqueue into `q`; gives the ids."""
    return [int(driver(Enqueue("q", payload, **fields))["msg_id"]) for payload in payloads]


def take(driver: Driver, count: int = 1, visibility_ms: int = 1000) -> list[bytes]:
    """Deliver from `q`; gives the payloads."""
    return [message["payload"] for message in driver(Dequeue("q", count, visibility_ms))["messages"]]


def test_a_delivery_says_what_the_contract_says(queue: Driver) -> None:
    """Message id as a decimal string, payload untouched, receipt, count and queue."""
    queue(Enqueue("orders", b'{"a": 1}'))

    answer = queue(Dequeue("orders"))

    assert answer == {
        "messages": [
            {"msg_id": "1", "payload": b'{"a": 1}', "receipt": "1", "delivery": 1, "queue": "orders"}
        ]
    }


def test_an_unknown_queue_is_empty_and_stays_unknown(queue: Driver) -> None:
    """Consumers that ask for a name do not use up the quota of queues."""
    assert queue(Dequeue("never")) == NOTHING
    assert queue(Pop("never")) == {"ok": False, "reason": "empty"}
    assert queue.machine.store.queues == {}


def test_whoever_waits_is_told_so_where_nothing_is_there(queue: Driver) -> None:
    """`waiting` is no outcome: the route asks again."""
    assert queue(Dequeue("q", waits=True)) == {"waiting": True}
    assert queue(Pop("q", waits=True)) == {"waiting": True}


def test_messages_come_in_the_order_in_which_they_were_put(queue: Driver) -> None:
    """FIFO within a priority, over the borders of chunks."""
    payloads = [b"%d" % number for number in range(3000)]
    put(queue, *payloads)

    assert take(queue, 1000) + take(queue, 1000) + take(queue, 1000) == payloads


def test_a_higher_priority_goes_first(queue: Driver) -> None:
    """9 before 5 before 0, FIFO within each."""
    put(queue, b"a")
    put(queue, b"b", b"c", priority=9)
    put(queue, b"d", priority=5)
    put(queue, b"e")

    assert take(queue, 5) == [b"b", b"c", b"d", b"a", b"e"]


def test_a_returning_message_goes_to_the_front_of_its_priority(queue: Driver) -> None:
    """Ahead of what was not delivered yet, behind higher priorities, oldest first among those that came back."""
    first, second, _, _ = put(queue, b"1", b"2", b"3", b"4")
    take(queue, 2)
    queue(Nack(second))
    queue(Nack(first))
    put(queue, b"high", priority=1)

    assert take(queue, 5) == [b"high", b"1", b"2", b"3", b"4"]


def test_a_delayed_message_comes_when_its_delay_is_over(queue: Driver) -> None:
    """Not a millisecond earlier, and then behind what is ready already."""
    put(queue, b"late", delay_ms=500)
    put(queue, b"early")

    queue.wait(499)
    before = take(queue, 2)
    queue.wait(1)

    assert before == [b"early"]
    assert take(queue, 2) == [b"late"]


def test_a_message_past_its_time_to_live_is_gone(queue: Driver) -> None:
    """Ready, delayed or returning: none is delivered after its end."""
    put(queue, b"ready", ttl_ms=100)
    put(queue, b"delayed", ttl_ms=100, delay_ms=100)
    (held,) = put(queue, b"held", ttl_ms=100, priority=1)
    take(queue)

    queue.wait(100)

    assert queue(Nack(held)) == {"ok": True, "state": "expired"}
    assert take(queue, 5) == []
    assert len(queue.machine.store.messages) == 0
    assert queue.machine.store.queues["q"].counters.expired == 3


def test_an_ack_counts_though_the_time_to_live_is_over(queue: Driver) -> None:
    """The consumer had it in time and did the work."""
    (held,) = put(queue, b"held", ttl_ms=100)
    take(queue)

    queue.wait(500)

    assert queue(Ack(held)) == {"ok": True}


def test_the_queues_own_time_to_live_serves_messages_that_bring_none(queue: Driver) -> None:
    """`message_ttl` of the configuration."""
    queue(Configure("q", message_ttl_ms=100))
    put(queue, b"short")
    put(queue, b"long", ttl_ms=1000)

    queue.wait(100)

    assert take(queue, 2) == [b"long"]


def test_what_is_not_acknowledged_comes_back_when_its_visibility_ends(queue: Driver) -> None:
    """By cluster time, with a higher count and another receipt."""
    put(queue, b"1")
    first = queue(Dequeue("q", visibility_ms=1000))["messages"][0]

    queue.wait(999)
    hidden = take(queue)
    queue.wait(1)
    second = queue(Dequeue("q"))["messages"][0]

    assert hidden == []
    assert (first["delivery"], second["delivery"]) == (1, 2)
    assert first["receipt"] != second["receipt"]
    assert queue.machine.store.queues["q"].counters.redelivered == 1


def test_the_default_visibility_is_the_queues(queue: Driver) -> None:
    """30 s unless configured."""
    put(queue, b"1")
    queue(Dequeue("q"))
    queue.wait(29_999)
    hidden = take(queue)
    queue.wait(1)
    back = take(queue, visibility_ms=10)
    queue.wait(10)

    queue(Configure("q", visibility_ms=50))
    queue(Dequeue("q"))
    queue.wait(50)

    assert (hidden, back) == ([], [b"1"])
    assert take(queue) == [b"1"]


def test_extend_hides_a_message_for_longer(queue: Driver) -> None:
    """Counted from now, not from the old end."""
    (message_id,) = put(queue, b"1")
    take(queue, visibility_ms=1000)
    queue.wait(900)

    answer = queue(Extend(message_id, visibility_ms=1000))
    queue.wait(999)
    hidden = take(queue)
    queue.wait(1)

    assert answer == {"ok": True, "expires_in_s": 1.0}
    assert hidden == []
    assert take(queue) == [b"1"]


def test_a_late_ack_with_an_earlier_receipt_leaves_the_new_delivery_alone(queue: Driver) -> None:
    """rabbitmq #4004: an old delivery's tag must not acknowledge the new holder's message."""
    (message_id,) = put(queue, b"1")
    old = queue(Dequeue("q", visibility_ms=100))["messages"][0]["receipt"]
    queue.wait(100)
    while_ready = queue(Ack(message_id, old))
    new = queue(Dequeue("q", visibility_ms=100))["messages"][0]["receipt"]

    stale = {"ok": False, "reason": "stale_receipt"}
    assert while_ready == stale
    assert [queue(command) for command in (
        Ack(message_id, old), Nack(message_id, old), Extend(message_id, old, 10), Reject(message_id, old),
        Ack(message_id, "no receipt at all"),
    )] == [stale] * 5  # fmt: skip
    assert queue(Ack(message_id, new)) == {"ok": True}


def test_an_unknown_or_finished_message_is_not_in_flight(queue: Driver) -> None:
    """Never given, not delivered yet, acknowledged."""
    (message_id,) = put(queue, b"1")
    not_in_flight = {"ok": False, "reason": "not_in_flight"}
    before = queue(Ack(message_id))
    receipt = queue(Dequeue("q"))["messages"][0]["receipt"]
    queue(Ack(message_id))

    assert before == not_in_flight
    assert queue(Ack(message_id)) == not_in_flight
    assert queue(Ack(message_id, receipt)) == not_in_flight
    assert queue(Ack(0)) == queue(Ack(10**17)) == not_in_flight


def test_a_nack_with_a_delay_comes_back_to_the_front_later(queue: Driver) -> None:
    """Hidden for the delay, then ahead of what was never delivered."""
    first, _ = put(queue, b"1", b"2")
    take(queue)

    answer = queue(Nack(first, delay_ms=300))
    queue.wait(300)

    assert answer == {"ok": True, "state": "delayed"}
    assert take(queue, 2) == [b"1", b"2"]


def test_too_many_deliveries_make_a_dead_letter(queue: Driver) -> None:
    """By nack and by timeout alike; the dead letter stays in its queue's group."""
    queue(Configure("q", max_deliveries=2))
    (message_id,) = put(queue, b"1")
    take(queue, visibility_ms=10)
    queue.wait(10)
    take(queue)

    answer = queue(Nack(message_id))

    assert answer == {"ok": True, "state": "dead"}
    assert take(queue) == []
    assert queue.machine.store.queues["q"].dead == [message_id]


def test_the_default_limit_of_deliveries_is_twenty_and_zero_is_none(queue: Driver) -> None:
    """A message that kills every consumer leaves the front at some time, unless that is switched off."""
    put(queue, b"1")
    queue(Enqueue("endless", b"1"))
    queue(Configure("endless", max_deliveries=0))

    for name in ("q", "endless"):
        for _ in range(20):
            assert queue(Dequeue(name, 1, 10))["messages"]
            queue.wait(10)

    assert queue(Dequeue("q")) == NOTHING
    assert queue(Dequeue("endless"))["messages"][0]["delivery"] == 21


def test_a_delivery_that_reached_nobody_does_not_count(queue: Driver) -> None:
    """The route gives deliveries of clients that went away back as unseen."""
    queue(Configure("q", max_deliveries=1))
    (message_id,) = put(queue, b"1")
    receipt = queue(Dequeue("q"))["messages"][0]["receipt"]

    answer = queue(Nack(message_id, receipt, unseen=True))
    again = queue(Dequeue("q"))["messages"][0]

    assert answer == {"ok": True, "state": "ready"}
    assert again["delivery"] == 1
    assert again["receipt"] != receipt


def test_a_rejected_message_is_dead_at_once_and_a_redrive_makes_it_new(queue: Driver) -> None:
    """To the back of the queue, with its count at nought."""
    rejected, _ = put(queue, b"1", b"2")
    take(queue)
    queue(Reject(rejected))

    answer = queue(Redrive("q"))
    messages = queue(Dequeue("q", 2))["messages"]

    assert (answer["moved"], answer["more"]) == (1, False)
    assert [(message["payload"], message["delivery"]) for message in messages] == [(b"2", 1), (b"1", 1)]


def test_a_redrive_goes_on_where_the_entry_before_it_stopped(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry moves a bounded number; later dead letters are not taken in."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    for message_id in put(queue, b"1", b"2", b"3"):
        take(queue)
        queue(Reject(message_id))

    first = queue(Redrive("q"))
    (late,) = put(queue, b"late", priority=9)
    take(queue)
    queue(Reject(late))
    second = queue(Redrive("q", first["before_id"]))

    assert [(first["moved"], first["more"]), (second["moved"], second["more"])] == [(2, True), (1, False)]
    assert queue.machine.store.queues["q"].dead == [late]


def test_pop_delivers_and_acknowledges_in_one_step(queue: Driver) -> None:
    """Nothing is left in flight."""
    put(queue, b"1")

    answer = queue(Pop("q"))

    assert (answer["ok"], answer["item"]) == (True, b"1")
    assert len(queue.machine.store.messages) == 0
    assert queue.machine.next_due_ms() is None


def test_queues_do_not_touch_each_other(queue: Driver) -> None:
    """Ids are the group's, order and content are the queue's."""
    ids = [queue(Enqueue(name, name.encode()))["msg_id"] for name in ("a", "b", "a")]

    assert ids == ["1", "2", "3"]
    assert [message["msg_id"] for message in queue(Dequeue("a", 9))["messages"]] == ["1", "3"]
    assert queue(Pop("b"))["item"] == b"b"


def test_a_batch_is_put_in_as_a_whole_or_not_at_all(queue: Driver) -> None:
    """One queue's limit refuses the batch, its messages for other queues included."""
    queue(Configure("small", max_messages=1))
    batch = EnqueueBatch((("q", b"1", 0, 0, 0), ("small", b"2", 0, 0, 0), ("small", b"3", 0, 0, 0)))

    refused = queue(batch)
    accepted = queue(EnqueueBatch(batch.messages[:2]))

    assert (refused["ok"], refused["reason"]) == (False, "quota")
    assert accepted == {"ok": True, "msg_ids": ["1", "2"]}
    assert take(queue, 5) == [b"1"]


def test_a_batch_of_acks_judges_each_message(queue: Driver) -> None:
    """The whole is `ok` only if each is; the reason is the first refusal's."""
    first, second = put(queue, b"1", b"2")
    receipts = [message["receipt"] for message in queue(Dequeue("q", 2))["messages"]]

    mixed = queue(AckBatch(((first, receipts[0]), (99, None))))
    clean = queue(AckBatch(((second, None),)))

    assert mixed == {
        "ok": False,
        "reason": "not_in_flight",
        "results": [
            {"msg_id": str(first), "ok": True},
            {"msg_id": "99", "ok": False, "reason": "not_in_flight"},
        ],
    }
    assert clean == {"ok": True, "results": [{"msg_id": str(second), "ok": True}]}


def test_limits_refuse_with_quota(queue: Driver) -> None:
    """Messages and bytes of a queue, bytes of all, number of queues, deliveries in flight; nothing is changed."""
    queue(Configure("few", max_messages=1))
    queue(Configure("small", max_bytes=303))
    queue(Enqueue("few", b"1"))
    before = queue.state()
    queue.machine.limits.set([("queues_max", 2), ("in_flight_per_queue_max", 0)])

    answers = [
        queue(command)
        for command in (Enqueue("few", b"2"), Enqueue("small", b"1234"), Enqueue("third", b""), Dequeue("few"))
    ]
    queue.machine.limits.set([("bytes_max", 602)])
    answers.append(queue(Enqueue("small", b"12")))

    assert [answer["reason"] for answer in answers] == ["quota"] * 5
    assert queue.state() == before
    assert queue(Enqueue("small", b"1"))["ok"]


def test_an_answer_takes_up_a_bounded_number_of_bytes(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit stays ready; one message always fits."""
    monkeypatch.setattr("services.queue.replicated.machine.DELIVERY_BYTES_MAX", 10)
    put(queue, b"x" * 50, b"y" * 6, b"z" * 6, b"!" * 6)

    assert [len(take(queue, 10)) for _ in range(3)] == [1, 2, 1]


def test_a_paused_queue_takes_in_and_gives_nothing_out(queue: Driver) -> None:
    """When it goes on, those who wait hear of all that is ready."""
    queue(Configure("q", paused=True))
    put(queue, b"1", b"2")
    paused = take(queue), queue(Pop("q"))["ok"], list(queue.events)

    queue(Configure("q", paused=False))

    assert paused == ([], False, [])
    assert queue.events == [("queue:q", 2)]
    assert take(queue, 2) == [b"1", b"2"]


def test_a_configuration_changes_only_what_it_names(queue: Driver) -> None:
    """None leaves a setting as it is."""
    queue(Configure("q", max_deliveries=3))
    queue(Configure("q", max_messages=7))

    settings = queue.machine.store.queues["q"].settings
    assert (settings.max_deliveries, settings.max_messages, settings.visibility_ms) == (3, 7, 30_000)


def test_every_message_that_becomes_ready_is_told_once(queue: Driver) -> None:
    """Put in, given back, visibility over, delay over: an event each; hidden, dead and expired ones none."""
    (first,) = put(queue, b"1")
    take(queue)
    queue(Nack(first))
    take(queue, visibility_ms=100)
    queue.wait(100)
    put(queue, b"2", delay_ms=50)
    told_before_delay = len(queue.events)
    queue.wait(50)
    take(queue, 2)
    queue(Reject(first))

    assert told_before_delay == 3
    assert queue.events == [("queue:q", 1)] * 4


def test_one_entry_handles_a_bounded_number_of_deadlines(queue: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is due at once again, and nothing expired is delivered meanwhile."""
    monkeypatch.setattr("services.queue.replicated.machine.DUE_PER_ENTRY_MAX", 2)
    put(queue, b"1", b"2", b"3", b"4", b"5", ttl_ms=10)
    queue.wait(10)
    due_ms = queue.machine.next_due_ms()

    delivered = take(queue, 5)

    assert due_ms is not None
    assert due_ms <= queue.time_ms
    assert delivered == []
    assert queue.machine.next_due_ms() is None
    assert queue.machine.store.queues["q"].counters.expired == 5


def test_waking_at_next_due_misses_no_deadline(queue: Driver) -> None:
    """Whoever advances time only when `next_due_ms` says so sees each deadline at its time."""
    put(queue, b"1", delay_ms=70_000)
    put(queue, b"2", delay_ms=1)
    ready_at = {}

    while (due_ms := queue.machine.next_due_ms()) is not None:
        assert due_ms > queue.time_ms
        queue.wait(due_ms - queue.time_ms)
        for message in queue(Dequeue("q", 9, limits.VISIBILITY_MS_MAX))["messages"]:
            ready_at[message["payload"]] = queue.time_ms - 1_000_000
            queue(Ack(int(message["msg_id"])))

    assert ready_at == {b"1": 70_000, b"2": 1}
