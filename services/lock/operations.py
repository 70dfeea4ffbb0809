"""How HTTP says the lock machine's commands and questions.

The rule: a handler reads, replicates one command or asks one question, and words the answer. Cluster times of
the machine's answers become seconds from now here and nowhere else.
"""

from typing import Any

from aiohttp import web

from common.logs import get_logger
from common.web import json_response, read_body, read_query
from raft.node import RaftNode
from services.lock import GROUP, bodies
from services.lock.node.waiting import LockWaits
from services.node.host import Host, host
from services.operations.call import answer, linearizable, replicate

#: Fields of the machine's answers that hold cluster time, and what a client sees in their place.
_SECONDS_NAMES = {"expires_ms": "expires_in_s", "deadline_ms": "deadline_in_s"}

_LIMIT_DETAILS = {
    "holds_max": "No more locks can be held at one time; release some first.",
    "holders_per_key_max": "This lock has as many shared holders as it may have; wait until one releases it.",
    "waiters_per_key_max": "The line for this lock is full; try again later.",
    "waiters_max": "The lines of all locks together are full; try again later.",
    "listeners_max": "This owner waits for this lock in as many requests as it may; wait until one is answered.",
    "wait_graph_max": "Too many owners wait for each other to see whether this one may wait, too; try again later.",
    "bytes_max": "Locks and lines together take as many bytes as they may; release some locks first.",
}

logger = get_logger("services.lock")


def routes() -> list[web.RouteDef]:
    """Every route of the locks."""
    return [
        web.post("/lock/acquire", acquire),
        web.post("/lock/release", release),
        web.post("/lock/renew", renew),
        web.post("/lock/validate", validate),
        web.post("/lock/force_release", force_release),
        web.get("/lock/status", status),
        web.get("/lock/list", list_locks),
    ]


def attach(here: Host, node: RaftNode) -> None:
    """Let the metrics of `here` read the locks that `node` replicates, at each scrape, and its clients wait there."""
    waits = here.parts[LockWaits] = LockWaits(node, here.life, here.background)
    here.metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), waits.withdrawing)])
    here.metrics.locks_held.watch(lambda: [((), node.machine.inner.statistics().locks_held)])
    here.metrics.lock_waiters.watch(lambda: [((), node.machine.inner.statistics().waiters)])


# Commands


async def acquire(request: web.Request) -> web.Response:
    """`POST /lock/acquire`"""
    here = host(request)
    command = bodies.acquire_of(await read_body(request, bodies.AcquireBody), here)
    if command.wait_ms:
        result = await here.parts[LockWaits].acquire(request, command)
    else:
        result = await replicate(request, GROUP, command)
    if result["ok"]:
        here.metrics.served.locks_acquired += 1
        return json_response(_in_seconds(result, _now_ms(here)))
    here.metrics.served.locks_failed += 1
    if result["reason"] == "deadlock":
        here.metrics.lock_deadlocks_total.add()
    if "limit" in result:
        result = {**result, "detail": _LIMIT_DETAILS[result["limit"]]}
    return answer(_in_seconds(result, _now_ms(here)))


async def release(request: web.Request) -> web.Response:
    """`POST /lock/release`"""
    here = host(request)
    command = bodies.release_of(await read_body(request, bodies.ReleaseBody), here)
    result = await replicate(request, GROUP, command)
    if result["ok"]:
        here.metrics.served.locks_released += 1
    return answer(result)


async def renew(request: web.Request) -> web.Response:
    """`POST /lock/renew`"""
    here = host(request)
    command = bodies.renew_of(await read_body(request, bodies.RenewBody), here)
    result = await replicate(request, GROUP, command)
    return answer(_in_seconds(result, _now_ms(here)))


async def force_release(request: web.Request) -> web.Response:
    """`POST /lock/force_release`: takes a lock from whoever holds it; who asked is put on record."""
    here = host(request)
    command = bodies.force_release_of(await read_body(request, bodies.ForceReleaseBody), here)
    result = await replicate(request, GROUP, command)
    logger.warning(
        "forced release",
        key=command.key,
        owner=command.owner,
        asked_from=request.remote,
        released=[held["owner"] for held in result.get("released", [])],
        released_count=result.get("released_count", 0),
    )
    here.metrics.served.locks_released += result.get("released_count", 0)
    return answer(_in_seconds(result, _now_ms(here)))


# Questions


async def validate(request: web.Request) -> web.Response:
    """`POST /lock/validate`: whether a token still stands. A token that a later grant has overtaken is `fenced`."""
    here = host(request)
    body = await read_body(request, bodies.ValidateBody)
    key = bodies.key_of(body, here)
    machine = await linearizable(request, GROUP)
    return answer(_in_seconds(machine.validate(key, body.token), _now_ms(here)))


async def status(request: web.Request) -> web.Response:
    """`GET /lock/status?key=`: holders, and the line in its order."""
    here = host(request)
    key = bodies.key_of(read_query(request, bodies.StatusQuery), here)
    machine = await linearizable(request, GROUP)
    return json_response(_in_seconds(machine.status(key), _now_ms(here)))


async def list_locks(request: web.Request) -> web.Response:
    """`GET /lock/list`: held locks in the order of their keys; `next` is the `after` of the next page, null at the
    end. A page may have fewer rows than `limit` although more follow: a key whose lock has ended is left out."""
    query = read_query(request, bodies.ListQuery)
    machine = await linearizable(request, GROUP)
    page = machine.page(query.prefix, query.after, query.limit + 1)
    rows = machine.summaries(page[: query.limit])
    more = page[query.limit - 1] if len(page) > query.limit else None
    return json_response(_in_seconds({"ok": True, "locks": rows, "next": more}, _now_ms(host(request))))


# Wording


def _now_ms(here: Host) -> int:
    """Cluster time, as well as this node knows it: good for remaining times, never for decisions."""
    return here.nodes[GROUP].cluster_time_ms()


def _in_seconds(answer: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """A copy of an answer in which every cluster time has become seconds from now, 0 where it has passed."""
    worded = {}
    for name, value in answer.items():
        if name in _SECONDS_NAMES:
            worded[_SECONDS_NAMES[name]] = None if value is None else max(0, value - now_ms) / 1000
        elif type(value) is list:
            worded[name] = [_in_seconds(item, now_ms) for item in value]
        else:
            worded[name] = value
    return worded
