"""Ids bound to data directories (docs/membership.md): what the core does about a disk that may be another one."""

import pytest

from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.membership import changed, decode_configuration, described, encode_configuration
from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVoteReply
from raft.core.types import Configuration, HardState, Role
from tests.core.admission_walk import PLANTED, STEPS, Broken, Walk
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    entries,
    heartbeat,
    settled_leader,
    vote_request,
)

BOUND = described(described(THREE, "b", address="host:8001", incarnation="b1"), "a", address="[::1]:8000")


# The configuration


def test_addresses_and_incarnations_survive_their_bytes() -> None:
    """They are in the log, so that everybody knows them."""
    assert decode_configuration(encode_configuration(BOUND)) == BOUND
    assert encode_configuration(BOUND) == b"a,b,c;;a=[::1]:8000,b=host:8001;b=b1"


def test_what_is_given_replaces_what_was_known_and_no_more() -> None:
    moved = described(BOUND, "b", address="other:1")

    assert (moved.address_of("b"), moved.incarnation_of("b")) == ("other:1", "b1")
    assert (moved.address_of("c"), moved.incarnation_of("c")) == ("", "")


def test_a_removed_server_leaves_no_binding_behind() -> None:
    """Added again under its id it is unbound, and so may come with another disk."""
    without = changed(BOUND, remove="b")

    assert without == Configuration(("a", "c"), (), (("a", "[::1]:8000"),))
    assert changed(without, add="b").incarnation_of("b") == ""


def test_the_life_of_the_group_survives_its_bytes_and_every_change() -> None:
    """Without one the bytes are those of earlier versions, which cannot read it."""
    alive = described(BOUND, "a", life="life")

    assert decode_configuration(encode_configuration(alive)) == alive
    assert encode_configuration(alive) == encode_configuration(BOUND) + b";life"
    assert decode_configuration(b"a,b;;;;life") == Configuration(("a", "b"), life="life")
    assert changed(alive, remove="b").life == changed(alive, add="d").life == "life"
    assert described(alive, "a", life="another").life == "life"


def test_a_group_that_has_a_life_never_gets_another() -> None:
    leader = settled_leader()
    leader.configure(described(THREE, "a", life="life"))
    acknowledge_all(leader)

    for other in ("", "another"):
        with pytest.raises(ConfigurationRefused):
            leader.configure(Configuration(("a", "b", "c"), life=other))


@pytest.mark.parametrize("data", [b"a;;b=1=2;", b"a;;b;", b"a;;;b", b"a;;;;life;"])
def test_pairs_that_cannot_be_told_apart_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_configuration(data)


def test_an_address_that_would_be_read_as_two_is_refused() -> None:
    leader = settled_leader()

    with pytest.raises(ConfigurationRefused):
        leader.configure(described(THREE, "b", address="host:1,c=evil:2"))


# Binding


def test_an_id_bound_to_one_disk_is_never_bound_to_another() -> None:
    """Two data directories are two servers: one must be removed before the other is added."""
    leader = settled_leader()
    leader.configure(described(THREE, "b", incarnation="b1"))
    acknowledge_all(leader)

    with pytest.raises(ConfigurationRefused) as refusal:
        leader.configure(described(leader.core.configuration, "b", incarnation="b2"))

    assert not isinstance(refusal.value, ConfigurationBusy)


def test_what_was_acknowledged_before_an_id_was_bound_counts_no_more() -> None:
    """The disk that acknowledged it may be gone; the one that is bound may be empty (bug 63)."""
    leader = settled_leader()
    leader.propose(b"x")
    requests = {request.to: request for request in leader.sent(AppendEntries)}
    leader.receive(acknowledge(requests["b"]))
    committed = leader.core.log.commit_index
    leader.propose(b"y")

    leader.configure(described(THREE, "b", incarnation="b2"))

    assert leader.core.progress["b"].match_index == 0
    assert leader.core.log.commit_index == committed


def test_binding_an_id_is_no_contact_with_it() -> None:
    """A leader that is cut off must not count it as a quorum's answer."""
    leader = settled_leader()
    before = leader.core.progress["b"].acked_sent_ms
    leader.pass_ms(100)

    leader.configure(described(THREE, "b", incarnation="b2"))

    assert leader.core.progress["b"].acked_sent_ms == before


def test_an_empty_disk_under_a_bound_id_is_filled_from_the_beginning() -> None:
    """Its refusals are not taken for stale ones."""
    leader = settled_leader()
    for number in range(5):
        leader.propose(b"%d" % number)
        acknowledge_all(leader)
    leader.configure(described(THREE, "b", incarnation="b2"))
    empty = Replica("b", Configuration())
    empty.core.admit(leader.term, "a", empty.now_ms)
    empty.drain()

    for _ in range(5):
        found = heartbeat(leader)
        while found:
            empty.receive(*(request for request in found if request.to == "b"))
            leader.receive(*(acknowledge(request) for request in found if request.to == "c"))
            leader.receive(*empty.sent(AppendEntriesReply, "a"))
            found = leader.sent(AppendEntries)

    assert leader.core.log.last_index == empty.core.log.last_index
    assert leader.commands == empty.commands
    assert empty.core.configuration.incarnation_of("b") == "b2"


# Admission


def test_an_admitted_node_votes_for_nobody_else_in_that_term_or_before() -> None:
    """Whoever had its id may have voted in them."""
    node = Replica("a")
    node.core.admit(4, "b", node.now_ms)
    node.drain()
    node.pass_ms(1)

    for term in (3, 4):
        node.receive(vote_request("c", term, (9, 3)))
        assert not any(reply.granted for reply in node.sent(RequestVoteReply))
    node.receive(vote_request("c", 5, (9, 3)))

    assert node.one_sent(RequestVoteReply).granted
    assert node.disk.hard_state == HardState(5, "c")


def test_nothing_leaves_an_admitted_node_before_its_term_is_durable() -> None:
    """A crash right after would bring back the empty node."""
    node = Replica("a")
    node.disk_holds = True
    node.core.admit(4, "b", node.now_ms)
    node.drain()

    node.receive(AppendEntries("b", "a", 4, 1, 0, 0, 0))
    assert node.sent() == []
    node.sync()

    assert node.disk.hard_state == HardState(4, "b")
    assert node.one_sent(AppendEntriesReply).success


def test_a_node_admitted_at_the_birth_of_a_group_campaigns() -> None:
    """Nothing was voted or stored anywhere: it begins as any node does."""
    node = Replica("a", Configuration(("a",)))
    node.core.admit(0, "a", node.now_ms)

    node.time_out()

    assert node.role is Role.LEADER


@pytest.mark.parametrize("disk", [Disk(HardState(1)), Disk(HardState(1), entries(1))])
def test_only_an_empty_node_is_admitted(disk: Disk) -> None:
    """One that holds anything knows what it voted."""
    node = Replica("a", disk=disk)

    with pytest.raises(AssertionError):
        node.core.admit(2, "b", node.now_ms)


# The argument as a whole


def test_random_walks_with_wiped_disks_lose_nothing_and_come_back() -> None:
    """One leader in a term, one entry at each committed place (docs/membership.md)."""
    wipes = 0
    for seed in range(1, 101):
        walk = Walk(seed)
        walk.run(STEPS)
        wipes += walk.wipes

    assert wipes >= 100


def test_the_walks_notice_an_empty_node_that_votes() -> None:
    """Else they would prove nothing."""
    with pytest.raises(Broken):
        for seed in range(1, 101):
            Walk(seed, PLANTED[0]).run(STEPS)
