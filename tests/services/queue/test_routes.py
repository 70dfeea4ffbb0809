"""How HTTP says the queues: shapes of requests and answers, in both vocabularies."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from raft.errors import NoLeader, OutcomeUnknown
from tests.services.queue.hosting import Queues, queues

NOTHING = {"ok": False, "reason": "empty", "msg_id": None, "payload": None}


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Queues]:
    async with queues() as served:
        yield served


async def test_the_short_vocabulary_end_to_end(served: Queues) -> None:
    """enq, a deq without a body as PowerShell sends it, ack."""
    put = await served.ok("enq", {"key": "user:42", "value": "hello"})
    async with served.client.post(
        "/queue/deq", headers={"Content-Type": "application/x-www-form-urlencoded"}
    ) as response:
        got = await response.json()
    acked = await served.ok("ack", {"msg_id": got["msg_id"]})

    assert put == {"ok": True, "msg_id": "1"}
    assert got == {
        "ok": True,
        "msg_id": "1",
        "payload": {"key": "user:42", "value": "hello"},
        "receipt": "1",
        "delivery": 1,
        "queue": "default",
    }
    assert acked == {"ok": True}
    assert await served.ok("deq") == NOTHING


async def test_the_long_vocabulary_end_to_end(served: Queues) -> None:
    """push, a pop with a payload that means nothing, an empty queue."""
    await served.ok("push", {"queue": "orders", "payload": {"order_id": 1, "item": "book"}})
    got = await served.ok("pop", {"queue": "orders", "payload": {}})
    empty = await served.ok("pop", {"queue": "orders"})

    assert (got["ok"], got["item"]) == (True, {"order_id": 1, "item": "book"})
    assert empty == {"ok": False, "reason": "empty"}


@pytest.mark.parametrize(
    "payload", ['{ "a" : 1.0, "a": 12345678901234567890 }', "null", '"\\u00fc \\ud83d\\ude00"', "[]"]
)
async def test_payloads_travel_as_they_are(served: Queues, payload: str) -> None:
    """Byte for byte: no number, space or escape is touched, null is a payload."""
    headers = {"Content-Type": "application/json"}
    async with served.client.post(
        "/queue/push", data=f'{{"queue":"q","payload":{payload}}}', headers=headers
    ) as response:
        assert response.status == 200
    async with served.client.post("/queue/pop", json={"queue": "q"}) as response:
        text = await response.text()

    assert f'"item":{payload}' in text


async def test_a_message_without_a_key_shows_null(served: Queues) -> None:
    """The payload of an enq always has both fields."""
    await served.ok("enq", {"value": None})

    assert (await served.ok("deq"))["payload"] == {"key": None, "value": None}


async def test_max_above_one_answers_a_list(served: Queues) -> None:
    """Also where there is one message, or none."""
    await served.ok("push", {"queue": "q", "payload": 1})

    some = await served.ok("deq", {"queue": "q", "max": 5})
    none = await served.ok("deq", {"queue": "q", "max": 5})

    assert [message["payload"] for message in some["messages"]] == [1]
    assert none == {"ok": False, "reason": "empty", "messages": []}


async def test_delay_priority_and_ttl_are_seconds_and_reach_the_machine(served: Queues) -> None:
    """Fractions count; a time to live that is shorter than a millisecond is not none."""
    await served.ok("enq", {"value": "late", "delay": 0.25})
    await served.ok("enq", {"value": "low"})
    await served.ok("enq", {"value": "high", "priority": 9})
    await served.ok("enq", {"value": "short", "ttl": 0.0001, "priority": 9})
    served.node.pass_time(1)

    values = [message["payload"]["value"] for message in (await served.ok("deq", {"max": 9}))["messages"]]
    served.node.pass_time(249)

    assert values == ["high", "low"]
    assert (await served.ok("deq"))["payload"]["value"] == "late"


async def test_nack_extend_and_reject_by_id_and_receipt(served: Queues) -> None:
    """Each ends or prolongs the delivery that the receipt names."""
    await served.ok("enq", {"value": 1})
    first = await served.ok("deq", {"visibility": 10})
    extended = await served.ok("extend", {"msg_id": "1", "receipt": first["receipt"], "visibility": 60})
    served.node.pass_time(59_999)
    hidden = await served.ok("deq")
    nacked = await served.ok("nack", {"msg_id": "1", "receipt": first["receipt"], "delay": 1})
    served.node.pass_time(1000)
    second = await served.ok("deq")
    stale = await served.ok("ack", {"msg_id": "1", "receipt": first["receipt"]})
    rejected = await served.ok("reject", {"msg_id": "1", "receipt": second["receipt"]})

    assert extended == {"ok": True, "expires_in_s": 60.0}
    assert hidden == NOTHING
    assert nacked == {"ok": True, "state": "delayed"}
    assert second["delivery"] == 2
    assert stale == {"ok": False, "reason": "stale_receipt"}
    assert rejected == {"ok": True}
    assert (await served.get("stats"))[1]["dead"] == 1


async def test_a_nack_of_a_message_past_its_time_to_live_says_so(served: Queues) -> None:
    """It was with its consumer for longer than it had to live: there is nothing to come back. Repeated as well."""
    await served.ok("enq", {"value": 1, "ttl": 1})
    got = await served.ok("deq")
    served.node.pass_time(1000)
    nack = {"msg_id": got["msg_id"], "receipt": got["receipt"]}
    key = {"headers": {"Idempotency-Key": "k"}}

    assert await served.ok("nack", nack, **key) == {"ok": True, "state": "expired"}
    assert await served.ok("nack", nack, **key) == {"ok": True, "state": "expired", "replayed": True}
    assert await served.ok("nack", nack) == {"ok": False, "reason": "not_in_flight"}


@pytest.mark.parametrize("msg_id", ["2", "0", "01", "-1", "१", "x", "9" * 30])
async def test_an_id_that_was_never_given_is_not_in_flight(served: Queues, msg_id: str) -> None:
    """Whatever it looks like: only the service knows what its ids look like."""
    await served.ok("enq", {"value": 1})
    await served.ok("deq")

    assert await served.ok("ack", {"msg_id": msg_id}) == {"ok": False, "reason": "not_in_flight"}


async def test_many_acks_in_one_request(served: Queues) -> None:
    """Ids alone, or with receipts; by /queue/ack and by /queue/ack_batch."""
    ids = (await served.ok("enq_batch", {"messages": [{"value": n} for n in range(4)]}))["msg_ids"]
    messages = (await served.ok("deq", {"max": 4}))["messages"]

    first = await served.ok("ack", {"messages": ids[:2]})
    second = await served.ok(
        "ack_batch", {"messages": [{"msg_id": ids[2], "receipt": messages[2]["receipt"]}, "77"]}
    )

    assert first["ok"]
    assert (second["ok"], second["reason"]) == (False, "not_in_flight")
    assert [result["ok"] for result in second["results"]] == [True, False]


async def test_a_batch_takes_both_vocabularies_and_is_one_entry(served: Queues) -> None:
    """`value` with its key, or `payload`; each message may name a queue of its own."""
    body = {"queue": "a", "messages": [{"key": "k", "value": 1}, {"payload": 2}, {"payload": 3, "queue": "b"}]}

    answer = await served.ok("enq_batch", body)

    assert answer == {"ok": True, "msg_ids": ["1", "2", "3"]}
    assert len(served.node.applied) == 1
    assert (await served.ok("pop", {"queue": "a"}))["item"] == {"key": "k", "value": 1}
    assert (await served.ok("pop", {"queue": "a"}))["item"] == 2
    assert (await served.ok("pop", {"queue": "b"}))["item"] == 3


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("enq", {}, "value"),
        ("enq", {"value": 1, "tll": 3}, "tll"),
        ("enq", {"value": 1, "priority": 10}, "priority"),
        ("enq", {"value": 1, "priority": 1.5}, "priority"),
        ("enq", {"value": 1, "delay": -1}, "delay"),
        ("enq", {"value": 1, "ttl": 0}, "ttl"),
        ("enq", {"value": 1, "queue": ""}, "queue"),
        ("enq", {"value": 1, "queue": "q" * 257}, "queue"),
        ("enq", {"value": 1, "queue": "a\nb"}, "queue"),
        ("enq", {"value": 1, "key": "k" * 10_000}, "key"),
        ("push", {"payload": 1}, "queue"),
        ("push", {"queue": "q"}, "payload"),
        ("deq", {"max": 0}, "max"),
        ("deq", {"max": 1001}, "max"),
        ("deq", {"wait": 3601}, "wait"),
        ("deq", {"wait": "1"}, "wait"),
        ("deq", {"visibility": 0}, "visibility"),
        ("deq", {"queue": 7}, "queue"),
        ("pop", {}, "queue"),
        ("ack", {}, "msg_id"),
        ("ack", {"msg_id": "1", "messages": ["1"]}, "msg_id"),
        ("ack", {"messages": ["1"], "receipt": "1"}, "receipt"),
        ("ack", {"msg_id": 1}, "msg_id"),
        ("ack_batch", {"messages": []}, "messages"),
        ("ack_batch", {"messages": ["1"] * 1001}, "messages"),
        ("nack", {"receipt": "1"}, "msg_id"),
        ("extend", {"msg_id": "1", "visibility": 10**6}, "visibility"),
        ("reject", {"msg_id": ""}, "msg_id"),
        ("enq_batch", {"messages": [{"value": 1}] * 1001}, "messages"),
        ("enq_batch", {"messages": [{"value": 1}, {}]}, "messages[1]"),
        ("enq_batch", {"messages": [{"value": 1, "payload": 1}]}, "messages[0]"),
        ("config", {"max_deliveries": -1}, "max_deliveries"),
    ],
)
async def test_a_bad_request_names_its_field(served: Queues, path: str, body: Any, named: str) -> None:
    """400, and nothing was replicated."""
    status, answer = await served.post(path, body)

    assert (status, answer["ok"], answer["reason"]) == (400, False, "bad_request")
    assert f"`{named}`" in answer["detail"]
    assert served.node.applied == []


async def test_a_value_beyond_the_limit_is_too_large(served: Queues) -> None:
    """1 MiB of JSON passes, one byte more does not."""
    largest = "x" * (served.host.settings.value_bytes_max - 2)

    fits, _ = await served.post("push", {"queue": "q", "payload": largest})
    status, answer = await served.post("push", {"queue": "q", "payload": largest + "x"})

    assert fits == 200
    assert (status, answer["reason"]) == (413, "too_large")


async def test_a_full_queue_answers_quota(served: Queues) -> None:
    """429, and the sentence says which limit."""
    await served.ok("config", {"queue": "q", "max_messages": 1})
    await served.ok("push", {"queue": "q", "payload": 1})

    status, answer = await served.post("push", {"queue": "q", "payload": 2})

    assert (status, answer["ok"], answer["reason"]) == (429, False, "quota")
    assert "1 messages" in answer["detail"]


async def test_the_clusters_troubles_pass_through(served: Queues) -> None:
    """503 where it was not done, 504 where nobody knows; a deq that failed delivered nothing that is known."""
    served.node.failure = NoLeader("none")
    statuses = [(await served.post("enq", {"value": 1}))[0], (await served.post("deq"))[0]]
    statuses.append((await served.get("stats"))[0])
    served.node.failure = OutcomeUnknown("lost")
    statuses.append((await served.post("deq"))[0])

    assert statuses == [503, 503, 503, 504]


async def test_a_repeated_request_gets_its_first_answer(served: Queues) -> None:
    """With the same Idempotency-Key an enq puts one message in and a deq gives the same delivery."""
    twice = [
        await served.ok("enq", {"value": 1}, headers={"Idempotency-Key": "put"}) for _ in range(2)
    ]
    same = [await served.ok("deq", headers={"Idempotency-Key": "get"}) for _ in range(2)]

    assert twice[1] == {**twice[0], "replayed": True}
    assert same[1] == {**same[0], "replayed": True}
    assert await served.ok("deq") == NOTHING


async def test_a_repeated_deq_leaves_out_the_deliveries_that_have_ended(served: Queues) -> None:
    """Acknowledged, or somebody else's by now: the client that asks again must not take them for its own."""
    for value in range(3):
        await served.ok("push", {"queue": "q", "payload": value})
    key = {"Idempotency-Key": "get"}
    body = {"queue": "q", "max": 3, "visibility": 60}
    first = await served.ok("deq", body, headers=key)
    await served.ok("ack", {"msg_id": first["messages"][0]["msg_id"]})
    await served.ok("nack", {"msg_id": first["messages"][1]["msg_id"]})
    await served.ok("deq", {"queue": "q"})

    again = await served.ok("deq", body, headers=key)

    assert again == {"ok": True, "messages": first["messages"][2:], "replayed": True}


