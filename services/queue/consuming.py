"""How a request gets a message: at once, or by waiting at this node until there is one.

The rule: a consumer that waits asks, sleeps in this node's waiting room until a message of its queue becomes
ready, and asks again; it ends with its time or its client. Where a delivery was replicated for a client that is
gone by then, it is given back at once, uncounted, unless the request carried an `Idempotency-Key`: then the client
will ask for this very answer again. A pop has no delivery to give back.
"""

import asyncio
from typing import Any

from aiohttp import web

from common.logs import get_logger
from raft.errors import RaftError
from raft.node import RaftNode
from services.envelope import encode_command
from services.handlers import IDEMPOTENCY_KEY, group_node, host, replicate
from services.queue import GROUP, queries
from services.queue.commands import Dequeue, Nack, Pop
from services.queue.waiting import Ticket, waiting_room

#: A waiting consumer looks by itself this often: a snapshot that replaces the machine brings no events.
RECHECK_S = 1.0

logger = get_logger("services.queue")


async def consume(request: web.Request, command: Dequeue | Pop, wait_s: float) -> dict[str, Any]:
    """The machine's answer to `command`, asked until something is there or `wait_s` is over: it is then still
    `{"waiting": True}`, which only a command with `waits` is told.

    Raises:
        RaftError: see `RaftNode.propose`.
        ApiError: too many wait at this node.
    """
    if not wait_s:
        return await _ask(request, command)
    node = group_node(request, GROUP)
    give_up = asyncio.get_running_loop().time() + wait_s
    with waiting_room(node).place(command.queue) as ticket:
        while True:
            result = await _ask(request, command)
            if "waiting" not in result or not await _wait_ready(request, node, command.queue, ticket, give_up):
                return result


async def _wait_ready(
    request: web.Request, node: RaftNode, queue: str, ticket: Ticket, give_up: float
) -> bool:
    """True once it is worth asking again, False once the wait is over or the client gone."""
    while (left_s := give_up - asyncio.get_running_loop().time()) > 0:
        if await ticket.wait_woken(min(left_s, RECHECK_S)):
            return not _has_gone(request)
        if _has_gone(request):
            return False
        if queries.has_ready(node.machine.inner.store, queue):
            return True
    return False


async def _ask(request: web.Request, command: Dequeue | Pop) -> dict[str, Any]:
    """Like `replicate`, but a delivery whose client goes away meanwhile is given back."""
    if isinstance(command, Pop) or IDEMPOTENCY_KEY in request.headers:
        return await replicate(request, GROUP, command)
    asking = asyncio.ensure_future(replicate(request, GROUP, command))
    try:
        result = await asyncio.shield(asking)
    except asyncio.CancelledError:
        _in_background(request, _give_back_later(group_node(request, GROUP), asking))
        raise
    if _has_gone(request):
        _in_background(request, _give_back(group_node(request, GROUP), result))
    return result


async def _give_back_later(node: RaftNode, asking: asyncio.Future[dict[str, Any]]) -> None:
    try:
        result = await asking
    except RaftError:
        # Nothing was delivered, or nobody knows: then the visibility timeout brings the message back.
        return
    await _give_back(node, result)


async def _give_back(node: RaftNode, result: dict[str, Any]) -> None:
    """Return deliveries that reached nobody; where the cluster cannot now, their visibility ends by itself."""
    try:
        for message in result.get("messages", ()):
            command = Nack(int(message["msg_id"]), message["receipt"], unseen=True)
            await node.propose(encode_command(command))
    except RaftError as error:
        logger.info("a delivery to a client that has gone could not be given back", error=str(error))


def _in_background(request: web.Request, coroutine: Any) -> None:
    """Run to the end although the request is over."""
    tasks = host(request).background
    task = asyncio.create_task(coroutine, name="give a delivery back")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _has_gone(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()
