"""What a leader knows of its members' versions of the log, and whom it does not take in (raft/versions.py)."""

import pytest

from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.messages import RequestVote
from raft.errors import MembershipRefused
from raft.membership import ADD, BIND, MemberChange
from raft.node import RaftNode
from raft.state_machine import FIRST_VERSION
from raft.transport.codec import encode_frame
from raft.transport.identity import KNOWN_HEADER, Stated
from tests.helpers import eventually
from tests.node.listening import StubNode, headers_of, listening, peers_of
from tests.node.versions import VersionedGroup

NEXT = FIRST_VERSION + 1


async def started(group: VersionedGroup, *ids: str) -> RaftNode:
    """The leader, once everybody's disk is known and it has applied all that there is."""
    for id in ids or group.ids:
        group.run(id)
    leader = await group.leader()
    await eventually(lambda: all(leader.core.configuration.incarnation_of(id) for id in group.nodes))
    await eventually(lambda: leader.applier.applied_index >= leader.core.term_start_index)
    return leader


async def raised(leader: RaftNode, version: int) -> None:
    """In force at the leader."""
    leader.versions.raise_to(version, b"raise %d" % version)
    await eventually(lambda: leader.machine.version == version)


# What all members know


async def test_the_version_that_all_know_is_the_lowest_of_them() -> None:
    async with VersionedGroup(known={"a": NEXT + 1, "b": NEXT + 1, "c": NEXT}) as group:
        leader = await started(group)

        assert leader.versions.to_raise() == NEXT
        assert {node.versions.to_raise() for node in group.nodes.values() if node is not leader} == {None}

        await raised(leader, NEXT)

        assert leader.versions.to_raise() is None


async def test_a_member_that_is_not_there_keeps_the_version_where_it_is() -> None:
    """Voter or learner: it may come back with less than it knew before."""
    async with VersionedGroup(known=dict.fromkeys("abcd", NEXT)) as group:
        leader = await started(group)
        away = next(id for id in group.ids if id != leader.id)
        await group.crash(away)
        while_a_voter_is_away = leader.versions.to_raise()
        group.run(away)
        await eventually(lambda: leader.versions.to_raise() == NEXT)

        await leader.membership.change(MemberChange(ADD, "d", "d:1"))
        while_a_learner_is_away = leader.versions.to_raise()
        group.run("d", joins=True)

        assert (while_a_voter_is_away, while_a_learner_is_away) == (None, None)
        await eventually(lambda: leader.versions.to_raise() == NEXT)


async def test_a_member_that_came_back_with_less_counts_with_what_it_knows_now() -> None:
    async with VersionedGroup(known=dict.fromkeys("abc", NEXT)) as group:
        leader = await started(group)
        other = next(id for id in group.ids if id != leader.id)
        before = leader.versions.to_raise()
        await group.crash(other)
        group.known[other] = FIRST_VERSION
        group.run(other)
        await eventually(lambda: other in leader.connected_peers())

        assert (before, leader.versions.to_raise()) == (NEXT, None)


async def test_a_new_leader_judges_once_it_has_applied_what_former_ones_left() -> None:
    """An entry that raises the version may be among it."""
    async with VersionedGroup(known=dict.fromkeys("abc", NEXT)) as group:
        leader = await started(group)
        start, leader.core.term_start_index = leader.core.term_start_index, leader.applier.applied_index + 1

        with pytest.raises(ConfigurationBusy):
            leader.versions.check("d", FIRST_VERSION)
        judged = leader.versions.to_raise()
        leader.core.term_start_index = start

        assert (judged, leader.versions.to_raise()) == (None, NEXT)


# Who is taken in


async def test_a_node_that_knows_less_is_refused_from_the_entry_on() -> None:
    """And not only once it is committed: it would be sent that entry."""
    async with VersionedGroup(known=dict.fromkeys("abc", NEXT)) as group:
        leader = await started(group)
        leader.versions.check("d", FIRST_VERSION)

        leader.versions.raise_to(NEXT, b"raise %d" % NEXT)

        assert leader.machine.version == FIRST_VERSION
        with pytest.raises(ConfigurationRefused, match=f"d knows .* version {FIRST_VERSION} .* version {NEXT}:"):
            leader.versions.check("d", FIRST_VERSION)
        leader.versions.check("d", NEXT)
        await eventually(lambda: leader.machine.version == NEXT)


async def test_a_learner_that_knows_less_is_not_taken_in_and_says_which_version_it_needs() -> None:
    """Until it is started with one that does."""
    async with VersionedGroup(known={**dict.fromkeys("abc", NEXT), "d": FIRST_VERSION}) as group:
        leader = await started(group)
        await raised(leader, NEXT)
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))

        learner = group.run("d", joins=True)
        await eventually(lambda: f"the group has those of version {NEXT}" in learner.hindrance)
        refused = not learner.admitted and not leader.core.configuration.incarnation_of("d")
        await group.crash("d")
        group.known["d"] = NEXT
        group.run("d", joins=True)

        assert refused
        await eventually(lambda: "d" in leader.core.configuration.voters)


