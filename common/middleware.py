"""The one middleware of a node's client side: guard, time, count, and turn every trouble into JSON.

It is one and not three, because each layer of aiohttp costs a coroutine per request. Its rules: a client never sees a
trace; a metric's label is the template of a route, never what a client typed; a refusal says what to do.
"""

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from common.api_error import ApiError, bad_request, internal_error
from common.logs import SparseLog, get_logger
from common.metrics import Metrics
from common.web import error_response, json_response

#: Status that is counted if the client went away before its answer (as nginx does).
CLIENT_CLOSED_REQUEST = 499

#: Label of requests that no route takes.
UNMATCHED_ROUTE = "unmatched"

#: Longest part of a path that a hint considers and repeats.
HINT_PATH_LENGTH_MAX = 60
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: The answer to an error of a lower layer; None for one that it does not know.
Translate = Callable[[Exception], ApiError | None]

#: Paths that ask about the server as a whole; some load balancers can ask nothing but `OPTIONS /`.
WHOLE_SERVER_PATHS = frozenset({"/", "*"})
WHOLE_SERVER_METHODS = ("GET", "HEAD", "OPTIONS", "POST")

#: If a request can cause an error, clients can cause it at any rate.
log = SparseLog(get_logger("common.middleware"))


def request_middleware(
    metrics: Metrics,
    *,
    guard: Callable[[web.Request], None],
    translate: Translate,
    unknown_path: Callable[[web.Request], ApiError],
) -> Middleware:
    """The middleware. `guard` raises `ApiError` for a request that may not be served; it does not suspend.
    `unknown_path` gives the refusal for a path that no route takes."""
    observers: dict[tuple[Any, int], Callable[[float], None]] = {}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = perf_counter()
        status = CLIENT_CLOSED_REQUEST
        try:
            guard(request)
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            if status < 400:
                raise
            response = _http_error(request, error, unknown_path)
            status = response.status
            return response
        except Exception as error:
            response = _error_response(request, error, translate)
            status = response.status
            return response
        finally:
            route = request.match_info.route
            observe = observers.get((route, status))
            if observe is None:
                observe = _observer(metrics, request, route, status)
                if route.resource is not None:
                    observers[route, status] = observe
            observe(perf_counter() - started)

    return middleware


def _observer(metrics: Metrics, request: web.Request, route: Any, status: int) -> Callable[[float], None]:
    if route.resource is None:
        # The method is left out too: a client may send any word.
        labels = (UNMATCHED_ROUTE, UNMATCHED_ROUTE, str(status))
    else:
        method = route.method if route.method != hdrs.METH_ANY else "any"
        labels = (route.resource.canonical, method, str(status))
    return metrics.http_request_seconds.labels(*labels).observe


def _error_response(request: web.Request, error: Exception, translate: Translate) -> web.Response:
    """The answer to what a handler raised. Raises `error` again if it is unknown and it is too late for an answer."""
    known = error if isinstance(error, ApiError) else translate(error)
    if request.transport is None or request.transport.is_closing():
        if known is None:
            raise error
        # Nobody reads the answer. An error that is raised again would look like a failure of the node, which this is
        # not.
        return error_response(known)
    if request.writer.output_size > 0:
        # Half an answer is on its way: only a cut connection tells the client that it is not whole.
        log.error("answer cut short", _kind(request, error), route=_template(request), exc_info=error)
        raise ConnectionResetError("the answer was cut short") from error
    if known is not None:
        return error_response(known)
    if isinstance(error, web.RequestPayloadError):
        early = bad_request("The body ended early or is not encoded as its headers say; send it again whole.")
        return error_response(early)
    log.error("request failed", _kind(request, error), route=_template(request), exc_info=error)
    return error_response(internal_error())


def _http_error(
    request: web.Request, error: web.HTTPException, unknown_path: Callable[[web.Request], ApiError]
) -> web.Response:
    """The answer to what aiohttp itself refused. A request for the allowed methods is not a refusal."""
    if request.method == hdrs.METH_OPTIONS:
        if request.path in WHOLE_SERVER_PATHS:
            return _methods(WHOLE_SERVER_METHODS)
        if isinstance(error, web.HTTPMethodNotAllowed):
            return _methods(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
    if isinstance(error, web.HTTPNotFound) and request.match_info.route.resource is None:
        return error_response(unknown_path(request))
    return error_response(_refusal(request, error))


def _methods(methods: Sequence[str]) -> web.Response:
    return json_response({"ok": True, "methods": methods}, headers={hdrs.ALLOW: ", ".join(methods)})


def _refusal(request: web.Request, error: web.HTTPException) -> ApiError:
    """What aiohttp itself refused, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods - {hdrs.METH_HEAD}))
        return ApiError(
            405,
            "method_not_allowed",
            f"{shown_path(request)} is asked with {allowed}, not with {request.method[:HINT_PATH_LENGTH_MAX]}; "
            f"the nearest route is `{allowed.partition(',')[0]} {request.path[:HINT_PATH_LENGTH_MAX]}`.",
            headers={hdrs.ALLOW: allowed},
        )
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return ApiError(
            413, "too_large", f"The body is over the limit of {request.client_max_size} bytes; send less at a time."
        )
    return ApiError(error.status, "bad_request", f"{error.reason}; see the API's description.")


def shown_path(request: web.Request) -> str:
    """The part of the path that an answer repeats to its sender."""
    path = request.path
    return f"`{path if len(path) <= HINT_PATH_LENGTH_MAX else path[:HINT_PATH_LENGTH_MAX] + '...'}`"


def _kind(request: web.Request, error: Exception) -> str:
    return f"{_template(request)} {type(error).__name__}"


def _template(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return UNMATCHED_ROUTE if resource is None else resource.canonical
