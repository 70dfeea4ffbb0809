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
            lambda: (
                first.core.log.entry(first.core.log.last_index).kind is EntryKind.ADVANCE
                or first.core.state.role is not Role.LEADER
            )
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


async def test_time_under_an_idle_leader_is_not_lost_with_it() -> None:
    """What is due 3 s from now is due then, although 2 s of that passed without an entry under a leader that is
    gone: only an election is added."""
    async with Group() as group:
        leader = await group.leader()
        began_ms = group.clock_ms()
        due_ms = leader.cluster_time_ms() + 3_000
        await group.pass_ms(2_000)
        await group.crash(leader.id)
        rest = tuple(group.nodes.values())
        for node in rest:
            node.machine.due_ms = due_ms

        await eventually(lambda: all(node.machine.due_ms is None for node in rest))

        assert 3_000 <= group.clock_ms() - began_ms < 4_900


async def test_a_restart_of_all_nodes_loses_little_of_the_time() -> None:
    """While something is due later, the log is brought the time every second."""
    async with Group() as group:
        leader = await group.leader()
        for node in group.nodes.values():
            node.machine.due_ms = leader.cluster_time_ms() + 600_000
        await group.pass_ms(3_000)
        stopped_ms = leader.cluster_time_ms()
        for id in group.ids:
            await group.crash(id)
        for id in group.ids:
            group.start(id)

        leader = await group.leader()

        assert stopped_ms - 1_500 <= leader.cluster_time_ms()
