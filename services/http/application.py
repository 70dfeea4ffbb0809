"""The application that serves a node's clients: routes of what it carries, and the guard, times and refusals
around."""

from collections.abc import Callable

from aiohttp import web

from common.api_error import ApiError
from common.middleware import HINT_PATH_LENGTH_MAX, request_middleware, shown_path
from services.http.guard import Guard
from services.http.routes import HOST, routes_of
from services.node.host import Host
from services.operations.operation import Operation
from services.operations.refusals import from_raft, refused
from services.operations.table import Table


def application(here: Host, table: Table) -> web.Application:
    """What `here` carries of the operations of `table`."""
    settings = here.settings
    middleware = request_middleware(
        here.metrics,
        guard=Guard(settings, table),
        translate=from_raft,
        unknown_path=unknown_path(here, table),
    )
    app = web.Application(middlewares=[middleware], client_max_size=settings.body_bytes_max)
    app.router.add_routes(routes_of(table.carried(settings.groups), here))
    app[HOST] = here
    return app


def unknown_path(here: Host, table: Table) -> Callable[[web.Request], ApiError]:
    """What a request is answered whose path no route of this node takes."""
    groups = here.settings.groups

    def refuse(request: web.Request) -> ApiError:
        operation = table.at(request.path)
        if operation is not None:
            return _elsewhere(here, operation, f"{shown_path(request)} is an operation")
        path, nearest = table.nearest(request.path[:HINT_PATH_LENGTH_MAX], groups)
        beginning = f"There is no route {shown_path(request)}; the nearest is `{nearest.at.method} {path}`"
        if not nearest.group or nearest.group in groups:
            return refused("no_such_route", f"{beginning}.")
        return _elsewhere(here, nearest, f"{beginning}, an operation")

    return refuse


def _elsewhere(here: Host, operation: Operation, beginning: str) -> ApiError:
    """It is another group's, which this node does not carry."""
    carried = ", ".join(f"`{group}`" for group in here.settings.groups)
    addresses = here.settings.site.get(operation.group, ())
    where = f"ask {', '.join(addresses)}" if addresses else f"ask a node of `{operation.group}`"
    facts = {"addresses": list(addresses)} if addresses else {}
    return refused(
        "no_such_route",
        f"{beginning} of the group `{operation.group}`, and this node carries {carried}; {where}.",
        operation=operation.name,
        group=operation.group,
        groups=list(here.settings.groups),
        **facts,
    )
