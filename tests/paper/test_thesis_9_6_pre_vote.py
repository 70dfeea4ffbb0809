"""Thesis, section 9.6: preventing disruptions when a server rejoins the cluster (PreVote)."""

import pytest

from raft.core.messages import RequestVote, RequestVoteReply
from raft.core.types import HardState, Role
from tests.core.replica import (
    FIVE,
    Disk,
    Replica,
    append,
    entries,
    follower_of,
    settled_leader,
    vote_reply,
    vote_request,
)
from tests.paper.groups import elected, leaders, propose


def test_a_candidate_first_asks_whether_it_could_win() -> None:
    """Thesis 9.6: it increments its term only if a majority says that it would grant its vote."""
    server = Replica()

    server.time_out()

    requests = server.sent(RequestVote)
    assert (server.role, server.term) == (Role.PRE_CANDIDATE, 0)
    assert {(r.to, r.pre_vote, r.term) for r in requests} == {("b", True, 1), ("c", True, 1)}


def test_a_majority_of_pre_votes_starts_the_election() -> None:
    """Thesis 9.6: then a normal election follows."""
    server = Replica(configuration=FIVE)
    requests = server.time_out().sent(RequestVote)

    server.receive(vote_reply(requests[0]))
    assert (server.role, server.term) == (Role.PRE_CANDIDATE, 0)
    server.receive(vote_reply(requests[1]))

    assert (server.role, server.term) == (Role.CANDIDATE, 1)
    assert all(not request.pre_vote for request in server.sent(RequestVote))


def test_without_a_majority_of_pre_votes_the_term_stands_still() -> None:
    """Thesis 9.6: a partitioned server never gets one, however long it tries."""
    server = follower_of("b", 4)

    server.run_ms(60_000)

    assert server.term == 4
    assert all(request.pre_vote for request in server.sent(RequestVote))


@pytest.mark.parametrize(
    ("last", "granted"), [((2, 1), False), ((2, 2), True), ((3, 2), True), ((1, 3), True)], ids=str
)
def test_a_pre_vote_needs_a_log_that_is_up_to_date(last: tuple[int, int], granted: bool) -> None:
    """Thesis 9.6, first condition: the same comparison as for a vote."""
    voter = Replica(disk=Disk(HardState(3), entries(1, 2)))

    voter.receive(vote_request("b", 4, last, pre_vote=True))

    assert voter.one_sent(RequestVoteReply).granted is granted


def test_a_pre_vote_is_refused_within_an_election_timeout_of_hearing_a_leader() -> None:
    """Thesis 9.6, second condition: no heartbeat of a valid leader for at least a baseline election timeout."""
    voter = follower_of("b", 1)

    voter.now_ms += 399
    voter.receive(vote_request("c", 2, (9, 9), pre_vote=True))
    voter.now_ms += 1
    voter.receive(vote_request("c", 2, (9, 9), pre_vote=True))

    assert [reply.granted for reply in voter.sent(RequestVoteReply)] == [False, True]


def test_a_leader_in_office_refuses_pre_votes() -> None:
    """Thesis 9.6: the group works."""
    leader = settled_leader()

    leader.receive(vote_request("b", leader.term + 1, (9, 9), pre_vote=True))

    assert not leader.one_sent(RequestVoteReply).granted
    assert leader.leads


def test_a_pre_vote_changes_nothing_at_the_voter() -> None:
    """Thesis 9.6: it may be given to several, since it binds nobody; term and vote stay."""
    voter = Replica(disk=Disk(HardState(3, "c")))

    voter.receive(*(vote_request(id, 4, pre_vote=True) for id in "bc"))

    assert [reply.granted for reply in voter.sent(RequestVoteReply)] == [True, True]
    assert voter.core.state.hard_state == HardState(3, "c")
    assert voter.writes_waiting == 0


def test_a_server_that_rejoins_disturbs_nobody() -> None:
    """Thesis 9.6: the leader stays, no term grows, and the server follows with the next heartbeat."""
    cluster = elected(FIVE)
    cluster.cuts = {(x, y) for x in "abcd" for y in "e"} | {(y, x) for x in "abcd" for y in "e"}
    cluster.run(30_000)
    propose(cluster, "a", b"x")

    cluster.cuts = set()
    cluster.run(1_000)

    assert leaders(cluster) == [("a", 1)]
    assert (cluster.nodes["e"].term, cluster.nodes["e"].core.state.leader) == (1, "a")
    assert cluster.nodes["e"].commands == [b"x"]


def test_a_pre_candidate_that_hears_the_leader_follows_it_in_the_same_term() -> None:
    """Thesis 9.6: nothing has happened."""
    server = follower_of("b", 1)
    server.time_out()
    assert server.role is Role.PRE_CANDIDATE

    server.receive(append("b", 1))

    assert (server.role, server.term, server.core.state.leader) == (Role.FOLLOWER, 1, "b")


def test_a_dead_leader_is_replaced_as_before() -> None:
    """Thesis 9.6: PreVote must not cost the group its ability to elect."""
    cluster = elected()
    cluster.crash("a")

    cluster.run(2_000)

    assert [term for _, term in leaders(cluster)] == [2]


def test_a_transfer_skips_the_pre_vote() -> None:
    """Thesis 3.10 and 9.6: everybody still hears the leader who asked for it, and would refuse."""
    cluster = elected()

    cluster.at("a", lambda node: node.transfer("b"))
    cluster.deliver(lambda m: m.to == "b")

    assert cluster.nodes["b"].role is Role.CANDIDATE
