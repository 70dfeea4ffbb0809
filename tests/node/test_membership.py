"""Members come and go, and disks are lost: what a group of nodes makes of it (thesis 4; docs/membership.md)."""

import asyncio

import pytest

from raft.core.config import CoreConfig
from raft.errors import MembershipRefused, NoLeader, OutcomeUnknown, RaftError, Stopping
from raft.membership import ADD, CHANGE_SECONDS_MAX, REMOVE, MemberChange
from raft.node import RaftNode
from tests.helpers import eventually
from tests.node.admitting import AdmittingGroup


def add(id: str, address: str = "") -> MemberChange:
    return MemberChange(ADD, id, address or f"{id}:1")


def remove(id: str) -> MemberChange:
    return MemberChange(REMOVE, id)


async def founded(group: AdmittingGroup) -> RaftNode:
    """Start all founders; the leader, once everybody's disk is bound."""
    for id in group.ids:
        group.run(id)
    leader = await group.leader()
    await all_bound(group)
    return leader


async def all_bound(group: AdmittingGroup) -> None:
    """Every node knows everybody's binding."""

    def bound() -> bool:
        return all(
            node.core.configuration.incarnation_of(id) for node in group.nodes.values() for id in group.nodes
        )

    await eventually(bound)


# The birth of a group


async def test_a_new_group_begins_when_a_majority_is_there() -> None:
    """Nobody campaigns or votes before: a lone empty node cannot know whether it was wiped."""
    async with AdmittingGroup() as group:
        first = group.run("a")
        await eventually(lambda: "begins once 2 of a, b, c run; 1 do so far" in first.hindrance)
        assert not first.admitted and not first.status().ready

        group.run("b")

        await group.leader()
        assert all(node.admitted for node in group.nodes.values())


async def test_a_node_of_a_new_group_that_starts_late_is_taken_in() -> None:
    """The leader finds its id unbound; nobody has to do anything."""
    async with AdmittingGroup() as group:
        group.run("a")
        group.run("b")
        leader = await group.leader()
        for number in range(20):
            await leader.propose(b"%d" % number)

        late = group.run("c")
        await late.propose(b"through the late one")

        assert late.machine.commands == leader.machine.commands
        assert late.core.is_voter
        await all_bound(group)


async def test_a_group_of_one_begins_at_once() -> None:
    """Its majority is itself."""
    async with AdmittingGroup(("a",)) as group:
        node = group.run("a")

        assert await node.propose(b"x") == 1
        await eventually(lambda: node.core.configuration.address_of("a") == "a:1")


async def test_requests_to_a_node_that_waits_are_refused_in_time() -> None:
    async with AdmittingGroup(leader_wait_ms=100, request_timeout_ms=200) as group:
        node = group.run("a")

        with pytest.raises(Exception) as refusal:
            await node.propose(b"x")
        with pytest.raises(NoLeader):
            await node.read_index()

        assert "1 of 3 nodes" in str(refusal.value)


async def test_a_restarted_group_asks_nobody() -> None:
    """Its nodes know what they voted: failover and restart take no longer for all this."""
    async with AdmittingGroup() as group:
        await (await founded(group)).propose(b"x")
        for id in group.ids:
            await group.crash(id)

        nodes = [group.run(id) for id in group.ids]

        assert all(node.admitted for node in nodes)
        await nodes[0].read_index()
        assert nodes[0].machine.commands == [b"x"]


async def test_a_learner_is_not_ready_until_it_votes() -> None:
    """A node that is filled anew must not be taken for one that can stand in for another."""

    class NeverPromoting(AdmittingGroup):
        def core_config(self, id: str) -> CoreConfig:
            return CoreConfig(id=id, learner_lag_max=-1)

    async with NeverPromoting() as group:
        leader = await founded(group)
        assert await leader.membership.change(add("d"))

        added = group.run("d", joins=True)
        await eventually(lambda: added.admitted and "d" in added.core.configuration.learners)
        await eventually(lambda: added.applier.applied_index == leader.applier.applied_index)

        assert "learner" in added.status().not_ready_reason
        assert leader.status().ready


# Wiped disks


async def test_a_node_whose_disk_was_wiped_is_refused_and_says_what_to_do() -> None:
    """It may have voted and acknowledged what it no longer knows (nats#2792)."""
    async with AdmittingGroup() as group:
        await founded(group)
        wiped = (await group.follower()).id
        await group.crash(wiped)
        group.wipe(wiped)

        node = group.run(wiped)
        await eventually(lambda: f"mufakat member remove {wiped}" in node.hindrance)

        assert not node.admitted
        assert not node.status().ready
        assert node.core.log.last_index == 0


