"""A listener for HTTP: aiohttp's server with bounds on what its clients can occupy, and with our own refusals.

    ListenerRunner   web.AppRunner, with a `Listener` for its server
    Listener         counts connections, turns away those beyond the bounds, looks at all of them once a second
    Connection       one client: aiohttp's protocol, whose refusals are JSON and one line in the log at most

The rule of the file: a request that is in order costs a look at two headers and no more. The look at all connections
finds what a client does not let end: a body that does not come, an answer that is not taken. aiohttp's own timer
closes a connection on which no request is under way. A client that waits for an answer, or receives a stream, may
stay as long as the handler allows.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from aiohttp import hdrs, http_exceptions, web
from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestHandler
from multidict import istr

from common.api_error import ApiError, bad_request, internal_error
from common.keepalive import probing, set_tcp_options
from common.logs import SparseLog, get_logger
from common.malformed import sentence_for
from common.web import error_response

#: How often the listener looks at all connections, in seconds; more often if a timeout is shorter.
LOOK_SECONDS = 1.0
#: Connections that the listener looks at in one turn of the loop.
CONNECTIONS_PER_TURN = 500
#: Longest piece of a header that a refusal repeats to its sender.
QUOTED_LENGTH_MAX = 60

#: Seconds of silence before the first probe, seconds between probes, and number of probes: a client whose machine is
#: gone without closing the connection must not stay in line for hours.
PROBE_AFTER_SECONDS, PROBE_SECONDS, PROBES_MAX = 30, 10, 3

_CONTENT_ENCODING, _EXPECT = istr(hdrs.CONTENT_ENCODING), istr(hdrs.EXPECT)
#: After these, nobody knows where the next request would begin.
_CLOSE: dict[str, str] = {hdrs.CONNECTION: "close"}

log = SparseLog(get_logger("common.listener"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the clients of one listener may occupy."""

    connections_max: int
    #: Of these, from one address.
    connections_per_address_max: int
    #: Further connections that may only ask for `spare_paths`. When all are in use, the oldest of them makes room.
    spare_connections: int = 0
    spare_paths: frozenset[str] = frozenset()
    #: From connecting to the end of the first request's headers.
    header_timeout_s: float = 10.0
    #: From an answer to the end of the next request's headers.
    idle_timeout_s: float = 75.0
    #: In each such time a client must send of a body, or take of an answer, `bytes_per_second_min` on average.
    body_timeout_s: float = 20.0
    bytes_per_second_min: int = 4_096


