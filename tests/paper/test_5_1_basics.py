"""Raft paper, section 5.1: Raft basics. Roles and terms."""

import pytest

from raft.core.errors import NotLeading
from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from raft.core.types import Role
from tests.core.replica import (
    FIVE,
    Replica,
    append,
    entry,
    follower_of,
    leader_of,
    settled_leader,
    vote_request,
)
from tests.paper.groups import anything, elect, elected, group, leaders


def test_one_leader_and_all_others_followers() -> None:
    """Paper 5.1: in normal operation there is exactly one leader and every other server is a follower."""
    cluster = elected(FIVE)

    roles = {id: cluster.nodes[id].role for id in cluster.up}

    assert roles == {"a": Role.LEADER, **dict.fromkeys("bcde", Role.FOLLOWER)}


def test_followers_issue_no_requests_of_their_own() -> None:
    """Paper 5.1: followers are passive, they only answer leaders and candidates."""
    follower = follower_of("b", 1)

    follower.receive(append("b", 1, new=[entry(1, 1)], commit=1))
    follower.pass_ms(100)

    assert {type(message) for message in follower.sent()} == {AppendEntriesReply}


def test_a_follower_takes_no_command_and_knows_who_does() -> None:
    """Paper 5.1: a client that contacts a follower is led to the leader. (Here the node forwards for it.)"""
    follower = follower_of("b", 1)

    with pytest.raises(NotLeading):
        follower.propose(b"x")
    assert follower.core.state.leader == "b"


def test_each_term_begins_with_an_election_in_the_next_number() -> None:
    """Paper 5.1: terms are numbered with consecutive integers, and each begins with an election."""
    cluster = elected()
    terms = [cluster.nodes["a"].term]

    for id in ("b", "c", "a"):
        elect(cluster, id)
        terms.append(cluster.nodes[id].term)

    assert terms == [1, 2, 3, 4]


def test_a_term_may_end_without_a_leader() -> None:
    """Paper 5.1: in a split vote the term ends with no leader, and a new term begins shortly."""
    cluster = group(FIVE, pre_vote=False)
    for id in ("a", "b"):
        cluster.at(id, Replica.time_out)
    cluster.crash("e")
    cluster.deliver(lambda m: (m.sender, m.to) in {("a", "c"), ("b", "d")})

    cluster.settle(anything)
    assert leaders(cluster) == []
    cluster.run(3_000)

    assert [term > 1 for _, term in leaders(cluster)] == [True]


@pytest.mark.parametrize("seed", range(5))
def test_at_most_one_leader_in_a_term(seed: int) -> None:
    """Paper 5.1 (Election Safety, Figure 3): all servers campaign at once, in any order of delivery."""
    cluster = group(FIVE, pre_vote=False)
    seen: dict[int, set[str]] = {}
    order = [*"abcde"][seed:] + [*"abcde"][:seed]

    for _ in range(4):
        for id in order:
            if not cluster.nodes[id].leads:
                cluster.at(id, Replica.time_out)
        while cluster.flying:
            cluster.deliver(anything, count=1 + seed)
            for id, term in leaders(cluster):
                seen.setdefault(term, set()).add(id)

    assert all(len(ids) == 1 for ids in seen.values()), seen


def test_the_current_term_only_grows() -> None:
    """Paper 5.1: each server stores a current term, which increases monotonically over time."""
    server = follower_of("b", 5)

    server.receive(append("c", 3), vote_request("c", 4), append("b", 5))

    assert server.term == 5
    server.restart()
    assert server.term == 5


def test_every_message_carries_the_senders_term() -> None:
    """Paper 5.1: current terms are exchanged whenever servers communicate."""
    leader = settled_leader()
    leader.propose(b"x")
    follower = follower_of("b", 7)
    follower.receive(append("b", 7))

    assert {message.term for message in leader.sent()} == {1}
    assert {message.term for message in follower.sent()} == {7}


@pytest.mark.parametrize(
    "message",
    [
        append("b", 9),
        vote_request("b", 9),
        RequestVoteReply("b", "a", 9, 1, False),
        AppendEntriesReply("b", "a", 9, 1, False),
    ],
    ids=["append", "vote request", "vote reply", "append reply"],
)
def test_a_smaller_current_term_is_updated_to_the_larger(message) -> None:
    """Paper 5.1: a server whose term is smaller than the other's adopts the larger value, request or reply."""
    server = Replica()

    server.receive(message)

    assert server.term == 9


@pytest.mark.parametrize("role", ["leader", "candidate"])
def test_a_leader_or_candidate_with_an_old_term_becomes_a_follower_at_once(role: str) -> None:
    """Paper 5.1: one that discovers that its term is out of date immediately reverts to follower."""
    server = settled_leader() if role == "leader" else Replica(pre_vote=False).time_out()

    server.receive(AppendEntriesReply("b", "a", 9, 1, False))

    assert (server.role, server.term) == (Role.FOLLOWER, 9)


def test_a_request_with_a_stale_term_is_rejected() -> None:
    """Paper 5.1; the rejection carries the newer term."""
    server = follower_of("b", 5)
    server.now_ms += 500

    server.receive(vote_request("c", 4, (9, 4)), append("c", 4, new=[entry(1, 4)]))

    vote, refusal = server.sent()
    assert (vote.granted, vote.term) == (False, 5)
    assert (refusal.success, refusal.term) == (False, 5)
    assert server.core.log.last_index == 0


def test_unanswered_requests_are_sent_again() -> None:
    """Paper 5.1: servers retry RPCs that are not answered in a timely manner."""
    candidate = Replica(pre_vote=False)
    candidate.time_out().sent()
    leader = leader_of()
    leader.sent()

    candidate.time_out()
    leader.run_ms(100)

    assert {request.to for request in candidate.sent(RequestVote)} == {"b", "c"}
    assert {request.to for request in leader.sent(AppendEntries)} == {"b", "c"}


def test_requests_go_out_in_parallel() -> None:
    """Paper 5.1: RPCs are issued in parallel: no peer's answer is waited for before the next is asked."""
    candidate = Replica(configuration=FIVE, pre_vote=False)
    leader = settled_leader(FIVE)

    candidate.time_out()
    leader.propose(b"x")

    assert [request.to for request in candidate.sent(RequestVote)] == ["b", "c", "d", "e"]
    assert [request.to for request in leader.sent(AppendEntries)] == ["b", "c", "d", "e"]
