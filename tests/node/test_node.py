"""The driver: what a client of one node sees, over an in-memory network."""

import asyncio

import pytest

from raft.core.messages import RequestVoteReply
from raft.core.types import Role
from raft.errors import NoLeader, NoQuorum, OutcomeUnknown, Overloaded, Stopping
from raft.state_machine import ApplyContext
from tests.helpers import eventually
from tests.node.group import Group, ListMachine


async def test_a_proposal_is_answered_by_the_machine_on_every_node() -> None:
    """Leader and followers alike take proposals; a follower forwards and answers from its own apply."""
    async with Group() as group:
        await group.leader()

        results = [await group.nodes[id].propose(id.encode()) for id in group.ids]

        assert results == [1, 2, 3]
        await eventually(lambda: all(len(node.machine.commands) == 3 for node in group.nodes.values()))
        assert len({tuple(node.machine.commands) for node in group.nodes.values()}) == 1


async def test_the_node_that_answered_has_applied_the_entry() -> None:
    """Read your writes: the answer comes after this node's own apply."""
    async with Group() as group:
        follower = await group.follower()

        await follower.propose(b"x")

        assert b"x" in follower.machine.commands


async def test_concurrent_proposals_through_all_nodes_each_land_once() -> None:
    """Batches of many clients lose and double nothing."""
    async with Group() as group:
        await group.leader()
        commands = [b"%d" % number for number in range(300)]

        await asyncio.gather(
            *(group.nodes[group.ids[n % 3]].propose(command) for n, command in enumerate(commands))
        )

        applied = group.leaders[0].machine.commands
        assert sorted(commands) == sorted(applied)


async def test_read_index_waits_for_what_was_acknowledged_before() -> None:
    """A linearizable read on any node sees a write that was acknowledged through another."""
    async with Group() as group:
        leader, follower = await group.leader(), await group.follower()

        for number in range(20):
            await leader.propose(b"%d" % number)
            await follower.read_index()

            assert b"%d" % number == follower.machine.commands[-1]


async def test_a_read_right_after_an_election_sees_everything_acknowledged() -> None:
    """A new leader serves no read before it has committed in its own term (etcd#7331)."""
    async with Group() as group:
        leader = await group.leader()
        await leader.propose(b"x")

        await group.crash(leader.id)
        survivor = next(iter(group.nodes.values()))
        await survivor.read_index()

        assert survivor.machine.commands == [b"x"]


async def test_writes_go_on_after_the_leader_crashed() -> None:
    """A broken connection from the leader starts an election at once; nothing acknowledged is lost."""
    async with Group() as group:
        leader = await group.leader()
        await leader.propose(b"before")

        await group.crash(leader.id)
        survivor = next(iter(group.nodes.values()))
        await survivor.propose(b"after")

        assert survivor.machine.commands == [b"before", b"after"]


async def test_a_restarted_group_still_holds_what_it_acknowledged() -> None:
    """All nodes crash at once and come back on their disks."""
    async with Group() as group:
        await (await group.leader()).propose(b"x")
        for id in group.ids:
            await group.crash(id)

        for id in group.ids:
            group.start(id)
        node = group.nodes["a"]
        await node.read_index()

        assert node.machine.commands == [b"x"]


async def test_without_a_quorum_a_request_is_refused_in_time() -> None:
    """Safe to send again: nothing was placed anywhere."""
    async with Group(leader_wait_ms=300, request_timeout_ms=600) as group:
        await group.leader()
        await group.crash("a")
        await group.crash("b")
        await eventually(lambda: group.nodes["c"].core.state.role is not Role.LEADER)

        with pytest.raises(NoQuorum):
            await group.nodes["c"].propose(b"x")
        with pytest.raises(NoLeader):
            await group.nodes["c"].read_index()


async def test_an_isolated_leader_does_not_claim_failure() -> None:
    """What a cut-off leader had taken may yet be carried out or not: unknown, never failed (bug 34)."""
    async with Group(leader_wait_ms=300, request_timeout_ms=600) as group:
        leader = await group.leader()
        group.network.isolate(leader.id)

        with pytest.raises(OutcomeUnknown):
            await leader.propose(b"x")

        await eventually(lambda: leader.core.state.role is not Role.LEADER)


async def test_an_isolated_leader_learns_that_its_entry_was_replaced() -> None:
    """An entry of another term at its place proves that the proposal never will be: it is proposed anew."""
    async with Group(leader_wait_ms=8000, request_timeout_ms=8000) as group:
        leader = await group.leader()
        group.network.isolate(leader.id)
        pending = asyncio.ensure_future(leader.propose(b"x"))
        await (await group.leader_after(leader)).propose(b"y")

        group.network.heal()
        result = await pending

        assert result == 2
        assert leader.machine.commands == [b"y", b"x"]


async def test_a_stopping_leader_hands_over_first() -> None:
    """The group has a leader again without anybody's election timeout."""
    async with Group() as group:
        leader = await group.leader()
        await leader.propose(b"x")

        await leader.stop(handover_s=10)

        assert leader.core.state.role is not Role.LEADER
        with pytest.raises(Stopping):
            await leader.propose(b"y")
        group.network.detach(leader.id)
        del group.nodes[leader.id]
        assert (await group.leader()).core.state.term > 1


