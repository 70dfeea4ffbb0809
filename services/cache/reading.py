"""How HTTP reads the cache.

The rule of this file: whether a read is a hit is decided by `services.cache.node.coherence` alone; what a fill
answers comes from `apply`, never from a later look at the machine.

A key that this node holds is answered from memory (`source: local`) with no message at all, an absent key with
`hit: false` at the cost of a ReadIndex round and no log entry. Anything else is a `Fill`; so is a read that would
take the lease to fill an absent key.
"""

from typing import Any

from aiohttp import web
from msgspec import Raw

from common.web import (
    ApiError,
    bad_request,
    encoded_response,
    has_hung_up,
    json_response,
    read_body,
    read_query,
)
from services.cache import GROUP
from services.cache.bodies import KeysBody, ReadBody, key_of, lease_ms_of
from services.cache.hits import get_answer, hit_of, read_answer, read_answer_of
from services.cache.node.coherence import Coherence
from services.cache.node.filling import FillLines
from services.cache.replicated.commands import Fill, FillMany
from services.http.guard import check_own_page, role_of
from services.node.host import Host, host
from services.operations.call import group_node, idempotency_key, linearizable
from services.operations.refusals import api_error
from services.replicated.envelope import encode_command

#: Bytes of values that one `/cache/mget` answers.
MGET_BYTES_MAX = 16 * 1024 * 1024

#: Longest time after which a caller that is told to come back is told to do so.
RETRY_S_MAX = 1.0

#: What an answer to an absent key may tell besides, in either vocabulary.
_FACTS_OF_ABSENCE = ("stale", "lease", "lease_expires_in_s", "replayed", "filling", "retry_in_s")
_ABSENT = {"hit": False, "val": None, "state": "I"}


async def get(request: web.Request) -> web.Response:
    """`/cache/get`."""
    body = await read_body(request, ReadBody)
    here = host(request)
    _check_guard(here, request, body)
    granted = here.parts[Coherence].hit(body.key)
    if granted is None:
        found = await _read(request, body)
        return await _answered(request, body.key, found, json_response(found))
    here.metrics.served.cache_reads += 1
    here.metrics.cache_hit_total.add()
    return encoded_response(get_answer(here.parts[Coherence], granted))


async def read(request: web.Request) -> web.Response:
    """`/cache/read`: the same as `/cache/get` in the long vocabulary."""
    query = read_query(request, ReadBody)
    if query.is_guarded:
        check_own_page(request)
    here = host(request)
    _check_guard(here, request, query)
    granted = here.parts[Coherence].hit(query.key)
    if granted is not None:
        here.metrics.served.cache_reads += 1
        here.metrics.cache_hit_total.add()
        return encoded_response(read_answer(here.parts[Coherence], granted))
    found = await _read(request, query)
    if not found["hit"]:
        facts = {name: found[name] for name in _FACTS_OF_ABSENCE if name in found}
        response = json_response({"ok": False, "reason": "not_found", **facts})
        return await _answered(request, query.key, found, response)
    return json_response(read_answer_of(found))


async def mget(request: web.Request) -> web.Response:
    """`/cache/mget`: each key as by `/cache/get`, at most one log entry for all of them. Each is linearizable;
    together they are not one moment's picture."""
    body = await read_body(request, KeysBody)
    here = host(request)
    keys = [key_of(here, key, "keys") for key in body.keys]
    coherence = here.parts[Coherence]
    found = {key: _from_memory(coherence, key) for key in keys}
    unknown = [key for key, result in found.items() if result is None]
    found |= {key: dict(_ABSENT) for key in await _absent(request, coherence, unknown)}
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


