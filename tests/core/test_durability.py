"""Completions of the disk: what they prove and what they no longer do (known bugs 3, 4, 26, 33)."""

import pytest

from raft.core.messages import AppendEntries, InstallSnapshot
from raft.core.types import HardState, SnapshotMeta
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    acknowledge,
    append,
    entries,
    entry,
    follower_of,
    settled_leader,
    vote_request,
)


def slow_follower(*terms: int) -> Replica:
    """A follower of b in term 1 whose disk answers only when told."""
    follower = follower_of("b", 1, disk=Disk(HardState(1), entries(*terms)))
    follower.disk_holds = True
    return follower


def test_a_completion_of_replaced_entries_proves_nothing() -> None:
    """known bug 33: the write is on disk and the entry is not the one that stands there now."""
    follower = slow_follower(1)
    follower.receive(append("b", 1, (1, 1), entries(1, 1, first=2)))
    follower.receive(append("c", 2, (1, 1), entries(2, first=2)))

    follower.sync(1)

    assert follower.core.log.durable_index == 1


def test_the_same_entry_written_three_times_is_durable_with_the_third() -> None:
    """known bug 33, the ABA of etcd's async_storage_writes_append_aba_race: index and term are the old ones."""
    follower = slow_follower(1)
    old = entries(2, first=2)
    follower.receive(append("b", 2, (1, 1), old))
    follower.receive(append("c", 3, (1, 1), entries(3, first=2)))
    follower.receive(append("d", 4, (1, 1), old))
    assert follower.log_terms == [1, 2]

    follower.sync(1)
    assert follower.core.log.durable_index == 1
    follower.sync(1)
    assert follower.core.log.durable_index == 1
    follower.sync(1)

    assert follower.core.log.durable_index == 2
    assert follower.disk.entries == list(entries(1)) + list(old)


def test_the_part_of_a_write_that_no_later_one_replaces_is_durable() -> None:
    follower = slow_follower(1)
    follower.receive(append("b", 1, (1, 1), entries(1, 1, 1, first=2)))
    follower.receive(append("c", 2, (2, 1), entries(2, first=3)))

    follower.sync(1)

    assert follower.core.log.durable_index == 2


def test_a_replacement_that_was_not_handed_out_yet_counts_too() -> None:
    """The truncation stands in memory only; the disk will be told next."""
    follower = slow_follower(1)
    follower.receive(append("b", 1, (1, 1), entries(1, 1, first=2)))
    follower.core.receive(append("c", 2, (1, 1), entries(2, first=2)), follower.now_ms)

    first_write = follower._writes[0][0]
    follower.core.persisted(first_write, follower.now_ms)

    assert follower.core.log.durable_index == 1


def test_a_completion_of_entries_under_a_snapshot_that_replaces_the_log_proves_nothing() -> None:
    """known bugs 42 and 43: the log on disk is not the log in memory until the snapshot is stored."""
    follower = slow_follower(1)
    follower.receive(append("b", 1, (1, 1), entries(1, 1, first=2)))
    follower.receive(InstallSnapshot("b", "a", 1, 2, SnapshotMeta(9, 1, 0, THREE)))

    follower.sync(1)
    assert follower.core.log.durable_index == 0
    follower.sync(1)

    assert follower.core.log.durable_index == 9


def test_two_snapshots_in_a_row_are_durable_with_the_second() -> None:
    """known bug 43: etcd#18055 panicked."""
    follower = slow_follower(1)
    for sequence, index in ((2, 9), (3, 20)):
        follower.receive(InstallSnapshot("b", "a", 1, sequence, SnapshotMeta(index, 1, 0, THREE)))

    follower.sync(1)
    assert follower.core.log.durable_index == 0
    follower.sync(1)

    assert follower.core.log.durable_index == 20
    assert follower.core.applied_index == 20


def test_two_snapshots_before_one_ready_are_stored_once() -> None:
    """Only the newer one is of any use."""
    follower = follower_of("b", 1)
    for sequence, index in ((2, 9), (3, 20)):
        message = InstallSnapshot("b", "a", 1, sequence, SnapshotMeta(index, 1, 0, THREE))
        follower.core.receive(message, follower.now_ms)

    ready = follower.core.take_ready()

    assert ready.persist is not None and ready.persist.snapshot is not None
    assert ready.persist.snapshot.index == 20


def test_entries_behind_a_new_snapshot_go_into_the_same_write() -> None:
    """raft/core/ready.py: the snapshot is written before the entries."""
    follower = follower_of("b", 1)
    snapshot = SnapshotMeta(9, 1, 0, THREE)
    follower.core.receive(InstallSnapshot("b", "a", 1, 2, snapshot), follower.now_ms)
    follower.core.receive(append("b", 1, (9, 1), entries(1, first=10)), follower.now_ms)

    persist = follower.core.take_ready().persist

    assert persist is not None
    assert (persist.snapshot, [e.index for e in persist.entries]) == (snapshot, [10])


def test_a_leaders_completion_that_comes_after_its_deposition_commits_nothing() -> None:
    """known bug 6's neighbour: role and term may have changed while the disk worked."""
    leader = settled_leader()
    leader.disk_holds = True
    leader.propose(b"x")
    leader.receive(acknowledge(leader.one_sent(AppendEntries, "b")))
    leader.core.receive(append("c", 2, (1, 1)), leader.now_ms)

    leader.sync()

    assert leader.core.log.commit_index == 1


def test_a_vote_that_is_durable_too_late_wins_nothing() -> None:
    """The candidate moved on to a later term while its vote was being written."""
    node = Replica(pre_vote=False)
    node.disk_holds = True
    node.time_out()
    node.receive(vote_request("b", 5))

    node.sync()

    assert not node.leads
    assert node.disk.hard_state == HardState(5, "b")


def test_completions_may_be_reported_for_several_writes_at_once() -> None:
    """One fsync for many writes: the last one's completion stands for all (group commit)."""
    follower = slow_follower()
    for index in (1, 2, 3):
        follower.receive(append("b", 1, (index - 1, 1 if index > 1 else 0), [entry(index, 1)]))
    last = [persist for persist, _ in follower._writes if persist is not None][-1]

    follower.core.persisted(last, follower.now_ms)

    assert follower.core.log.durable_index == 3
    assert follower.core.oldest_persist_ms is None


def test_a_completion_of_a_write_that_was_never_ordered_is_a_bug_of_ours() -> None:
    node = Replica()
    other = slow_follower()
    other.receive(append("b", 1, new=entries(1)))
    foreign = other._writes[0][0]

    with pytest.raises(IndexError):
        node.core.persisted(foreign, node.now_ms)


def test_how_long_the_disk_owes_an_answer_is_known() -> None:
    """known bug 38: what CheckQuorum's twin for the disk looks at."""
    leader = settled_leader()
    assert leader.core.oldest_persist_ms is None
    leader.disk_holds = True
    leader.propose(b"x")
    ordered_ms = leader.now_ms
    leader.pass_ms(30)
    leader.propose(b"y")

    assert leader.core.oldest_persist_ms == ordered_ms
    leader.sync(1)
    assert leader.core.oldest_persist_ms == ordered_ms + 30


def test_nothing_is_written_twice() -> None:
    """Hard state and entries are handed out once."""
    follower = follower_of("b", 1)

    follower.receive(append("b", 1, new=entries(1)))

    assert not follower.core.take_ready()
