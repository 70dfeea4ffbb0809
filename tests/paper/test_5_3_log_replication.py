"""Raft paper, section 5.3: log replication. Figures 6 and 7, and the receiver's rules of Figure 2."""

import pytest

from raft.core.messages import AppendEntries, AppendEntriesReply
from raft.core.types import Configuration, EntryKind, HardState
from tests.core.replica import (
    FIVE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    entries,
    follower_of,
    heartbeat,
    leader_of,
    refuse,
    settled_leader,
)
from tests.paper.groups import anything, elect, elected, logs, propose, with_logs

FIGURE_7_LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


def test_a_command_is_appended_and_sent_to_all_others_at_once() -> None:
    """Paper 5.3: the leader appends the command as a new entry, then issues AppendEntries in parallel."""
    leader = settled_leader(FIVE)

    index = leader.propose(b"x")

    assert leader.core.log.entry(index).data == b"x"
    requests = leader.sent(AppendEntries)
    assert [(r.to, [e.data for e in r.entries]) for r in requests] == [(id, [b"x"]) for id in "bcde"]


def test_the_leader_applies_an_entry_once_it_is_safely_replicated() -> None:
    """Paper 5.3: then, and not before, it applies it and returns the result."""
    leader = settled_leader()
    leader.propose(b"x")
    assert leader.commands == []

    leader.receive(acknowledge(leader.sent(AppendEntries)[0]))

    assert leader.commands == [b"x"]


def test_the_leader_retries_for_ever_even_after_it_has_answered() -> None:
    """Paper 5.3: until all followers store all entries, however slow or lossy the way."""
    leader = settled_leader()
    leader.propose(b"x")
    leader.receive(acknowledge(leader.one_sent(AppendEntries, "b")))
    follower = Replica("c")
    follower.receive(append("a", 1, new=[leader.core.log.entry(1)], to="c")).sent()
    lost = 0

    for _ in range(400):
        leader.pass_ms(25)
        for request in leader.sent(AppendEntries):
            if request.to == "b":
                leader.receive(acknowledge(request))
            elif lost < 100:
                lost += 1
            else:
                leader.receive(*follower.receive(request).sent())

    assert lost == 100
    assert follower.commands == [b"x"]


def test_an_entry_holds_a_command_a_term_and_an_index() -> None:
    """Paper 5.3: what each entry stores (Figure 6)."""
    leader = settled_leader()

    index = leader.propose(b"x")

    entry = leader.core.log.entry(index)
    assert (entry.index, entry.term, entry.kind, entry.data) == (2, 1, EntryKind.COMMAND, b"x")


def test_an_entry_is_committed_once_its_leader_has_it_on_a_majority() -> None:
    """Paper 5.3: the leader that created it has replicated it on a majority of the servers."""
    leader = settled_leader(FIVE)
    leader.propose(b"x")
    requests = leader.sent(AppendEntries)

    leader.receive(acknowledge(requests[0]))
    assert leader.core.log.commit_index == 1
    leader.receive(acknowledge(requests[1]))

    assert leader.core.log.commit_index == 2


def test_committing_an_entry_commits_all_before_it() -> None:
    """Paper 5.3: those of previous leaders included."""
    leader = leader_of(disk=Disk(HardState(3), entries(1, 2, 3)))

    acknowledge_all(leader)

    assert [e.index for e in leader.applied] == [1, 2, 3, 4]


def test_the_leader_tells_the_commit_index_in_appends_and_heartbeats() -> None:
    """Paper 5.3: the highest index known to be committed goes along, so that the others find out."""
    leader = settled_leader()
    leader.propose(b"x")
    acknowledge_all(leader)

    beats = heartbeat(leader)
    leader.propose(b"y")

    assert {beat.leader_commit for beat in beats} == {2}
    assert {request.leader_commit for request in leader.sent(AppendEntries)} == {2}