class ListenerRunner(web.AppRunner):
    """Serves `app` by a `Listener`. It calls `count_refused` with a word for each refusal of the listener itself."""

    def __init__(
        self, app: web.Application, limits: Limits, *, count_refused: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(app, access_log=None, auto_decompress=False, **options)
        self._limits = limits
        self._count_refused = count_refused

    async def _make_server(self) -> "Listener":
        made = await super()._make_server()
        return Listener(made, self._limits, self._count_refused)


class Listener(web.Server):
    """The connections of one port."""

    def __init__(self, made: web.Server, limits: Limits, count_refused: Callable[[str], None]) -> None:
        """`made` is the application's own server, which this one replaces."""
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **{**made._kwargs, "keepalive_timeout": limits.idle_timeout_s},
        )
        self.limits = limits
        self.count_refused = count_refused
        #: Those whose socket is open.
        self._open: dict[Connection, asyncio.Transport] = {}
        self._by_address: dict[str, int] = {}
        #: Those beyond the bounds, oldest first.
        self._spare: dict[Connection, None] = {}
        self._look_seconds = min(LOOK_SECONDS, limits.body_timeout_s / 4)
        #: When the listener last looked at all, by the loop's clock, and for how long it had watched them by then.
        self._looked = self._loop.time()
        self._watched_s = 0.0
        self._timer: asyncio.Handle = self._loop.call_later(self._look_seconds, self._look_at_all)

    @property
    def connection_count(self) -> int:
        return len(self._open)

    def __call__(self) -> "Connection":
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection, or make sure that it is closed again."""
        assert isinstance(handler, Connection)
        super().connection_made(handler, transport)
        limits, address = self.limits, handler.address
        from_there = self._by_address.get(address, 0)
        is_full = len(self._open) - len(self._spare) >= limits.connections_max
        self._open[handler] = transport
        self._by_address[address] = from_there + 1
        if not is_full and from_there < limits.connections_per_address_max:
            return
        self.count_refused("too_many_connections")
        log.warning(
            "connections are turned away", "all" if is_full else "address", open=len(self._open), address=address,
            why="as many as this node takes" if is_full else "as many as one address may have",
        )  # fmt: skip
        if len(self._spare) >= limits.spare_connections:
            oldest = next(iter(self._spare), handler)
            self._spare.pop(oldest, None)
            self._open[oldest].abort()
        if limits.spare_connections:
            self._spare[handler] = None
            handler.answer_only(limits.spare_paths)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        assert isinstance(handler, Connection)
        super().connection_lost(handler, exc)
        del self._open[handler]
        self._spare.pop(handler, None)
        self._by_address[handler.address] -= 1
        if not self._by_address[handler.address]:
            del self._by_address[handler.address]

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Every request passes here before anything reads it."""
        headers = request.headers
        if _CONTENT_ENCODING in headers or _EXPECT in headers:
            self._check_headers(request)
        return self.request_handler(request)

    def _check_headers(self, request: web.BaseRequest) -> None:
        """Raise for a compressed body, and for an expectation that this server does not meet."""
        for encoding in request.headers.getall(_CONTENT_ENCODING, ()):
            if encoding.strip().lower() not in ("", "identity"):
                self.count_refused("content_encoding")
                raise ApiError(
                    415,
                    "unsupported_media_type",
                    f"The body is encoded ({_clip(encoding)}); send it as it is, without `Content-Encoding`.",
                    headers={hdrs.ACCEPT_ENCODING: "identity", **_CLOSE},
                )
        expected = request.headers.get(_EXPECT, "")
        if expected.lower() not in ("", "100-continue"):
            self.count_refused("expect")
            detail = f"Nothing is known of `Expect: {_clip(expected)}`; only `100-continue` is."
            raise ApiError(417, "bad_request", detail, headers=_CLOSE)

    async def shutdown(self, timeout: float | None = None) -> None:
        self._timer.cancel()
        for connection in self._open:
            connection.stop_reading()
        await super().shutdown(timeout)

    def _look_at_all(self) -> None:
        now = self._loop.time()
        # The time in which this node itself stood still does not count against its clients.
        self._watched_s += min(now - self._looked, 2 * self._look_seconds)
        self._looked = now
        self._look_on(iter(tuple(self._open)))

    def _look_on(self, rest: Iterator["Connection"]) -> None:
        some = tuple(islice(rest, CONNECTIONS_PER_TURN))
        for connection in some:
            connection.look(self._watched_s)
        if len(some) == CONNECTIONS_PER_TURN:
            self._timer = self._loop.call_soon(self._look_on, rest)
        else:
            self._timer = self._loop.call_later(self._look_seconds, self._look_at_all)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_listener", "_progress", "_transport", "address")

    def __init__(self, listener: Listener, **options: Any) -> None:
        super().__init__(listener, **options)
        self._listener = listener
        self._request_handler = listener.handle
        #: aiohttp forgets its own before the last bytes have gone.
        self._transport: asyncio.Transport | None = None
        #: The address under which it is counted: an address, or a network of IPv6.
        self.address = ""
        #: What is under way, how far it had come, and when that was; None if there is nothing to wait for.
        self._progress: tuple[object, int, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.address = counted_address(transport.get_extra_info("peername"))
        super().connection_made(transport)
        # aiohttp has set its timer, for the pause between two requests. Before the first request the time is
        # different. The timer must not be late for the first pause; if it fires too early, it is set again.
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        limits, now = self._listener.limits, self._loop.time()
        self._next_keepalive_close_time = now + limits.header_timeout_s
        first = now + min(limits.header_timeout_s, limits.idle_timeout_s)
        self._keepalive_handle = self._loop.call_at(first, self._process_keepalive)

    def answer_only(self, paths: frozenset[str]) -> None:
        """Refuse everything but `paths` from now on, and close after one answer."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if request.rel_url.raw_path in paths:
                response = await self._listener.handle(request)
            else:
                response = error_response(
                    ApiError(
                        429,
                        "overloaded",
                        "This node has as many connections as it takes, from all or from your address; close some "
                        "that idle, or use another node. Not done.",
                        headers={hdrs.RETRY_AFTER: "1"},
                    )
                )
            response.force_close()
            return response

        self._request_handler = handle

    def look(self, now: float) -> None:
        """End what makes no progress. Called about once a second, with a time that stands still while the node
        does."""
        limits = self._listener.limits
        found = self._under_way()
        if found is None:
            self._progress = None
            return
        what, come = found
        if self._progress is None or self._progress[0] != what:
            self._progress = (what, come, now)
            return
        _, before, since = self._progress
        if now - since < limits.body_timeout_s:
            return
        if come - before >= limits.bytes_per_second_min * limits.body_timeout_s:
            self._progress = (what, come, now)
            return
        self._listener.count_refused("too_slow")
        log.warning("a client is too slow", address=self.address)
        if isinstance(what, web.BaseRequest):
            detail = f"The body came too slowly: under {limits.bytes_per_second_min} bytes a second. Not done."
            self._give_up_body(what, ApiError(408, "too_slow", detail, headers=_CLOSE))
        elif self._transport is not None:
            self._transport.abort()

    def stop_reading(self) -> None:
        """From now on aiohttp drops what comes: nobody may wait for the rest of a body."""
        request = self._current_request
        if request is not None and not request.content.is_eof() and request.content.exception() is None:
            detail = "This node is shutting down; not done, send it again or to another node."
            self._give_up_body(request, ApiError(503, "stopping", detail, headers=_CLOSE))

    def _under_way(self) -> tuple[object, int] | None:
        """What must make progress (a request whose body comes, or an answer that the client takes), and a number that
        rises with that progress."""
        request, transport = self._current_request, self._transport
        assert transport is not None
        if transport.is_closing():
            return "the last answer", -transport.get_write_buffer_size()
        if request is None and self.writing_paused:
            # Names the answer: the number of requests that have come, and of those that wait.
            return (self._request_count, len(self._messages)), -transport.get_write_buffer_size()
        if request is None or self._reading_paused or request.content.is_eof() or request.content.exception():
            return None
        if self._messages:
            # After half a body there is no next request: the parser found something that does not belong to the body.
            self._give_up_body(request, bad_request("The body is not chunked as HTTP asks; send it again whole."))
            return None
        return request, request.content.total_bytes

    def _give_up_body(self, request: web.BaseRequest, error: ApiError) -> None:
        """Tell the reader of the body; ignore everything that comes after it."""
        error.headers.update(_CLOSE)
        self._messages.clear()
        self._lingering_time = 0.0
        request.content.set_exception(error)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to an error outside of the application: nearly always, what came is not HTTP."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is on its way")
        if isinstance(exc, ApiError):
            response = error_response(exc)
            if hdrs.CONNECTION in exc.headers:
                response.force_close()
            return response
        if isinstance(exc, http_exceptions.HttpProcessingError):
            refusal = bad_request(sentence_for(exc))
            self._listener.count_refused("malformed")
            log.warning("a request is malformed", refusal.detail, address=self.address, problem=refusal.detail)
        else:
            log.error("request failed", repr(type(exc)), status=status, exc_info=exc)
            refusal = internal_error()
        # aiohttp believes that a request which it could not read was HTTP/1.0.
        request._version = HttpVersion11
        response = error_response(refusal)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **fields: Any) -> None:
        """What aiohttp would log about a connection that it then closes."""
        error = fields.get("exc_info")
        if not isinstance(error, ApiError):
            log.error("connection failed", repr(type(error)), problem=str(args[0] if args else ""), exc_info=error)


def _clip(text: str) -> str:
    return text if len(text) <= QUOTED_LENGTH_MAX else text[:QUOTED_LENGTH_MAX] + "..."


def counted_address(peername: Any) -> str:
    """The address by which connections are counted. An IPv6 address counts as its /64 network."""
    host = peername[0] if isinstance(peername, tuple) else ""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def probe_silence(sock: Any) -> None:
    """Let the system probe from time to time whether the other side is still there. Connections inherit this from the
    socket that accepts them: to set it on each of them would cost more than all the rest of the work for it here."""
    with contextlib.suppress(OSError):
        set_tcp_options(sock, probing(after_s=PROBE_AFTER_SECONDS, every_s=PROBE_SECONDS, lost_max=PROBES_MAX))
