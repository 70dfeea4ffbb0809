"""How a cluster stands: the rows that `mufakat status` shows, as a table or as JSON."""

import json
from dataclasses import dataclass

from services.cluster.backend import Backend, NodeProcess
from services.cluster.printing import table
from services.cluster.probe import GroupHealth, Health, ask_all, health, readiness
from services.cluster.topology import Node

#: What stands in a cell about which nothing is known.
UNKNOWN = "-"

HEADINGS = ("NODE", "GROUP", "ADDRESS", "PID", "STATE", "ROLE", "TERM", "LEADER")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, seen from outside."""

    node: Node
    #: host:port for clients.
    address: str
    pid: int | None
    #: "running" (ready for traffic), "unready" (its process runs), "stopped" (on request) or "dead".
    state: str
    #: None where it does not answer.
    health: Health | None

    def group_health(self, group: str) -> GroupHealth | None:
        """What the node says of one of its groups."""
        return None if self.health is None else self.health.groups.get(group)


def cluster_status(backend: Backend) -> list[NodeStatus]:
    """Every node of the topology, all asked at the same time; nodes that do not answer are rows too."""
    processes = backend.processes()
    return list(
        ask_all(backend.topology.nodes, lambda node: _node_status(backend, node, processes[node.id])).values()
    )


def _node_status(backend: Backend, node: Node, process: NodeProcess) -> NodeStatus:
    address = f"{backend.host}:{node.client_port}"
    if not process.is_running:
        return NodeStatus(node, address, process.pid, process.state, None)
    is_ready = readiness(backend.host, node.client_port).is_ready
    return NodeStatus(
        node,
        address,
        process.pid,
        "running" if is_ready else "unready",
        health(backend.host, node.client_port),
    )


def status_json(mode: str | None, topology: str | None, statuses: list[NodeStatus]) -> str:
    """The same as JSON. `role`, `term` and `leader` are those of the node's first group, null where it does
    not answer."""
    nodes = [
        {
            "id": status.node.id,
            "groups": list(status.node.groups),
            "address": status.address,
            "pid": status.pid,
            "state": status.state,
            "role": status.health.first.role if status.health else None,
            "term": status.health.first.term if status.health else None,
            "leader": status.health.first.leader if status.health else None,
        }
        for status in statuses
    ]
    return json.dumps({"mode": mode, "topology": topology, "nodes": nodes}, indent=2)


def status_table(statuses: list[NodeStatus]) -> str:
    """One row for each group on each node."""
    return table(HEADINGS, [_row(status, group) for status in statuses for group in status.node.groups])


def _row(status: NodeStatus, group: str) -> tuple[str, ...]:
    known = status.group_health(group)
    return (
        status.node.id,
        group,
        status.address,
        str(status.pid or UNKNOWN),
        status.state,
        known.role if known else UNKNOWN,
        str(known.term) if known else UNKNOWN,
        (known.leader or "none") if known else UNKNOWN,
    )
