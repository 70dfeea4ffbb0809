"""Snapshots as the core sees them: when one is sent, installed, refused or kept beside the log (paper 7)."""

from raft.core import snapshotting
from raft.core.membership import encode_configuration
from raft.core.messages import AppendEntries, InstallSnapshot, InstallSnapshotReply
from raft.core.progress import ProgressState
from raft.core.types import Configuration, EntryKind, HardState, SnapshotMeta
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
)

FOUR = Configuration(("a", "b", "c", "d"))


def install(index: int, term: int, *, sender: str = "b", in_term: int = 5, **options) -> InstallSnapshot:
    configuration = options.get("configuration", THREE)
    return InstallSnapshot(sender, "a", in_term, 9, SnapshotMeta(index, term, 0, configuration))


def holding(*terms: int, commit: int = 0) -> Replica:
    follower = follower_of("b", 5, disk=Disk(HardState(5), entries(*terms)))
    if commit:
        follower.receive(append("b", 5, (commit, terms[commit - 1]), commit=commit))
        follower.sent()
    return follower


def compacted_leader(**options) -> Replica:
    """A leader of a, b, c that has forgotten what b lacks: b holds 1, the log begins at 3."""
    leader = settled_leader(**options)
    leader.propose(b"lost on its way to b")
    acknowledge_all(leader, "c")
    leader.take_snapshot()
    leader.sent()
    return leader


def offer(leader: Replica) -> InstallSnapshot:
    """Let b be found to lack what is gone; the snapshot that it is sent."""
    leader.core.peer_lost("b", leader.now_ms)
    leader.drain()
    return leader.one_sent(InstallSnapshot, "b")


# Received


def test_an_older_snapshot_is_acknowledged_with_what_is_committed_here() -> None:
    """known bug 41 (hashicorp#248, NuRaft#407): late and repeated messages set nothing back."""
    follower = holding(1, 1, 1, commit=3)

    follower.receive(install(2, 1), install(3, 1))

    assert follower.log_terms == [1, 1, 1]
    assert [reply.match_index for reply in follower.sent(InstallSnapshotReply)] == [3, 3]


def test_a_snapshot_of_a_prefix_of_the_log_keeps_what_follows() -> None:
    """Paper 7: those entries are still valid; only the commit index moves."""
    follower = holding(1, 1, 1, 1)

    follower.receive(install(2, 1))

    assert follower.log_terms == [1, 1, 1, 1]
    assert follower.core.log.commit_index == 2
    assert follower.one_sent(InstallSnapshotReply).match_index == 2


def test_a_snapshot_whose_last_entry_conflicts_replaces_the_whole_log() -> None:
    """known bug 42 (hashicorp#697): keeping the conflicting entry meant installing again and again."""
    follower = holding(1, 1, 4, 4)

    follower.receive(install(3, 2))

    assert (follower.core.log.first_index, follower.core.log.last_index) == (4, 3)
    assert follower.disk.entries == []
    assert follower.core.log.term_at(3) == 2


def test_a_snapshot_at_a_committed_index_is_not_installed_whatever_its_term() -> None:
    """known bug 51 (openraft ac3e5a89): what is committed here never changes."""
    follower = holding(1, 1, 1, commit=3)

    follower.receive(install(3, 4))

    assert follower.log_terms == [1, 1, 1]
    assert follower.core.log.snapshot.index == 0


def test_a_snapshot_brings_its_configuration() -> None:
    """known bug 46: the entries that said so are not in the log."""
    follower = holding(1)

    follower.receive(install(9, 4, configuration=FOUR))

    assert follower.core.configuration == FOUR
    follower.restart()
    assert follower.core.configuration == FOUR


def test_a_snapshot_takes_back_an_uncommitted_change_in_the_log_it_replaces() -> None:
    """known bugs 46 and 82."""
    change = entry(2, 1, encode_configuration(FOUR), EntryKind.CONFIGURATION)
    follower = follower_of("b", 5, disk=Disk(HardState(5), [entry(1, 1), change]))
    assert follower.core.configuration == FOUR

    follower.receive(install(9, 4))

    assert follower.core.configuration == THREE


def test_appends_go_on_behind_an_installed_snapshot() -> None:
    """Paper 7: the last included index and term serve the next consistency check."""
    follower = holding(1)
    follower.receive(install(9, 4))

    follower.receive(append("b", 5, (9, 4), entries(5, first=10), commit=10))

    assert [e.index for e in follower.applied] == [10]


def test_an_append_sent_before_the_install_changes_nothing() -> None:
    """known bug 43: it arrives late, and lies in the snapshot."""
    follower = holding(1)
    follower.receive(install(9, 4))

    follower.receive(append("b", 5, (1, 1), entries(3, 3, first=2)))

    assert (follower.core.log.first_index, follower.core.log.last_index) == (10, 9)


def test_a_snapshot_of_an_older_term_is_refused() -> None:
    """Paper Figure 13, step 1."""
    follower = holding(1)

    follower.receive(install(9, 4, sender="c", in_term=4))

    assert follower.core.log.last_index == 1


def test_the_driver_is_told_whether_a_snapshot_is_worth_fetching() -> None:
    """known bug 41: not for one that would not be installed."""
    follower = holding(1, 1, 1, commit=2)

    assert snapshotting.would_install(follower.core, install(3, 4))
    assert not snapshotting.would_install(follower.core, install(2, 1))
    assert not snapshotting.would_install(follower.core, install(9, 4, in_term=4))


# Sent


