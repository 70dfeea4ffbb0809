"""What a route handler does with a command: replicate it, or read what is replicated.

    result = await replicate(request, "lock", Release(...))
    machine = await linearizable(request, "lock")
    return answer(result)

A handler awaits once after it has read the body. Raft's errors pass through; the web layer answers them.
"""

import asyncio
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from aiohttp import web

from common.logs import get_logger
from common.web import ApiError, json_response
from common.wire import pack
from raft.errors import OutcomeUnknown, RaftError
from raft.node import RaftNode
from services.envelope import Command, encode_command, values_by_name
from services.errors import TROUBLES, api_error
from services.host import Host, host

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY = re.compile(r"[\x20-\x7e]{1,128}")
#: Fields that differ when the same request is sent again, perhaps to another node.
_PER_TRY_FIELDS = frozenset({"waiter", "node", "boot"})
#: A wait is ended by the replicated machine; the route gives it this much longer before it speaks up.
WAIT_GRACE_S = 2.0

logger = get_logger("services.handlers")

__all__ = [
    "Host",
    "answer",
    "group_node",
    "host",
    "idempotency_key",
    "linearizable",
    "replicate",
    "replicate_waiting",
]


def group_node(request: web.Request, group: str) -> RaftNode:
    """This node's replica of `group`."""
    return host(request).nodes[group]


async def replicate(request: web.Request, group: str, command: Command) -> dict[str, Any]:
    """The machine's answer to `command`, once a quorum holds it and this node has applied it.

    Raises:
        RaftError: see `RaftNode.propose`.
        ApiError: the request's idempotency key is not one.
    """
    return await group_node(request, group).propose(_encode(request, command))


async def linearizable(request: web.Request, group: str) -> Any:
    """The service's machine, holding all that was acknowledged before this call. Read it without awaiting."""
    node = group_node(request, group)
    await node.read_index()
    return node.machine.inner


async def replicate_waiting(
    request: web.Request, group: str, command: Any, cancel: Command
) -> dict[str, Any]:
    """Like `replicate` for a command that may be answered later, under its `waiter`, by an event.

    Where the client goes away first, or nothing is heard for too long, `cancel` is replicated.
    """
    node = group_node(request, group)
    limit_s = command.wait_ms / 1000 + WAIT_GRACE_S
    waiter = command.waiter
    try:
        result = await _propose_and_wait(node, _encode(request, command), waiter, limit_s)
        if "waiter" not in result:
            return result
        # The same idempotency key is already waiting, under an earlier request's id: join that wait.
        waiter = result["waiter"]
        return await _propose_and_wait(node, _encode(request, command), waiter, limit_s)
    except (asyncio.CancelledError, OutcomeUnknown):
        if waiter == command.waiter:
            _spawn(request, _withdraw(node, encode_command(cancel)))
        raise


async def _propose_and_wait(node: RaftNode, data: bytes, waiter: str, limit_s: float) -> dict[str, Any]:
    outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def on_outcome(body: dict[str, Any]) -> None:
        if not outcome.done():
            outcome.set_result(body)

    unsubscribe = node.subscribe(f"waiter:{waiter}", on_outcome)
    try:
        result = await node.propose(data)
        if not result.get("waiting") or result.get("waiter", waiter) != waiter:
            return result
        return await asyncio.wait_for(outcome, limit_s)
    except TimeoutError:
        raise OutcomeUnknown("the wait was not decided in time; ask again with the same key") from None
    finally:
        unsubscribe()


async def _withdraw(node: RaftNode, data: bytes) -> None:
    """Replicate a cancellation; where the cluster cannot now, the wait's own deadline ends it."""
    try:
        await node.propose(data)
    except RaftError as error:
        logger.info("a wait could not be withdrawn", error=str(error))


def _spawn(request: web.Request, coroutine: Any) -> None:
    """Run to the end although the request is over."""
    tasks = host(request).background
    task = asyncio.create_task(coroutine, name="withdraw")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def idempotency_key(request: web.Request) -> str | None:
    """The key under which this request may be sent again; None where it has none.

    Raises:
        ApiError: it is not one.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise ApiError(400, "bad_request", f"{IDEMPOTENCY_KEY} must be 1 to 128 printable ASCII characters")
    return key


def _encode(request: web.Request, command: Command) -> bytes:
    key = idempotency_key(request)
    if key is None:
        return encode_command(command)
    return encode_command(command, idempotency_key=key, fingerprint=fingerprint(command))


def fingerprint(command: Command) -> bytes:
    """16 bytes that tell one request from another: what was asked, whichever node or vocabulary said it. A field that
    its command was given later (`ADDED`) counts where it says something: an answer that was kept before an upgrade is
    found after it."""
    added: dict[str, Any] = getattr(command, "ADDED", {})
    asked = {
        name: value
        for name, value in values_by_name(command).items()
        if name not in _PER_TRY_FIELDS and not (name in added and value == added[name])
    }
    return blake2b(pack([command.OP, asked]), digest_size=16).digest()


def answer(result: Mapping[str, Any]) -> web.Response:
    """The machine's answer as JSON, with the status, sentence and headers that its `reason` stands for."""
    reason = result.get("reason")
    if reason is None or reason not in TROUBLES:
        return json_response(result)
    facts = {name: value for name, value in result.items() if name not in ("ok", "reason", "detail")}
    return api_error(reason, result.get("detail"), **facts).response()
