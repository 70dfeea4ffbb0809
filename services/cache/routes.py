"""How HTTP says the cache's commands and reads.

The rule of this file: a handler checks the request, says one command or asks one question, and words the
answer. Whether a read is a hit is decided by `services.cache.coherence` alone; what a fill or a write answers
comes from `apply`, never from a later look at the machine.

Reads: a key that this node holds is answered from memory (`source: local`) with no message at all, an absent key
with `hit: false` at the cost of a ReadIndex round and no log entry. Anything else is a `Fill`.
"""

import asyncio
import heapq
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Raw, Struct

from common.web import (
    ApiError,
    bad_request,
    check_name,
    encoded_response,
    json_response,
    read_body,
    read_query,
)
from raft.node import RESTORED_TOPIC, RaftNode
from services.cache.coherence import Coherence
from services.cache.commands import KEYS_MAX, TTL_MS_MAX, Delete, Fill, FillMany, Incr, Put, PutMany
from services.cache.directory import M
from services.cache.hits import KeyBody, ReadBody, get_answer, hit_of, read_answer, read_answer_of
from services.cache.invalidations import Invalidations
from services.cache.line import Line
from services.cache.machine import INTEGER_MAX, INTEGER_MIN, keys_of
from services.envelope import encode_command
from services.handlers import answer, group_node, linearizable, replicate
from services.host import Host, host

GROUP = "cache"
#: Bytes of values that one `/cache/mget` answers.
MGET_BYTES_MAX = 16 * 1024 * 1024
#: Rows that one `/cache/lines` answers.
LINES_LIMIT_MAX = 1000
#: Keys that `/cache/lines` looks through before it lets others run.
KEYS_PER_SLICE = 20_000

#: Refusals that only the cache knows, all of them 409, with the sentence for each.
_CONFLICTS = {
    "not_an_integer": "The value is no whole number of 64 bits; put one before you count with it.",
    "out_of_range": "The sum would leave the range of 64-bit numbers; count by less or put another value.",
}

_ABSENT = {"hit": False, "val": None, "state": "I"}

Ttl = Annotated[float, Meta(gt=0, le=TTL_MS_MAX / 1000)]
Version = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Integer = Annotated[int, Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]
Limit = Annotated[int, Meta(ge=1, le=LINES_LIMIT_MAX)]


class PutBody(Struct, forbid_unknown_fields=True):
    """`/cache/put` says `val`, `/cache/write` says `value`; both are understood by both."""

    key: str
    val: Raw = Raw()
    value: Raw = Raw()
    #: Seconds.
    ttl: Ttl | None = None
    if_version: Version | None = None


class PutManyBody(Struct, forbid_unknown_fields=True):
    items: Annotated[list[PutBody], Meta(min_length=1, max_length=KEYS_MAX)]


class KeysBody(Struct, forbid_unknown_fields=True):
    keys: Annotated[list[str], Meta(min_length=1, max_length=KEYS_MAX)]


class DeleteBody(Struct, forbid_unknown_fields=True):
    key: str
    if_version: Version | None = None


class IncrBody(Struct, forbid_unknown_fields=True):
    key: str
    by: Integer = 1
    #: Seconds; without it the line keeps its expiry.
    ttl: Ttl | None = None


class LinesQuery(Struct, forbid_unknown_fields=True):
    prefix: str = ""
    after: str = ""
    limit: Limit = 100


def routes() -> list[web.RouteDef]:
    """Every route of the cache."""
    return [
        web.post("/cache/put", put),
        web.post("/cache/write", put),
        web.post("/cache/get", get),
        web.get("/cache/read", read),
        web.post("/cache/delete", delete),
        web.post("/cache/incr", incr),
        web.post("/cache/mget", mget),
        web.post("/cache/mput", mput),
        web.get("/cache/line", line),
        web.get("/cache/lines", lines),
    ]


def attach(here: Host, node: RaftNode) -> None:
    """Let this node keep its grants and, while it leads, the account of invalidations, from its first entry on."""
    settings = here.settings
    # A node that has not heard of a removal gets a lease for two heartbeats and a stall of the leader at most
    # (raft.core.leases), and serves until that lease ends.
    recent_ms = 2 * settings.cache_lease_ms + 4 * settings.heartbeat_ms + settings.election_timeout_min_ms
    coherence = Coherence(node, here.metrics, recent_ms=recent_ms)
    here.parts[Coherence] = coherence
    node.subscribe(RESTORED_TOPIC, lambda _: coherence.on_restored())
    node.withheld = here.parts[Invalidations] = Invalidations(
        node, here.metrics.cache_invalidation_wait_seconds.labels()
    )


# Writes


