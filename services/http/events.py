"""Operations that go on, as server-sent events (WHATWG HTML, section 9.2).

    retry: 1000                              once, at the beginning
    id: 120-9223372036854775807
    event: ready
    data: {"position": ...}

    : heartbeat                              where nothing happened for a while

The rule of the file: only this loop waits for its client; a client that takes nothing for long is let go.
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from common.json import encode
from services.operations.operation import Event

#: A client that takes nothing for so long is let go.
STALL_SECONDS_MAX = 30.0
#: What a browser waits before it connects again, milliseconds.
RETRY_MS = 1000

#: Names the last event that a client has, where it comes again.
LAST_EVENT_ID = "Last-Event-ID"
_HEADERS = {hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"}


async def stream_events(request: web.Request, events: AsyncIterator[list[Event]]) -> web.StreamResponse:
    """Tell the client of all events, to their end or its own.

    Raises:
        ApiError: the operation refuses before it tells anything.
    """
    told = await anext(events)
    response = web.StreamResponse(headers=_HEADERS)
    try:
        await response.prepare(request)
        await _send(response, b"retry: %d\n" % RETRY_MS + encoded(told))
        async for told in events:
            await _send(response, encoded(told) if told else b": heartbeat\n\n")
        await response.write_eof()
    except ConnectionError:
        # The client went, or takes nothing. That is no error of this node, so nothing is raised and logged.
        if request.transport is not None:
            request.transport.abort()
    return response


def encoded(events: list[Event]) -> bytes:
    return b"".join(map(encoded_event, events))


def encoded_event(event: Event) -> bytes:
    """One event. JSON has no bare line ends, so the data is one line."""
    head = f"id: {event.position}\n" if event.position else ""
    return f"{head}event: {event.name}\n".encode() + b"data: " + encode(event.data) + b"\n\n"


async def _send(response: web.StreamResponse, data: bytes) -> None:
    try:
        await asyncio.wait_for(response.write(data), STALL_SECONDS_MAX)
    except TimeoutError:
        raise ConnectionResetError("the client takes nothing any more") from None
