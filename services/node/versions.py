"""The versions of the logs of this node's groups: telling raft what is known, and raising what all members know.

The rule of the file: raising is the leader's, and happens by itself. Who upgrades a cluster has nothing to do but to
start every node with the new release. `raft.versions` has the reasons, `services.replicated.versions` the numbers.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from common.logs import get_logger
from common.metrics import Metrics, Row
from raft.core.errors import ProposalRefused
from raft.core.types import NodeId
from raft.node import RaftNode
from services.replicated.envelope import encode_command
from services.replicated.machine import RAISED_TOPIC, machine_of
from services.replicated.versions import RaiseVersion

#: How often a leader looks whether all members know more by now.
LOOK_S = 0.5

logger = get_logger("services.node.versions")


def attach_versions(node: RaftNode, said: Callable[[NodeId], int | None]) -> None:
    """Before a node starts: tell it what this release knows, what is in force, and what its members say."""
    node.versions.known = machine_of(node).known
    node.versions.in_force = lambda: machine_of(node).version
    node.versions.said = said

    def tell(version: int) -> None:
        logger.info("the log has a new version", group=node.group, version=version)

    node.subscribe(RAISED_TOPIC, tell)


async def keep_raised(node: RaftNode) -> None:
    """Runs as long as the node does: where it leads, raise the group's version to what all members know."""
    while True:
        maybe_raise(node)
        await asyncio.sleep(LOOK_S)


def maybe_raise(node: RaftNode) -> bool:
    """One look. Whether there is an entry on its way now that raises the version."""
    version = node.versions.to_raise()
    if version is None:
        return False
    try:
        node.versions.raise_to(version, encode_command(RaiseVersion(version)))
    except ProposalRefused:
        # The next look finds a leader that takes it.
        return False
    return True


def watch_versions(metrics: Metrics, nodes: Mapping[str, RaftNode]) -> None:
    """Let a scrape read the versions of the groups that `nodes` then holds."""

    def rows() -> Iterable[Row]:
        return [((group,), machine_of(node).version) for group, node in nodes.items()]

    metrics.mufakat_log_version.watch(rows)
