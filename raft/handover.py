"""Handing leadership over before this node stops or leaves the group (thesis 3.10), to whoever is best prepared."""

import asyncio
from typing import Protocol

from raft.core.raft import RaftCore
from raft.core.types import NodeId, Role

#: How often a leader that hands over looks whether it still leads.
POLL_SECONDS = 0.005


class LeadingNode(Protocol):
    """The node that hands over."""

    core: RaftCore

    def connected_peers(self) -> tuple[NodeId, ...]: ...

    def transfer_leadership(self, to: NodeId) -> bool: ...


async def hand_over(node: LeadingNode, within_seconds: float) -> bool:
    """Hand leadership to the connected voter with the longest log, within a bound. False where this node still
    leads: there is nobody else, or nobody took it."""
    loop = asyncio.get_running_loop()
    connected = node.connected_peers()
    successors = [peer for peer in node.core.configuration.voters if peer in connected]
    if not successors:
        return False
    best = max(successors, key=lambda peer: _match_index(node, peer))
    if not node.transfer_leadership(best):
        return False
    give_up = loop.time() + within_seconds
    while node.core.state.role is Role.LEADER and loop.time() < give_up:  # noqa: ASYNC110
        # A poll with a bound: one place needs to know, and an event for it would burden every change.
        await asyncio.sleep(POLL_SECONDS)
    return node.core.state.role is not Role.LEADER


def _match_index(node: LeadingNode, peer: NodeId) -> int:
    progress = node.core.progress.get(peer)
    return progress.match_index if progress else 0
