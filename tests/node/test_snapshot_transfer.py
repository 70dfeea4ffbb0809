"""A follower that needs a snapshot: what both sides do when the way there is not smooth, and what it says of it."""

import asyncio
from collections import Counter

import pytest

from raft import snapshot_transfer
from raft.core.config import CoreConfig
from raft.core.messages import AppendEntriesReply, InstallSnapshot
from raft.core.types import Configuration, SnapshotMeta
from raft.errors import Overloaded
from raft.node import RaftNode
from raft.peer_messages import SnapshotChunk, SnapshotChunkReply
from raft.transport.codec import decode_chunk_reply, encode_chunk_reply
from tests.helpers import eventually
from tests.node.faulty_files import FaultyFiles
from tests.node.group import Group


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_transfer, "CHUNK_BYTES", 500)


def compacting_group() -> Group:
    group = Group(snapshot_entries=50, snapshot_retain_entries=5)
    group.files = {id: FaultyFiles() for id in group.ids}
    return group


async def fall_behind(group: Group) -> tuple[RaftNode, str]:
    """Take a follower away and write until what it lacks is compacted away; the leader and the follower's id."""
    leader = await group.leader()
    await leader.propose(b"everybody has this")
    follower = await group.follower()
    await eventually(lambda: follower.machine.commands)
    await group.crash(follower.id)
    await write_and_compact(leader)
    return leader, follower.id


async def write_and_compact(leader: RaftNode) -> None:
    last = leader.core.log.last_index
    while leader.core.log.first_index <= last + 50:
        await leader.propose(b"x" * 40)


def has_all(node: RaftNode, leader: RaftNode) -> bool:
    return node.machine.commands == leader.machine.commands


async def test_a_transfer_of_a_leadership_that_is_over_ends_and_the_peer_is_sent_another() -> None:
    """The follower knows a newer term: its core's answer, which is no answer to a snapshot, must reach the sender."""
    async with compacting_group() as group:
        leader, lagging = await fall_behind(group)
        pieces: Counter[int] = Counter()
        deliver = group.network.deliver_chunk
        deposed = asyncio.Event()

        async def depose_in_the_middle(chunk: SnapshotChunk) -> SnapshotChunkReply:
            pieces[chunk.message.term] += 1
            if pieces[leader_term] == 4 and not deposed.is_set():
                deposed.set()
                leader.core.stalled(leader.now_ms())
                leader.wake()
                await eventually(lambda: group.leaders and group.leaders[0].core.state.term > leader_term)
            return await deliver(chunk)

        leader_term = leader.core.state.term
        group.network.deliver_chunk = depose_in_the_middle
        returned = group.start(lagging)
        await eventually(lambda: has_all(returned, leader))
        assert pieces[leader_term] <= 5

        # The same node leads again, and the same peer needs one again.
        await group.lead(leader)
        await group.crash(lagging)
        await write_and_compact(leader)
        returned = group.start(lagging)
        await eventually(lambda: has_all(returned, leader))

        assert returned.snapshotter.installed >= 1
        assert not group.fatal


async def test_answers_that_lead_no_further_end_a_transfer() -> None:
    """Whatever a peer answers, the leader must not ask it without end."""
    async with compacting_group() as group:
        _, lagging = await fall_behind(group)
        asked = 0

        async def never_anything_new(chunk: SnapshotChunk) -> SnapshotChunkReply:
            nonlocal asked
            asked += 1
            return SnapshotChunkReply(0)

        group.network.deliver_chunk = never_anything_new
        group.start(lagging)
        await eventually(lambda: asked)
        await group.pass_ms(300)

        # Tries after 0, 50, 150, 350 ms and so on, each of a few pieces; without an end they were thousands.
        assert asked <= 10 * (snapshot_transfer.SETBACKS_MAX + 1)


async def test_a_follower_without_room_says_so_and_the_leader_backs_off() -> None:
    async with compacting_group() as group:
        leader, lagging = await fall_behind(group)
        asked = 0
        deliver = group.network.deliver_chunk

        async def count(chunk: SnapshotChunk) -> SnapshotChunkReply:
            nonlocal asked
            asked += 1
            return await deliver(chunk)

        group.network.deliver_chunk = count
        returned = group.start(lagging)
        group.files[lagging].no_new_files = True
        await eventually(lambda: "no room on the disk" in returned.status().not_ready_reason)
        await group.pass_ms(300)

        # Two pieces to each try; there is room for a slow machine.
        assert asked <= 20
        assert not [name for name in group.files[lagging].contents if name.suffix == ".part"]
        assert not group.fatal

        group.files[lagging].no_new_files = False
        await eventually(lambda: returned.status().ready and has_all(returned, leader))
        assert not group.fatal


