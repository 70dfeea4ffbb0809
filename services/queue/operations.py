"""How HTTP says the queues' commands and questions.

The rule: a handler reads, replicates one command and words the answer. Payloads pass through as JSON text.

How a consumer waits is in `consuming`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiohttp import web
from msgspec import Raw

from common.logs import get_logger
from common.web import check_name, read_body, read_query
from raft.node import RaftNode
from services.node.host import Host, host
from services.operations.call import answer, group_node, linearizable, replicate
from services.queue import GROUP, bodies
from services.queue.node.consuming import GiveBacks, consume
from services.queue.replicated import commands, queries
from services.queue.replicated.state import Queue

logger = get_logger("services.queue")


def routes() -> list[web.RouteDef]:
    """Every route of the queues."""
    return [
        web.post("/queue/enq", enq),
        web.post("/queue/push", push),
        web.post("/queue/enq_batch", enq_batch),
        web.post("/queue/deq", deq),
        web.post("/queue/pop", pop),
        web.post("/queue/ack", ack),
        web.post("/queue/ack_batch", ack_batch),
        web.post("/queue/nack", nack),
        web.post("/queue/extend", extend),
        web.post("/queue/reject", reject),
        web.post("/queue/config", config),
        web.post("/queue/redrive", redrive),
        web.post("/queue/purge", purge),
        web.post("/queue/delete", delete),
        web.get("/queue/stats", stats),
        web.get("/queue/list", list_queues),
        web.get("/queue/peek", peek),
    ]


def attach(here: Host, node: RaftNode) -> None:
    """Let the metrics of `here` read the queues that `node` replicates, at each scrape."""

    def rows(count: Callable[[Queue], int]) -> Callable[[], list[tuple[tuple[str, ...], int]]]:
        return lambda: queries.counts(node.machine.inner.store, count)

    given_back = here.parts[GiveBacks] = GiveBacks(node, here.background)
    here.metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), len(given_back))])
    here.metrics.queue_depth.watch(rows(lambda queue: queue.ready))
    here.metrics.queue_in_flight.watch(rows(lambda queue: len(queue.in_flight)))
    here.metrics.queue_dead.watch(rows(lambda queue: len(queue.dead)))


# Putting in


async def enq(request: web.Request) -> web.Response:
    """`POST /queue/enq`"""
    body = await read_body(request, bodies.EnqBody)
    settings = host(request).settings
    command = bodies.enqueue_of(
        body, name_bytes_max=settings.name_bytes_max, value_bytes_max=settings.value_bytes_max
    )
    return await _put(request, command, 1)


async def push(request: web.Request) -> web.Response:
    """`POST /queue/push`"""
    body = await read_body(request, bodies.PushBody)
    settings = host(request).settings
    command = bodies.push_of(
        body, name_bytes_max=settings.name_bytes_max, value_bytes_max=settings.value_bytes_max
    )
    return await _put(request, command, 1)


async def enq_batch(request: web.Request) -> web.Response:
    """`POST /queue/enq_batch`: all or none, one log entry."""
    body = await read_body(request, bodies.EnqBatchBody)
    settings = host(request).settings
    command = bodies.enqueue_batch_of(
        body, name_bytes_max=settings.name_bytes_max, value_bytes_max=settings.value_bytes_max
    )
    return await _put(request, command, len(command.messages))


async def _put(request: web.Request, command: Any, count: int) -> web.Response:
    result = await replicate(request, GROUP, command)
    if result["ok"]:
        host(request).metrics.served.queue_push += count
    return answer(result)


# Taking out


async def deq(request: web.Request) -> web.Response:
    """`POST /queue/deq`: one delivery, or a list of them where `max` is above 1."""
    body = await read_body(request, bodies.DeqBody)
    check_name(body.queue, "queue", host(request).settings.name_bytes_max)
    command = commands.Dequeue(
        body.queue, body.max, bodies.milliseconds(body.visibility), waits=body.wait > 0
    )
    result = await consume(request, command, body.wait)
    if "reason" in result:
        return answer(result)
    messages = result.get("messages", [])
    _count_deliveries(request, [message["delivery"] for message in messages])
    for message in messages:
        message["payload"] = Raw(message["payload"])
    replayed = {"replayed": True} if "replayed" in result else {}
    if body.max > 1:
        return answer({"messages": messages, **replayed})
    return answer({**(messages[0] if messages else {"msg_id": None, "payload": None}), **replayed})


async def pop(request: web.Request) -> web.Response:
    """`POST /queue/pop`: delivery and acknowledgement in one step."""
    body = await read_body(request, bodies.PopBody)
    check_name(body.queue, "queue", host(request).settings.name_bytes_max)
    command = commands.Pop(body.queue, waits=body.wait > 0)
    result = await consume(request, command, body.wait)
    if "waiting" in result:
        result = {"ok": False, "reason": "empty"}
    if not result["ok"]:
        return answer(result)
    _count_deliveries(request, [result["delivery"]])
    return answer({**result, "item": Raw(result["item"])})


def _count_deliveries(request: web.Request, deliveries: list[int]) -> None:
    metrics = host(request).metrics
    metrics.served.queue_pop += len(deliveries)
    metrics.queue_redelivered_total.add(sum(delivery > 1 for delivery in deliveries))


# Ending a delivery


async def ack(request: web.Request) -> web.Response:
    """`POST /queue/ack`: one message, or several."""
    body = await read_body(request, bodies.AckBody)
    return answer(await replicate(request, GROUP, bodies.ack_of(body)))


async def ack_batch(request: web.Request) -> web.Response:
    """`POST /queue/ack_batch`: each on its own merits, one log entry."""
    body = await read_body(request, bodies.AckBatchBody)
    return answer(await replicate(request, GROUP, bodies.ack_batch_of(body.messages)))


async def nack(request: web.Request) -> web.Response:
    """`POST /queue/nack`"""
    body = await read_body(request, bodies.NackBody)
    command = commands.Nack(
        bodies.message_id_of(body.msg_id), body.receipt, bodies.milliseconds(body.delay)
    )
    return answer(await replicate(request, GROUP, command))


async def extend(request: web.Request) -> web.Response:
    """`POST /queue/extend`"""
    body = await read_body(request, bodies.ExtendBody)
    command = commands.Extend(
        bodies.message_id_of(body.msg_id), body.receipt, bodies.milliseconds(body.visibility)
    )
    return answer(await replicate(request, GROUP, command))


async def reject(request: web.Request) -> web.Response:
    """`POST /queue/reject`"""
    body = await read_body(request, bodies.RejectBody)
    command = commands.Reject(bodies.message_id_of(body.msg_id), body.receipt)
    return answer(await replicate(request, GROUP, command))


# Running a queue


async def config(request: web.Request) -> web.Response:
    """`POST /queue/config`"""
    body = await read_body(request, bodies.ConfigBody)
    check_name(body.queue, "queue", host(request).settings.name_bytes_max)
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
    return answer(await replicate(request, GROUP, command))


async def redrive(request: web.Request) -> web.Response:
    """`POST /queue/redrive`: as many log entries as it takes. To send it again moves only what is left, or with an
    `Idempotency-Key` tells of all that the request moved, the tries before included."""
    body = await read_body(request, bodies.QueueBody)
    check_name(body.queue, "queue", host(request).settings.name_bytes_max)
    return answer(await _swept(request, commands.Redrive(body.queue), "moved"))


async def purge(request: web.Request) -> web.Response:
    """`POST /queue/purge`: drops messages; who asked is put on record. Sent again as a redrive is."""
    body = await read_body(request, bodies.PurgeBody)
    command = bodies.purge_of(body, name_bytes_max=host(request).settings.name_bytes_max)
    result = await _swept(request, command, "purged")
    logger.warning("queue purged", queue=body.queue, state=body.state, asked_from=request.remote, result=result)
    return answer(result)


async def delete(request: web.Request) -> web.Response:
    """`POST /queue/delete`: drops the queue with all that it holds; who asked is put on record. Sent again as a
    redrive is."""
    body = await read_body(request, bodies.DeleteBody)
    check_name(body.queue, "queue", host(request).settings.name_bytes_max)
    result = await _swept(request, commands.Delete(body.queue, body.force), "purged")
    logger.warning("queue deleted", queue=body.queue, force=body.force, asked_from=request.remote, result=result)
    return answer(result)


async def _swept(request: web.Request, command: Any, counted: str) -> dict[str, Any]:
    """The answer to a command that takes several entries; `counted` is added up over them. Each entry has an
    idempotency key of its own where the request has one, so a request that is sent again goes through the answers of
    those that were made, and on from there."""
    count = step = 0
    while True:
        result = await replicate(request, GROUP, command, step=step)
        if not result["ok"]:
            return result
        count += result[counted]
        progress = {name: result.pop(name) for name in ("before_id", "after_id") if name in result}
        if not result.pop("more"):
            return {**result, counted: count}
        command = replace(command, **progress)
        step += 1


async def stats(request: web.Request) -> web.Response:
    """`GET /queue/stats?queue=`"""
    query = read_query(request, bodies.StatsQuery)
    check_name(query.queue, "queue", host(request).settings.name_bytes_max)
    machine = await linearizable(request, GROUP)
    return answer({"ok": True, **queries.describe(machine.store, query.queue)})


async def list_queues(request: web.Request) -> web.Response:
    """`GET /queue/list?prefix=&after=&limit=`"""
    query = read_query(request, bodies.ListQuery)
    machine = await linearizable(request, GROUP)
    return answer({"ok": True, **queries.page(machine.store, query.prefix, query.after, query.limit)})


async def peek(request: web.Request) -> web.Response:
    """`GET /queue/peek?queue=&state=&limit=`"""
    query = read_query(request, bodies.PeekQuery)
    check_name(query.queue, "queue", host(request).settings.name_bytes_max)
    bodies.check_state(query.state)
    machine = await linearizable(request, GROUP)
    now_ms = group_node(request, GROUP).cluster_time_ms()
    messages = queries.peek(machine.store, query.queue, query.state, query.limit, now_ms)
    for message in messages:
        message["payload"] = Raw(message["payload"])
    return answer({"ok": True, "queue": query.queue, "state": query.state, "messages": messages})
