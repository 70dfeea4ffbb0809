"""Everything that can be asked of the cache, in the order of the docs.

The rule of this file: an operation checks what it is asked, says one command, and words the answer, which comes from
`apply` and never from a later look at the machine. How it is read is in `reading`, rows of the directory are in
`listing`, changes in `watching`.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from common.api_error import bad_request
from raft.node import RaftNode
from raft.replica import RESTORED_TOPIC
from services.cache import GROUP
from services.cache.answers import (
    Counted,
    Deleted,
    Hit,
    Invalidated,
    Items,
    LineShown,
    Listed,
    Miss,
    NoLine,
    NotFound,
    Read,
    Written,
    encoded_get,
    encoded_read,
    get_answer_of,
    read_answer_of,
)
from services.cache.bodies import (
    DeleteBody,
    IncrBody,
    InvalidateBody,
    KeyBody,
    KeysBody,
    LinesQuery,
    PutBody,
    PutManyBody,
    ReadBody,
    WatchQuery,
    item_of,
    key_of,
    ttl_ms_of,
)
from services.cache.listing import page_of, row_of
from services.cache.node.changes import Changes
from services.cache.node.coherence import Coherence
from services.cache.node.filling import FillLines
from services.cache.node.invalidations import Invalidations
from services.cache.node.pending import answer_pending
from services.cache.node.policies import make_held_lines
from services.cache.reading import find, read_many, read_one
from services.cache.replicated.commands import Delete, Incr, Invalidate, Put, PutMany
from services.cache.replicated.directory import M
from services.cache.replicated.line import Invalidated as InvalidatedLines
from services.cache.replicated.machine import keys_of
from services.cache.replicated.store import INVALIDATED_TOPIC
from services.cache.watching import EVENTS, watch_changes
from services.node.host import Host
from services.operations.answers import NotKept, done_of
from services.operations.call import Call
from services.operations.operation import Event, Operations, get, post
from services.operations.refusals import READ, WRITE

_KEY = {"key": "user:42"}
_VALUE = {"name": "Arya"}

Done = TypeVar("Done")

cache = Operations(GROUP)


def attach(here: Host, node: RaftNode) -> None:
    """Let this node keep its grants and, while it leads, the account of invalidations, from its first entry on."""
    coherence = here.parts[Coherence] = Coherence(node, here.metrics, held=make_held_lines(here.settings))
    node.subscribe(RESTORED_TOPIC, lambda _: coherence.on_restored())
    account = Invalidations(node, here.metrics.cache_invalidation_wait_seconds.labels())
    node.withheld = account
    answer_pending(node, account)
    _attach_parts(here, node, coherence)


def _attach_parts(here: Host, node: RaftNode, coherence: Coherence) -> None:
    """Whoever waits or watches at this node, and what is counted of it."""
    metrics = here.metrics
    fills = here.parts[FillLines] = FillLines(node, f"{here.node_id}:{here.boot}", here.background)
    changes = here.parts[Changes] = Changes(node, metrics.cache_watch_gaps_total.labels())
    metrics.mufakat_withdrawals_waiting.watch(lambda: [((GROUP,), fills.owed)])
    metrics.cache_fill_leases.watch(lambda: [((), coherence.machine.statistics().fill_leases)])
    metrics.cache_fill_waiting.watch(lambda: [((), fills.waiting)])
    metrics.cache_leases_granted_total.watch(lambda: [((), fills.granted)])
    metrics.cache_tags.watch(lambda: [((), coherence.machine.statistics().tags)])
    metrics.cache_watching.watch(lambda: [((), len(changes))])

    def on_invalidated(invalidated: InvalidatedLines) -> None:
        metrics.cache_invalidated_total.add(invalidated.lines)

    node.subscribe(INVALIDATED_TOPIC, on_invalidated)


# Writes


@cache.answers(
    "cache.put",
    post("/cache/put", "/cache/write"),
    refuses=(*WRITE, "version_mismatch", "lease_lost"),
    example=_KEY | {"val": _VALUE},
)
async def put(call: Call, body: PutBody) -> Written | NotKept:
    """Write a value; with `if_version` only over that version."""
    here = call.host
    key, value, ttl_ms, if_version, tags = item_of(here, body)
    return await _write(call, Put(key, value, here.node_id, ttl_ms, if_version, tags, body.lease), Written)


@cache.answers(
    "cache.get", post("/cache/get"), refuses=(*WRITE, "stopping"), right="reader", example=_KEY
)
async def get_value(call: Call, body: ReadBody) -> Hit | Miss | Raw:
    """Read a value.

    Linearizable, a hit in this node's memory included. With `wait` or `lease_ttl`, one caller of all nodes gets the
    lease to fill an absent key, and the others wait for it.
    """
    held = find(call, body)
    if held is not None:
        return Raw(encoded_get(call.host.parts[Coherence], held))
    return get_answer_of(await read_one(call, body))


@cache.answers("cache.read", get("/cache/read"), refuses=WRITE, has_head=False, example=_KEY)
async def read(call: Call, body: ReadBody) -> Read | NotFound | Raw:
    """Read a value: a get in the long vocabulary."""
    held = find(call, body)
    if held is not None:
        return Raw(encoded_read(call.host.parts[Coherence], held))
    return read_answer_of(await read_one(call, body))


@cache.answers(
    "cache.delete", post("/cache/delete"), refuses=(*WRITE, "version_mismatch", "lease_lost"), example=_KEY
)
async def delete(call: Call, body: DeleteBody) -> Deleted | NotKept:
    """Remove a value; with `if_version` only that version."""
    return await _write(call, Delete(key_of(call.host, body.key), body.if_version, body.lease), Deleted)


@cache.answers(
    "cache.incr",
    post("/cache/incr"),
    refuses=(*WRITE, "not_an_integer", "out_of_range"),
    example={"key": "visits", "by": 1},
)
async def incr(call: Call, body: IncrBody) -> Counted | NotKept:
    """Add to a number; an absent one is 0."""
    here = call.host
    return await _write(call, Incr(key_of(here, body.key), body.by, here.node_id, ttl_ms_of(body.ttl)), Counted)


@cache.answers("cache.mget", post("/cache/mget"), refuses=WRITE, right="reader", example={"keys": ["a", "b"]})
async def mget(call: Call, body: KeysBody) -> Items:
    """Read many values, by at most one log entry.

    Each is linearizable; together they are not one moment's picture. It takes no leases.
    """
    return Items(items=await read_many(call, body))


@cache.answers(
    "cache.mput",
    post("/cache/mput"),
    refuses=(*WRITE, "version_mismatch"),
    example={"items": [{"key": "a", "val": 1}, {"key": "b", "val": 2}]},
)
async def mput(call: Call, body: PutManyBody) -> Written | NotKept:
    """Write many values, all or none, as one log entry."""
    here = call.host
    # Without tags an item is as it always was: a node of the version before can read it.
    items = tuple(item if item[-1] else item[:-1] for item in (item_of(here, each) for each in body.items))
    if len({key for key, *_ in items}) < len(items):
        raise bad_request("The field `items` names a key twice; name each key once.")
    return await _write(call, PutMany(items, here.node_id), Written)


@cache.answers("cache.invalidate", post("/cache/invalidate"), refuses=WRITE, example={"tag": "users"})
async def invalidate(call: Call, body: InvalidateBody) -> Invalidated | NotKept:
    """Remove every value with a tag, as one log entry."""
    result = await call.replicate(Invalidate(key_of(call.host, body.tag, "tag")))
    return done_of(result, Invalidated)


async def _write(call: Call, command: Any, done: type[Done]) -> Done | NotKept:
    here = call.host
    result = await call.replicate(command)
    if result["ok"]:
        keys = keys_of(command)
        here.metrics.served.cache_writes += len(keys)
        if result.get("state") == M:
            coherence = here.parts[Coherence]
            for key in keys:
                coherence.grant(key, result["version"])
    elif result["reason"] == "lease_lost":
        here.metrics.cache_leases_lost_total.add()
    return done_of(result, done)


# The directory


@cache.answers("cache.line", get("/cache/line"), refuses=READ, example=_KEY)
async def line(call: Call, body: KeyBody) -> LineShown | NoLine:
    """Show one line as the directory knows it."""
    row = await row_of(call, key_of(call.host, body.key))
    return NoLine() if row is None else msgspec.convert(row, LineShown)


@cache.answers("cache.lines", get("/cache/lines"), refuses=READ, example={"prefix": "user:"})
async def lines(call: Call, body: LinesQuery) -> Listed:
    """List lines.

    A page may have fewer rows than `limit` although more follow: a key whose line is gone is left out.
    """
    rows, following = await page_of(call, body)
    return msgspec.convert({"lines": rows, "next": following}, Listed)


@cache.events("cache.watch", get("/cache/watch"), of=EVENTS, refuses=("quota",), example={"prefix": "user:"})
async def watch(call: Call, body: WatchQuery) -> AsyncIterator[list[Event]]:
    """Watch what happens to one key, or to all keys that begin so, as this node applies it."""
    async with aclosing(watch_changes(call, body)) as events:
        async for told_now in events:
            yield told_now