def test_a_follower_applies_what_it_learns_is_committed_in_log_order() -> None:
    """Paper 5.3."""
    follower = follower_of("b", 1)
    follower.receive(append("b", 1, new=entries(1, 1, 1)))
    assert follower.applied == []

    follower.receive(append("b", 1, (3, 1), commit=2))

    assert [e.index for e in follower.applied] == [1, 2]


def test_entries_with_the_same_index_and_term_are_the_same_and_so_are_all_before() -> None:
    """Paper 5.3, Log Matching: after elections, losses and conflicts."""
    cluster = with_logs(FIVE, {"a": (1,), "b": (1, 1), "c": (1, 2), "d": (1,), "e": (1, 1, 1)})
    for leader in ("c", "a"):
        elect(cluster, leader)
        propose(cluster, leader, b"x", b"y")

    written: dict[tuple[int, int], bytes] = {}
    for node in cluster.nodes.values():
        for index in range(1, node.core.log.last_index + 1):
            entry = node.core.log.entry(index)
            assert written.setdefault((index, entry.term), entry.data) == entry.data
    assert len(set(map(tuple, logs(cluster).values()))) == 1


def test_a_leader_creates_one_entry_per_index_and_never_moves_it() -> None:
    """Paper 5.3: at most one entry with a given index in a term; entries never change their position."""
    leader = settled_leader()

    indexes = [leader.propose(b"%d" % number) for number in range(5)]

    assert indexes == [2, 3, 4, 5, 6]
    assert [leader.core.log.entry(index).data for index in indexes] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_leader_never_overwrites_or_deletes_entries_of_its_own_log() -> None:
    """Paper 5.3, Leader Append-Only (Figure 3): only new entries, whatever the others answer."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, 2)))
    requests = leader.sent(AppendEntries)

    leader.receive(refuse(requests[0], 0, 0), append("b", leader.term, (0, 0), entries(3)))
    leader.propose(b"x")

    assert leader.log_terms == [1, 2, 3, 3]


def test_an_append_names_the_entry_right_before_the_new_ones() -> None:
    """Paper 5.3: its index and term."""
    leader = settled_leader()

    leader.propose(b"x")
    leader.propose(b"y")

    requests = leader.sent(AppendEntries, "b")
    assert [(r.prev_log_index, r.prev_log_term) for r in requests] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("previous", [(3, 1), (2, 2)], ids=["missing", "of another term"])
def test_a_follower_without_that_entry_refuses_the_new_ones(previous: tuple[int, int]) -> None:
    """Paper 5.3, the consistency check (Figure 2, AppendEntries 2)."""
    follower = follower_of("b", 3, disk=Disk(HardState(3), entries(1, 1)))

    follower.receive(append("b", 3, previous, entries(3, first=previous[0] + 1)))

    assert follower.log_terms == [1, 1]
    assert not follower.one_sent(AppendEntriesReply).success


@pytest.mark.parametrize("log", FIGURE_7.values(), ids=FIGURE_7)
def test_the_leader_makes_a_followers_log_equal_to_its_own(log: tuple[int, ...]) -> None:
    """Paper 5.3, Figure 7: conflicting entries are overwritten with those of the leader's log."""
    leader = leader_of(disk=Disk(HardState(7), entries(*FIGURE_7_LEADER)))
    follower = Replica("b", disk=Disk(HardState(7), entries(*log)))

    rpcs = 0
    while follower.log_terms != leader.log_terms:
        for request in leader.sent(AppendEntries, "b"):
            rpcs += 1
            leader.receive(*follower.receive(request).sent())
        assert rpcs < 10

    assert leader.log_terms == [*FIGURE_7_LEADER, 8]
    assert follower.disk.entries == leader.disk.entries


def test_entries_behind_the_last_one_that_agrees_are_deleted_and_replaced() -> None:
    """Paper 5.3: find the latest entry on which the two agree, delete what follows, send what the leader has."""
    follower = follower_of("b", 4, disk=Disk(HardState(4), entries(1, 1, 2, 2)))

    follower.receive(append("b", 4, (2, 1), entries(3, first=3)))

    assert follower.log_terms == [1, 1, 3]


