"""Raft paper, section 5.4: safety. The election restriction, and entries from previous terms (Figure 8)."""

from itertools import product

from raft.core.messages import AppendEntries, RequestVote, RequestVoteReply
from raft.core.types import HardState, Role
from tests.core.replica import (
    FIVE,
    Disk,
    Replica,
    acknowledge,
    append,
    entries,
    follower_of,
    leader_of,
    vote_request,
)
from tests.paper.groups import anything, elect, elected, leaders, propose, with_logs

LOGS = [(), (1,), (1, 1), (1, 2), (1, 1, 1), (2,), (2, 2)]


# 5.4.1 Election restriction


def test_a_vote_request_tells_how_the_candidates_log_ends() -> None:
    """Paper 5.4.1: RequestVote includes information about the candidate's log."""
    candidate = Replica(disk=Disk(HardState(4), entries(1, 4)), pre_vote=False)

    candidate.time_out()

    ends = {(r.last_log_index, r.last_log_term) for r in candidate.sent(RequestVote)}
    assert ends == {(2, 4)}


def test_a_voter_denies_its_vote_to_a_less_up_to_date_log() -> None:
    """Paper 5.4.1: the later last term wins; in equal terms the longer log (known bug 12: all pairs)."""
    for own, asking in product(LOGS, LOGS):
        voter = Replica(disk=Disk(HardState(2), entries(*own)))
        own_last_term, last_term = (log[-1] if log else 0 for log in (own, asking))
        if last_term != own_last_term:
            expected = last_term > own_last_term
        else:
            expected = len(asking) >= len(own)

        voter.receive(vote_request("b", 3, (len(asking), last_term)))

        assert voter.one_sent(RequestVoteReply).granted is expected, (own, asking)


def test_only_a_server_with_all_committed_entries_can_win() -> None:
    """Paper 5.4.1, Leader Completeness: the others' votes are missing, whoever else tries, and however often."""
    cluster = elected(FIVE)
    cluster.cuts = {(x, y) for x in "abc" for y in "de"} | {(y, x) for x in "abc" for y in "de"}
    propose(cluster, "a", b"committed on a, b and c")
    cluster.crash("a")
    cluster.cuts = set()

    for _ in range(3):
        for id in ("d", "e"):
            node = cluster.nodes[id]
            cluster.at(id, Replica.time_out)
            cluster.settle(anything)
            assert not node.leads
    cluster.run(3_000)

    assert [id for id, _ in leaders(cluster)] in (["b"], ["c"])


def test_entries_flow_from_leaders_to_followers_only() -> None:
    """Paper 5.4.1: a new leader needs no entries from the others; it has all that are committed."""
    cluster = elected()
    propose(cluster, "a", b"x")
    elect(cluster, "b")

    received = [
        line for line in cluster.take_trace() if "-> b append" in line and ": " in line.split("-> b")[1]
    ]

    assert received == []
    assert cluster.nodes["b"].commands == [b"x"]


# 5.4.2 Committing entries from previous terms


def figure_8_leader() -> Replica:
    """S1 in Figure 8 (c): leads term 4 and holds an uncommitted entry 2 of term 2."""
    return leader_of(FIVE, disk=Disk(HardState(3), entries(1, 2)), append_entries_max=1)


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    """Paper 5.4.2: Raft never commits entries from previous terms by counting replicas (known bug 21)."""
    leader = figure_8_leader()
    noops = leader.sent(AppendEntries)

    for request in noops:
        holds_entry_2 = append("a", leader.term, (1, 1), entries(2, first=2), to=request.to)
        leader.receive(acknowledge(holds_entry_2))

    assert {p.match_index for p in leader.core.progress.values()} == {2}
    assert leader.core.log.commit_index == 0


def test_an_entry_of_the_current_term_commits_all_before_it() -> None:
    """Paper 5.4.2: once one of the leader's own term is committed so, all prior ones are, indirectly."""
    leader = figure_8_leader()
    noops = leader.sent(AppendEntries)

    leader.receive(*(acknowledge(request) for request in noops[:2]))

    assert leader.core.log.commit_index == 3


def test_entries_keep_the_term_of_the_leader_that_created_them() -> None:
    """Paper 5.4.2: also when a later leader replicates them."""
    cluster = with_logs(FIVE, {"a": (1, 2), "b": (1,), "c": (), "d": (1,), "e": ()})

    elect(cluster, "a")

    assert {tuple(cluster.nodes[id].log_terms) for id in "abcde"} == {(1, 2, 3)}


def test_an_entry_on_a_majority_may_still_be_overwritten_while_it_is_not_committed() -> None:
    """Paper 5.4.2, Figure 8 (c) to (d): this is why it must not be called committed."""
    cluster = with_logs(FIVE, {"a": (1, 2), "b": (1, 2), "c": (1, 2), "d": (1,), "e": (1, 3)})

    cluster.crash("a")
    elect(cluster, "e")

    assert [cluster.nodes[id].log_terms for id in "bcde"] == [[1, 3, 4]] * 4


# 5.4.3 Safety argument


def test_no_server_applies_a_different_entry_at_an_index_that_was_applied() -> None:
    """Paper 5.4.3, State Machine Safety: over three leaders, a crash and a partition."""
    cluster = elected(FIVE)
    propose(cluster, "a", b"one")
    cluster.cuts = {("a", id) for id in "cde"} | {(id, "a") for id in "cde"}
    cluster.at("a", lambda node: node.propose(b"lost"))
    cluster.settle(anything)
    elect(cluster, "c")
    propose(cluster, "c", b"two")
    cluster.cuts = set()
    cluster.run(2_000)
    cluster.crash("c")
    elect(cluster, "e")
    propose(cluster, "e", b"three")

    applied = [cluster.nodes[id].commands for id in "abde"]

    assert applied == [[b"one", b"two", b"three"]] * 4


def test_a_committed_entry_survives_whatever_a_later_message_says() -> None:
    """Paper 5.4.3: it is in the logs of all later leaders, so a sender that conflicts with it is no leader."""
    follower = follower_of("b", 2)
    follower.receive(append("b", 2, new=entries(1, 2), commit=2))

    follower.receive(append("c", 3, (0, 0), entries(3)))

    assert follower.log_terms == [1, 2]
    assert follower.role is Role.FOLLOWER
