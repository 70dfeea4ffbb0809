"""A local hit on the shortest way: ahead of routing and middleware, which cost more than the hit itself.

The rule of this file: it answers only what it can answer with certainty and at once, a plain read of a line that
this node may serve, from a request that needs no further look; everything else goes the ordinary way untouched, and
gets there the same answer. `services.cache.node.coherence` alone decides whether it is a hit.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import hdrs, web
from msgspec import Raw, Struct
from multidict import CIMultiDictProxy, istr

from common.web import JSON_CONTENT_TYPE, ApiError, encode, encoded_response
from services.cache.node.coherence import Coherence
from services.cache.node.held import KEPT_ANSWER_BYTES_MAX, Granted
from services.cache.replicated.line import Line
from services.node.host import Host

Handler = Callable[[Any], Awaitable[web.StreamResponse]]

#: A body of more digits' length names more than a key.
LENGTH_DIGITS_MAX = 3
#: What makes a query more than one plain `key=text`.
_ESCAPES = frozenset("%+&;#")


class KeyBody(Struct, forbid_unknown_fields=True):
    key: str


_decode = msgspec.json.Decoder(KeyBody).decode
_CONTENT_LENGTH, _CONTENT_TYPE, _EXPECT = map(istr, (hdrs.CONTENT_LENGTH, hdrs.CONTENT_TYPE, hdrs.EXPECT))
_JSON = frozenset({"application/json", JSON_CONTENT_TYPE})


def in_front(here: Host, guard: Callable[[Any], None], ordinary: Handler) -> Handler:
    """A handler of whole requests that answers hits itself and leaves the rest to `ordinary`. `guard` raises
    `ApiError` for a request that may not be served."""
    coherence: Coherence = here.parts[Coherence]
    seconds = here.metrics.http_request_seconds
    observe_read = seconds.labels("/cache/read", hdrs.METH_GET, "200").observe
    observe_get = seconds.labels("/cache/get", hdrs.METH_POST, "200").observe
    served, hits = here.metrics.served, here.metrics.cache_hit_total

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == "/cache/read" and request.method == hdrs.METH_GET:
            started = perf_counter()
            granted = coherence.hit(simple_key(request))
            if granted is not None and _is_welcome(guard, request):
                served.cache_reads += 1
                hits.add()
                observe_read(perf_counter() - started)
                return encoded_response(read_answer(coherence, granted))
        elif path == "/cache/get" and request.method == hdrs.METH_POST and _has_plain_body(request.headers):
            started = perf_counter()
            # The body stays with the request and can be read again.
            granted = coherence.hit(_key_in(await request.read()))
            if granted is not None and _is_welcome(guard, request):
                served.cache_reads += 1
                hits.add()
                observe_get(perf_counter() - started)
                return encoded_response(get_answer(coherence, granted))
        return await ordinary(request)

    return handle


def simple_key(request: web.BaseRequest) -> str:
    """The key, where the query is nothing but `key=` and plain text; else empty."""
    query = request.rel_url.raw_query_string
    if query.startswith("key=") and query.isascii() and _ESCAPES.isdisjoint(query):
        return query[4:]
    return ""


def get_answer(coherence: Coherence, granted: Granted) -> bytes:
    """What `/cache/get` answers to a hit."""
    if granted.get_answer:
        return granted.get_answer
    answered = encode(hit_of(coherence, granted.line))
    if len(answered) <= KEPT_ANSWER_BYTES_MAX:
        granted.get_answer = answered
    return answered


def read_answer(coherence: Coherence, granted: Granted) -> bytes:
    """What `/cache/read` answers to a hit."""
    if granted.read_answer:
        return granted.read_answer
    answered = encode(read_answer_of(hit_of(coherence, granted.line)))
    if len(answered) <= KEPT_ANSWER_BYTES_MAX:
        granted.read_answer = answered
    return answered


def hit_of(coherence: Coherence, line: Line) -> dict[str, Any]:
    """The answer to a hit, with `val` as raw JSON."""
    state = line.directory.state_of(coherence.node_id)
    return {"hit": True, "val": Raw(line.value), "state": state, "version": line.version, "source": "local"}


def read_answer_of(found: dict[str, Any]) -> dict[str, Any]:
    """What was found, in the words of `/cache/read`."""
    answered = {"ok": True, "value": {"state": found["state"], "value": found["val"], "version": found["version"]}}
    if "stale" in found:
        answered["stale"] = True
    return answered


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
