"""Queues once all is mended: what a client may count on then, tried out. Consumers wait and wake, or leave.

Each trial gives False where something came in between and it has to be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.shell.client import NotDone, Unknown
from tests.shell.leavers import REQUEST_S, Leaver, leadership, stand_still
from tests.shell.queue_record import Delivery, Untold
from tests.shell.queues import DRAIN_MAX, DRAIN_VISIBILITY_S, LEFT, WAKE, QueueClient

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A consumer that waits hears within so long of a message: less than it takes to look by itself.
WOKEN_S = 0.3
WAKE_VISIBILITY_S = 0.5
#: Ways in which a message becomes ready.
WAYS = ("new", "delay", "nack", "visibility")
#: How often all of them become ready at once, when the queue is delivered from again.
PAUSED = 0.3
#: So many consumers leave, or wait in line before the one that stays; what reached none of them is there again within
#: so long, which is far less than its visibility.
LEAVERS, FIRST_IN_LINE, GIVEN_BACK_S, LEFT_VISIBILITY_S = 6, 3, 1.5, 2.5
#: So late at most it hears of what was given back by others, or was to wake others: before it looks by itself.
NEXT_WOKEN_S = 0.75
LOOK_AGAIN_S = 0.05
#: So long it waits where nothing comes.
NEXT_WAITS_S = 1.5


async def consumers_wake(run: Run, producer: QueueClient) -> bool:
    """One consumer waits at each node, and each hears at once of the message that is for it, however that became
    ready."""
    random, untold = producer.random, len(producer.record.untold)
    sent = len(producer.record.sent)
    if not await _pause(producer, False):
        return False
    await _drain(producer, WAKE)
    consumers = await _sleepers(run, producer)
    is_paused = random.random() < PAUSED
    ways = [random.choice(WAYS) for _ in consumers]
    out: list[Delivery] = []
    for way in ways:
        if way in ("nack", "visibility"):
            await producer.put_one(WAKE, 0.0)
            out += await producer.take(WAKE, 1, 0.0, WAKE_VISIBILITY_S, keyed=False)
    if is_paused and not await _pause(producer, True):
        return False
    waiting = [asyncio.create_task(each.take(WAKE, 1, 5.0, 5.0, keyed=False), name=each.name) for each in consumers]
    await asyncio.sleep(0.1)
    ready_us = 0
    for way in ways:
        ready_us = max(ready_us, await _make_ready(producer, way, out))
    if is_paused:
        await asyncio.sleep(max(0, ready_us - producer.now_us) / 1_000_000)
        is_told = await _pause(producer, False)
        ready_us = producer.now_us
    taken = [each for wait in waiting for each in await wait]
    for consumer in consumers:
        await _done_with(consumer, list(consumer.held.values()))
    if is_paused and not is_told:
        return False
    if len(producer.record.untold) > untold or not _all_put_in(producer, sent):
        return False
    late_s = (max((each.told_us for each in taken), default=0) - ready_us) / 1_000_000
    if len(taken) != len(consumers) or late_s > WOKEN_S:
        shown = f"{ways}, {'paused' if is_paused else 'not paused'}"
        run.fail(f"{len(taken)} of {len(consumers)} consumers woke ({shown}), the last of them {late_s} s late")
    run.world.count("queue: all woken")
    return True


async def _make_ready(producer: QueueClient, way: str, out: list[Delivery]) -> int:
    """Let one message become ready in this way; gives when it certainly is."""
    if way in ("new", "delay"):
        delay_s = 0.3 if way == "delay" else 0.0
        await producer.put_one(WAKE, delay_s)
        return producer.now_us + round(delay_s * 1_000_000)
    delivery = out.pop(0) if out else None
    if way == "nack" and delivery is not None:
        await producer.end("nack", delivery)
        return producer.now_us
    return producer.now_us + round(WAKE_VISIBILITY_S * 1_000_000)


async def _pause(producer: QueueClient, is_paused: bool) -> bool:
    """Whether the queue is known to be delivered from no longer, or again."""
    asked = await producer.request("/queue/config", {"queue": WAKE, "paused": is_paused}, keyed=True)
    return asked.told is not None


async def nobody_keeps_messages(run: Run, producer: QueueClient) -> bool:
    """Consumers leave in the middle. What can have reached none of them is there again at once, as if it had not been
    delivered."""
    random, record = producer.random, producer.record
    before, sent = leadership(run, "queue"), len(record.sent)
    record.untold.append(Untold("deq", LEFT, producer.now_us))
    await _drain(producer, LEFT)
    names = [each.node for each in await _sleepers(run, producer)]
    for _ in range(LEAVERS):
        await producer.put_one(LEFT, 0.0)
    if not names or not _all_put_in(producer, sent):
        return False
    leavers = [Leaver(run, f"leaver{producer.new_key()}", random.choice(names)) for _ in range(LEAVERS)]
    leaving = []
    for each in leavers:
        body = {"queue": LEFT, "visibility": LEFT_VISIBILITY_S, "wait": random.choice((0.0, 1.0))}
        leaving.append(each.ask_and_leave("/queue/deq", body, random.random() * REQUEST_S))
    await asyncio.gather(stand_still(run, names, producer), *leaving)
    until_us = producer.now_us + round(GIVEN_BACK_S * 1_000_000)
    taken: list[Delivery] = []
    while len(taken) + sum(each.may_know for each in leavers) < LEAVERS and producer.now_us < until_us:
        taken += await producer.take(LEFT, DRAIN_MAX, 0.0, LEFT_VISIBILITY_S, keyed=False)
        await asyncio.sleep(LOOK_AGAIN_S)
    known = sum(each.may_know for each in leavers)
    await _done_with(producer, taken)
    if leadership(run, "queue") != before:
        return False
    if len(taken) + known < LEAVERS:
        run.fail(f"{known} of {LEAVERS} messages can have reached who left, and only {len(taken)} came back")
    if sum(each.number > 1 for each in taken) > known:
        run.fail(f"{known} of {LEAVERS} messages can have reached who left, and these count as delivered: {taken}")
    for each in leavers:
        run.world.count("queue: left when answered" if each.may_know else "queue: left before the answer")
    return True


async def next_in_line_wakes(run: Run, producer: QueueClient) -> bool:
    """Consumers leave while a message becomes ready. The next in line has it at once."""
    random, record = producer.random, producer.record
    record.untold.append(Untold("deq", WAKE, producer.now_us))
    before, sent, untold = leadership(run, "queue"), len(record.sent), len(record.untold)
    await _drain(producer, WAKE)
    consumers = await _sleepers(run, producer)
    if not consumers:
        return False
    consumer = random.choice(consumers)
    waits_s, body = 2 * REQUEST_S, {"queue": WAKE, "visibility": LEFT_VISIBILITY_S, "wait": 5.0}
    leavers = [Leaver(run, f"leaver{producer.new_key()}", consumer.node) for _ in range(FIRST_IN_LINE)]
    leaves_s = [2 * waits_s + random.random() * waits_s for _ in leavers]
    leaving = [each.ask_and_leave("/queue/deq", body, at_s) for each, at_s in zip(leavers, leaves_s, strict=True)]
    leaving.append(stand_still(run, [consumer.node], producer, 2 * waits_s))
    left = asyncio.gather(*leaving)
    await asyncio.sleep(waits_s)
    waiting = asyncio.create_task(consumer.take(WAKE, 1, NEXT_WAITS_S, 5.0, keyed=False), name=consumer.name)
    await asyncio.sleep(waits_s + random.random() * waits_s)
    await producer.put_one(WAKE, 0.0)
    ready_us = producer.now_us
    await left
    taken = await waiting
    await _done_with(consumer, taken)
    if leadership(run, "queue") != before or len(record.untold) > untold or not _all_put_in(producer, sent):
        return False
    if any(each.may_know for each in leavers):
        return True
    late_s = (taken[0].told_us - ready_us) / 1_000_000 if taken else NEXT_WAITS_S
    if late_s > NEXT_WOKEN_S:
        run.fail(f"the consumer behind {FIRST_IN_LINE} that left at {consumer.node} woke {late_s} s late")
    run.world.count("queue: the next in line woke")
    return True


async def nothing_is_left(run: Run, producer: QueueClient) -> bool:
    """What was delivered to who left comes back in the end."""
    for queue in (WAKE, LEFT):
        await _drain(producer, queue)
        try:
            stats = await producer.ask_get(f"/queue/stats?queue={queue}")
        except (NotDone, Unknown):
            return False
        if any(stats[state] for state in ("ready", "in_flight", "delayed", "dead")):
            return False
    return True


Trial = Callable[["Run", QueueClient], Coroutine[Any, Any, bool]]


def trials_of(producer: QueueClient) -> tuple[Trial, ...]:
    """What one run tries, in this order, each until it could be tried."""
    leaving = producer.random.choice((nobody_keeps_messages, next_in_line_wakes))
    return consumers_wake, leaving, nothing_is_left


async def _drain(producer: QueueClient, queue: str) -> None:
    while taken := await producer.take(queue, DRAIN_MAX, 0.0, DRAIN_VISIBILITY_S, keyed=False):
        await producer.ack_all(taken)


async def _done_with(consumer: QueueClient, taken: list[Delivery]) -> None:
    if taken:
        await consumer.ack_all(taken)


async def _sleepers(run: Run, producer: QueueClient) -> list[QueueClient]:
    """A consumer at each node that can serve one."""
    sleepers = [QueueClient(run, f"sleeper{producer.new_key()} {name}", name) for name in run.world.nodes]
    return [each for each in sleepers if await each.is_served()]


def _all_put_in(producer: QueueClient, before: int) -> bool:
    """Whether all messages are known to be there that came after so many."""
    return all(each.told_us is not None for each in list(producer.record.sent.values())[before:])