async def test_stats_tell_how_a_queue_stands(served: Queues) -> None:
    """Counts by state, totals and settings; a queue that nobody used is empty, not an error."""
    await served.ok("enq", {"value": 1, "delay": 5})
    await served.ok("enq_batch", {"messages": [{"value": 1}, {"value": 2}]})
    await served.ok("deq")

    _, stats = await served.get("stats")
    _, unknown = await served.get("stats", queue="never")

    assert {field: stats[field] for field in ("queue", "exists", "ready", "in_flight", "delayed", "dead")} == {
        "queue": "default", "exists": True, "ready": 1, "in_flight": 1, "delayed": 1, "dead": 0,
    }  # fmt: skip
    assert (stats["enqueued_total"], stats["delivered_total"]) == (3, 1)
    assert stats["settings"]["visibility"] == 30
    assert (unknown["ok"], unknown["exists"], unknown["ready"]) == (True, False, 0)


async def test_the_list_goes_page_by_page(served: Queues) -> None:
    """By name, with a prefix, from a place on."""
    for name in ("b2", "a", "b1", "b3"):
        await served.ok("push", {"queue": name, "payload": 1})

    _, first = await served.get("list", prefix="b", limit=2)
    _, second = await served.get("list", prefix="b", limit=2, after=first["next"])

    assert [queue["queue"] for queue in first["queues"]] == ["b1", "b2"]
    assert [queue["queue"] for queue in second["queues"]] == ["b3"]
    assert second["next"] is None


