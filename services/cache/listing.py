"""How HTTP shows the directory: one row, or pages of rows.

The rule of this file: it waits for nobody but a ReadIndex, so a row may name a version whose write is still held. Who
is waited for is the leader's to say, and is asked of it in the end, once for all rows: null where no leader answers.
"""

from typing import Any

from aiohttp import web

from common.web import json_response, read_query
from services.cache import GROUP
from services.cache.bodies import LinesQuery, key_of
from services.cache.hits import KeyBody
from services.cache.node.pending import pending_of
from services.cache.replicated.line import Line
from services.node.host import Host, host
from services.operations.call import linearizable


async def line(request: web.Request) -> web.Response:
    """`/cache/line`: one row of the directory."""
    query = read_query(request, KeyBody)
    here = host(request)
    key = key_of(here, query.key)
    machine = await linearizable(request, GROUP)
    found = machine.line(key)
    if found is None:
        return json_response({"ok": False, "reason": "not_found"})
    (row,) = await _with_pending(here, [_row(here, found)])
    return json_response({"ok": True, **row})


async def lines(request: web.Request) -> web.Response:
    """`/cache/lines`: rows in the order of their keys; `next` is the `after` of the next page, null at the end. A
    page may have fewer rows than `limit` although more follow: a key whose line is gone is left out."""
    query = read_query(request, LinesQuery)
    machine = await linearizable(request, GROUP)
    page = machine.page(query.prefix, query.after, query.limit + 1)
    here = host(request)
    rows = [_row(here, found) for key in page[: query.limit] if (found := machine.line(key)) is not None]
    more = page[query.limit - 1] if len(page) > query.limit else None
    return json_response({"ok": True, "lines": await _with_pending(here, rows), "next": more})


async def _with_pending(here: Host, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pending = await pending_of(here.nodes[GROUP], [row["key"] for row in rows])
    for row, nodes in zip(rows, pending, strict=True):
        row["pending"] = nodes
    return rows


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
        "tags": list(found.tags),
        "pending": None,
        "expires_in_s": expires_in_s,
    }
