"""Consumers that wait, over HTTP: woken once per message, ended with their time or their client."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from raft.errors import NoLeader, Stopping
from services.queue.node.consuming import RECHECK_S, consume
from services.queue.node.waiting import waiting_room
from services.queue.replicated.commands import Dequeue, Enqueue
from services.replicated.envelope import encode_command
from tests.helpers import eventually
from tests.services.calls import LoneCall
from tests.services.queue.hosting import Queues, queues

EMPTY = {"ok": False, "reason": "empty"}


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Queues]:
    async with queues() as served:
        yield served


async def waiting_consumers(served: Queues, count: int, path: str = "deq") -> list[asyncio.Task]:
    """So many consumers of `q` more, all asleep in their line."""
    body, before = {"queue": "q", "wait": 30}, waiting_room(served.node).waiting
    tasks = []
    for number in range(before, before + count):
        tasks.append(asyncio.create_task(served.ok(path, body)))
        await eventually(lambda expected=number + 1: waiting_room(served.node).waiting == expected)
    await eventually(lambda: len(served.node.applied) >= before + count)
    return tasks


async def test_a_waiting_consumer_gets_the_message_that_comes(served: Queues) -> None:
    """By enq, by a nack, by the end of a delay and of a visibility."""
    for make_ready in ("enq", "delay", "nack", "visibility"):
        if make_ready == "delay":
            await served.ok("enq", {"queue": "q", "value": 1, "delay": 5})
        elif make_ready != "enq":
            await served.ok("enq", {"queue": "q", "value": 1})
            held = await served.ok("deq", {"queue": "q", "visibility": 5})
        (consumer,) = await waiting_consumers(served, 1)

        if make_ready == "enq":
            await served.ok("enq", {"queue": "q", "value": 1})
        elif make_ready == "nack":
            await served.ok("nack", {"msg_id": held["msg_id"]})
        else:
            served.node.pass_time(5000)
        got = await asyncio.wait_for(consumer, 5)

        assert got["payload"] == {"key": None, "value": 1}, make_ready
        assert await served.ok("ack", {"msg_id": got["msg_id"], "receipt": got["receipt"]}) == {"ok": True}


async def test_one_message_wakes_one_consumer(served: Queues) -> None:
    """Ten wait, three messages come: three more proposals, three answers, in order of arrival."""
    consumers = await waiting_consumers(served, 10)
    asked = len(served.node.applied)

    for value in range(3):
        await served.ok("push", {"queue": "q", "payload": value})
    answers = [await asyncio.wait_for(consumer, 5) for consumer in consumers[:3]]

    assert [answer["payload"] for answer in answers] == [0, 1, 2]
    assert not any(consumer.done() for consumer in consumers[3:])
    assert len(served.node.applied) == asked + 3 + 3
    for consumer in consumers[3:]:
        consumer.cancel()


async def test_a_consumer_that_was_beaten_to_it_goes_on_waiting(served: Queues) -> None:
    """Another node's consumer took the message between the wake-up and the asking."""
    (consumer,) = await waiting_consumers(served, 1)
    asked = len(served.node.applied)

    served.node.apply(encode_command(Enqueue("q", b'"first"')))
    rival = served.node.apply(encode_command(Dequeue("q")))
    await eventually(lambda: len(served.node.applied) == asked + 3)
    await served.ok("push", {"queue": "q", "payload": "second"})

    assert [message["payload"] for message in rival["messages"]] == [b'"first"']
    assert (await asyncio.wait_for(consumer, 5))["payload"] == "second"


async def test_a_wait_in_vain_ends_empty_in_its_time(served: Queues) -> None:
    """The same answers as without waiting."""
    assert await served.ok("deq", {"queue": "q", "wait": 0.05}) == {**EMPTY, "msg_id": None, "payload": None}
    assert await served.ok("deq", {"queue": "q", "wait": 0.05, "max": 2}) == {**EMPTY, "messages": []}
    assert await served.ok("pop", {"queue": "q", "wait": 0.05}) == EMPTY
    assert waiting_room(served.node).waiting == 0


