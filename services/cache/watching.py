"""`GET /cache/watch`: changes of lines as server-sent events (WHATWG HTML, section 9.2).

The rule of this file: one stream is one loop that takes what waits for it, writes it, and waits for more. Only that
loop waits for its client; a client that takes nothing for long is let go.

    retry: 1000                                     once, at the beginning
    id: 120-9223372036854775807
    event: ready                                    from behind this position on changes are told
    data: {"position": "120-9223372036854775807", "node": "node1"}

    id: 124-0
    event: write                                    or fill, delete, expire, evict, invalidate
    data: {"key": "k", "version": 124, "previous_version": 9, "states": {...}, "previous_states": {...}}

    event: gap                                      changes are missing: read anew what matters
    data: {"reason": "slow", "position": "130-2"}   or history, snapshot, future

    : heartbeat
    event: end                                      the node stops
    data: {"reason": "stopping"}
"""

import asyncio
import re
from typing import Any

from aiohttp import hdrs, web

from common.web import bad_request, encode, read_query
from raft.errors import RaftError
from raft.slices import Pace
from services.cache import GROUP
from services.cache.bodies import WatchQuery, key_of
from services.cache.node.changes import (
    EVENTS_PER_SLICE_MAX,
    LAST_NUMBER,
    Change,
    Changes,
    Gap,
    Position,
    Watcher,
)
from services.cache.replicated.directory import Directory
from services.node.host import Host, host

#: Silence after which a comment says that the stream stands.
HEARTBEAT_SECONDS = 10.0
#: A client that takes nothing for so long is let go.
STALL_SECONDS_MAX = 30.0
#: Events that are written at one time.
EVENTS_PER_WRITE_MAX = 200
#: What a browser waits before it connects again, milliseconds.
RETRY_MS = 1000

LAST_EVENT_ID = "Last-Event-ID"
_POSITION = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")
_HEADERS = {hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"}


async def watch(request: web.Request) -> web.StreamResponse:
    """`/cache/watch`: ends when the client goes, or the node stops."""
    query = read_query(request, WatchQuery)
    here = host(request)
    if (query.key is None) == (query.prefix is None):
        raise bad_request("Give what to watch, as either `key` or `prefix`.")
    key = None if query.key is None else key_of(here, query.key)
    since = position_of(request.headers.get(LAST_EVENT_ID) or query.since)
    changes = here.parts[Changes]
    await changes.pace.wait_turn()
    watcher = changes.watch(key=key, prefix=query.prefix or "", since=since)
    if since is not None:
        # Looking through the history takes a millisecond, and many may connect anew at once.
        changes.pace.spend(EVENTS_PER_SLICE_MAX)
    checking = None
    if changes.is_ahead(watcher):
        checking = asyncio.create_task(_check_position(here, watcher), name="check a watcher's position")
    try:
        return await _stream(request, here, watcher, changes.pace)
    finally:
        changes.leave(watcher)
        if checking is not None:
            checking.cancel()


async def _check_position(here: Host, watcher: Watcher) -> None:
    """Find out whether the position that the client names is yet to come here. The stream stands meanwhile: as long
    as no leader can tell, nothing comes that could be missed."""
    while not watcher.ended:
        try:
            await here.nodes[GROUP].read_index()
        except RaftError:
            await asyncio.sleep(RETRY_MS / 1000)
        else:
            here.parts[Changes].check_position(watcher)
            return


async def _stream(request: web.Request, here: Host, watcher: Watcher, pace: Pace) -> web.StreamResponse:
    response = web.StreamResponse(headers=_HEADERS)
    try:
        await response.prepare(request)
        await _tell(response, here, watcher, pace)
    except ConnectionError:
        # The client went, or takes nothing. That is no error of this node, so nothing is raised and logged.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _tell(response: web.StreamResponse, here: Host, watcher: Watcher, pace: Pace) -> None:
    at = position_text(watcher.after)
    ready = event("ready", {"position": at, "node": here.node_id}, watcher.after)
    await _send(response, b"retry: %d\n" % RETRY_MS + ready)
    while True:
        await pace.wait_turn()
        told = watcher.take(EVENTS_PER_WRITE_MAX)
        pace.spend(len(told))
        if told:
            await _send(response, b"".join(map(event_of, told)))
        elif watcher.ended:
            break
        elif not await watcher.wait_news(HEARTBEAT_SECONDS):
            await _send(response, b": heartbeat\n\n")
    await _send(response, event("end", {"reason": "stopping"}))
    await response.write_eof()


async def _send(response: web.StreamResponse, data: bytes) -> None:
    try:
        await asyncio.wait_for(response.write(data), STALL_SECONDS_MAX)
    except TimeoutError:
        raise ConnectionResetError("the watcher takes nothing any more") from None


def position_of(text: str | None) -> Position | None:
    """The position behind which a client wants to go on; a version alone stands for all changes of that entry.

    Raises:
        ApiError: 400.
    """
    if text is None:
        return None
    found = _POSITION.fullmatch(text)
    if found is None:
        raise bad_request("`since` must be a version, or the id of an event such as 124-0.")
    index, number = found.groups()
    return (int(index), LAST_NUMBER if number is None else int(number))


def position_text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def event_of(told: Change | Gap) -> bytes:
    if isinstance(told, Gap):
        return event("gap", {"reason": told.reason, "position": position_text(told.position)}, told.position)
    transition = told.transition
    what = {
        "key": transition.key,
        "version": transition.version_after,
        "previous_version": transition.version_before,
        "states": _states(transition.after),
        "previous_states": _states(transition.before),
    }
    return event(transition.cause, what, told.position)


def event(name: str, data: dict[str, Any], position: Position | None = None) -> bytes:
    """One event. JSON has no bare line ends, so the data is one line."""
    head = "" if position is None else f"id: {position_text(position)}\n"
    return f"{head}event: {name}\n".encode() + b"data: " + encode(data) + b"\n\n"


def _states(directory: Directory) -> dict[str, str]:
    """By node; who is not named has none of it (I)."""
    return dict(directory.holders)