async def test_a_wiped_node_does_not_help_to_elect_who_lacks_an_acknowledged_entry() -> None:
    """The entry was on the leader and on the wiped disk; the third node lacks it and must not lead."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        wiped, lagging = sorted(id for id in group.ids if id != leader.id)
        await group.crash(lagging)
        await leader.propose(b"acknowledged by the leader and the one that is wiped")
        await group.crash(wiped)
        await group.crash(leader.id)
        group.wipe(wiped)

        group.run(lagging)
        group.run(wiped)
        await group.pass_ms(1_500)

        assert group.leaders == []
        group.run(leader.id)
        await eventually(lambda: group.leaders)
        back = group.nodes[lagging]
        await eventually(lambda: back.core.state.leader == leader.id)
        await back.read_index()
        assert back.machine.commands == [b"acknowledged by the leader and the one that is wiped"]


async def test_a_wiped_node_comes_back_as_a_learner_and_is_promoted() -> None:
    """Removed and added again it is another server, whatever its name."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        wiped = (await group.follower()).id
        await leader.propose(b"x")
        await group.crash(wiped)
        group.wipe(wiped)
        node = group.run(wiped)
        await eventually(lambda: node.hindrance)

        await leader.membership.change(remove(wiped))
        await eventually(lambda: "no member of" in node.hindrance)
        await leader.membership.change(add(wiped))

        await eventually(lambda: node.core.is_voter and not node.hindrance)
        assert await node.propose(b"y") == 2


async def test_a_wiped_majority_does_not_found_a_new_group_while_a_survivor_answers() -> None:
    """The survivor's data is worth more than a fresh start."""
    async with AdmittingGroup() as group:
        await founded(group)
        for id in ("a", "b"):
            await group.crash(id)
            group.wipe(id)

        nodes = [group.run(id) for id in ("a", "b")]
        await asyncio.sleep(0.5)

        assert not any(node.admitted for node in nodes)


# Members come and go


async def test_a_new_node_joins_as_a_learner_and_is_promoted_when_it_has_caught_up() -> None:
    """Asked through any node; writes go on meanwhile."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        for number in range(300):
            await leader.propose(b"%d" % number)
        follower = await group.follower()
        newcomer = group.run("d", joins=True)
        await eventually(lambda: "no member of" in newcomer.hindrance)

        assert await follower.membership.change(add("d"))

        nodes = tuple(group.nodes.values())
        await eventually(lambda: {node.core.configuration.voters for node in nodes} == {("a", "b", "c", "d")})
        assert await newcomer.propose(b"through the new one") == 301
        assert newcomer.core.configuration.address_of("a") == "a:1"


async def test_a_node_that_joins_never_founds_a_group() -> None:
    """Two that join at the same time are as empty as a majority, and that proves nothing."""
    async with AdmittingGroup(("a", "b", "c")) as group:
        nodes = [group.run(id, joins=True) for id in group.ids]

        await asyncio.sleep(0.4)

        assert not any(node.admitted for node in nodes)


async def test_asking_for_what_is_so_already_changes_nothing() -> None:
    """Whoever heard no answer asks again."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        before = leader.core.log.last_index

        assert not await leader.membership.change(add("b"))
        assert not await leader.membership.change(remove("z"))

        assert leader.core.log.last_index == before


async def test_a_leader_that_is_removed_hands_leadership_over_first() -> None:
    """The group is never without a leader for an election timeout."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        term = leader.core.state.term

        assert await leader.membership.change(remove(leader.id))

        successor = await group.leader_after(leader)
        assert successor.core.state.term == term + 1
        assert leader.id not in successor.core.configuration.members
        assert await successor.propose(b"x") == 1


async def test_a_removed_node_says_so() -> None:
    async with AdmittingGroup() as group:
        leader = await founded(group)
        removed = await group.follower()

        await leader.membership.change(remove(removed.id))

        await eventually(lambda: "no member of" in removed.hindrance)
        assert not removed.status().ready


async def test_a_node_that_stops_does_not_wait_for_a_change_of_members() -> None:
    """Neither for one that may have been done nor for one that nobody could carry out."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        follower = await group.follower()
        await group.crash(next(id for id in group.ids if id not in (leader.id, follower.id)))
        group.network.isolate(leader.id)
        proposed = asyncio.create_task(leader.membership.change(add("d")))
        await eventually(lambda: "d" in leader.core.configuration.members)
        await eventually(lambda: not follower.core.state.leader)
        waiting = asyncio.create_task(follower.membership.change(add("e")))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()

        await asyncio.gather(leader.stop(), follower.stop())

        with pytest.raises(OutcomeUnknown):
            await proposed
        with pytest.raises(Stopping):
            await waiting
        assert asyncio.get_running_loop().time() - began < CHANGE_SECONDS_MAX / 2
        with pytest.raises(Stopping):
            await follower.membership.change(add("e"))


