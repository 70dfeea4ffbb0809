"""The only list of services: which machine replicates a group, and which operations speak for it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from raft.node import RaftNode
from services.cache import operations as cache_operations
from services.cache.hits import Handler, in_front
from services.cache.replicated.machine import CacheMachine
from services.lock import operations as lock_operations
from services.lock.node.absent import clear_lines
from services.lock.replicated.machine import LockMachine
from services.node import about, limits, maintenance, members
from services.node.host import Host
from services.operations.operation import Operations
from services.operations.table import Table
from services.queue import operations as queue_operations
from services.queue.replicated.machine import QueueMachine
from services.replicated.machine import ServiceMachine


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of group."""

    machine: Callable[[], ServiceMachine]
    operations: Operations
    #: Called once when a node of this kind starts, before its first entry is applied: gauges and listeners.
    attach: Callable[[Host, RaftNode], None]
    #: What a node of this kind sees to as long as it runs, beside its clients' requests; None where there is nothing.
    chore: Callable[[Host, RaftNode], Coroutine[Any, Any, None]] | None = None
    #: Nodes of such a group hold read leases, and answers wait for invalidations.
    has_leases: bool = False
    #: Makes a handler of whole requests that answers some of them ahead of everything else; None where there is none.
    in_front: Callable[[Host, Callable[[Any], None], Handler], Handler] | None = None


SERVICES: dict[str, Service] = {
    "lock": Service(LockMachine, lock_operations.lock, lock_operations.attach, clear_lines),
    "queue": Service(QueueMachine, queue_operations.queue, queue_operations.attach),
    "cache": Service(
        CacheMachine, cache_operations.cache, cache_operations.attach, has_leases=True, in_front=in_front
    ),
}

#: Everything that can be asked of a node, whatever it carries.
OPERATIONS = Table(
    [
        *about.operations,
        *members.operations,
        *maintenance.operations,
        *limits.operations,
        *(each for service in SERVICES.values() for each in service.operations),
    ]
)
