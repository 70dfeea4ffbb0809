"""Everything that can be asked of the locks, in the order of the docs.

The rule: an operation says one command or asks one question, and words the answer. Cluster times of the machine's
answers become seconds from now here and nowhere else.
"""

from typing import Any

import msgspec

from common.logs import get_logger
from raft.node import RaftNode
from services.lock import GROUP, bodies
from services.lock.answers import (
    ForceReleased,
    Free,
    Granted,
    Listed,
    NotGranted,
    NotHeld,
    NotValid,
    Released,
    Status,
    Valid,
    in_seconds,
    page_of,
)
from services.lock.node.waiting import LockWaits
from services.node.host import Host
from services.operations.answers import NotKept, told
from services.operations.call import Call
from services.operations.operation import Operations, get, post
from services.operations.refusals import READ, WRITE

_LIMIT_DETAILS = {
    "holds_max": "No more locks can be held at one time; release some first.",
    "holders_per_key_max": "This lock has as many shared holders as it may have; wait until one releases it.",
    "waiters_per_key_max": "The line for this lock is full; try again later.",
    "waiters_max": "The lines of all locks together are full; try again later.",
    "listeners_max": "This owner waits for this lock in as many requests as it may; wait until one is answered.",
    "wait_graph_max": "Too many owners wait for each other to see whether this one may wait, too; try again later.",
    "bytes_max": "Locks and lines together take as many bytes as they may; release some locks first.",
}

_EXAMPLE = {"key": "A", "client_id": "client1"}

logger = get_logger("services.lock")
lock = Operations(GROUP)


def attach(here: Host, node: RaftNode) -> None:
    """Let the metrics of `here` read the locks that `node` replicates, at each scrape, and its clients wait there."""
    waits = here.parts[LockWaits] = LockWaits(node, here.life, here.background)
    here.metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), waits.withdrawing)])
    here.metrics.locks_held.watch(lambda: [((), waits.machine.statistics().locks_held)])
    here.metrics.lock_waiters.watch(lambda: [((), waits.machine.statistics().waiters)])


# Commands


@lock.answers("lock.acquire", post("/lock/acquire"), refuses=(*WRITE, "deadlock"), example=_EXAMPLE | {"wait": 5})
async def acquire(call: Call, body: bodies.AcquireBody) -> Granted | NotGranted | NotKept:
    """Take a lock, or wait for it, first come, first served."""
    here = call.host
    command = bodies.acquire_of(body, here)
    if command.wait_ms:
        result = await here.parts[LockWaits].acquire(call, command)
    else:
        result = await call.replicate(command)
    if result["ok"]:
        here.metrics.served.locks_acquired += 1
    else:
        here.metrics.served.locks_failed += 1
        if result["reason"] == "deadlock":
            here.metrics.lock_deadlocks_total.add()
        if "limit" in result:
            result = {**result, "detail": _LIMIT_DETAILS[result["limit"]]}
    return told(in_seconds(result, _now_ms(call)), Granted, NotGranted)


@lock.answers("lock.release", post("/lock/release"), refuses=WRITE, example=_EXAMPLE)
async def release(call: Call, body: bodies.ReleaseBody) -> Released | NotHeld | NotKept:
    """Give a lock back."""
    result = await call.replicate(bodies.release_of(body, call.host))
    if result["ok"]:
        call.host.metrics.served.locks_released += 1
    return told(result, Released, NotHeld)


@lock.answers("lock.renew", post("/lock/renew"), refuses=WRITE, example=_EXAMPLE | {"ttl": 30})
async def renew(call: Call, body: bodies.RenewBody) -> Granted | NotHeld | NotKept:
    """Let a hold end `ttl` seconds from now."""
    result = await call.replicate(bodies.renew_of(body, call.host))
    return told(in_seconds(result, _now_ms(call)), Granted, NotHeld)


@lock.answers("lock.force_release", post("/lock/force_release"), refuses=WRITE, right="admin", example={"key": "A"})
async def force_release(call: Call, body: bodies.ForceReleaseBody) -> ForceReleased | Free | NotKept:
    """Take a lock from whoever holds it; who asked is put on record."""
    command = bodies.force_release_of(body, call.host)
    result = await call.replicate(command)
    logger.warning(
        "forced release",
        key=command.key,
        owner=command.owner,
        asked_from=call.asked_from,
        released=[held["owner"] for held in result.get("released", [])],
        released_count=result.get("released_count", 0),
    )
    call.host.metrics.served.locks_released += result.get("released_count", 0)
    return told(in_seconds(result, _now_ms(call)), ForceReleased, Free)


# Questions


@lock.answers(
    "lock.validate",
    post("/lock/validate"),
    refuses=(*READ, "fenced"),
    right="reader",
    example={"key": "A", "token": 7},
)
async def validate(call: Call, body: bodies.ValidateBody) -> Valid | NotValid:
    """Find out whether a token still stands."""
    key = bodies.key_of(body, call.host)
    machine = await call.linearizable()
    result: dict[str, Any] = machine.validate(key, body.token)
    answer = told(in_seconds(result, _now_ms(call)), Valid, NotValid)
    assert not isinstance(answer, NotKept), "a question is under no key"
    return answer


@lock.answers("lock.status", get("/lock/status"), refuses=READ, example={"key": "A"})
async def status(call: Call, body: bodies.LockBody) -> Status:
    """Show who holds a lock and who waits for it."""
    key = bodies.key_of(body, call.host)
    machine = await call.linearizable()
    return msgspec.convert(in_seconds(machine.status(key), _now_ms(call)), Status)


@lock.answers("lock.list", get("/lock/list"), refuses=READ, example={"prefix": "job:"})
async def list_locks(call: Call, body: bodies.ListQuery) -> Listed:
    """List the locks that are held.

    A page may have fewer rows than `limit` although more follow: a key whose lock has ended is left out.
    """
    machine = await call.linearizable()
    page = machine.page(body.prefix, body.after, body.limit + 1)
    rows = machine.summaries(page[: body.limit])
    return page_of(rows, page[body.limit - 1] if len(page) > body.limit else None, _now_ms(call))


def _now_ms(call: Call) -> int:
    """Cluster time, as well as this node knows it: good for remaining times, never for decisions."""
    return call.node().cluster_time_ms()
