"""What a node does when its disk is full, fails or hangs, and when it is sound again."""

import asyncio
import errno

import pytest

from raft import node as node_module
from raft import snapshotter
from raft.core.types import Role
from raft.errors import OutcomeUnknown, StorageFailed
from raft.node import RaftNode
from tests.helpers import eventually
from tests.node.faulty_files import FaultyFiles
from tests.node.group import Group


def group_with_faults(**config: int) -> Group:
    group = Group(**config)
    group.files = {id: FaultyFiles() for id in group.ids}
    return group


async def fill(group: Group, node: RaftNode) -> None:
    """Fill the node's disk, and write until it has noticed."""
    group.files[node.id].full = True
    other = next(each for each in group.nodes.values() if each is not node)
    writing = asyncio.ensure_future(other.propose(b"notice"))
    await eventually(lambda: node.disk.statistics().full)
    # Its outcome may stay unknown for as long as a request may take.
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def caught_up(group: Group) -> list[bytes]:
    """The commands, once every node has applied the same."""
    nodes = list(group.nodes.values())
    await group.leader()
    await nodes[0].propose(b"last")
    await eventually(lambda: all(node.machine.commands[-1:] == [b"last"] for node in nodes))
    assert len({tuple(node.machine.commands) for node in nodes}) == 1
    return nodes[0].machine.commands


async def test_a_leader_whose_disk_is_full_steps_down_and_the_others_go_on() -> None:
    """Known bug 61: the group must not be held up by one full disk."""
    async with group_with_faults() as group:
        leader = await group.leader()
        await leader.propose(b"before")

        await fill(group, leader)
        other = await group.leader_after(leader)
        await other.propose(b"after")

        assert leader.core.state.role is not Role.LEADER
        assert b"before" in other.machine.commands
        assert b"after" in other.machine.commands
        assert not group.fatal


async def test_a_node_whose_disk_is_full_refuses_what_would_need_it() -> None:
    """503 storage_failed: certainly not done, so another node can be asked at once."""
    async with group_with_faults() as group:
        follower = await group.follower()
        await fill(group, follower)

        with pytest.raises(StorageFailed):
            await follower.propose(b"refused")

        assert "disk is full" in follower.status().not_ready_reason
        assert b"refused" not in (await group.leader()).machine.commands


async def test_once_there_is_room_again_a_node_resumes_without_loss_and_without_a_restart() -> None:
    async with group_with_faults() as group:
        leader = await group.leader()
        written = [b"%d" % number for number in range(20)]
        for command in written[:10]:
            await leader.propose(command)
        await fill(group, leader)
        other = await group.leader_after(leader)
        for command in written[10:]:
            await other.propose(command)

        group.files[leader.id].full = False
        await eventually(lambda: not leader.disk.statistics().full)
        commands = await caught_up(group)
        await leader.propose(b"served again")

        assert [command for command in commands if command in written] == written
        assert leader.status().not_ready_reason == ""
        assert not group.fatal


async def test_what_waited_for_room_is_on_disk_afterwards() -> None:
    """Every node's disk fills and is freed, then all crash: nothing acknowledged is lost."""
    async with group_with_faults(request_timeout_ms=1_800) as group:
        leader = await group.leader()
        await leader.propose(b"before")
        for files in group.files.values():
            files.full = True
        waiting = asyncio.ensure_future(leader.propose(b"perhaps"))
        await eventually(lambda: leader.disk.statistics().full)
        with pytest.raises((StorageFailed, OutcomeUnknown)):
            await waiting

        for files in group.files.values():
            files.full = False
        await eventually(lambda: not any(node.disk.statistics().full for node in group.nodes.values()))
        await (await group.leader()).propose(b"after")
        for id in group.ids:
            await group.crash(id)
        for id in group.ids:
            group.start(id)
        await group.nodes["a"].read_index()

        kept = group.nodes["a"].machine.commands
        assert kept in ([b"before", b"after"], [b"before", b"perhaps", b"after"])


