"""What falls due happens without anybody's traffic: a leader brings the time by an entry of its own."""

import asyncio

from raft.core.types import EntryKind, Role
from tests.helpers import eventually
from tests.node.group import Group


async def test_time_goes_on_though_an_advance_was_replaced() -> None:
    """The entry that an isolated leader brought the time with is replaced by another leader's shorter log. When the
    first one leads again, it must not wait for an index that only traffic would reach."""
    async with Group(leader_wait_ms=500, request_timeout_ms=500) as group:
        first = await group.leader()
        others = [node for node in group.nodes.values() if node is not first]
        group.network.isolate(first.id)
        lost = [asyncio.ensure_future(first.propose(b"x")) for _ in range(20)]
        await eventually(lambda: first.core.log.last_index >= 20)
        first.machine.due_ms = first.cluster_time_ms()
        await eventually(
            lambda: first.core.log.entry(first.core.log.last_index).kind is EntryKind.ADVANCE
            or first.core.state.role is not Role.LEADER
        )
        await eventually(lambda: any(node.core.state.role is Role.LEADER for node in others))
        first.machine.due_ms = None
        await asyncio.gather(*lost, return_exceptions=True)
        group.network.heal()
        second = await group.leader()
        await eventually(lambda: first.applier.applied_index == second.core.log.last_index)
        await group.lead(first)

        for node in group.nodes.values():
            node.machine.due_ms = first.cluster_time_ms()

        await eventually(lambda: all(node.machine.due_ms is None for node in group.nodes.values()))
