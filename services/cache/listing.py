"""Rows of the directory.

The rule of this file: it waits for nobody but a ReadIndex, so a row may name a version whose write is still held. Who
is waited for is the leader's to say, and is asked of it in the end, once for all rows: null where no leader answers.
"""

from typing import Any

from services.cache import GROUP
from services.cache.bodies import LinesQuery
from services.cache.node.pending import pending_of
from services.cache.replicated.line import Line
from services.node.host import Host
from services.operations.call import Call


async def row_of(call: Call, key: str) -> dict[str, Any] | None:
    """One row; None where there is none."""
    machine = await call.linearizable()
    found = machine.line(key)
    if found is None:
        return None
    (row,) = await _with_pending(call.host, [_row(call.host, found)])
    return row


async def page_of(call: Call, asked: LinesQuery) -> tuple[list[dict[str, Any]], str | None]:
    """Rows in the order of their keys, and the `after` of the next page."""
    machine = await call.linearizable()
    page = machine.page(asked.prefix, asked.after, asked.limit + 1)
    rows = [_row(call.host, found) for key in page[: asked.limit] if (found := machine.line(key)) is not None]
    more = page[asked.limit - 1] if len(page) > asked.limit else None
    return await _with_pending(call.host, rows), more


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