async def _answered(
    request: web.Request, key: str, found: dict[str, Any], response: web.Response
) -> web.StreamResponse:
    """The response. One that tells of a lease is written here and now: a client that has gone meanwhile does not
    get it, and then the lease is nobody's."""
    token = found.get("lease")
    if token is None:
        return response
    # Looked at before: who has the answer may hang up at once.
    is_told = False
    is_there = not has_hung_up(request)
    try:
        await response.prepare(request)
        await response.write_eof()
        is_told = is_there and request.transport is not None and not request.transport.is_closing()
    except ConnectionError:
        # Whoever writes the response for us meets the same, and knows that it is no error.
        pass
    finally:
        if not is_told:
            host(request).parts[FillLines].take_back(key, token)
    return response


async def _read(request: web.Request, asked: ReadBody) -> dict[str, Any]:
    """The answer to a read of one key, with `val` as raw JSON: from memory, or absent, or by a fill."""
    here = host(request)
    key = key_of(here, asked.key)
    coherence = here.parts[Coherence]
    result = _from_memory(coherence, key)
    if result is None and asked.is_guarded:
        result = await _guarded(request, asked, key)
    if result is None and asked.stale_ok:
        result = _as_known_here(coherence, key)
    if result is None and await _absent(request, coherence, [key]):
        result = dict(_ABSENT)
    if result is None:
        filled = await _fill(request, Fill(key, here.node_id))
        result = _filled(coherence, key, filled)
    _count_reads(here, [result])
    return result


def _check_guard(here: Host, request: web.Request, asked: ReadBody) -> None:
    """Whether a read that may take a lease is in order.

    Raises:
        ApiError: 400, 403.
    """
    if not asked.is_guarded:
        return
    if asked.stale_ok:
        raise bad_request("The field `stale_ok` asks for no wait at all; give either it or `wait` and `lease_ttl`.")
    if role_of(request, here.settings) == "reader":
        # It could not fill, and would keep everybody else from filling.
        raise api_error("forbidden", "A lease to fill a key needs a token of the role `client`; read without `wait`.")


async def _guarded(request: web.Request, asked: ReadBody, key: str) -> dict[str, Any]:
    """The answer to a read that takes the lease to fill an absent key, or waits for whoever has it."""
    here = host(request)
    lines = here.parts[FillLines]
    claim = idempotency_key(request) or ""
    result = await lines.read(key, lease_ms=lease_ms_of(asked), wait_s=asked.wait or 0, claim=claim)
    if result["hit"]:
        return _filled(here.parts[Coherence], key, result)
    left_s = max(0, result["lease_expires_ms"] - here.nodes[GROUP].cluster_time_ms()) / 1000
    if "lease" in result:
        replayed = {"replayed": True} if "replayed" in result else {}
        return {**_ABSENT, "lease": result["lease"], "lease_expires_in_s": left_s, **replayed}
    return {**_ABSENT, "filling": True, "retry_in_s": min(left_s, RETRY_S_MAX)}


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


async def _absent(request: web.Request, coherence: Coherence, keys: list[str]) -> list[str]:
    """Those of the keys that are not there, by one ReadIndex for all; about the others only a fill can tell."""
    asked = [key for key in keys if not coherence.machine.has(key)]
    if not asked:
        return []
    await linearizable(request, GROUP)
    return [key for key in asked if coherence.is_surely_absent(key)]


def _filled(coherence: Coherence, key: str, result: dict[str, Any]) -> dict[str, Any]:
    """A fill's answer with its value as raw JSON; from now on this node serves that version itself."""
    if not result["hit"]:
        return result
    coherence.grant(key, result["version"])
    return {**result, "val": Raw(result["val"])}


def _count_reads(here: Host, results: list[dict[str, Any]]) -> None:
    """A hit is a read that found its key, wherever; what a fill found is counted beside that."""
    hits = sum(1 for result in results if result["hit"])
    here.metrics.served.cache_reads += len(results)
    here.metrics.cache_hit_total.add(hits)
    here.metrics.cache_miss_total.add(len(results) - hits)
    here.metrics.cache_filled_total.add(sum(1 for result in results if result.get("source") == "fill"))
