"""Appends received and answered: what truncates, what commits, what is refused and with which hint (paper 5.3)."""

import pytest

from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVote
from raft.core.types import Configuration, HardState, SnapshotMeta
from tests.core.replica import (
    FIVE,
    THREE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    entries,
    entry,
    follower_of,
    heartbeat,
    leader_of,
    refuse,
    settled_leader,
    vote_reply,
)


def holding(*terms: int, term: int = 5, snapshot: SnapshotMeta | None = None) -> Replica:
    """A follower of b in `term` whose log holds these terms."""
    first = 1 if snapshot is None else snapshot.index + 1
    return follower_of("b", term, disk=Disk(HardState(term), entries(*terms, first=first), snapshot))


# What truncates


def test_a_conflicting_entry_and_all_behind_it_are_replaced() -> None:
    """Paper Figure 2, step 3."""
    follower = holding(1, 2, 2, 2)

    follower.receive(append("b", 5, (1, 1), entries(4, first=2)))

    assert follower.log_terms == [1, 4]


def test_an_append_that_ends_before_the_log_does_shortens_nothing() -> None:
    """known bug 22: reordered and repeated messages (openraft 9540c904, hashicorp 0f31a01)."""
    follower = holding(1, 2, 3)

    follower.receive(append("b", 5, (1, 1), entries(2, first=2)))
    follower.receive(append("b", 5, (0, 0)))

    assert follower.log_terms == [1, 2, 3]


def test_a_refused_append_shortens_nothing() -> None:
    """known bug 22: only a real conflict between entries does."""
    follower = holding(1, 2, 3)

    follower.receive(append("b", 5, (3, 4)), append("b", 5, (9, 4)))

    assert follower.log_terms == [1, 2, 3]


def test_an_append_of_an_older_term_changes_nothing() -> None:
    """known bug 22: a deposed leader's message, long under way."""
    follower = holding(1, 2, 3)

    follower.receive(append("c", 4, (1, 1), entries(4, first=2)))

    assert follower.log_terms == [1, 2, 3]
    reply = follower.one_sent(AppendEntriesReply)
    assert (reply.success, reply.term) == (False, 5)


def test_the_same_append_twice_is_acknowledged_twice() -> None:
    """Paper 5.5: RPCs are idempotent."""
    follower = holding(1)
    request = append("b", 5, (1, 1), entries(5, 5, first=2))

    follower.receive(request, request)

    assert follower.log_terms == [1, 5, 5]
    assert [reply.match_index for reply in follower.sent(AppendEntriesReply)] == [3, 3]


# What commits


def test_a_follower_commits_only_what_this_append_verified() -> None:
    """known bug 24: min(leaderCommit, last entry verified), not min(leaderCommit, last entry)."""
    follower = holding(1, 2, 2, 2)

    follower.receive(append("b", 5, (1, 1), commit=4))

    assert follower.core.log.commit_index == 1


def test_a_heartbeat_with_a_high_commit_index_commits_no_garbage() -> None:
    """known bug 25: etcd's lagging_commit; the tail is a dead leader's."""
    follower = holding(1, 1, 4, 4)

    follower.receive(append("b", 5, (2, 1), commit=99))

    assert follower.core.log.commit_index == 2
    assert [e.index for e in follower.applied] == [1, 2]


def test_a_commit_index_that_is_behind_takes_nothing_back() -> None:
    """Reordered heartbeats."""
    follower = holding(1, 1, 1)
    follower.receive(append("b", 5, (3, 1), commit=3))

    follower.receive(append("b", 5, (3, 1), commit=1), append("b", 5, (0, 0), commit=2))

    assert follower.core.log.commit_index == 3


def test_the_commit_index_travels_with_entries_or_alone() -> None:
    """Paper 5.3: also in heartbeats; here at once, in a message of its own, since no entries are waiting."""
    leader = settled_leader()
    leader.propose(b"x")
    requests = leader.sent(AppendEntries)

    leader.receive(acknowledge(requests[0]))

    notices = leader.sent(AppendEntries)
    assert [(n.to, n.leader_commit, n.entries) for n in notices] == [("b", 2, ())]
    leader.receive(acknowledge(requests[1]))
    assert [n.to for n in leader.sent(AppendEntries)] == ["c"]


