"""Raft paper, section 5.5: follower and candidate crashes."""

from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from tests.core.replica import (
    Replica,
    append,
    entries,
    follower_of,
    vote_request,
)
from tests.paper.groups import anything, elected, propose


def test_a_crashed_follower_is_sent_to_until_it_is_back() -> None:
    """Paper 5.5: requests to it fail and are retried indefinitely; when it restarts they succeed."""
    cluster = elected()
    cluster.crash("c")
    propose(cluster, "a", b"x", b"y")
    cluster.run(2_000)

    cluster.restart("c")
    cluster.run(500)

    assert cluster.nodes["c"].commands == [b"x", b"y"]


def test_a_crashed_voter_is_asked_again() -> None:
    """Paper 5.5: RequestVote to a crashed server is retried too, with each new election."""
    candidate = Replica(pre_vote=False)
    candidate.time_out().sent()

    candidate.time_out()

    assert {request.to for request in candidate.sent(RequestVote)} == {"b", "c"}


def test_a_crashed_candidate_campaigns_in_a_later_term() -> None:
    """Paper 5.5: candidates crash like followers; its own vote was persisted, so the term is never used twice."""
    candidate = Replica(pre_vote=False)
    candidate.time_out()

    candidate.restart()
    candidate.time_out()

    assert candidate.term == 2


def test_a_request_that_was_carried_out_before_the_crash_may_come_again() -> None:
    """Paper 5.5: a server that crashes before answering gets the same RPC after its restart, without harm."""
    follower = follower_of("b", 1)
    request = append("b", 1, new=entries(1, 1), commit=2)
    follower.receive(request).sent()

    follower.restart()
    follower.receive(request)

    assert follower.log_terms == [1, 1]
    assert follower.one_sent(AppendEntriesReply).match_index == 2
    assert [e.index for e in follower.applied] == [1, 2]


def test_a_vote_request_that_was_granted_before_the_crash_is_granted_again() -> None:
    """Paper 5.5: RPCs are idempotent."""
    voter = Replica()
    voter.receive(vote_request("b", 1)).sent()

    voter.restart()
    voter.receive(vote_request("b", 1))

    assert voter.one_sent(RequestVoteReply).granted


def test_entries_that_are_already_there_are_ignored() -> None:
    """Paper 5.5: a follower ignores entries of a request that its log already holds."""
    follower = follower_of("b", 1)
    follower.receive(append("b", 1, new=entries(1, 1)))

    follower.disk_holds = True
    follower.receive(append("b", 1, new=entries(1, 1)))

    assert follower.writes_waiting == 0
    assert follower.log_terms == [1, 1]


def test_every_message_twice_changes_nothing() -> None:
    """Paper 5.5, for a whole group: each message of an election and of ten writes is delivered twice."""
    cluster = elected()
    for number in range(10):
        cluster.at("a", lambda node, number=number: node.propose(b"%d" % number))
        for _ in range(20):
            cluster.duplicate(lambda m: isinstance(m, AppendEntries) and bool(m.entries))
            cluster.deliver(anything)

    cluster.settle(anything)

    assert all(cluster.nodes[id].commands == [b"%d" % n for n in range(10)] for id in "abc")
