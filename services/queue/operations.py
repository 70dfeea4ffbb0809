"""Everything that can be asked of the queues, in the order of the docs.

The rule: an operation says one command or asks one question, and words the answer. How a consumer waits is in
`services.queue.node.consuming`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from common.api_error import check_name
from common.logs import get_logger
from raft.node import RaftNode
from services.node.host import Host
from services.operations.answers import NotKept, check, done_of, told
from services.operations.call import Call
from services.operations.operation import Operations, get, post
from services.operations.refusals import READ, WRITE
from services.queue import GROUP, bodies
from services.queue.answers import (
    Acknowledged,
    AcknowledgedMany,
    Configured,
    Deleted,
    Delivered,
    DeliveredMany,
    Empty,
    Enqueued,
    EnqueuedMany,
    Extended,
    GivenBack,
    InFlight,
    Listed,
    Moved,
    NotAllCurrent,
    NotCurrent,
    NothingDelivered,
    Peeked,
    Popped,
    Purged,
    Rejected,
    Stats,
    deliveries_of,
    with_raw_payloads,
)
from services.queue.node.consuming import GiveBacks, consume, machine_of
from services.queue.replicated import commands, queries
from services.queue.replicated.state import Queue

_ONE = {"msg_id": "17", "receipt": "4"}

Done = TypeVar("Done")

logger = get_logger("services.queue")
queue = Operations(GROUP)


def attach(here: Host, node: RaftNode) -> None:
    """Let the metrics of `here` read the queues that `node` replicates, at each scrape."""

    def rows(count: Callable[[Queue], int]) -> Callable[[], list[tuple[tuple[str, ...], int]]]:
        return lambda: queries.counts(machine_of(node).store, count)

    given_back = here.parts[GiveBacks] = GiveBacks(node, here.background)
    here.metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), len(given_back))])
    here.metrics.queue_depth.watch(rows(lambda queue: queue.ready))
    here.metrics.queue_in_flight.watch(rows(lambda queue: len(queue.in_flight)))
    here.metrics.queue_dead.watch(rows(lambda queue: len(queue.dead)))


# Putting in


@queue.answers("queue.enq", post("/queue/enq"), refuses=WRITE, example={"key": "user:42", "value": "hello"})
async def enq(call: Call, body: bodies.EnqBody) -> Enqueued | NotKept:
    """Put a message in, whose payload is `{"key", "value"}`."""
    return await _put(call, bodies.enqueue_of(body, **_bounds(call)), 1, Enqueued)


@queue.answers("queue.push", post("/queue/push"), refuses=WRITE, example={"queue": "default", "payload": {"n": 1}})
async def push(call: Call, body: bodies.PushBody) -> Enqueued | NotKept:
    """Put a message in, whose payload is delivered as it is."""
    return await _put(call, bodies.push_of(body, **_bounds(call)), 1, Enqueued)


@queue.answers(
    "queue.enq_batch", post("/queue/enq_batch"), refuses=WRITE, example={"messages": [{"payload": 1}, {"value": 2}]}
)
async def enq_batch(call: Call, body: bodies.EnqBatchBody) -> EnqueuedMany | NotKept:
    """Put many messages in, all or none, as one log entry."""
    command = bodies.enqueue_batch_of(body, **_bounds(call))
    return await _put(call, command, len(command.messages), EnqueuedMany)


async def _put(call: Call, command: Any, count: int, done: type[Done]) -> Done | NotKept:
    result = await call.replicate(command)
    answer = done_of(result, done)
    call.host.metrics.served.queue_push += count
    return answer


def _bounds(call: Call) -> dict[str, int]:
    settings = call.host.settings
    return {"name_bytes_max": settings.name_bytes_max, "value_bytes_max": settings.value_bytes_max}


# Taking out


@queue.answers("queue.deq", post("/queue/deq"), refuses=WRITE, example={"queue": "default", "wait": 5})
async def deq(call: Call, body: bodies.DeqBody) -> Delivered | DeliveredMany | NothingDelivered | NotKept:
    """Take one message, or up to `max`, for `visibility` seconds: what is not acknowledged by then comes back."""
    _check_queue(call, body.queue)
    command = commands.Dequeue(body.queue, body.max, bodies.milliseconds(body.visibility), waits=body.wait > 0)
    result = await consume(call, command, body.wait)
    check(result)
    if "answer" in result:
        return msgspec.convert(result, NotKept)
    messages = result.get("messages", [])
    _count_deliveries(call, [message["delivery"] for message in messages])
    replayed = {"replayed": True} if "replayed" in result else {}
    return deliveries_of(messages, many=body.max > 1, **replayed)


@queue.answers("queue.pop", post("/queue/pop"), refuses=WRITE, example={"queue": "default"})
async def pop(call: Call, body: bodies.PopBody) -> Popped | Empty | NotKept:
    """Take one message and acknowledge it in the same step.

    A client that vanishes at that moment has lost the item, unless it sent an `Idempotency-Key` and asks again.
    """
    _check_queue(call, body.queue)
    result = await consume(call, commands.Pop(body.queue, waits=body.wait > 0), body.wait)
    if "waiting" in result:
        return Empty()
    if "item" in result:
        _count_deliveries(call, [result["delivery"]])
        result = {**result, "item": Raw(result["item"])}
    return told(result, Popped, Empty)


def _count_deliveries(call: Call, deliveries: list[int]) -> None:
    metrics = call.host.metrics
    metrics.served.queue_pop += len(deliveries)
    metrics.queue_redelivered_total.add(sum(delivery > 1 for delivery in deliveries))


# Ending a delivery


@queue.answers("queue.ack", post("/queue/ack"), refuses=WRITE, example=_ONE)
async def ack(
    call: Call, body: bodies.AckBody
) -> Acknowledged | AcknowledgedMany | NotCurrent | NotAllCurrent | NotKept:
    """Say that a message is done, or several."""
    result = await call.replicate(bodies.ack_of(body))
    if body.messages is not None:
        return told(result, AcknowledgedMany, NotAllCurrent)
    return told(result, Acknowledged, NotCurrent)


@queue.answers("queue.ack_batch", post("/queue/ack_batch"), refuses=WRITE, example={"messages": ["17", _ONE]})
async def ack_batch(call: Call, body: bodies.AckBatchBody) -> AcknowledgedMany | NotAllCurrent | NotKept:
    """Say that many messages are done, each on its own merits, as one log entry."""
    return told(await call.replicate(bodies.ack_batch_of(body.messages)), AcknowledgedMany, NotAllCurrent)


@queue.answers("queue.nack", post("/queue/nack"), refuses=WRITE, example=_ONE)
async def nack(call: Call, body: bodies.NackBody) -> GivenBack | NotCurrent | NotKept:
    """Give a message back, to the front of its priority, or for after a `delay`."""
    command = commands.Nack(bodies.message_id_of(body.msg_id), body.receipt, bodies.milliseconds(body.delay))
    return told(await call.replicate(command), GivenBack, NotCurrent)


@queue.answers("queue.extend", post("/queue/extend"), refuses=WRITE, example=_ONE | {"visibility": 60})
async def extend(call: Call, body: bodies.ExtendBody) -> Extended | NotCurrent | NotKept:
    """Let a delivery end `visibility` seconds from now."""
    command = commands.Extend(bodies.message_id_of(body.msg_id), body.receipt, bodies.milliseconds(body.visibility))
    return told(await call.replicate(command), Extended, NotCurrent)


@queue.answers("queue.reject", post("/queue/reject"), refuses=WRITE, example=_ONE)
async def reject(call: Call, body: bodies.RejectBody) -> Rejected | NotCurrent | NotKept:
    """Send a message to the dead letters at once."""
    command = commands.Reject(bodies.message_id_of(body.msg_id), body.receipt)
    return told(await call.replicate(command), Rejected, NotCurrent)


# Running a queue


@queue.answers("queue.config", post("/queue/config"), refuses=WRITE, example={"queue": "jobs", "max_deliveries": 5})
async def config(call: Call, body: bodies.ConfigBody) -> Configured | NotKept:
    """Change settings of one queue; what is left out stays as it is."""
    _check_queue(call, body.queue)
    command = commands.Configure(
        body.queue,
        visibility_ms=bodies.milliseconds(body.visibility) or None,
        max_deliveries=body.max_deliveries,
        max_messages=body.max_messages,
        max_bytes=body.max_bytes,
        message_ttl_ms=None if body.message_ttl is None else bodies.milliseconds(body.message_ttl),
        paused=body.paused,
        max_dead=body.max_dead,
        max_dead_bytes=body.max_dead_bytes,
        dead_ttl_ms=None if body.dead_ttl is None else bodies.milliseconds(body.dead_ttl),
    )
    return done_of(await call.replicate(command), Configured)


@queue.answers("queue.redrive", post("/queue/redrive"), refuses=WRITE, right="admin", example={"queue": "jobs"})
async def redrive(call: Call, body: bodies.QueueBody) -> Moved | NotKept:
    """Put all dead letters back into their queue.

    It takes as many log entries as need be. To send it again moves only what is left, or with an `Idempotency-Key`
    tells of all that the request moved, the tries before included.
    """
    _check_queue(call, body.queue)
    return done_of(await _swept(call, commands.Redrive(body.queue), "moved"), Moved)


@queue.answers(
    "queue.purge", post("/queue/purge"), refuses=WRITE, right="admin", example={"queue": "jobs", "state": "dead"}
)
async def purge(call: Call, body: bodies.PurgeBody) -> Purged | NotKept:
    """Drop what is ready, delayed or dead, or what is in one state; who asked is put on record.

    Sent again as a redrive is.
    """
    command = bodies.purge_of(body, name_bytes_max=call.host.settings.name_bytes_max)
    result = await _swept(call, command, "purged")
    logger.warning("queue purged", queue=body.queue, state=body.state, asked_from=call.asked_from, result=result)
    return done_of(result, Purged)


@queue.answers("queue.delete", post("/queue/delete"), refuses=WRITE, right="admin", example={"queue": "jobs"})
async def delete(call: Call, body: bodies.DeleteBody) -> Deleted | InFlight | NotKept:
    """Drop a queue with all that it holds, its settings and counters; who asked is put on record.

    Sent again as a redrive is.
    """
    _check_queue(call, body.queue)
    result = await _swept(call, commands.Delete(body.queue, body.force), "purged")
    logger.warning("queue deleted", queue=body.queue, force=body.force, asked_from=call.asked_from, result=result)
    return told(result, Deleted, InFlight)


async def _swept(call: Call, command: Any, counted: str) -> dict[str, Any]:
    """The answer to a command that takes several entries; `counted` is added up over them. Each entry has an
    idempotency key of its own where the request has one, so a request that is sent again goes through the answers of
    those that were made, and on from there."""
    count = step = 0
    while True:
        result = await call.replicate(command, step=step)
        if not result["ok"]:
            return result
        count += result[counted]
        progress = {name: result.pop(name) for name in ("before_id", "after_id") if name in result}
        if not result.pop("more"):
            return {**result, counted: count}
        command = replace(command, **progress)
        step += 1


# Questions


@queue.answers("queue.stats", get("/queue/stats"), refuses=READ, example={"queue": "jobs"})
async def stats(call: Call, body: bodies.StatsQuery) -> Stats:
    """Show how a queue stands: counts by state, bytes, counters, settings."""
    _check_queue(call, body.queue)
    machine = await call.linearizable()
    return msgspec.convert(queries.describe(machine.store, body.queue), Stats)


@queue.answers("queue.list", get("/queue/list"), refuses=READ, example={"prefix": "jobs"})
async def list_queues(call: Call, body: bodies.ListQuery) -> Listed:
    """List the queues by name."""
    machine = await call.linearizable()
    return msgspec.convert(queries.page(machine.store, body.prefix, body.after, body.limit), Listed)


@queue.answers("queue.peek", get("/queue/peek"), refuses=READ, example={"queue": "jobs", "state": "dead"})
async def peek(call: Call, body: bodies.PeekQuery) -> Peeked:
    """Look at messages without taking them."""
    _check_queue(call, body.queue)
    bodies.check_state(body.state)
    machine = await call.linearizable()
    now_ms = call.node().cluster_time_ms()
    messages = with_raw_payloads(queries.peek(machine.store, body.queue, body.state, body.limit, now_ms))
    return msgspec.convert({"queue": body.queue, "state": body.state, "messages": messages}, Peeked)


def _check_queue(call: Call, name: str) -> None:
    check_name(name, "queue", call.host.settings.name_bytes_max)