async def test_a_node_that_fails_in_the_turn_in_which_a_change_ends_says_so() -> None:
    """The bound of the change has run out, and its task has not come to hear of it."""
    fatal: list[BaseException] = []
    async with AdmittingGroup() as group:
        await founded(group)
        node = await group.follower()
        node._on_fatal = fatal.append
        for id in group.ids:
            if id != node.id:
                await group.crash(id)
        await eventually(lambda: not node.core.state.leader)
        waiting = asyncio.create_task(node.membership.change(add("d")))
        await asyncio.sleep(0)
        (bound,) = node.membership._bounds
        loop = asyncio.get_running_loop()
        bound.reschedule(loop.time())
        loop.call_soon(node.fail, OSError("disk"))

        with pytest.raises(RaftError):
            await waiting
        assert [str(error) for error in fatal] == ["disk"]


async def test_the_last_voter_cannot_be_removed() -> None:
    async with AdmittingGroup(("a",)) as group:
        node = await founded(group)

        with pytest.raises(MembershipRefused):
            await node.membership.change(remove("a"))


async def test_a_dead_node_is_replaced_by_a_new_one() -> None:
    """Remove one, add another, and the group bears the loss of one node again."""
    async with AdmittingGroup() as group:
        await founded(group)
        dead = (await group.follower()).id
        await group.crash(dead)
        leader = await group.leader()
        await leader.propose(b"x")

        await leader.membership.change(remove(dead))
        group.run("d", joins=True)
        await leader.membership.change(add("d"))
        await eventually(lambda: "d" in leader.core.configuration.voters)
        await group.crash(leader.id)

        assert await group.nodes["d"].propose(b"y") == 2


# Changes that are refused


async def test_a_live_member_is_not_removed_while_another_one_is_dead() -> None:
    """Of the two that would stay one answers; the group would stand still for good. The dead one may be removed."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        asked, dead = sorted(id for id in group.ids if id != leader.id)
        await group.crash(dead)

        with pytest.raises(MembershipRefused, match=f"without {asked}, .* and {dead} does not: start {dead}"):
            await group.nodes[asked].membership.change(remove(asked))

        assert await leader.propose(b"it serves") == 1
        assert await leader.membership.change(remove(dead))
        assert leader.core.configuration.voters == tuple(sorted((leader.id, asked)))


async def test_a_leader_that_must_not_go_does_not_hand_over_either() -> None:
    """What is refused changes nothing."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        dead = (await group.follower()).id
        await group.crash(dead)
        term = leader.core.state.term

        with pytest.raises(MembershipRefused, match=f"without {leader.id}"):
            await leader.membership.change(remove(leader.id))

        assert (leader.leads, leader.core.state.term) == (True, term)


async def test_a_new_leader_that_has_not_heard_all_yet_waits_before_it_says_no() -> None:
    """Asked right after an election, it removes a live one where all others live, too."""
    async with AdmittingGroup() as group:
        former = await founded(group)
        await group.lead(await group.follower())
        leader = await group.leader()

        assert await leader.membership.change(remove(former.id))


async def test_a_member_is_not_moved_by_adding_it_at_another_address() -> None:
    """It would not take: the node itself names its own address again."""
    async with AdmittingGroup() as group:
        leader = await founded(group)
        before = leader.core.configuration

        with pytest.raises(MembershipRefused, match="knows b at b:1, and a member's address is what its own"):
            await leader.membership.change(add("b", "elsewhere:1"))

        assert leader.core.configuration == before


async def test_the_settings_tell_where_a_member_is_that_the_configuration_does_not_place() -> None:
    """Before a node is bound, its address stands in the settings alone."""
    addresses = {"a": "a:1", "b": "b:1", "c": "c:1"}
    async with AdmittingGroup() as group:
        for id in ("a", "b"):
            group.run(id, addresses=addresses)
        leader = await group.leader()
        assert leader.core.configuration.address_of("c") == ""

        with pytest.raises(MembershipRefused, match="knows c at c:1"):
            await leader.membership.change(add("c", "elsewhere:1"))
        with pytest.raises(MembershipRefused, match="c:1 is that of c, which is a member already"):
            await leader.membership.change(add("d", "c:1"))
        assert await leader.membership.change(add("c"))


async def test_a_member_whose_address_nobody_knows_may_be_placed() -> None:
    async with AdmittingGroup() as group:
        for id in ("a", "b"):
            group.run(id)
        leader = await group.leader()

        assert await leader.membership.change(add("c", "elsewhere:1"))

        assert leader.core.configuration.address_of("c") == "elsewhere:1"


async def test_two_members_are_not_at_one_address() -> None:
    """The messages for one would reach the other."""
    async with AdmittingGroup() as group:
        leader = await founded(group)

        with pytest.raises(MembershipRefused, match="b:1 is that of b, which is a member already"):
            await leader.membership.change(add("d", "b:1"))

        assert "d" not in leader.core.configuration.members
