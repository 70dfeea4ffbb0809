"""What a node tells its groups once it is up: that requests which waited in an earlier life of it are over."""

import asyncio

from raft.errors import RaftError
from raft.node import RaftNode
from services.envelope import Command, encode_command
from services.host import Host
from services.roles import ROLES

#: Pause between tries while no leader can be reached.
RETRY_S = 0.5


async def announce(here: Host) -> None:
    """Replicate every group's announcement; ends once all are acknowledged. Repeating one does no harm."""
    for group, node in here.nodes.items():
        announcement = ROLES[group].announcement
        if announcement is not None:
            await _replicate(node, announcement(here.node_id, here.boot))


async def _replicate(node: RaftNode, command: Command) -> None:
    while True:
        try:
            await node.propose(encode_command(command))
            return
        except RaftError:
            await asyncio.sleep(RETRY_S)
