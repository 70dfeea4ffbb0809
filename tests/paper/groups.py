"""Groups of real cores for the paper's tests: made in one line, moved by one verb."""

from collections.abc import Sequence
from typing import Any

from raft.core.messages import Message
from raft.core.types import Configuration, HardState, NodeId, Term
from tests.core.replica import THREE, Disk, Replica, entries
from tests.scenarios.cluster import Cluster


def anything(_: Message) -> bool:
    return True


def group(configuration: Configuration = THREE, **config: Any) -> Cluster:
    """Empty servers, nothing on its way."""
    return Cluster(configuration, **config)


def with_logs(configuration: Configuration, logs: dict[NodeId, Sequence[Term]], **config: Any) -> Cluster:
    """Servers whose logs hold these terms; each has seen the last of its own."""
    cluster = Cluster(configuration, **config)
    for id, terms in logs.items():
        log = entries(*terms)
        cluster.add(id, configuration, Disk(HardState(terms[-1] if terms else 0), log))
    return cluster


def elect(cluster: Cluster, id: NodeId) -> Cluster:
    """`id` campaigns until it wins; what follows is delivered too. The others have heard no leader for a while."""
    cluster.settle(anything)
    for other in cluster.up:
        node = cluster.nodes[other]
        if other != id:
            node.now_ms += node.core.config.election_timeout_min_ms
    for _ in range(2):
        # The first answers may only tell it of a higher term.
        if not cluster.nodes[id].leads:
            cluster.at(id, Replica.time_out)
            cluster.settle(anything)
    assert cluster.nodes[id].leads, cluster.show(id)
    cluster.take_trace()
    return cluster


def elected(configuration: Configuration = THREE, *, leader: NodeId = "a", **config: Any) -> Cluster:
    """A group that has just elected `leader` in term 1 and committed its no-op."""
    return elect(group(configuration, **config), leader)


def propose(cluster: Cluster, id: NodeId, *commands: bytes) -> None:
    """The leader takes the commands, and everything that follows is delivered."""
    cluster.at(id, lambda node: node.propose(*commands))
    cluster.settle(anything)


def leaders(cluster: Cluster) -> list[tuple[NodeId, Term]]:
    return [(id, cluster.nodes[id].term) for id in cluster.up if cluster.nodes[id].leads]


def logs(cluster: Cluster) -> dict[NodeId, list[Term]]:
    return {id: cluster.nodes[id].log_terms for id in cluster.up}
