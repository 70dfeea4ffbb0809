"""A group's life (raft/life.py): given once, carried by every disk, never mixed with another (docs/membership.md)."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from raft.core.messages import InstallSnapshot
from raft.core.ready import Persist
from raft.core.types import Configuration, EntryKind, HardState, SnapshotMeta
from raft.life import ANY_LIFE, UNKNOWN_LIFE, given_life, is_life, is_restored, may_be_the_same, restored_life
from raft.membership import ADD, MemberChange
from raft.node import RaftNode
from raft.storage.incarnation import LIFE_NAME, keep_life, kept_life
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles, open_memory_storage
from raft.transport.codec import decode, encode, snapshot_to_list
from tests.helpers import eventually
from tests.node.admitting import AdmittingGroup

IDS = ("a", "b", "c")


def restored_disk(life: str, index: int = 100) -> MemoryFiles:
    """A disk as a restore writes it."""
    files = MemoryFiles()
    storage, _ = open_memory_storage(files)
    meta = SnapshotMeta(index, 1, 0, Configuration(IDS, life=life))
    storage.save_snapshot(meta, [b"restored"])
    storage.write([Persist(HardState(1), (), meta)])
    storage.close()
    return files


async def one_life(group: AdmittingGroup, nodes: Any = None) -> str:
    """The life that all running nodes, or these, know."""

    def known() -> set[str]:
        return {node.life for node in nodes or group.nodes.values()}

    await eventually(lambda: len(known()) == 1 and all(map(is_life, known())))
    return known().pop()


async def written(group: AdmittingGroup, id: str, life: str) -> None:
    """The life stands beside that node's log."""
    await eventually(lambda: kept_life(MEMORY_DIRECTORY, fresh=False, files=group.files[id]) == life)


# Who may be of one group


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("given", "given", True),
        ("given", "given too", False),
        ("given", "restored", False),
        ("restored", "restored too", False),
        (UNKNOWN_LIFE, "given", True),
        (UNKNOWN_LIFE, "restored", False),
        (UNKNOWN_LIFE, UNKNOWN_LIFE, True),
        (ANY_LIFE, "restored", True),
        (ANY_LIFE, UNKNOWN_LIFE, True),
    ],
)
def test_which_data_can_be_of_one_group(one: str, other: str, same: bool) -> None:
    """All data of a restored life says so: what says nothing is of another one."""
    lives = {"given": given_life(), "given too": given_life(), "restored": restored_life(7)}
    lives["restored too"] = restored_life(7)

    pair = [lives.get(name, name) for name in (one, other)]

    assert may_be_the_same(*pair) is same
    assert may_be_the_same(*reversed(pair)) is same


def test_a_snapshot_on_its_way_carries_the_life_and_without_one_is_as_before() -> None:
    """An earlier version reads seven fields, and meets no group that has a life."""
    bare = SnapshotMeta(5, 1, 9, Configuration(IDS, (), (("a", "a:1"),), (("a", "a1"),)))
    alive = replace(bare, configuration=replace(bare.configuration, life=given_life()))

    for meta, fields in ((bare, 7), (alive, 8)):
        message = InstallSnapshot("a", "b", 1, 2, meta)
        assert len(snapshot_to_list(meta)) == fields
        assert decode(encode(message)) == message


# How a group comes by its life


async def test_a_new_group_agrees_on_a_life_and_every_disk_keeps_it() -> None:
    async with AdmittingGroup() as group:
        for id in IDS:
            group.run(id)
        life = await one_life(group)
        for id in IDS:
            await written(group, id, life)
            await group.crash(id)

        nodes = [group.run(id) for id in IDS]

        assert {node.life for node in nodes} == {life}
        assert not is_restored(life)
        await group.leader()
        assert await one_life(group) == life


async def test_a_group_of_an_earlier_version_gets_a_life_once_all_members_know_what_that_is() -> None:
    """Nobody has to do anything; and nothing is proposed that a member cannot read."""
    async with AdmittingGroup() as group:
        group.earlier_version = set(IDS)
        for id in IDS:
            group.run(id)
        leader = await group.leader()
        await leader.propose(b"x")
        await eventually(lambda: all(map(leader.core.configuration.incarnation_of, IDS)))
        before = {node.life for node in group.nodes.values()}

        group.earlier_version = set()
        life = await one_life(group)

        assert before == {UNKNOWN_LIFE}
        assert is_life(life)
        assert await leader.propose(b"y") == 2


async def test_a_joining_node_takes_the_life_over() -> None:
    async with AdmittingGroup() as group:
        life = restored_life(7)
        for id in IDS:
            group.files[id] = restored_disk(life)
            group.run(id)
        leader = await group.leader()
        newcomer = group.run("d", joins=True)
        before = newcomer.life

        await leader.membership.change(MemberChange(ADD, "d", "d:1"))

        await eventually(lambda: "d" in leader.core.configuration.voters)
        assert before == ANY_LIFE
        assert await one_life(group) == life
        await written(group, "d", life)