async def test_peek_shows_each_state_and_delivers_nothing(served: Queues) -> None:
    """Ready messages in order of delivery; ages and deadlines in seconds."""
    for value, fields in ((1, {}), (2, {}), (3, {"priority": 1}), (4, {"delay": 9}), (5, {"priority": 9})):
        await served.ok("enq", {"value": value, **fields})
    await served.ok("reject", {"msg_id": (await served.ok("deq"))["msg_id"]})
    await served.ok("deq", {"visibility": 20})
    served.node.pass_time(1000)

    seen = {}
    for state in ("ready", "in_flight", "delayed", "dead"):
        _, answer = await served.get("peek", state=state)
        seen[state] = [(m["payload"]["value"], m["due_in_s"], m["deliveries"]) for m in answer["messages"]]
    again = (await served.get("stats"))[1]
    status, refused = await served.get("peek", state="lost")

    assert seen == {
        "ready": [(1, None, 0), (2, None, 0)],
        "in_flight": [(3, 19.0, 1)],
        "delayed": [(4, 8.0, 0)],
        "dead": [(5, None, 1)],
    }
    assert again["delivered_total"] == 2
    assert (status, refused["reason"]) == (400, "bad_request")


async def test_a_redrive_moves_all_dead_letters(served: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many entries as it takes."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    await served.ok("enq_batch", {"messages": [{"value": n} for n in range(5)]})
    for message in (await served.ok("deq", {"max": 5}))["messages"]:
        await served.ok("reject", {"msg_id": message["msg_id"]})

    assert await served.ok("redrive", {"queue": "default"}) == {"ok": True, "moved": 5}
    assert len((await served.ok("deq", {"max": 9}))["messages"]) == 5


async def test_a_redrive_that_is_sent_again_tells_of_all_that_it_moved(
    served: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost after the second entry of five: by the key, the same request ends with the same count, and
    so does a third; another request with the key is refused."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    await served.ok("enq_batch", {"messages": [{"value": n} for n in range(9)]})
    for message in (await served.ok("deq", {"max": 9}))["messages"]:
        await served.ok("reject", {"msg_id": message["msg_id"]})
    key = {"headers": {"Idempotency-Key": "k" * 128}}
    propose, proposed = served.node.propose, []

    async def propose_and_lose(command: bytes, *, parting: bool = False) -> Any:
        proposed.append(command)
        answer = await propose(command)
        if len(proposed) == 2:
            raise OutcomeUnknown("lost")
        return answer

    monkeypatch.setattr(served.node, "propose", propose_and_lose)
    lost, _ = await served.post("redrive", {"queue": "default"}, **key)
    again = await served.ok("redrive", {"queue": "default"}, **key)
    third = await served.ok("redrive", {"queue": "default"}, **key)
    other, _ = await served.post("redrive", {"queue": "q"}, **key)

    assert (lost, other) == (504, 422)
    assert (again["moved"], third["moved"]) == (9, 9)
    assert len((await served.ok("deq", {"max": 20}))["messages"]) == 9


async def test_a_queue_is_purged_and_deleted(served: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is not with consumers, or one state; a queue with deliveries only by force."""
    monkeypatch.setattr("services.queue.replicated.sweeps.SWEEP_PER_ENTRY_MAX", 2)
    await served.ok("enq_batch", {"queue": "q", "messages": [{"value": n, "delay": n % 2} for n in range(9)]})
    await served.ok("deq", {"queue": "q"})

    answers = [
        await served.ok("purge", {"queue": "q", "state": "delayed"}),
        await served.ok("purge", {"queue": "q"}),
        await served.ok("delete", {"queue": "q"}),
        await served.ok("delete", {"queue": "q", "force": True}),
        await served.ok("delete", {"queue": "q"}),
    ]
    wrong, refusal = await served.post("purge", {"queue": "q", "state": "lost"})

    assert answers == [
        {"ok": True, "purged": 4},
        {"ok": True, "purged": 4},
        {"ok": False, "reason": "in_flight", "in_flight": 1},
        {"ok": True, "deleted": True, "purged": 1},
        {"ok": True, "deleted": False, "purged": 0},
    ]
    assert (wrong, "state" in refusal["detail"]) == (400, True)
    assert (await served.post("purge", {}))[0] == 400


async def test_dead_letters_are_configured_in_words_and_seconds(served: Queues) -> None:
    """And peeked at with the time that they have left."""
    await served.ok("config", {"queue": "q", "max_dead": 5, "max_dead_bytes": 5000, "dead_ttl": 60})
    await served.ok("push", {"queue": "q", "payload": 1})
    await served.ok("reject", {"msg_id": (await served.ok("deq", {"queue": "q"}))["msg_id"]})
    served.node.pass_time(20_000)

    _, stats = await served.get("stats", queue="q")
    _, peeked = await served.get("peek", queue="q", state="dead")

    settings = stats["settings"]
    assert (settings["max_dead"], settings["max_dead_bytes"], settings["dead_ttl"]) == (5, 5000, 60)
    assert (stats["bytes"], stats["dead_bytes"]) == (301, 301)
    assert peeked["messages"][0]["expires_in_s"] == 40


async def test_a_configuration_shows_in_the_stats(served: Queues) -> None:
    """In the words and units in which it was set; nought takes a time to live away."""
    await served.ok("config", {"queue": "q", "visibility": 1.5, "message_ttl": 60, "paused": True})
    _, stats = await served.get("stats", queue="q")
    await served.ok("config", {"queue": "q", "message_ttl": 0})
    _, after = await served.get("stats", queue="q")

    settings = stats["settings"]
    assert (settings["visibility"], settings["message_ttl"], settings["paused"]) == (1.5, 60, True)
    assert after["settings"]["message_ttl"] is None


async def test_what_was_served_is_counted(served: Queues) -> None:
    """Pushes, deliveries, redeliveries by this node; gauges by queue from the machine."""
    await served.ok("enq", {"value": 1})
    await served.ok("enq_batch", {"queue": "b", "messages": [{"value": 1}, {"value": 2}]})
    await served.ok("deq", {"visibility": 1})
    served.node.pass_time(1000)
    await served.ok("pop", {"queue": "default"})
    await served.ok("deq")
    metrics = served.host.metrics

    assert (metrics.served.queue_push, metrics.served.queue_pop) == (3, 2)
    assert metrics.queue_redelivered_total.labels().value == 1
    assert metrics.queue_depth.rows() == {("default",): 0, ("b",): 2}
