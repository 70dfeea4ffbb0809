"""How HTTP says the operations: a route for each row of the table, and nothing else.

The rule of the file: it knows no operation. What an operation returns is answered with 200, what it raises is
answered by the middleware; a caller that goes away cancels the operation. Where an operation says what is to be
taken back (`Call.take_back`), its answer is written here and now: a client that has gone meanwhile does not get it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from multidict import istr

from common.json import encode
from common.web import encoded_response, has_hung_up, read_body, read_query
from services.http.events import LAST_EVENT_ID, stream_events
from services.http.guard import check_own_page, role_of
from services.node.host import Host
from services.operations.call import Call
from services.operations.operation import GET, File, Kind, Operation, Text

#: A client that takes no bytes of its file for so long is given up: what the file is made of costs memory.
FILE_STALL_SECONDS_MAX = 30.0

#: The node that an application serves.
HOST: web.AppKey[Host] = web.AppKey("host", Host)

_IDEMPOTENCY_KEY = istr("Idempotency-Key")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpCall(Call):
    """A request."""

    __slots__ = ("_request",)

    def __init__(self, request: web.Request, host: Host, group: str) -> None:
        super().__init__(host, group)
        self._request = request

    @property
    def given_key(self) -> str | None:
        return self._request.headers.get(_IDEMPOTENCY_KEY)

    @property
    def role(self) -> str | None:
        return role_of(self._request, self.host.settings)

    @property
    def asked_from(self) -> str | None:
        return self._request.remote

    @property
    def accept(self) -> str:
        return self._request.headers.get(hdrs.ACCEPT, "")

    def has_gone(self) -> bool:
        return has_hung_up(self._request, self.host.outside.is_hung_up)

    def check_own_hand(self) -> None:
        if self._request.method == GET:
            check_own_page(self._request)


def routes_of(operations: Iterable[Operation], here: Host) -> list[web.RouteDef]:
    """The routes of these operations at `here`."""
    handlers = [(each, _handler(each, here)) for each in operations]
    return [_route(each, path, handler) for each, handler in handlers for path in each.paths]


def _route(operation: Operation, path: str, handler: Handler) -> web.RouteDef:
    if operation.at.method == GET:
        return web.get(path, handler, allow_head=operation.has_head)
    return web.post(path, handler)


def _handler(operation: Operation, here: Host) -> Handler:
    handlers = {Kind.ANSWER: _answering, Kind.EVENTS: _telling, Kind.FILE: _sending}
    return handlers[operation.kind](operation, here)


def _reader(operation: Operation) -> Callable[[web.Request], Awaitable[Any]]:
    kind = operation.body
    if not kind.__struct_fields__:
        nothing = kind()

        async def read(request: web.Request) -> Any:
            return nothing
    elif operation.at.method == GET:

        async def read(request: web.Request) -> Any:
            return read_query(request, kind)
    else:
        return partial(read_body, kind=kind)

    return read


def _answering(operation: Operation, here: Host) -> Handler:
    carry_out, group = operation.carry_out, operation.group
    read, has_text = _reader(operation), Text in operation.answers

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await read(request)
        call = HttpCall(request, here, group)
        try:
            answer = await carry_out(call, body)
            if has_text and type(answer) is Text:
                return web.Response(body=answer.body, headers={hdrs.CONTENT_TYPE: answer.content_type})
            response = encoded_response(encode(answer))
        except BaseException:
            # Whatever went wrong behind the decision: its caller does not hear of it.
            if call.take_back is not None:
                call.take_back()
            raise
        return response if call.take_back is None else await _told(request, call, response)

    return handle


async def _told(request: web.Request, call: Call, response: web.Response) -> web.Response:
    """The response, written. Where the client did not get it, the call takes back what it is about."""
    is_told = False
    # Looked at before: who has the answer may hang up at once.
    is_there = not call.has_gone()
    try:
        await response.prepare(request)
        await response.write_eof()
        is_told = is_there and request.transport is not None and not request.transport.is_closing()
    except ConnectionError:
        # Whoever writes the response for us meets the same, and knows that it is no error.
        pass
    finally:
        if not is_told and call.take_back is not None:
            call.take_back()
    return response


def _telling(operation: Operation, here: Host) -> Handler:
    read = _reader(operation)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await read(request)
        since = request.headers.get(LAST_EVENT_ID)
        if since:
            body.since = since
        async with aclosing(operation.carry_out(HttpCall(request, here, operation.group), body)) as events:
            return await stream_events(request, events)

    return handle


def _sending(operation: Operation, here: Host) -> Handler:
    read = _reader(operation)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await read(request)
        async with aclosing(operation.carry_out(HttpCall(request, here, operation.group), body)) as parts:
            return await _send_file(request, parts)

    return handle


async def _send_file(request: web.Request, parts: AsyncIterator[Any]) -> web.StreamResponse:
    file: File = await anext(parts)
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: file.content_type,
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file.name}"',
        }
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    async for part in parts:
        await asyncio.wait_for(response.write(part), FILE_STALL_SECONDS_MAX)
    await response.write_eof()
    return response