async def test_a_node_that_lacks_nearly_everything_is_not_ready() -> None:
    """It has the first entries of the term and knows of no other commit than theirs; the leader names another."""
    async with compacting_group() as group:
        leader, lagging = await fall_behind(group)
        may_go_on = asyncio.Event()
        asked = asyncio.Event()
        deliver = group.network.deliver_chunk

        async def wait(chunk: SnapshotChunk) -> SnapshotChunkReply:
            if chunk.data:
                asked.set()
                await may_go_on.wait()
            return await deliver(chunk)

        group.network.deliver_chunk = wait
        returned = group.start(lagging)
        await asked.wait()
        status = returned.status()

        assert leader.core.log.commit_index == status.core.heard_commit_index > 50
        assert "the leader's snapshot is being received" == status.not_ready_reason

        may_go_on.set()
        await eventually(lambda: returned.status().ready and has_all(returned, leader))


async def test_lag_is_measured_against_what_the_leader_has_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node has not been sent yet it lacks, too."""
    monkeypatch.setattr("raft.status.READY_LAG_MAX", 100)
    async with Group() as group:
        leader = await group.leader()
        await leader.propose(b"first")
        follower = await group.follower()
        await eventually(lambda: follower.status().ready)
        applied = follower.applier.applied_index

        follower.core.heard_commit_index = applied + 101

        assert "101 entries behind" == follower.status().not_ready_reason


def test_an_answer_to_a_piece_survives_the_wire() -> None:
    for reply in (
        SnapshotChunkReply(7),
        SnapshotChunkReply(0, refusal="it has no room for the snapshot"),
        SnapshotChunkReply(0, AppendEntriesReply("b", "a", 6, 9, success=False)),
    ):
        assert reply == decode_chunk_reply(encode_chunk_reply(reply))


async def test_a_stale_piece_is_answered_with_the_term() -> None:
    async with Group() as group:
        leader = await group.leader()
        follower = await group.follower()
        term = leader.core.state.term
        meta = SnapshotMeta(10_000, term, 0, Configuration(("a", "b", "c")))
        stale = InstallSnapshot(leader.id, follower.id, term - 1, 1, meta)

        reply = await follower.snapshotter.receive(SnapshotChunk(stale, "1-1-1-00000000", 1, 0, b"", 0))

        assert isinstance(reply.reply, AppendEntriesReply)
        assert term == reply.reply.term


async def test_a_node_that_comes_back_under_load_catches_up_with_one_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its snapshot travels, the leader takes others and writers go on; what follows the one under way is kept,
    and writers are slowed before it cannot be. Without that each snapshot is overtaken by the next."""

    monkeypatch.setattr(snapshot_transfer, "CHUNK_BYTES", 1_500)

    class Loaded(Group):
        def core_config(self, id: str) -> CoreConfig:
            return CoreConfig(id=id, catch_up_bytes_max=300_000)

    async with Loaded(snapshot_entries=50, snapshot_retain_entries=5) as group:
        leader, lagging = await fall_behind(group)
        deliver = group.network.deliver_chunk
        under_way = asyncio.Event()
        slowed = 0

        async def slow(chunk: SnapshotChunk) -> SnapshotChunkReply:
            under_way.set()
            # Longer than the leader needs for its next snapshot.
            await asyncio.sleep(0.05)
            return await deliver(chunk)

        async def write() -> None:
            nonlocal slowed
            while True:
                try:
                    await leader.propose(b"x" * 1_000)
                except Overloaded:
                    slowed += 1
                    await asyncio.sleep(0.005)

        group.network.deliver_chunk = slow
        returned = group.start(lagging)
        await under_way.wait()
        taken = leader.snapshotter.taken
        writers = [asyncio.create_task(write()) for _ in range(8)]
        await eventually(lambda: returned.snapshotter.installed)
        await eventually(lambda: leader.core.log.last_index - returned.applier.applied_index < 100)

        assert leader.snapshotter.taken > taken + 1
        assert 1 == returned.snapshotter.installed
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        assert not group.fatal
        assert slowed