def test_a_peer_that_needs_what_is_compacted_is_sent_the_snapshot() -> None:
    """Paper 7; and no entries meanwhile."""
    leader = compacted_leader()

    snapshot = offer(leader)

    assert snapshot.snapshot.index == 2
    leader.propose(b"x")
    assert [request.to for request in leader.sent(AppendEntries)] == ["c"]


def test_a_peer_that_is_sent_a_snapshot_still_gets_heartbeats() -> None:
    """known bug 44: storing it may take longer than an election timeout."""
    leader = compacted_leader()
    offer(leader)

    assert {request.to for request in heartbeat(leader)} == {"b", "c"}


def test_entries_follow_when_the_snapshot_is_acknowledged() -> None:
    leader = compacted_leader()
    snapshot = offer(leader)
    leader.propose(b"x")
    leader.sent()

    leader.receive(InstallSnapshotReply("b", "a", leader.term, snapshot.sequence, 2))

    request = leader.sent(AppendEntries, "b")[-1]
    assert (request.prev_log_index, [e.index for e in request.entries]) == (2, [3])


def test_an_acknowledged_append_may_end_a_snapshot_too() -> None:
    """known bug 45: etcd's snapshot_succeed_via_app_resp; the entries had arrived after all."""
    leader = compacted_leader()
    offer(leader)

    leader.receive(acknowledge(append("a", leader.term, (2, 1), to="b", sequence=leader.core.last_sequence)))

    assert leader.core.progress["b"].state is not ProgressState.SNAPSHOT


def test_a_stale_refusal_does_not_bring_the_snapshot_back() -> None:
    """known bug 45 (cockroach#106793)."""
    leader = compacted_leader()
    snapshot = offer(leader)
    leader.receive(InstallSnapshotReply("b", "a", leader.term, snapshot.sequence, 2))
    acknowledge_all(leader)

    leader.receive(refuse(append("a", leader.term, (2, 1), to="b"), 0, 0))

    assert leader.sent(InstallSnapshot) == []
    assert leader.core.progress["b"].state is ProgressState.REPLICATE


def test_a_snapshot_that_could_not_be_sent_is_sent_again() -> None:
    """known bug 40: nothing may stop replication silently."""
    leader = compacted_leader()
    offer(leader)

    leader.core.snapshot_sent("b", delivered=False, now_ms=leader.now_ms)
    leader.drain()

    assert len(leader.sent(InstallSnapshot, "b")) == 1


def test_a_report_about_a_peer_that_is_gone_is_ignored() -> None:
    """It was removed, or this node leads no more, while the data was streaming."""
    leader = compacted_leader()
    offer(leader)
    leader.receive(append("c", leader.term + 1, (2, 1)))

    leader.core.snapshot_sent("b", delivered=True, now_ms=leader.now_ms)
    leader.core.snapshot_sent("x", delivered=False, now_ms=leader.now_ms)

    assert leader.core.progress == {}


def test_an_acknowledged_snapshot_counts_as_a_copy() -> None:
    """It is durable at the follower up to there (paper 5.3's matchIndex)."""
    leader = leader_of(FIVE, disk=Disk(HardState(1), entries(1, 1)))
    for request in leader.sent(AppendEntries)[:1]:
        leader.receive(acknowledge(request))

    leader.receive(InstallSnapshotReply("c", "a", leader.term, leader.core.last_sequence, 3))

    assert leader.core.log.commit_index == 3


def test_an_idle_leader_compacted_to_its_end_feeds_a_new_server_by_snapshot() -> None:
    """known bug 49 (openraft afd6508b): a log that is wholly purged."""
    leader = settled_leader()
    leader.take_snapshot()

    leader.configure(Configuration(("a", "b", "c"), ("d",)))
    sent = leader.sent(to="d")
    for _ in range(2):
        leader.receive(*(refuse(probe, 0, 0) for probe in sent))
        sent = leader.sent(to="d")

    assert [message.snapshot.index for message in sent] == [1]


# Taken


def test_compaction_goes_on_with_every_newer_snapshot() -> None:
    """known bug 48: the trigger is the driver's; here, that the core never refuses the next one."""
    leader = settled_leader()

    for number in range(2, 8):
        leader.propose(b"x")
        acknowledge_all(leader)
        leader.take_snapshot()
        assert leader.core.log.first_index == number + 1


def test_an_own_snapshot_that_a_leaders_overtook_is_ignored() -> None:
    """known bug 41: it was being written while the newer one was installed."""
    follower = holding(1, 1, commit=2)
    own = snapshotting.meta_at(follower.core, 2, 0)
    follower.receive(install(9, 4))

    follower.core.snapshot_taken(own, 3)

    assert follower.core.log.snapshot.index == 9
    assert follower.core.log.first_index == 10


def test_a_snapshot_is_labelled_with_term_and_configuration_of_its_index() -> None:
    """Paper 7; known bug 46: a later, uncommitted change is not in it."""
    change = entry(3, 2, encode_configuration(FOUR), EntryKind.CONFIGURATION)
    follower = follower_of("b", 5, disk=Disk(HardState(5), [*entries(1, 1), change]))
    follower.receive(append("b", 5, (2, 1), commit=2))

    assert snapshotting.meta_at(follower.core, 2, 70) == SnapshotMeta(2, 1, 70, THREE)


def test_a_restart_from_a_snapshot_knows_what_is_applied_and_compacted() -> None:
    """Thesis 3.8: everything up to it is committed and applied."""
    node = Replica(disk=Disk(HardState(4), entries(3, first=8), SnapshotMeta(7, 3, 0, FOUR)))

    assert (node.core.log.commit_index, node.core.applied_index) == (7, 7)
    assert node.core.configuration == FOUR
    assert node.core.log.first_index == 8
