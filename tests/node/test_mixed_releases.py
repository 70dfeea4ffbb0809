"""A group of two releases: today's, and the next one, which has a command that today's does not know.

The goal: while both run, nobody stops and all else works; once all are of the next one, its command is carried out
on all of them, and nobody goes back.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from raft.errors import NotKnownToAll
from raft.membership import ADD, MemberChange
from raft.node import RaftNode
from services.lock.replicated.commands import Acquire
from services.node.versions import attach_versions, keep_raised
from services.replicated.machine import ReplicatedMachine
from services.replicated.proposing import propose
from services.replicated.versions import KNOWN, UnknownVersion
from tests.helpers import eventually
from tests.node.admitting import AdmittingGroup
from tests.services.releases import NEXT, Take, nexts, todays


class ReleasesGroup(AdmittingGroup):
    """Lock nodes, each of the release that `releases` says when it starts, wired as `services.app` does it."""

    def __init__(self, *, releases: dict[str, Callable[[], ReplicatedMachine]], **config: Any) -> None:
        super().__init__(tuple(id for id in releases if id != "d"), **config)
        self.releases = releases
        self._starting = ""
        self._chores: dict[str, asyncio.Task[None]] = {}

    def start(self, id: str, **options: Any) -> RaftNode:
        self._starting = id
        return super().start(id, **options)

    def make_machine(self) -> ReplicatedMachine:
        return self.releases[self._starting]()

    def prepare(self, node: RaftNode) -> None:
        attach_versions(node, partial(self.network.known_by, node.id))
        self._chores[node.id] = asyncio.create_task(keep_raised(node))

    async def crash(self, id: str) -> None:
        await self._end(self._chores.pop(id))
        await super().crash(id)

    async def __aexit__(self, *_: object) -> None:
        for task in self._chores.values():
            await self._end(task)
        await super().__aexit__()

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def upgrade(self, id: str) -> RaftNode:
        """Its process ends, and one of the next release starts on its disk."""
        await self.crash(id)
        self.releases[id] = nexts
        return self.run(id)

    @property
    def versions(self) -> dict[str, int]:
        """In force, by node."""
        return {id: node.machine.version for id, node in self.nodes.items()}

    async def at(self, version: int) -> None:
        """All nodes that run have this version."""
        await eventually(lambda: set(self.versions.values()) == {version})

    async def holders(self, key: str, owner: str) -> None:
        """All nodes that run know who holds the lock."""
        await eventually(lambda: all(holds(node, key, owner) for node in self.nodes.values()))


def holds(node: RaftNode, key: str, owner: str) -> bool:
    return [hold["owner"] for hold in node.machine.inner.status(key)["holders"]] == [owner]


async def acquire(node: RaftNode, key: str) -> dict[str, Any]:
    return await propose(node, Acquire(key, "a"))


async def founded(group: ReleasesGroup) -> RaftNode:
    """All founders run; the leader, once everybody's disk is known."""
    for id in group.ids:
        group.run(id)
    leader = await group.leader()
    await eventually(lambda: all(leader.core.configuration.incarnation_of(id) for id in group.ids))
    return leader


async def test_a_group_is_upgraded_node_by_node_and_learns_a_new_command_at_its_end() -> None:
    async with ReleasesGroup(releases={"a": todays, "b": todays, "c": todays}) as group:
        await founded(group)
        await acquire(group.nodes["a"], "before")

        for id in ("a", "b"):
            await group.upgrade(id)
            await group.leader()
            for node in group.nodes.values():
                await acquire(node, f"{id} is of the next release, asked {node.id}")
        await group.pass_ms(1_500)
        refused = []
        for node in group.nodes.values():
            with pytest.raises(NotKnownToAll) as caught:
                await propose(node, Take("k"))
            refused.append(str(caught.value))
        mixed = set(group.versions.values())
        await group.upgrade("c")
        await group.at(NEXT)
        answer = await propose(group.nodes["b"], Take("k"))

        assert mixed == {KNOWN}
        assert set(refused) == {"not every node of the group knows this yet; upgrade all of them first"}
        assert answer["ok"]
        await group.holders("k", "taker")
        await group.holders("before", "a")
        assert group.fatal == []


