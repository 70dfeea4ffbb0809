"""How the cache is read.

The rule of this file: whether a read is a hit is decided by `services.cache.node.coherence` alone; what a fill
answers comes from `apply`, never from a later look at the machine.

A key that this node holds is answered from memory (`source: local`) with no message at all, an absent key with
`hit: false` at the cost of a ReadIndex round and no log entry. Anything else is a `Fill`; so is a read that would
take the lease to fill an absent key.
"""

from functools import partial
from typing import Any

from msgspec import Raw

from common.api_error import ApiError, bad_request
from services.cache.answers import Item, hit_of, item_of
from services.cache.bodies import KeysBody, ReadBody, key_of, lease_ms_of
from services.cache.node.coherence import Coherence
from services.cache.node.filling import FillLines
from services.cache.node.held import HeldLine
from services.cache.replicated.commands import Fill, FillMany
from services.node.host import Host
from services.operations.call import Call
from services.operations.refusals import refused
from services.replicated.proposing import propose

#: Bytes of values that one `/cache/mget` answers.
MGET_BYTES_MAX = 16 * 1024 * 1024

#: Longest time after which a caller that is told to come back is told to do so.
RETRY_S_MAX = 1.0

_ABSENT = {"hit": False, "val": None, "state": "I"}


def find(call: Call, asked: ReadBody) -> HeldLine | None:
    """The line, where this node may serve it at once.

    Raises:
        ApiError: 400, 403, the read is not in order.
    """
    here = call.host
    _check_guard(call, asked)
    held: HeldLine | None = here.parts[Coherence].hit(asked.key)
    if held is not None:
        here.metrics.served.cache_reads += 1
        here.metrics.cache_hit_total.add()
    return held


async def read_one(call: Call, asked: ReadBody) -> dict[str, Any]:
    """What a read of one key finds, with `val` as raw JSON: from memory, or absent, or by a fill."""
    here = call.host
    key = key_of(here, asked.key)
    coherence = here.parts[Coherence]
    result = _from_memory(coherence, key)
    if result is None and asked.is_guarded:
        result = await _guarded(call, asked, key)
    if result is None and asked.stale_ok:
        result = _as_known_here(coherence, key)
    if result is None and await _absent(call, coherence, [key]):
        result = dict(_ABSENT)
    if result is None:
        filled = await _fill(call, Fill(key, here.node_id))
        result = _filled(coherence, key, filled)
    _count_reads(here, [result])
    if "lease" in result:
        # A client that has gone does not get it, and then the lease is nobody's.
        call.take_back = partial(here.parts[FillLines].take_back, key, result["lease"])
    return result


async def read_many(call: Call, asked: KeysBody) -> list[Item]:
    """What a read of many keys finds, by at most one log entry for all of them. Each is linearizable; together they
    are not one moment's picture.

    Raises:
        ApiError: 413, the values are too long together.
    """
    here = call.host
    keys = [key_of(here, key, "keys") for key in asked.keys]
    coherence = here.parts[Coherence]
    found = {key: _from_memory(coherence, key) for key in keys}
    unknown = [key for key, result in found.items() if result is None]
    found |= {key: dict(_ABSENT) for key in await _absent(call, coherence, unknown)}
    missing = tuple(key for key, result in found.items() if result is None)
    if missing:
        filled = await _fill(call, FillMany(missing, here.node_id))
        for key, result in filled["items"].items():
            found[key] = _filled(coherence, key, result)
    results = {key: result for key, result in found.items() if result is not None}
    if sum(memoryview(result["val"]).nbytes for result in results.values() if result["hit"]) > MGET_BYTES_MAX:
        detail = f"The values have over {MGET_BYTES_MAX} bytes together; ask for fewer keys."
        raise ApiError(413, "too_large", detail)
    _count_reads(here, list(results.values()))
    return [item_of(key, results[key]) for key in keys]


def _check_guard(call: Call, asked: ReadBody) -> None:
    """Whether a read that may take a lease is in order.

    Raises:
        ApiError: 400, 403.
    """
    if not asked.is_guarded:
        return
    call.check_own_hand()
    if asked.stale_ok:
        raise bad_request("The field `stale_ok` asks for no wait at all; give either it or `wait` and `lease_ttl`.")
    if call.role == "reader":
        # It could not fill, and would keep everybody else from filling.
        raise refused("forbidden", "A lease to fill a key needs a token of the role `client`; read without `wait`.")


async def _guarded(call: Call, asked: ReadBody, key: str) -> dict[str, Any]:
    """The answer to a read that takes the lease to fill an absent key, or waits for whoever has it."""
    here = call.host
    lines = here.parts[FillLines]
    claim = call.idempotency_key or ""
    result = await lines.read(key, lease_ms=lease_ms_of(asked), wait_s=asked.wait or 0, claim=claim)
    if result["hit"]:
        return _filled(here.parts[Coherence], key, result)
    left_s = max(0, result["lease_expires_ms"] - call.node().cluster_time_ms()) / 1000
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


async def _fill(call: Call, command: Fill | FillMany) -> dict[str, Any]:
    """The machine's answer to a fill. Without the request's idempotency key: a read that is sent again wants the
    value of that moment, and values would outgrow the table of answers."""
    return await propose(call.node(), command)


def _from_memory(coherence: Coherence, key: str) -> dict[str, Any] | None:
    """A local hit, with no message at all; None where there is none."""
    held = coherence.may_serve(key)
    return None if held is None else hit_of(coherence, held)


async def _absent(call: Call, coherence: Coherence, keys: list[str]) -> list[str]:
    """Those of the keys that are not there, by one ReadIndex for all; about the others only a fill can tell."""
    asked = [key for key in keys if not coherence.machine.has(key)]
    if not asked:
        return []
    await call.linearizable()
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