async def put(request: web.Request) -> web.Response:
    """`/cache/put` and `/cache/write`."""
    body = await read_body(request, PutBody)
    here = host(request)
    key, value, ttl_ms, if_version = _item(here, body)
    return await _write(request, Put(key, value, here.node_id, ttl_ms, if_version))


async def mput(request: web.Request) -> web.Response:
    """`/cache/mput`: all or nothing, one log entry."""
    body = await read_body(request, PutManyBody)
    here = host(request)
    items = tuple(_item(here, item) for item in body.items)
    if len({key for key, *_ in items}) < len(items):
        raise bad_request("The field `items` names a key twice; name each key once.")
    return await _write(request, PutMany(items, here.node_id))


async def delete(request: web.Request) -> web.Response:
    """`/cache/delete`."""
    body = await read_body(request, DeleteBody)
    here = host(request)
    return await _write(request, Delete(_key(here, body.key), body.if_version))


async def incr(request: web.Request) -> web.Response:
    """`/cache/incr`."""
    body = await read_body(request, IncrBody)
    here = host(request)
    command = Incr(_key(here, body.key), body.by, here.node_id, _ttl_ms(body.ttl))
    return await _write(request, command)


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
    elif result["reason"] in _CONFLICTS:
        facts = {name: fact for name, fact in result.items() if name not in ("ok", "reason")}
        raise ApiError(409, result["reason"], _CONFLICTS[result["reason"]], facts=facts)
    return answer(result)


def _item(here: Host, body: PutBody) -> tuple[str, bytes, int | None, int | None]:
    """The checked `(key, value, ttl_ms, if_version)` of one write."""
    key = _key(here, body.key)
    val, value = bytes(body.val), bytes(body.value)
    if bool(val) == bool(value):
        raise bad_request("Give the value, as either `val` or `value`.")
    value = val or value
    value_bytes_max = here.settings.value_bytes_max
    if len(value) > value_bytes_max:
        detail = f"The value has {len(value)} bytes; at most {value_bytes_max} are allowed."
        raise ApiError(413, "too_large", detail)
    return key, value, _ttl_ms(body.ttl), body.if_version


def _key(here: Host, key: str, field: str = "key") -> str:
    return check_name(key, field, here.settings.name_bytes_max)


def _ttl_ms(ttl: float | None) -> int | None:
    return None if ttl is None else max(1, round(ttl * 1000))


# Reads


async def get(request: web.Request) -> web.Response:
    """`/cache/get`."""
    body = await read_body(request, ReadBody)
    here = host(request)
    granted = here.parts[Coherence].hit(body.key)
    if granted is None:
        return json_response(await _read(request, body))
    here.metrics.served.cache_reads += 1
    here.metrics.cache_hit_total.add()
    return encoded_response(get_answer(here.parts[Coherence], granted))


async def read(request: web.Request) -> web.Response:
    """`/cache/read`: the same as `/cache/get` in the long vocabulary."""
    query = read_query(request, ReadBody)
    here = host(request)
    granted = here.parts[Coherence].hit(query.key)
    if granted is not None:
        here.metrics.served.cache_reads += 1
        here.metrics.cache_hit_total.add()
        return encoded_response(read_answer(here.parts[Coherence], granted))
    found = await _read(request, query)
    if not found["hit"]:
        stale = {"stale": True} if "stale" in found else {}
        return json_response({"ok": False, "reason": "not_found", **stale})
    return json_response(read_answer_of(found))


async def mget(request: web.Request) -> web.Response:
    """`/cache/mget`: each key as by `/cache/get`, at most one log entry for all of them. Each is linearizable;
    together they are not one moment's picture."""
    body = await read_body(request, KeysBody)
    here = host(request)
    keys = [_key(here, key, "keys") for key in body.keys]
    coherence = here.parts[Coherence]
    found = {key: _from_memory(coherence, key) for key in keys}
    unknown = [key for key, result in found.items() if result is None]
    if unknown:
        found |= {key: await _absent(request, coherence, key) for key in unknown}
    missing = tuple(key for key, result in found.items() if result is None)
    if missing:
        filled = await _fill(request, FillMany(missing, here.node_id))
        for key, result in filled["items"].items():
            found[key] = _filled(coherence, key, result)
    if sum(memoryview(result["val"]).nbytes for result in found.values() if result["hit"]) > MGET_BYTES_MAX:
        detail = f"The values have over {MGET_BYTES_MAX} bytes together; ask for fewer keys."
        raise ApiError(413, "too_large", detail)
    _count_reads(here, list(found.values()))
    return json_response({"ok": True, "items": [{"key": key, **found[key]} for key in keys]})


