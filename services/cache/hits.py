"""A local hit on the shortest way: ahead of routing and middleware, which cost more than the hit itself.

The rule of this file: it answers only what it can answer with certainty and at once, a plain read of a line that
this node may serve, from a request that needs no further look; everything else goes the ordinary way untouched, and
gets there the same answer. `services.cache.node.coherence` alone decides whether it is a hit. It is no operation of
its own, but a short way to two of them: `cache.get` and `cache.read`.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from common.api_error import ApiError
from common.web import JSON_CONTENT_TYPE, encoded_response
from services.cache.answers import encoded_get, encoded_read
from services.cache.bodies import KeyBody
from services.cache.node.coherence import Coherence
from services.cache.operations import cache
from services.node.host import Host

Handler = Callable[[Any], Awaitable[web.StreamResponse]]

#: A body of more digits' length names more than a key.
LENGTH_DIGITS_MAX = 3
#: What makes a query more than one plain `key=text`.
_ESCAPES = frozenset("%+&;#")

GET_PATH, READ_PATH = cache["cache.get"].at.path, cache["cache.read"].at.path

_decode = msgspec.json.Decoder(KeyBody).decode
_CONTENT_LENGTH, _CONTENT_TYPE, _EXPECT = map(istr, (hdrs.CONTENT_LENGTH, hdrs.CONTENT_TYPE, hdrs.EXPECT))
_JSON = frozenset({"application/json", JSON_CONTENT_TYPE})


def in_front(here: Host, guard: Callable[[Any], None], ordinary: Handler) -> Handler:
    """A handler of whole requests that answers hits itself and leaves the rest to `ordinary`. `guard` raises
    `ApiError` for a request that may not be served."""
    coherence: Coherence = here.parts[Coherence]
    seconds = here.metrics.http_request_seconds
    observe_read = seconds.labels(READ_PATH, hdrs.METH_GET, "200").observe
    observe_get = seconds.labels(GET_PATH, hdrs.METH_POST, "200").observe
    served, hits = here.metrics.served, here.metrics.cache_hit_total

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == READ_PATH and request.method == hdrs.METH_GET:
            started = perf_counter()
            held = coherence.hit(simple_key(request))
            if held is not None and _is_welcome(guard, request):
                served.cache_reads += 1
                hits.add()
                observe_read(perf_counter() - started)
                return encoded_response(encoded_read(coherence, held))
        elif path == GET_PATH and request.method == hdrs.METH_POST and _has_plain_body(request.headers):
            started = perf_counter()
            # The body stays with the request and can be read again.
            held = coherence.hit(_key_in(await request.read()))
            if held is not None and _is_welcome(guard, request):
                served.cache_reads += 1
                hits.add()
                observe_get(perf_counter() - started)
                return encoded_response(encoded_get(coherence, held))
        return await ordinary(request)

    return handle


def simple_key(request: web.BaseRequest) -> str:
    """The key, where the query is nothing but `key=` and plain text; else empty."""
    query = request.rel_url.raw_query_string
    if query.startswith("key=") and query.isascii() and _ESCAPES.isdisjoint(query):
        return query[4:]
    return ""


def _is_welcome(guard: Callable[[Any], None], request: web.BaseRequest) -> bool:
    try:
        guard(request)
    except ApiError:
        return False
    return True


def _has_plain_body(headers: CIMultiDictProxy[str]) -> bool:
    """Whether a small JSON body comes without being asked for: with `Expect`, the ordinary way asks for it."""
    length = headers.get(_CONTENT_LENGTH)
    return (
        length is not None
        and len(length) <= LENGTH_DIGITS_MAX
        and headers.get(_CONTENT_TYPE) in _JSON
        and headers.get(_EXPECT) is None
    )


def _key_in(body: bytes) -> str:
    """The key that the body names; empty where it is not in order, which the ordinary way explains."""
    try:
        return _decode(body).key if body.isascii() else ""
    except msgspec.DecodeError:
        return ""