def test_next_index_begins_just_after_the_leaders_last_entry() -> None:
    """Paper 5.3: when a leader first comes to power (before its no-op is appended)."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, 2)))

    assert [r.prev_log_index for r in leader.sent(AppendEntries)] == [2, 2]
    assert leader.core.progress["b"].next_index == 3


def test_a_refusal_moves_next_index_back_and_is_retried() -> None:
    """Paper 5.3: after a rejection the leader decrements nextIndex and retries."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, 1, 2)))
    request = leader.sent(AppendEntries, "b")[0]

    leader.receive(refuse(request, 2, 1))

    retry = leader.one_sent(AppendEntries, "b")
    assert retry.prev_log_index == 2 < request.prev_log_index


def test_a_whole_conflicting_term_is_skipped_with_one_refusal() -> None:
    """Paper 5.3, the optimisation: one AppendEntries per conflicting term instead of one per entry."""
    leader = leader_of(disk=Disk(HardState(4), entries(1, *[4] * 20)))
    follower = Replica("b", disk=Disk(HardState(4), entries(1, *[2] * 10, *[3] * 10)))

    refusals = 0
    while follower.log_terms != leader.log_terms:
        for request in leader.sent(AppendEntries, "b"):
            replies = follower.receive(request).sent()
            refusals += sum(not reply.success for reply in replies)
            leader.receive(*replies)

    assert refusals <= 2


def test_nothing_special_is_done_when_a_leader_comes_to_power() -> None:
    """Paper 5.3: logs converge by the consistency check alone, all six of Figure 7 at once."""
    everyone = Configuration(("L", *FIGURE_7))
    cluster = with_logs(everyone, {"L": FIGURE_7_LEADER, **FIGURE_7})

    elect(cluster, "L")
    cluster.settle(anything)

    assert set(map(tuple, logs(cluster).values())) == {(*FIGURE_7_LEADER, 8)}


def test_a_slow_minority_does_not_slow_the_rest() -> None:
    """Paper 5.3: a single slow follower has no impact on performance."""
    cluster = elected(FIVE)
    cluster.cuts = {("a", "d"), ("a", "e")}

    propose(cluster, "a", b"x")

    assert cluster.nodes["a"].commands == [b"x"]
    assert cluster.nodes["b"].commands == [b"x"]


# Figure 2, AppendEntries, receiver implementation


def test_figure_2_step_1_an_older_term_is_answered_false() -> None:
    """Paper Figure 2, AppendEntries 1: reply false if term < currentTerm."""
    follower = follower_of("b", 3)

    follower.receive(append("c", 2))

    assert not follower.one_sent(AppendEntriesReply).success


def test_figure_2_step_3_a_conflicting_entry_is_deleted_with_all_that_follow() -> None:
    """Paper Figure 2, AppendEntries 3: same index, different term."""
    follower = follower_of("b", 3, disk=Disk(HardState(3), entries(1, 2, 2)))

    follower.receive(append("b", 3, (0, 0), entries(1, 3)))

    assert follower.log_terms == [1, 3]


def test_figure_2_step_4_only_entries_not_already_there_are_appended() -> None:
    """Paper Figure 2, AppendEntries 4."""
    follower = follower_of("b", 3, disk=Disk(HardState(3), entries(1, 2)))
    written = list(follower.disk.entries)

    follower.receive(append("b", 3, (0, 0), entries(1, 2, 3)))

    assert follower.log_terms == [1, 2, 3]
    assert follower.disk.entries[:2] == written


def test_figure_2_step_5_the_commit_index_is_bounded_by_the_last_new_entry() -> None:
    """Paper Figure 2, AppendEntries 5: min(leaderCommit, index of last new entry)."""
    follower = follower_of("b", 3, disk=Disk(HardState(3), entries(1, 2, 2)))

    follower.receive(append("b", 3, (1, 1), commit=3))

    assert follower.core.log.commit_index == 1