def test_a_heartbeat_is_sent_at_a_point_where_the_logs_are_equal() -> None:
    """It cannot be refused for its position, so an answer never rewinds anything (known bug 29)."""
    leader = settled_leader()
    leader.propose(b"x")
    acknowledge_all(leader, "b")

    assert {h.to: h.prev_log_index for h in heartbeat(leader)} == {"b": 2, "c": 1}


def test_only_entries_of_the_own_term_are_committed_by_counting() -> None:
    """known bug 21: Figure 8; here an entry of term 1 stands on all five and is not committed by that."""
    leader = leader_of(FIVE, disk=Disk(HardState(1), entries(1)))
    noops = leader.sent(AppendEntries)

    for request in noops:
        reply = AppendEntriesReply(request.to, "a", request.term, request.sequence, True, match_index=1)
        leader.receive(reply)

    assert leader.core.log.commit_index == 0
    leader.receive(*map(acknowledge, noops[:2]))
    assert leader.core.log.commit_index == 2


def test_a_learner_counts_in_no_commit() -> None:
    """Thesis 4.2.1."""
    leader = settled_leader(Configuration(("a", "b", "c"), ("l", "m", "n")))
    leader.propose(b"x")

    acknowledge_all(leader, "l", "m", "n")

    assert leader.core.log.commit_index == 1


def test_an_acknowledgement_of_another_term_counts_for_nothing() -> None:
    """known bugs 5 and 28: it was given to this node's earlier leadership, before it lost entries."""
    leader = settled_leader()
    leader.propose(b"lost")
    old = leader.sent(AppendEntries)
    leader.receive(append("c", 2, (1, 1), [entry(2, 2)]))
    again = leader_of(disk=leader.disk)
    acknowledge_all(again)
    again.propose(b"x")

    again.receive(*map(acknowledge, old))

    assert again.core.log.commit_index == 3


# Compacted away


def test_a_previous_entry_that_is_compacted_is_no_conflict() -> None:
    """known bug 23: openraft#511 deleted the whole log."""
    follower = holding(2, 2, snapshot=SnapshotMeta(5, 1, 0, THREE))

    follower.receive(append("b", 5, (3, 1), [*entries(1, 1, first=4), *entries(2, 2, 5, first=6)]))

    assert follower.log_terms == [2, 2, 5]
    assert follower.one_sent(AppendEntriesReply).match_index == 8


def test_an_append_that_lies_wholly_in_the_snapshot_is_acknowledged_as_far_as_it_goes() -> None:
    """known bug 23: late messages after an install."""
    follower = holding(2, 2, snapshot=SnapshotMeta(5, 1, 0, THREE))

    follower.receive(append("b", 5, (1, 1), entries(1, 1, first=2)))

    assert follower.log_terms == [2, 2]
    assert follower.one_sent(AppendEntriesReply).match_index == 3


def test_the_entry_right_behind_the_snapshot_is_checked_against_the_snapshots_term() -> None:
    """Paper 7: that is what the last included term is kept for."""
    follower = holding(snapshot=SnapshotMeta(5, 3, 0, THREE))

    follower.receive(append("b", 5, (5, 3), [entry(6, 5)]))

    assert follower.log_terms == [5]


# Refusals and back-up


def test_a_follower_with_a_short_log_says_where_it_ends() -> None:
    """Thesis 4.2.1: one round instead of one per missing entry."""
    follower = holding(1, 1)

    follower.receive(append("b", 5, (9, 4)))

    reply = follower.one_sent(AppendEntriesReply)
    assert (reply.success, reply.rejected_index, reply.hint_index, reply.hint_term) == (False, 9, 2, 1)


def test_a_follower_with_a_later_term_there_names_the_last_entry_that_can_match() -> None:
    """Paper 5.3: all entries of the conflicting term are skipped at once."""
    follower = holding(1, 1, 4, 4, 4)

    follower.receive(append("b", 5, (5, 2)))

    reply = follower.one_sent(AppendEntriesReply)
    assert (reply.hint_index, reply.hint_term) == (2, 1)