async def _read(request: web.Request, asked: ReadBody) -> dict[str, Any]:
    """The answer to a read of one key, with `val` as raw JSON: from memory, or absent, or by a fill."""
    here = host(request)
    key = _key(here, asked.key)
    coherence = here.parts[Coherence]
    result = _from_memory(coherence, key)
    if result is None and asked.stale_ok:
        result = _as_known_here(coherence, key)
    if result is None:
        result = await _absent(request, coherence, key)
    if result is None:
        filled = await _fill(request, Fill(key, here.node_id))
        result = _filled(coherence, key, filled)
    _count_reads(here, [result])
    return result


def _as_known_here(coherence: Coherence, key: str) -> dict[str, Any]:
    """What this node has applied of `key`, whoever has written since: labelled, and neither a hit nor a grant."""
    held = coherence.machine.line(key)
    if held is None:
        return {**_ABSENT, "stale": True}
    return {**hit_of(coherence, held), "source": "replica", "stale": True}


async def _fill(request: web.Request, command: Fill | FillMany) -> dict[str, Any]:
    """The machine's answer to a fill. Without the request's idempotency key: a read that is sent again wants the
    value of that moment, and values would outgrow the table of answers."""
    return await group_node(request, GROUP).propose(encode_command(command))


def _from_memory(coherence: Coherence, key: str) -> dict[str, Any] | None:
    """A local hit, with no message at all; None where there is none."""
    held = coherence.may_serve(key)
    return None if held is None else hit_of(coherence, held)


async def _absent(request: web.Request, coherence: Coherence, key: str) -> dict[str, Any] | None:
    """A ReadIndex's answer about a key that is not there; None where only a fill can tell."""
    if coherence.machine.has(key):
        return None
    await linearizable(request, GROUP)
    return dict(_ABSENT) if coherence.is_surely_absent(key) else None


def _filled(coherence: Coherence, key: str, result: dict[str, Any]) -> dict[str, Any]:
    """A fill's answer with its value as raw JSON; from now on this node serves that version itself."""
    if not result["hit"]:
        return result
    coherence.grant(key, result["version"])
    return {**result, "val": Raw(result["val"])}


def _count_reads(here: Host, results: list[dict[str, Any]]) -> None:
    hits = sum(1 for result in results if result.get("source") == "local")
    here.metrics.served.cache_reads += len(results)
    here.metrics.cache_hit_total.add(hits)
    here.metrics.cache_miss_total.add(len(results) - hits)


# The directory


async def line(request: web.Request) -> web.Response:
    """`/cache/line`: one row of the directory."""
    query = read_query(request, KeyBody)
    here = host(request)
    key = _key(here, query.key)
    machine = await linearizable(request, GROUP)
    found = machine.line(key)
    if found is None:
        return json_response({"ok": False, "reason": "not_found"})
    return json_response({"ok": True, **_row(here, found)})


async def lines(request: web.Request) -> web.Response:
    """`/cache/lines`: rows in the order of their keys; `next` is the `after` of the next page, null at the end.
    The keys are those of one moment; a row is left out where its line has gone since."""
    query = read_query(request, LinesQuery)
    machine = await linearizable(request, GROUP)
    page = await _search(machine.keys(), query)
    here = host(request)
    rows = [_row(here, found) for key in page[: query.limit] if (found := machine.line(key)) is not None]
    more = page[query.limit - 1] if len(page) > query.limit else None
    return json_response({"ok": True, "lines": rows, "next": more})


async def _search(keys: list[str], query: LinesQuery) -> list[str]:
    """The first `limit + 1` keys of the page, sorted. Others run between slices."""
    first: list[str] = []
    for start in range(0, len(keys), KEYS_PER_SLICE):
        part = keys[start : start + KEYS_PER_SLICE]
        matching = [key for key in part if key.startswith(query.prefix) and key > query.after]
        first = heapq.nsmallest(query.limit + 1, first + matching)
        await asyncio.sleep(0)
    return first


def _row(here: Host, found: Line) -> dict[str, Any]:
    """The directory's row of one line: its state at every node of the cluster."""
    nodes = sorted({*here.settings.cluster, *(node for node, _ in found.directory.holders)})
    expires_in_s = None
    if found.expires_at is not None:
        left_ms = found.expires_at - here.nodes[GROUP].cluster_time_ms()
        expires_in_s = max(0, left_ms) / 1000
    return {
        "key": found.key,
        "version": found.version,
        "bytes": len(found.value),
        "states": {node: found.directory.state_of(node) for node in nodes},
        "pending": list(here.parts[Invalidations].pending(found.key)),
        "expires_in_s": expires_in_s,
    }
