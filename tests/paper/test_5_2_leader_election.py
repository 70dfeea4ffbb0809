"""Raft paper, section 5.2: leader election. PreVote is off here: its rules are in test_thesis_9_6_pre_vote.py."""

import pytest

from raft.core.messages import AppendEntries, RequestVote, RequestVoteReply
from raft.core.types import Configuration, Role
from tests.core.replica import (
    FIVE,
    Replica,
    append,
    heartbeat,
    settled_leader,
    vote_reply,
    vote_request,
)
from tests.paper.groups import elected, group, leaders

SEVEN = Configuration(("a", "b", "c", "d", "e", "f", "g"))


def candidate(configuration: Configuration = FIVE) -> Replica:
    return Replica(configuration=configuration, pre_vote=False).time_out()


def test_servers_begin_as_followers() -> None:
    """Paper 5.2: when servers start up, they begin as followers; after a restart too."""
    leader = settled_leader()

    leader.restart()

    assert Replica().role is Role.FOLLOWER
    assert leader.role is Role.FOLLOWER


def test_a_server_stays_a_follower_while_a_leader_is_heard() -> None:
    """Paper 5.2: a server remains a follower as long as it receives valid RPCs from a leader."""
    follower = Replica(pre_vote=False)

    for _ in range(100):
        follower.receive(append("b", 1))
        follower.pass_ms(399)

    assert (follower.role, follower.term) == (Role.FOLLOWER, 1)


def test_a_leader_sends_heartbeats_to_all_followers() -> None:
    """Paper 5.2: periodic heartbeats, AppendEntries without entries, to every follower."""
    leader = settled_leader(FIVE)

    beats = [heartbeat(leader) for _ in range(3)]

    assert [sorted(beat.to for beat in round) for round in beats] == [["b", "c", "d", "e"]] * 3
    assert all(beat.entries == () for round in beats for beat in round)


def test_silence_over_the_election_timeout_starts_an_election() -> None:
    """Paper 5.2: a follower that hears nothing over an election timeout assumes that there is no viable leader."""
    follower = Replica(pre_vote=False)
    follower.receive(append("b", 1))

    follower.pass_ms(399)
    assert follower.role is Role.FOLLOWER
    follower.pass_ms(402)

    assert follower.role is Role.CANDIDATE


def test_a_candidate_increments_its_term_votes_for_itself_and_asks_all_others() -> None:
    """Paper 5.2: how an election begins."""
    server = candidate()

    requests = server.sent(RequestVote)

    assert (server.term, server.core.state.vote) == (1, "a")
    assert [request.to for request in requests] == ["b", "c", "d", "e"]
    assert {request.term for request in requests} == {1}


@pytest.mark.parametrize(
    ("configuration", "votes"), [(FIVE, 2), (SEVEN, 3), (Configuration(("a", "b", "c", "d")), 2)], ids=str
)
def test_a_candidate_wins_with_votes_of_a_majority_of_all_servers(
    configuration: Configuration, votes: int
) -> None:
    """Paper 5.2: a majority of the full cluster for the same term, its own vote included."""
    server = candidate(configuration)
    requests = server.sent(RequestVote)

    server.receive(*(vote_reply(request) for request in requests[: votes - 1]))
    assert server.role is Role.CANDIDATE
    server.receive(vote_reply(requests[votes - 1]))

    assert server.leads


def test_a_server_votes_for_one_candidate_a_term_first_come_first_served() -> None:
    """Paper 5.2."""
    voter = Replica()

    voter.receive(vote_request("b", 1), vote_request("c", 1))

    assert [(reply.to, reply.granted) for reply in voter.sent(RequestVoteReply)] == [
        ("b", True),
        ("c", False),
    ]


def test_the_vote_is_remembered_over_a_restart() -> None:
    """Paper 5.2 with Figure 2, votedFor: persisted before the answer (known bug 1)."""
    voter = Replica()
    voter.receive(vote_request("b", 1)).sent()

    voter.restart()
    voter.receive(vote_request("c", 1))

    assert not voter.one_sent(RequestVoteReply).granted


def test_a_new_leader_tells_all_others_at_once() -> None:
    """Paper 5.2: it sends to all other servers to establish its authority and prevent new elections."""
    server = candidate()

    server.receive(*(vote_reply(request) for request in server.sent(RequestVote)[:2]))

    assert [request.to for request in server.sent(AppendEntries)] == ["b", "c", "d", "e"]


@pytest.mark.parametrize("term", [1, 2], ids=["the same term", "a later term"])
def test_a_candidate_follows_a_leader_whose_term_is_at_least_its_own(term: int) -> None:
    """Paper 5.2: it recognises the leader as legitimate and returns to follower."""
    server = candidate()

    server.receive(append("b", term))

    assert (server.role, server.core.state.leader, server.term) == (Role.FOLLOWER, "b", term)


def test_a_candidate_rejects_a_leader_of_an_older_term_and_stays_candidate() -> None:
    """Paper 5.2."""
    server = candidate()
    server.time_out().sent()

    server.receive(append("b", 1))

    assert (server.role, server.term) == (Role.CANDIDATE, 2)
    reply = server.sent()[-1]
    assert (reply.success, reply.term) == (False, 2)


def test_a_candidate_that_neither_wins_nor_loses_starts_over_in_a_new_term() -> None:
    """Paper 5.2: on a split vote each candidate times out, increments its term and asks again."""
    server = candidate()
    server.receive(vote_reply(server.sent(RequestVote)[0]))

    server.time_out()

    assert (server.role, server.term) == (Role.CANDIDATE, 2)
    assert {request.term for request in server.sent(RequestVote)} == {2}


def test_election_timeouts_are_random_within_a_fixed_interval() -> None:
    """Paper 5.2: chosen at random from a fixed interval, so that in most cases one server times out first."""
    timeouts = [Replica(seed=seed).core.next_deadline_ms() - 1_000 for seed in range(100)]

    assert all(400 <= timeout <= 800 for timeout in timeouts)
    assert len(set(timeouts)) > 50


def test_the_timeout_is_drawn_anew_at_the_start_of_each_election() -> None:
    """Paper 5.2: each candidate restarts its randomised timeout, and waits for it before the next election."""
    server = candidate()
    drawn = set()

    for _ in range(20):
        waits_ms = server.core.next_deadline_ms() - server.now_ms
        assert 400 <= waits_ms <= 800
        drawn.add(waits_ms)
        server.time_out()

    assert len(drawn) > 10


def test_five_servers_that_start_together_elect_a_leader() -> None:
    """Paper 5.2: randomised timeouts let elections end within a few rounds (known bug 11: no livelock)."""
    cluster = group(FIVE, pre_vote=False)

    cluster.run(5_000)

    assert len(leaders(cluster)) == 1


def test_servers_that_restart_together_elect_a_leader() -> None:
    """Paper 5.2 again, from disks (known bug 18: restarted followers must not wait for ever)."""
    cluster = elected(FIVE)
    for id in tuple(cluster.up):
        cluster.crash(id)
    for id in "abcde":
        cluster.restart(id)

    cluster.run(5_000)

    assert len(leaders(cluster)) == 1