def meet(leader: Replica, follower: Replica, rpcs_max: int) -> int:
    """Let the two exchange messages until the follower holds the leader's log; how many appends it took."""
    rpcs = 0
    while (
        follower.core.log.last_index != leader.core.log.last_index or follower.log_terms != leader.log_terms
    ):
        requests = leader.sent(AppendEntries, follower.id)
        assert requests and rpcs <= rpcs_max, f"not equal after {rpcs} appends"
        rpcs += len(requests)
        for request in requests:
            leader.receive(*follower.receive(request).sent())
    return rpcs


def test_a_divergent_suffix_of_a_thousand_entries_is_found_in_a_few_rounds() -> None:
    """known bug 30 (openraft 6d53aa12): more than 50 inconsistent entries were a livelock."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, *[2] * 1000)))
    follower = Replica("b", disk=Disk(HardState(2), entries(1, *[1] * 1000)))

    assert meet(leader, follower, rpcs_max=6) <= 6


def test_sixty_alternating_terms_are_found_in_as_many_rounds_at_most() -> None:
    """known bug 29: every probe skips at least one term of one of the two logs."""
    leader = leader_of(disk=Disk(HardState(61), entries(*range(1, 62, 2))))
    follower = Replica("b", disk=Disk(HardState(61), entries(1, *range(2, 61, 2))))

    assert meet(leader, follower, rpcs_max=62) <= 62


def test_stale_refusals_do_not_rewind_a_peer_that_is_known_to_match() -> None:
    """known bug 29 (openraft fbbf37b1, CCF#3723): duplicated and late refusals."""
    leader = settled_leader()
    leader.propose(b"x")
    request = leader.one_sent(AppendEntries, "b")
    leader.receive(acknowledge(request))
    leader.sent()

    for _ in range(5):
        leader.receive(refuse(request, 0, 0))

    assert leader.core.progress["b"].next_index == 3
    assert leader.sent(to="b") == []


def test_a_refusal_that_overtakes_nothing_is_answered_with_one_probe() -> None:
    """A duplicated refusal must not double the probes."""
    leader = leader_of(disk=Disk(HardState(1), entries(1, 1, 1, 1)))
    request = leader.sent(AppendEntries, "b")[0]

    leader.receive(refuse(request, 2, 1), refuse(request, 2, 1), refuse(request, 2, 1))

    assert [p.prev_log_index for p in leader.sent(AppendEntries, "b")] == [2]


def test_hints_that_lie_cannot_move_the_probe_below_what_is_proven_or_above_what_is_refused() -> None:
    """Whatever a peer answers, the search goes down and ends."""
    leader = settled_leader()
    for _ in range(5):
        leader.propose(b"x")
    leader.core.peer_lost("b", leader.now_ms)
    leader.drain()
    seen = []

    for hint in (99, 50, 0, 0):
        probes = leader.sent(AppendEntries, "b")
        if not probes:
            break
        seen.append(probes[-1].prev_log_index)
        leader.receive(refuse(probes[-1], hint, 9))

    assert all(1 <= index <= 6 for index in seen)
    assert leader.core.progress["b"].next_index >= 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_commit_needs_a_majority_of_the_voters_and_no_more(size: int) -> None:
    """known bug 31: every group size, the leader's own copy included."""
    voters = ("a", "b", "c", "d", "e", "f", "g")[:size]
    leader = Replica(configuration=Configuration(voters), pre_vote=False)
    leader.time_out()
    for request in leader.sent(RequestVote):
        leader.receive(vote_reply(request))
    others = leader.sent(AppendEntries)
    needed = size // 2

    for number in range(needed):
        assert leader.core.log.commit_index == 0
        leader.receive(acknowledge(others[number]))

    assert leader.core.log.commit_index == 1


def test_a_commit_index_is_heard_of_although_the_entries_before_it_are_missing() -> None:
    """How far behind it is, a node must know before it has been sent what it lacks."""
    follower = follower_of("b", 5)

    follower.receive(append("b", 5, (900, 5), commit=900))

    assert 900 == follower.core.status().heard_commit_index
    assert 0 == follower.core.status().commit_index
