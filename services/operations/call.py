"""What a route handler does with a command: replicate it, or read what is replicated.

    result = await replicate(request, "lock", Release(...))
    machine = await linearizable(request, "lock")
    return answer(result)

A handler awaits once after it has read the body. Raft's errors pass through; the web layer answers them.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from aiohttp import web

from common.web import ApiError, json_response
from common.wire import pack
from raft.node import RaftNode
from services.node.host import Host, host
from services.operations.refusals import TROUBLES, api_error
from services.replicated.envelope import Command, encode_command, values_by_name

IDEMPOTENCY_KEY = "Idempotency-Key"
#: What a refusal says that is told again.
REPLAYED_REFUSAL = "This Idempotency-Key was refused before, and so it stays; use a new key to ask anew."
_KEY = re.compile(r"[\x20-\x7e]{1,128}")
#: Fields that differ when the same request is sent again, perhaps to another node.
_PER_TRY_FIELDS = frozenset({"waiter", "node", "boot"})

__all__ = [
    "Host",
    "answer",
    "encode_request",
    "group_node",
    "host",
    "idempotency_key",
    "linearizable",
    "replicate",
]


def group_node(request: web.Request, group: str) -> RaftNode:
    """This node's replica of `group`."""
    return host(request).nodes[group]


async def replicate(request: web.Request, group: str, command: Command, *, step: int = 0) -> dict[str, Any]:
    """The machine's answer to `command`, once a quorum holds it and this node has applied it. Where one request takes
    several commands, `step` numbers them: each is kept under an idempotency key of its own.

    Raises:
        RaftError: see `RaftNode.propose`.
        ApiError: the request's idempotency key is not one.
    """
    return await group_node(request, group).propose(encode_request(request, command, step=step))


async def linearizable(request: web.Request, group: str) -> Any:
    """The service's machine, holding all that was acknowledged before this call. Read it without awaiting."""
    node = group_node(request, group)
    await node.read_index()
    return node.machine.inner


def idempotency_key(request: web.Request) -> str | None:
    """The key under which this request may be sent again; None where it has none.

    Raises:
        ApiError: it is not one.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise ApiError(400, "bad_request", f"{IDEMPOTENCY_KEY} must be 1 to 128 printable ASCII characters")
    return key


def encode_request(
    request: web.Request, command: Command, asked: Command | None = None, *, step: int = 0
) -> bytes:
    """The log entry of `command` under the request's idempotency key. `asked` is what the client asked for, where
    this try is for something less.

    Raises:
        ApiError: 400, the key is not one.
    """
    key = idempotency_key(request)
    if key is None:
        return encode_command(command)
    if step:
        # No key of a client is like it: those hold nothing that does not print.
        key = f"{key}\0{step}"
    return encode_command(command, idempotency_key=key, fingerprint=fingerprint(asked or command))


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
        return json_response({"detail": REPLAYED_REFUSAL, **result} if reason and "replayed" in result else result)
    facts = {name: value for name, value in result.items() if name not in ("ok", "reason", "detail")}
    return api_error(reason, result.get("detail"), **facts).response()