async def test_a_disk_is_not_bound_where_the_version_rose_since_its_node_asked() -> None:
    """The leader looks again in the step in which it proposes the configuration."""
    async with VersionedGroup(known=dict.fromkeys("abc", NEXT)) as group:
        leader = await started(group)
        await raised(leader, NEXT)
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))
        change = MemberChange(BIND, "d", "d:1", "d1")

        less = await leader.membership.change_here(change, known=FIRST_VERSION)
        unbound = not leader.core.configuration.incarnation_of("d")
        enough = await leader.membership.change_here(change, known=NEXT)

        assert (less.outcome, unbound, enough.outcome) == ("refused", True, "done")
        assert f"the group has those of version {NEXT}" in less.reason


async def test_a_node_that_runs_and_knows_less_is_not_added() -> None:
    async with VersionedGroup(known={**dict.fromkeys("abc", NEXT), "d": FIRST_VERSION}) as group:
        leader = await started(group)
        await raised(leader, NEXT)
        group.run("d", joins=True)
        asked = next(node for node in group.nodes.values() if node.id in group.ids and node is not leader)

        with pytest.raises(MembershipRefused, match="start d with a release that knows these"):
            await asked.membership.change(MemberChange(ADD, "d", "d:1"))

        assert "d" not in leader.core.configuration.members


async def test_a_learner_does_not_vote_before_it_has_said_that_it_knows_enough() -> None:
    """It holds all entries, and stops at the first that it does not know."""
    async with VersionedGroup(known=dict.fromkeys("abcd", NEXT)) as group:
        leader = await started(group)
        await raised(leader, NEXT)
        said, knows = leader.versions.said, False
        leader.versions.said = lambda member: None if member == "d" and not knows else said(member)
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))
        learner = group.run("d", joins=True)
        await eventually(lambda: learner.admitted and learner.applier.applied_index >= leader.applier.applied_index)
        await group.pass_ms(300)
        held_back = "d" in leader.core.configuration.learners

        knows = True

        assert held_back
        await eventually(lambda: "d" in leader.core.configuration.voters)


async def test_a_group_that_was_never_raised_takes_in_whoever_says_nothing() -> None:
    """Nodes of before there were versions are no worse off."""
    async with VersionedGroup(known={**dict.fromkeys("abc", NEXT), "d": FIRST_VERSION}) as group:
        leader = await started(group)
        leader.versions.said = lambda member: None
        await leader.membership.change(MemberChange(ADD, "d", "d:1"))
        group.run("d", joins=True)

        await eventually(lambda: "d" in leader.core.configuration.voters)
        assert leader.versions.to_raise() is None


# On the wire


@pytest.mark.parametrize(
    ("header", "known"),
    [(None, 1), ("", 1), ("7", 7), ("9" * 9, 999_999_999), ("9" * 10, 1), ("-3", 1), ("\u00b2", 1)],
)
def test_a_peer_that_says_nothing_that_is_a_number_knows_the_first_version(header: str | None, known: int) -> None:
    assert Stated({} if header is None else {KNOWN_HEADER: header}).known == known


async def test_what_counts_is_what_is_said_on_the_streams_that_stand_now() -> None:
    """Of two, the lower: one of them may be of a process that is gone."""
    peers = peers_of(StubNode(leader="c"))
    async with listening(peers=peers) as client:
        before = peers.known_by("lock", "b")
        one = await client.ws_connect("/raft/stream", headers={**headers_of("b", "b1"), KNOWN_HEADER: "5"})
        other = await client.ws_connect("/raft/stream", headers={**headers_of("b", "b1"), KNOWN_HEADER: "4"})
        await eventually(lambda: peers.known_by("lock", "b") == 4)
        await other.close()
        await eventually(lambda: peers.known_by("lock", "b") == 5)
        await one.close()

        await eventually(lambda: peers.known_by("lock", "b") is None)
        assert before is None


async def test_what_another_disk_says_under_a_members_id_does_not_count() -> None:
    node = StubNode(leader="b")
    peers = peers_of(node)
    async with listening(peers=peers) as client:
        stream = await client.ws_connect("/raft/stream", headers={**headers_of("b", "b2"), KNOWN_HEADER: "5"})
        await stream.send_bytes(encode_frame([("lock", RequestVote("b", "a", 4, 1, 9, 3))]))
        await eventually(lambda: node.received)

        assert peers.known_by("lock", "b") is None
        await stream.close()
