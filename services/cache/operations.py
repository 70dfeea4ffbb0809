"""How HTTP says the cache's writes, and which routes there are.

The rule of this file: a handler checks the request, says one command, and words the answer, which comes from `apply`
and never from a later look at the machine. Reads are in `reading`, rows of the directory in `listing`.
"""

from typing import Any

from aiohttp import web

from common.web import ApiError, bad_request, read_body
from raft.node import RaftNode
from raft.replica import RESTORED_TOPIC
from services.cache import GROUP
from services.cache.bodies import (
    DeleteBody,
    IncrBody,
    InvalidateBody,
    PutBody,
    PutManyBody,
    item_of,
    key_of,
    ttl_ms_of,
)
from services.cache.listing import line, lines
from services.cache.node.changes import Changes
from services.cache.node.coherence import Coherence
from services.cache.node.filling import FillLines
from services.cache.node.held import make_held_lines
from services.cache.node.invalidations import Invalidations
from services.cache.node.pending import answer_pending
from services.cache.reading import get, mget, read
from services.cache.replicated.commands import Delete, Incr, Invalidate, Put, PutMany
from services.cache.replicated.directory import M
from services.cache.replicated.line import Invalidated
from services.cache.replicated.machine import keys_of
from services.cache.replicated.store import INVALIDATED_TOPIC
from services.cache.watching import watch
from services.node.host import Host, host
from services.operations.call import answer, replicate

#: Refusals that only the cache knows, all of them 409, with the sentence for each.
_CONFLICTS = {
    "not_an_integer": "The value is no whole number of 64 bits; put one before you count with it.",
    "out_of_range": "The sum would leave the range of 64-bit numbers; count by less or put another value.",
    "lease_lost": (
        "The lease has ended: its time ran out, or the key or a tag of it was written, removed or invalidated "
        "meanwhile. What you have may be out of date; read the key again."
    ),
}


def routes() -> list[web.RouteDef]:
    """Every route of the cache."""
    return [
        web.post("/cache/put", put),
        web.post("/cache/write", put),
        web.post("/cache/get", get),
        web.get("/cache/read", read, allow_head=False),
        web.post("/cache/delete", delete),
        web.post("/cache/incr", incr),
        web.post("/cache/invalidate", invalidate),
        web.post("/cache/mget", mget),
        web.post("/cache/mput", mput),
        web.get("/cache/line", line),
        web.get("/cache/lines", lines),
        web.get("/cache/watch", watch, allow_head=False),
    ]


def attach(here: Host, node: RaftNode) -> None:
    """Let this node keep its grants and, while it leads, the account of invalidations, from its first entry on."""
    coherence = here.parts[Coherence] = Coherence(node, here.metrics, held=make_held_lines(here.settings))
    node.subscribe(RESTORED_TOPIC, lambda _: coherence.on_restored())
    account = Invalidations(node, here.metrics.cache_invalidation_wait_seconds.labels())
    node.withheld = account
    answer_pending(node, account)
    _attach_parts(here, node)


def _attach_parts(here: Host, node: RaftNode) -> None:
    """Whoever waits or watches at this node, and what is counted of it."""
    metrics = here.metrics
    fills = here.parts[FillLines] = FillLines(node, f"{here.node_id}:{here.boot}", here.background)
    changes = here.parts[Changes] = Changes(node, metrics.cache_watch_gaps_total.labels())
    metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), fills.owed)])
    metrics.cache_fill_leases.watch(lambda: [((), node.machine.inner.statistics().fill_leases)])
    metrics.cache_fill_waiting.watch(lambda: [((), fills.waiting)])
    metrics.cache_leases_granted_total.watch(lambda: [((), fills.granted)])
    metrics.cache_tags.watch(lambda: [((), node.machine.inner.statistics().tags)])
    metrics.cache_watching.watch(lambda: [((), len(changes))])

    def on_invalidated(invalidated: Invalidated) -> None:
        metrics.cache_invalidated_total.add(invalidated.lines)

    node.subscribe(INVALIDATED_TOPIC, on_invalidated)


# Writes


async def put(request: web.Request) -> web.Response:
    """`/cache/put` and `/cache/write`."""
    body = await read_body(request, PutBody)
    here = host(request)
    key, value, ttl_ms, if_version, tags = item_of(here, body)
    return await _write(request, Put(key, value, here.node_id, ttl_ms, if_version, tags, body.lease))


async def mput(request: web.Request) -> web.Response:
    """`/cache/mput`: all or nothing, one log entry."""
    body = await read_body(request, PutManyBody)
    here = host(request)
    # Without tags an item is as it always was: a node of the version before can read it.
    items = tuple(item if item[-1] else item[:-1] for item in (item_of(here, each) for each in body.items))
    if len({key for key, *_ in items}) < len(items):
        raise bad_request("The field `items` names a key twice; name each key once.")
    return await _write(request, PutMany(items, here.node_id))


async def delete(request: web.Request) -> web.Response:
    """`/cache/delete`."""
    body = await read_body(request, DeleteBody)
    here = host(request)
    return await _write(request, Delete(key_of(here, body.key), body.if_version, body.lease))


async def incr(request: web.Request) -> web.Response:
    """`/cache/incr`."""
    body = await read_body(request, IncrBody)
    here = host(request)
    command = Incr(key_of(here, body.key), body.by, here.node_id, ttl_ms_of(body.ttl))
    return await _write(request, command)


async def invalidate(request: web.Request) -> web.Response:
    """`/cache/invalidate`: every value with a tag, as one log entry."""
    body = await read_body(request, InvalidateBody)
    here = host(request)
    return answer(await replicate(request, GROUP, Invalidate(key_of(here, body.tag, "tag"))))


async def _write(request: web.Request, command: Any) -> web.Response:
    here = host(request)
    result = await replicate(request, GROUP, command)
    if result["ok"]:
        keys = keys_of(command)
        here.metrics.served.cache_writes += len(keys)
        if result.get("state") == M:
            coherence = here.parts[Coherence]
            for key in keys:
                coherence.grant(key, result["version"])
        return answer(result)
    if result["reason"] == "lease_lost":
        here.metrics.cache_leases_lost_total.add()
    if result["reason"] in _CONFLICTS:
        facts = {name: fact for name, fact in result.items() if name not in ("ok", "reason")}
        raise ApiError(409, result["reason"], _CONFLICTS[result["reason"]], facts=facts)
    return answer(result)
