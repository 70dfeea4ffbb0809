"""A node's two ports: what the settings and the limit of open files leave for whom, and where it is counted."""

import os
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web

from common import descriptors
from common.config import Settings
from common.listener import Limits, Listener, ListenerRunner, probe_silence
from common.logs import get_logger
from common.parsers import join_address
from services.http.routes import HOST

logger = get_logger("services.http.listeners")


def share_descriptors(settings: Settings, open_files_max: int) -> descriptors.Shares:
    """Who gets how many of the descriptors that there may be; says so where that is less than what is set."""
    shares = descriptors.share(open_files_max, settings.connections_max)
    if shares.clients < settings.connections_max:
        logger.warning(
            "the limit of open files is low: fewer clients are served than are set",
            open_files=open_files_max,
            connections=shares.clients,
            connections_max=settings.connections_max,
            advice="raise it (ulimit -Hn, LimitNOFILE, nofile), or set MUFAKAT_CONNECTIONS_MAX lower",
        )
    return shares


class CannotListen(OSError):
    """An address on which this node was to listen cannot be had; the text names it, `errno` says why."""


def client_runner(
    app: web.Application, shares: descriptors.Shares, *, spare_paths: frozenset[str] = frozenset(), **options: Any
) -> ListenerRunner:
    """Serves clients, as the settings of `app` say. A handler whose client goes is cancelled: it may wait long.
    `spare_paths` may be asked for on a connection beyond those that there may be."""
    settings = app[HOST].settings
    limits = Limits(
        connections_max=shares.clients,
        connections_per_address_max=settings.connections_per_address_max,
        spare_connections=shares.spare,
        spare_paths=spare_paths,
        header_timeout_s=settings.header_timeout_ms / 1000,
        idle_timeout_s=settings.idle_timeout_ms / 1000,
        body_timeout_s=settings.body_timeout_ms / 1000,
        bytes_per_second_min=settings.body_bytes_per_second_min,
    )
    return _runner(app, app, "clients", limits, handler_cancellation=True, **options)


def peer_runner(
    app: web.Application, peers_app: web.Application, shares: descriptors.Shares, **options: Any
) -> ListenerRunner:
    """Serves `peers_app` to the other nodes, of which all may be on one machine."""
    limits = Limits(connections_max=shares.peers, connections_per_address_max=shares.peers)
    return _runner(app, peers_app, "peers", limits, **options)


async def listen(runner: ListenerRunner, host: str, port: int, *, backlog: int) -> None:
    """Accept connections on `port` from now on.

    Raises:
        CannotListen: the address cannot be had.
    """
    site = web.TCPSite(runner, host, port, reuse_address=True, backlog=backlog)
    try:
        await site.start()
    except OSError as error:
        # The system's own words name no address where the name of the host is unknown, and twice where it is.
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = os.strerror(number) if number else error.strerror or str(error)
        raise CannotListen(error.errno, f"cannot listen on {join_address(host, port)}: {why}") from error
    # uvloop's or asyncio's: they have no class in common that knows the sockets.
    server: Any = site._server
    for accepting in server.sockets:
        probe_silence(accepting)


def _runner(
    app: web.Application, served: web.Application, name: str, limits: Limits, **options: Any
) -> ListenerRunner:
    metrics = app[HOST].metrics
    runner = ListenerRunner(served, limits, count_refused=_counter(metrics.http_refused_total, name), **options)

    def count() -> list[tuple[tuple[str], int]]:
        listener = runner.server
        return [((name,), listener.connection_count)] if isinstance(listener, Listener) else []

    metrics.http_connections.watch(count)
    return runner


def _counter(refused: Any, listener: str) -> Callable[[str], None]:
    return lambda reason: refused.labels(listener, reason).add()