async def test_a_full_disk_costs_no_memory_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a follower owes its disk stays bounded however long there is no room: once it owes enough, a heartbeat, of
    which there are twenty in a second, adds nothing."""
    writes = 5
    monkeypatch.setattr(node_module, "DISK_WAITING_MAX", 20)
    async with group_with_faults() as group:
        follower = await group.follower()
        await fill(group, follower)
        other = next(node for node in group.nodes.values() if node is not follower)
        for number in range(writes):
            await other.propose(b"%d" % number)
        await eventually(lambda: follower.disk.statistics().waiting >= 20)

        await group.pass_ms(1_000)

        # Entries are owed whatever else is: these writes, and the one by which the full disk was noticed.
        assert follower.disk.statistics().waiting <= 20 + writes + 1
        group.files[follower.id].full = False
        await eventually(lambda: follower.disk.statistics().waiting == 0)
        assert (await caught_up(group))[-1] == b"last"


async def test_a_failed_sync_is_fatal_and_nothing_is_written_after_it() -> None:
    """Known bug 54. The process ends; a restart on what the disk kept loses nothing acknowledged."""
    async with group_with_faults() as group:
        leader = await group.leader()
        await leader.propose(b"before")
        files = group.files[leader.id]

        files.broken = True
        # The followers alone may be the majority, before the leader's disk has answered (thesis 10.2.1).
        acknowledged = True
        try:
            await leader.propose(b"perhaps")
        except (StorageFailed, OutcomeUnknown):
            acknowledged = False
        await eventually(lambda: group.fatal)
        with pytest.raises(StorageFailed):
            await leader.propose(b"refused")
        await group.pass_ms(300)
        written = files.writes_after_failure
        await group.crash(leader.id)

        assert written == 0
        assert isinstance(group.fatal[0], OSError) and group.fatal[0].errno == errno.EIO
        assert len(group.fatal) == 1
        files.broken = files.failed = False
        group.start(leader.id)
        commands = await caught_up(group)
        assert b"before" in commands
        assert b"perhaps" in commands or not acknowledged
        assert b"refused" not in commands


async def test_a_leader_whose_disk_hangs_steps_down() -> None:
    """Known bug 38: heartbeats need no disk, so the leader itself must notice that its own does not answer."""
    async with group_with_faults() as group:
        leader = await group.leader()
        files = group.files[leader.id]

        files.answers.clear()
        try:
            writing = asyncio.ensure_future(leader.propose(b"hangs"))
            await (await group.leader_after(leader)).propose(b"after")
            role = leader.core.state.role
        finally:
            files.answers.set()
            await asyncio.gather(writing, return_exceptions=True)

        assert role is not Role.LEADER
        assert b"after" in await caught_up(group)


async def test_a_follower_whose_disk_is_slow_does_not_slow_the_group_down() -> None:
    """Known bugs 36 and 37: the majority answers without it, and it catches up by itself."""
    async with group_with_faults() as group:
        follower = await group.follower()
        leader = await group.leader()
        group.files[follower.id].answers.clear()

        try:
            for number in range(200):
                await leader.propose(b"%d" % number)
        finally:
            group.files[follower.id].answers.set()

        assert [b"%d" % number for number in range(200)] == (await caught_up(group))[:200]


async def test_a_snapshot_that_finds_no_room_is_given_up_and_the_next_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known bug 48: the trigger re-arms."""
    monkeypatch.setattr(snapshotter, "RETRY_ENTRIES", 20)
    async with group_with_faults(snapshot_entries=50, snapshot_retain_entries=10) as group:
        leader = await group.leader()
        files = group.files[leader.id]
        files.no_new_files = True
        for number in range(60):
            await leader.propose(b"%d" % number)
        given_up = leader.snapshotter.taken == 0

        files.no_new_files = False
        for number in range(60, 200):
            await leader.propose(b"%d" % number)
        await eventually(lambda: leader.core.log.snapshot.index >= 50)

        assert given_up
        assert not group.fatal


async def test_a_disk_that_fails_while_the_node_stops_is_told() -> None:
    """The stop goes through, and whoever runs the process hears that not all went well."""
    async with group_with_faults() as group:
        node = await group.follower()
        await node.propose(b"x")
        group.files[node.id].broken = True

        await node.stop(handover_s=0)

        assert [error.errno for error in group.fatal] == [errno.EIO]
