"""When a node says that it can serve: not before it holds what its group had when it took the node in."""

import asyncio
from collections.abc import Callable

from raft.core.config import CoreConfig
from raft.membership import ADD, REMOVE, MemberChange
from raft.node import RaftNode
from tests.helpers import eventually
from tests.node.admitting import AdmittingGroup

ENTRIES = 900


class SlowlyFilled(AdmittingGroup):
    """A node that lacks much gets it in many small messages, and applies a little in each turn."""

    def core_config(self, id: str) -> CoreConfig:
        return CoreConfig(id=id, append_entries_max=10)

    def prepare(self, node: RaftNode) -> None:
        node.turn_work_max = 20


async def filled(group: AdmittingGroup, *ids: str) -> RaftNode:
    """Start these, and have them commit some hundred entries; the leader."""
    for id in ids:
        group.run(id)
    leader = await group.leader()
    for start in range(0, ENTRIES, 100):
        await asyncio.gather(*(leader.propose(b"%d" % number) for number in range(start, start + 100)))
    return leader


async def each_turn_until(predicate: Callable[[], bool]) -> None:
    """Look after each turn, so that the first moment at which it is so is not missed."""
    async with asyncio.timeout(20):
        while not predicate():  # noqa: ASYNC110 - the moment itself is looked for
            await asyncio.sleep(0)


async def at_first_ready(node: RaftNode) -> int:
    """How many commands the node has applied when it is ready for the first time."""
    await each_turn_until(lambda: node.status().ready)
    return len(node.machine.commands)


async def test_an_empty_founder_that_is_taken_in_is_not_ready_before_it_holds_what_the_group_had() -> None:
    """The configuration at the beginning of its log names it a voter, long before it is one that can serve."""
    async with SlowlyFilled() as group:
        await filled(group, "a", "b")

        late = group.run("c")

        assert await at_first_ready(late) == ENTRIES


async def test_a_wiped_node_that_was_removed_and_added_is_not_ready_before_it_holds_what_the_group_had() -> None:
    """A learner by the leader's configuration, a voter by the one at the beginning of its log."""
    async with SlowlyFilled() as group:
        leader = await filled(group, "a", "b", "c")
        wiped = (await group.follower()).id
        await group.crash(wiped)
        group.wipe(wiped)
        await leader.membership.change(MemberChange(REMOVE, wiped))
        await leader.membership.change(MemberChange(ADD, wiped, f"{wiped}:1"))

        node = group.run(wiped)

        assert await at_first_ready(node) == ENTRIES


async def test_a_restart_on_the_way_does_not_make_it_ready_either() -> None:
    """Its disk is not empty then, and nobody has to take it in again."""
    async with SlowlyFilled() as group:
        await filled(group, "a", "b")
        late = group.run("c")
        await each_turn_until(lambda: len(late.machine.commands) > 100)
        await group.crash("c")

        again = group.run("c")

        assert again.admitted and len(again.machine.commands) < ENTRIES
        assert await at_first_ready(again) == ENTRIES


async def test_a_restarted_node_is_ready_as_soon_as_it_follows() -> None:
    """It may lack a little then, as it may at any time; what it was bound by is in its log."""
    async with AdmittingGroup() as group:
        await filled(group, "a", "b", "c")
        restarted = (await group.follower()).id
        await group.crash(restarted)

        node = group.run(restarted)

        await eventually(lambda: node.status().ready)


async def test_a_new_group_is_ready_once_each_of_its_disks_is_known() -> None:
    """Before, a node whose disk is lost could come back and pass for the one that it was."""
    async with AdmittingGroup() as group:
        nodes = [group.run(id) for id in group.ids]

        for node in nodes:
            await eventually(lambda node=node: node.status().ready)

        assert all(node.core.configuration.incarnation_of(node.id) for node in nodes)