async def test_pop_waits_too(served: Queues) -> None:
    """And takes the message for good."""
    (consumer,) = await waiting_consumers(served, 1, "pop")

    await served.ok("push", {"queue": "q", "payload": 5})

    assert (await asyncio.wait_for(consumer, 5))["item"] == 5
    assert len(served.node.machine.inner.store.messages) == 0


async def test_nothing_stays_for_a_client_that_went_away(served: Queues) -> None:
    """Its place is given up at once and the next message goes to the next consumer, as a first delivery."""
    gone, stays = await waiting_consumers(served, 2)

    gone.cancel()
    await eventually(lambda: waiting_room(served.node).waiting == 1)
    await served.ok("push", {"queue": "q", "payload": 1})

    assert (await asyncio.wait_for(stays, 5))["delivery"] == 1


async def test_a_wake_up_goes_on_from_a_client_that_went_away(served: Queues) -> None:
    """The node knows that the client has hung up before the consumer is told so: the next one in line looks at
    once, and not only when it looks by itself."""
    call = LoneCall(host=served.host, group="queue")
    gone = asyncio.create_task(consume(call, Dequeue("q", waits=True), 30.0))
    await eventually(lambda: waiting_room(served.node).waiting == 1)
    (stays,) = await waiting_consumers(served, 1)

    call.gone = True
    await served.ok("push", {"queue": "q", "payload": 1})

    assert (await asyncio.wait_for(stays, RECHECK_S / 2))["delivery"] == 1
    assert "waiting" in await gone


async def test_a_delivery_for_a_client_that_went_away_is_given_back(served: Queues) -> None:
    """It was replicated while the client left: the message is ready again at once, and the delivery not counted."""
    await served.ok("push", {"queue": "q", "payload": 1})
    served.node.open.clear()
    asking = asyncio.create_task(served.ok("deq", {"queue": "q"}))
    await eventually(lambda: served.node.proposed == 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: served.host.background)

    served.node.open.set()
    await eventually(lambda: not served.host.background)

    store = served.node.machine.inner.store
    assert store.queues["q"].counters.delivered == 1
    assert (await served.ok("deq", {"queue": "q"}))["delivery"] == 1


async def test_a_delivery_is_given_back_until_that_is_known(served: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """No leader at the moment: without another try the message would stay hidden for its whole visibility."""
    monkeypatch.setattr("services.replicated.withdrawals.RETRY_S", 0.001)
    await served.ok("push", {"queue": "q", "payload": 1})
    served.node.open.clear()
    asking = asyncio.create_task(served.ok("deq", {"queue": "q", "visibility": 3_600}))
    await eventually(lambda: served.node.proposed == 2)
    asking.cancel()
    await eventually(lambda: served.host.background)

    served.node.on_applied = lambda: setattr(served.node, "failure", NoLeader("none"))
    served.node.open.set()
    await eventually(lambda: served.node.proposed >= 5)
    served.node.failure = None

    await eventually(lambda: served.node.machine.inner.store.queues["q"].ready == 1)


async def test_whoever_waits_at_a_node_that_stops_is_told_so_at_once(served: Queues) -> None:
    """Consumers of both kinds; nothing is delivered to them any more."""
    consumers = [
        asyncio.create_task(served.post(path, {"queue": "q", "wait": 600})) for path in ("deq", "pop", "deq")
    ]
    await eventually(lambda: waiting_room(served.node).waiting == 3)

    served.node.close(Stopping("this node is stopping"))
    answers = await asyncio.wait_for(asyncio.gather(*consumers), 5)

    assert [(status, answer["reason"]) for status, answer in answers] == [(503, "stopping")] * 3


async def test_a_consumer_notices_a_machine_that_a_snapshot_replaced(
    served: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that is installed on this node brings no events: who waits looks by itself."""
    monkeypatch.setattr("services.queue.node.consuming.RECHECK_S", 0.02)
    async with queues() as other:
        await other.ok("push", {"queue": "q", "payload": 1})
        chunks = list(other.node.machine.snapshot())
    (consumer,) = await waiting_consumers(served, 1)

    served.node.machine.restore(chunks)

    assert (await asyncio.wait_for(consumer, 5))["payload"] == 1
