"""Who the nodes of a cluster are: the topologies as data.

A topology is a name and a table of nodes; a node is an id, the groups that it carries and its client port. All else
follows from the table. To add a topology, add a row to `TOPOLOGIES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from common.config import PEER_PORT_OFFSET
from services.cluster.errors import UsageError

#: Highest port number there is.
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Node:
    """One process of a cluster."""

    id: str
    #: The groups that it carries: some of "lock", "queue", "cache".
    groups: tuple[str, ...]
    #: The port at which clients reach it.
    client_port: int
    #: Its host; empty: the host of the topology's nodes.
    host: str = ""
    #: Its data directory on this machine; empty: the one that follows from its id and the topology, or unknown.
    data_dir: str = ""

    @property
    def peer_port(self) -> int:
        """The port at which the other nodes reach it."""
        return self.client_port + PEER_PORT_OFFSET


@dataclass(frozen=True, slots=True)
class Topology:
    """A named table of nodes."""

    name: str
    #: All nodes, those that were added later at the end.
    nodes: tuple[Node, ...]
    #: Ids of the nodes that were added: they are not founders.
    added: frozenset[str] = frozenset()

    def node(self, node_id: str) -> Node:
        """The node of that id.

        Raises:
            UsageError: there is none; the message lists the ids that exist.
        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise UsageError(
            f"There is no node {node_id!r} in this cluster ({self.name}). Its nodes are "
            f"{', '.join(node.id for node in self.nodes)}."
        )

    def members(self, group: str) -> tuple[Node, ...]:
        """The nodes that carry `group`, in the table's order.

        Raises:
            UsageError: no node does.
        """
        found = tuple(node for node in self.nodes if group in node.groups)
        if not found:
            raise UsageError(
                f"No node of the {self.name} topology carries the group {group!r}. Its groups are "
                f"{', '.join(self.groups())}."
            )
        return found

    def groups(self) -> tuple[str, ...]:
        """Every group of the topology, in the order in which the table first names it."""
        return tuple(dict.fromkeys(group for node in self.nodes for group in node.groups))

    def companions(self, node: Node) -> tuple[Node, ...]:
        """The nodes that `node` learns from its settings: the founders of its groups, and itself."""
        return tuple(
            other
            for other in self.nodes
            if other == node or (other.groups == node.groups and other.id not in self.added)
        )

    def site(self, address_of: Callable[[Node], str]) -> str:
        """The value of `MUFAKAT_SITE` for every node: where clients reach each group. Empty if all nodes carry all
        groups."""
        if all(node.groups == self.nodes[0].groups for node in self.nodes):
            return ""
        return ";".join(
            f"{group}={','.join(address_of(node) for node in self.members(group))}" for group in self.groups()
        )

    def with_added(self, added: "tuple[Node, ...]") -> "Topology":
        """The same table and further nodes; a node whose id is already in it stays as it is."""
        known = {node.id for node in self.nodes}
        new = tuple(node for node in added if node.id not in known)
        return replace(self, nodes=self.nodes + new, added=self.added | {node.id for node in new})

    def shifted(self, port_offset: int) -> "Topology":
        """The same nodes, every port higher by `port_offset`.

        Raises:
            UsageError: a port would lie outside 1 to 65535.
        """
        # The port of a node that was started by hand is the one in its own settings.
        nodes = tuple(
            node if node.data_dir else replace(node, client_port=node.client_port + port_offset)
            for node in self.nodes
        )
        if any(node.client_port < 1 or node.peer_port > PORT_MAX for node in nodes):
            raise UsageError(f"A port offset of {port_offset} moves a port out of the range 1 to {PORT_MAX}.")
        return replace(self, nodes=nodes)


def _trio(prefix: str, groups: tuple[str, ...], first_port: int) -> tuple[Node, ...]:
    return tuple(Node(f"{prefix}{number}", groups, first_port + number - 1) for number in (1, 2, 3))


#: Each service on three nodes of its own.
SEPARATED = Topology(
    "separated",
    (*_trio("node", ("lock",), 8000), *_trio("queue", ("queue",), 8100), *_trio("cache", ("cache",), 8200)),
)

#: Three nodes that carry all three services each.
COMBINED = Topology("combined", _trio("node", ("lock", "queue", "cache"), 8001))

#: What `--topology` may name; the first is the default.
TOPOLOGIES: dict[str, Topology] = {topology.name: topology for topology in (SEPARATED, COMBINED)}
