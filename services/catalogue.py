"""The only list of services: which machine replicates a group, and which routes speak for it."""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from raft.node import RaftNode
from services.cache import operations as cache_routes
from services.cache.hits import Handler, in_front
from services.cache.replicated.machine import CacheMachine
from services.lock import operations as lock_routes
from services.lock.node.absent import clear_lines
from services.lock.replicated.machine import LockMachine
from services.node.host import Host
from services.queue import operations as queue_routes
from services.queue.replicated.machine import QueueMachine
from services.replicated.envelope import ServiceMachine


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of group."""

    machine: Callable[[], ServiceMachine]
    routes: Callable[[], Iterable[web.RouteDef]]
    #: Called once when a node of this kind starts, before its first entry is applied: gauges and listeners.
    attach: Callable[[Host, RaftNode], None]
    #: What a node of this kind sees to as long as it runs, beside its clients' requests; None where there is nothing.
    chore: Callable[[Host, RaftNode], Coroutine[Any, Any, None]] | None = None
    #: Nodes of such a group hold read leases, and answers wait for invalidations.
    has_leases: bool = False
    #: Makes a handler of whole requests that answers some of them ahead of everything else; None where there is none.
    in_front: Callable[[Host, Callable[[Any], None], Handler], Handler] | None = None


SERVICES: dict[str, Service] = {
    "lock": Service(LockMachine, lock_routes.routes, lock_routes.attach, clear_lines),
    "queue": Service(QueueMachine, queue_routes.routes, queue_routes.attach),
    "cache": Service(CacheMachine, cache_routes.routes, cache_routes.attach, has_leases=True, in_front=in_front),
}