async def test_changes_of_leader_lower_nothing_and_raise_nothing_too_early() -> None:
    async with ReleasesGroup(releases={"a": nexts, "b": nexts, "c": todays}) as group:
        await founded(group)
        for id in ("a", "c", "b"):
            await group.lead(group.nodes[id])
            await acquire(group.nodes[id], f"led by {id}")
            await group.pass_ms(700)
        mixed = set(group.versions.values())
        await group.upgrade("c")
        await group.at(NEXT)

        for id in ("a", "b", "c"):
            await group.lead(group.nodes[id])
            await propose(group.nodes[id], Take(f"led by {id} of the next release"))

        assert mixed == {KNOWN}
        assert set(group.versions.values()) == {NEXT}
        assert group.fatal == []


async def test_a_leader_of_todays_release_does_not_keep_others_from_raising_later() -> None:
    """It knows of nothing to raise; the next leader does."""
    async with ReleasesGroup(releases={"a": nexts, "b": nexts, "c": todays}) as group:
        await founded(group)
        await group.lead(group.nodes["c"])
        await group.pass_ms(700)

        await group.upgrade("c")

        await group.at(NEXT)
        await propose(group.nodes["c"], Take("k"))
        await group.holders("k", "taker")


@pytest.mark.parametrize("kept", ["the log", "a snapshot"])
async def test_a_downgrade_after_the_version_has_risen_stops_with_a_clear_error(kept: str) -> None:
    """And loses nothing: started with the next release again, the node goes on."""
    entries = 100_000 if kept == "the log" else 5
    async with ReleasesGroup(releases={"a": nexts, "b": nexts, "c": nexts}, snapshot_entries=entries) as group:
        await founded(group)
        await group.at(NEXT)
        for number in range(12):
            await propose(group.nodes["a"], Take(f"k{number}"))
        await eventually(lambda: holds(group.nodes["c"], "k11", "taker"))
        if kept == "a snapshot":
            await eventually(lambda: group.nodes["c"].core.log.snapshot.index)
        await group.crash("c")
        group.releases["c"] = todays

        if kept == "the log":
            group.run("c")
            await eventually(lambda: group.fatal)
            stopped = group.fatal.pop()
            await group.crash("c")
        else:
            with pytest.raises(UnknownVersion) as caught:
                group.run("c")
            stopped = caught.value
        # The others need nobody of it, and a lower member does not lower anything.
        await propose((await group.leader()), Take("meanwhile"))
        group.releases["c"] = nexts
        group.run("c")

        assert isinstance(stopped, UnknownVersion)
        assert f"version {NEXT} of the group's log, and this release knows version {KNOWN}" in str(stopped)
        await group.holders("meanwhile", "taker")
        assert group.fatal == []


async def test_a_learner_of_todays_release_is_not_taken_in_and_one_of_the_next_is() -> None:
    releases = {"a": nexts, "b": nexts, "c": nexts, "d": todays}
    async with ReleasesGroup(releases=releases, snapshot_entries=5) as group:
        leader = await founded(group)
        await group.at(NEXT)
        for number in range(12):
            await propose(leader, Take(f"k{number}"))
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))

        learner = group.run("d", joins=True)
        await eventually(lambda: f"the group has those of version {NEXT}" in learner.hindrance)
        taken_in = learner.admitted
        await group.crash("d")
        group.releases["d"] = nexts
        group.run("d", joins=True)

        assert not taken_in
        await eventually(lambda: "d" in leader.core.configuration.voters)
        await group.holders("k11", "taker")
        assert group.fatal == []


async def test_a_new_member_of_todays_release_keeps_a_group_where_it_is() -> None:
    """Taken in before all knew more, it is one of them, and nothing is raised beyond it until it is upgraded."""
    async with ReleasesGroup(releases={"a": nexts, "b": nexts, "c": todays, "d": todays}) as group:
        leader = await founded(group)
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))
        group.run("d", joins=True)
        await eventually(lambda: "d" in leader.core.configuration.voters)
        await group.upgrade("c")
        await group.pass_ms(1_200)
        before = set(group.versions.values())

        await group.upgrade("d")

        assert before == {KNOWN}
        await group.at(NEXT)
        assert group.fatal == []