async def test_nobody_waits_by_post_for_a_node_that_has_ended() -> None:
    """A peer's request is held for its reply for up to a second; that must not outlive the node."""
    async with Group() as group:
        leader = await group.leader()
        unanswered = RequestVoteReply(sender="n9", to=leader.id, term=0, sequence=1, granted=False)
        waiting = asyncio.create_task(leader.call(unanswered, 60))
        await asyncio.sleep(0)

        await leader.stop(handover_s=0)

        assert await asyncio.wait_for(waiting, 5) is None
        assert await asyncio.wait_for(leader.call(unanswered, 60), 5) is None
        group.network.detach(leader.id)
        del group.nodes[leader.id]


async def test_a_request_by_post_takes_the_place_of_one_with_its_number() -> None:
    """It is of another life of the sender: nobody would ever answer the earlier one."""
    async with Group() as group:
        leader = await group.leader()
        request = RequestVoteReply(sender="n9", to=leader.id, term=0, sequence=1, granted=False)
        first, second = (asyncio.create_task(leader.call(request, 60)) for _ in range(2))

        assert await asyncio.wait_for(first, 5) is None
        assert not second.done()
        second.cancel()


async def test_cluster_time_goes_on_without_traffic_when_something_is_due() -> None:
    """The leader proposes an advance; apply reads no clock."""
    async with Group() as group:
        leader = await group.leader()
        due_ms = leader.cluster_time_ms() + 100
        for node in group.nodes.values():
            node.machine.due_ms = due_ms

        await eventually(lambda: all(n.machine.due_ms is None for n in group.nodes.values()))

        assert leader.machine.times[-1] >= due_ms


async def test_events_reach_listeners_of_every_node() -> None:
    """Followers apply too, so their clients hear without a message."""
    async with Group() as group:
        leader = await group.leader()
        heard: list[tuple[str, bytes]] = []
        for id, node in group.nodes.items():
            node.subscribe("command", lambda body, id=id: heard.append((id, body)))

        await leader.propose(b"x")

        await eventually(lambda: len(heard) == 3)
        assert {("a", b"x"), ("b", b"x"), ("c", b"x")} == set(heard)


async def test_too_many_requests_are_refused_not_queued() -> None:
    """Every queue has a bound."""
    async with Group(proposals_max=10) as group:
        leader = await group.leader()

        results = await asyncio.gather(*(leader.propose(b"x") for _ in range(30)), return_exceptions=True)

        assert any(isinstance(result, Overloaded) for result in results)
        assert sum(1 for result in results if isinstance(result, int)) == len(leader.machine.commands)


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    """A client that went away costs no memory and breaks nobody else."""
    async with Group() as group:
        leader = await group.leader()
        task = asyncio.ensure_future(leader.propose(b"x"))
        await asyncio.sleep(0)
        task.cancel()

        assert await leader.propose(b"y") == 2 or leader.machine.commands == [b"y"]
        await eventually(lambda: len(leader.proposals) == 0)


async def test_one_node_alone_commits_only_what_is_on_its_disk() -> None:
    """n = 1: the leader's own copy counts once it is durable (etcd#14370)."""
    async with Group(ids=("a",)) as group:
        node = await group.leader()

        assert await node.propose(b"x") == 1
        await group.crash("a")
        restarted = group.start("a")
        await restarted.read_index()

        assert restarted.machine.commands == [b"x"]


async def test_the_log_is_dropped_behind_a_snapshot_and_a_restart_begins_there() -> None:
    """A snapshot is taken by entry count while writes go on; recovery starts from it."""
    async with Group(snapshot_entries=50, snapshot_retain_entries=10) as group:
        leader = await group.leader()

        for number in range(200):
            await leader.propose(b"%d" % number)
        await eventually(lambda: leader.core.log.snapshot.index >= 100)
        await group.crash(leader.id)
        restarted = group.start(leader.id)
        await restarted.read_index()

        assert restarted.core.log.first_index > 50
        assert [b"%d" % number for number in range(200)] == restarted.machine.commands


async def test_the_log_behind_a_snapshot_is_bounded_in_bytes() -> None:
    """Five thousand entries of a mebibyte would be five gibibytes, whatever the machine holds."""

    class OneNumber(ListMachine):
        def apply(self, context: ApplyContext, command: bytes) -> int:
            self.commands = [b"%d" % context.index]
            return context.index

    class Numbers(Group):
        def make_machine(self) -> ListMachine:
            return OneNumber()

    async with Numbers(ids=("a",), snapshot_bytes=1 << 20, snapshot_retain_bytes_max=1 << 20) as group:
        node = await group.leader()
        log = node.core.log

        for _ in range(300):
            await node.propose(bytes(20_000))
        await eventually(lambda: not node.snapshotter.taking)

        assert node.snapshotter.taken >= 2
        behind = [log.entry(index) for index in range(log.first_index, log.snapshot.index + 1)]
        assert 40 <= len(behind)
        assert sum(len(entry.data) for entry in behind) <= 1 << 20


async def test_a_follower_that_was_away_too_long_is_sent_a_snapshot_while_writes_go_on() -> None:
    """Its entries are compacted away; it gets the state instead, then what came since (paper 7)."""
    async with Group(snapshot_entries=50, snapshot_retain_entries=10) as group:
        follower = await group.follower()
        await group.crash(follower.id)
        leader = await group.leader()
        for number in range(200):
            await leader.propose(b"%d" % number)
        await eventually(lambda: leader.core.log.first_index > 50)

        returned = group.start(follower.id)
        for number in range(200, 250):
            await leader.propose(b"%d" % number)
        await eventually(lambda: len(returned.machine.commands) == 250)

        assert returned.snapshotter.installed >= 1
        assert leader.machine.commands == returned.machine.commands
        assert not group.fatal
