"""How many files and sockets this process may have open, and who gets how many of them.

The rule of the file: clients get what is left. Without a descriptor a node cannot begin a new file on disk or reach a
peer, so it must turn clients away before the system refuses the node.
"""

from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]  # the type of the name is the module

#: What the node needs for itself: files of three groups, a snapshot that it sends and one that it takes, listeners,
#: the loop, and connections to its peers.
OWN_DESCRIPTORS = 64
#: Most connections from peers.
PEER_CONNECTIONS_MAX = 128
#: Connections of clients beyond what they may have, only for health checks and scrapes.
SPARE_CONNECTIONS = 16
#: Connections that the system may hand over at once, before the node can turn any of them away.
BACKLOG_MAX = 128
#: The node does not ask for more, even if the system would give any number.
DESCRIPTORS_MAX = 1 << 20
#: For a system that says "unlimited" and does not mean it (macOS).
DESCRIPTORS_TRIED = 10_240


@dataclass(frozen=True, slots=True)
class Shares:
    """Connections, by who may use them; together with the node's own descriptors they fit the limit."""

    clients: int
    spare: int
    peers: int
    #: Of each listener.
    backlog: int


def raise_limit() -> int:
    """Ask for as many descriptors as this process may have; returns how many it has then."""
    if resource is None:
        return DESCRIPTORS_MAX
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (DESCRIPTORS_MAX, DESCRIPTORS_TRIED):
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        soft = wanted
    return DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft


def share(limit: int, clients_wanted: int) -> Shares:
    """Who gets how many of `limit` descriptors. If it is very low, clients still get a few: a node that serves nobody
    helps nobody."""
    peers = min(PEER_CONNECTIONS_MAX, limit // 8)
    spare = min(SPARE_CONNECTIONS, max(1, limit // 16))
    backlog = min(BACKLOG_MAX, max(1, limit // 4))
    left = limit - OWN_DESCRIPTORS - peers - spare - backlog
    return Shares(clients=max(1, min(clients_wanted, left)), spare=spare, peers=peers, backlog=backlog)