# Disks of another life


@pytest.mark.parametrize("old", ["of an earlier restore", "of an earlier version"])
async def test_an_old_disk_among_restored_ones_is_refused_and_nothing_diverges(old: str) -> None:
    """Terms and indexes are the same in both lives, the entries are not: without a life nobody would notice."""
    async with AdmittingGroup() as group:
        first = restored_life(7) if old == "of an earlier restore" else UNKNOWN_LIFE
        for id in IDS:
            group.files[id] = restored_disk(first)
            group.run(id)
        leader = await group.leader()
        for number in range(20):
            await leader.propose(b"first life %d" % number)
        await eventually(lambda: all(len(node.machine.commands) == 21 for node in group.nodes.values()))
        for id in IDS:
            await group.crash(id)
        second = restored_life(7)
        for id in ("a", "b"):
            group.files[id] = restored_disk(second)
            group.run(id)

        stranger = group.run("c")
        await eventually(lambda: "of another life of the group" in stranger.hindrance)
        leader = await leading(group, "a", "b")
        for number in range(5):
            await leader.propose(b"second life %d" % number)

        wanted = [b"restored", *(b"second life %d" % number for number in range(5))]
        await eventually(lambda: all(group.nodes[id].machine.commands == wanted for id in ("a", "b")))
        assert commands_in_log(stranger) == [b"first life %d" % number for number in range(20)]
        assert not stranger.status().ready
        assert "stop c, move its folder of the group test away" in stranger.hindrance
        assert all(group.nodes[id].status().ready for id in ("a", "b"))


async def test_the_last_disk_of_a_former_group_does_not_take_over_a_new_one() -> None:
    """The disks of a majority are lost, the empty ones begin anew, and the third comes back with a longer log."""
    async with AdmittingGroup() as group:
        for id in IDS:
            group.run(id)
        life = await one_life(group)
        for number in range(20):
            await (await group.leader()).propose(b"former %d" % number)
        await written(group, "c", life)
        for id in IDS:
            await group.crash(id)
        for id in ("a", "b"):
            group.wipe(id)
            group.run(id)
        leader = await leading(group, "a", "b")
        await leader.propose(b"new")

        stranger = group.run("c")
        await one_life(group, [group.nodes["a"], group.nodes["b"]])
        await eventually(lambda: "of another life of the group" in stranger.hindrance)

        assert leader.machine.commands == [b"new"]
        assert stranger.life == life


async def test_a_wiped_stranger_is_taken_in() -> None:
    """What its sentence says."""
    async with AdmittingGroup() as group:
        life = restored_life(7)
        for id in ("a", "b"):
            group.files[id] = restored_disk(life)
            group.run(id)
        group.files["c"] = restored_disk(restored_life(7))
        stranger = group.run("c")
        await eventually(lambda: "of another life" in stranger.hindrance)

        await group.crash("c")
        group.wipe("c")
        group.run("c")

        assert await one_life(group) == life
        await eventually(lambda: group.nodes["c"].status().ready)


async def test_a_life_beside_a_log_that_is_gone_counts_for_nothing() -> None:
    """A directory without a log is a new one, whatever else lies in it."""
    files = MemoryFiles()
    files.create(MEMORY_DIRECTORY / LIFE_NAME).write(0, given_life().encode() + b"\n")

    assert kept_life(MEMORY_DIRECTORY, fresh=True, files=files) == ""


def commands_in_log(node: RaftNode) -> list[bytes]:
    log = node.core.log
    found = log.slice(log.first_index, entries_max=1_000, bytes_max=1_000_000)
    return [entry.data for entry in found if entry.kind is EntryKind.COMMAND]


async def test_the_log_is_right_where_the_note_beside_it_is_another_one() -> None:
    """Somebody copied a file from one directory to another: the data is still what it is."""
    async with AdmittingGroup() as group:
        life = restored_life(7)
        group.files["a"] = restored_disk(life)
        keep_life(MEMORY_DIRECTORY, given_life(), files=group.files["a"])

        node = group.run("a")

        assert node.life == life
        await written(group, "a", life)


async def leading(group: AdmittingGroup, *ids: str) -> RaftNode:
    """The node that these agree on as their leader."""

    def agreed() -> list[Any]:
        known = {group.nodes[id].core.state.leader for id in ids}
        return [group.nodes[id] for id in ids if known == {id}]

    return (await eventually(agreed))[0]


async def test_nobody_founds_a_second_group_beside_a_disk_that_answers() -> None:
    """A restore that reached one node of three: the empty two wait for it, they do not begin without it."""
    async with AdmittingGroup() as group:
        group.files["a"] = restored_disk(restored_life(7))
        for id in IDS:
            group.run(id)
        await asyncio.sleep(0.5)

        assert not group.leaders
        assert not group.nodes["b"].admitted and not group.nodes["c"].admitted
