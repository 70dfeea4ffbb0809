"""Raft paper, section 7: log compaction. Figures 12 and 13."""

from raft.core.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, InstallSnapshotReply
from raft.core.types import Configuration, HardState, SnapshotMeta
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    acknowledge_all,
    append,
    entries,
    entry,
    follower_of,
    settled_leader,
)
from tests.paper.groups import elected, propose

FOUR = Configuration(("a", "b", "c", "d"))


def snapshot(index: int, term: int, configuration: Configuration = THREE) -> SnapshotMeta:
    return SnapshotMeta(index, term, 0, configuration)


def install(meta: SnapshotMeta, *, sender: str = "b", term: int = 5) -> InstallSnapshot:
    return InstallSnapshot(sender, "a", term, 3, meta)


def holding(*terms: int) -> Replica:
    return follower_of("b", 5, disk=Disk(HardState(5), entries(*terms)))


def test_each_server_takes_snapshots_on_its_own() -> None:
    """Paper 7: independently of the others, of the entries that are committed in its log."""
    cluster = elected()
    propose(cluster, "a", b"x", b"y")

    cluster.at("b", Replica.take_snapshot)

    first = {id: cluster.nodes[id].core.log.first_index for id in "abc"}
    assert first == {"a": 1, "b": 4, "c": 1}


def test_a_snapshot_remembers_the_last_index_and_term_it_replaces_and_the_configuration() -> None:
    """Paper 7: last included index and term, and the latest configuration as of that index."""
    leader = settled_leader()
    leader.configure(FOUR)
    leader.propose(b"x")
    acknowledge_all(leader)

    meta = leader.take_snapshot()

    assert (meta.index, meta.term, meta.configuration) == (3, 1, FOUR)


def test_the_entry_behind_a_snapshot_passes_the_consistency_check() -> None:
    """Paper 7: the last index and term are kept for the AppendEntries check of the first entry that follows."""
    follower = Replica(disk=Disk(HardState(5), snapshot=snapshot(7, 4)))

    follower.receive(append("b", 5, (7, 3), [entry(8, 5)]), append("b", 5, (7, 4), [entry(8, 5)]))

    assert [reply.success for reply in follower.sent(AppendEntriesReply)] == [False, True]


def test_the_log_up_to_a_snapshot_may_be_deleted() -> None:
    """Paper 7: once the snapshot is written, entries through its last index go, and any earlier snapshot."""
    leader = settled_leader()
    leader.propose(b"x")
    acknowledge_all(leader)
    leader.take_snapshot(1)

    leader.take_snapshot(2)

    assert leader.core.log.first_index == 3
    assert leader.core.log.snapshot.index == 2


def lagging() -> tuple[Replica, Replica]:
    """A leader that has discarded what c still needs, and c."""
    leader = settled_leader()
    behind = Replica("c")
    behind.receive(append("a", 1, new=[leader.core.log.entry(1)], to="c")).sent()
    for number in range(5):
        leader.propose(b"%d" % number)
    acknowledge_all(leader, "b")
    leader.take_snapshot()
    return leader, behind


def exchange(leader: Replica, follower: Replica, rounds: int = 20) -> list[type]:
    """Messages to and from this follower; the kinds that the leader sent."""
    kinds = []
    for _ in range(rounds):
        leader.pass_ms(50)
        for message in leader.sent(to=follower.id):
            kinds.append(type(message))
            replies = follower.receive(message).sent()
            if isinstance(message, InstallSnapshot):
                leader.core.snapshot_sent(follower.id, delivered=True, now_ms=leader.now_ms)
            leader.receive(*replies)
    return kinds


def test_a_leader_sends_its_snapshot_to_a_follower_that_lags_too_far() -> None:
    """Paper 7: when it has already discarded the next entry that it would have to send; then entries again."""
    leader, behind = lagging()

    kinds = exchange(leader, behind)
    leader.propose(b"next")
    exchange(leader, behind)

    assert kinds.count(InstallSnapshot) == 1
    assert behind.core.log.snapshot.index == 6
    assert behind.commands == [b"next"]


def test_a_follower_that_keeps_up_is_sent_entries_only() -> None:
    """Paper 7: snapshots are for the exceptionally slow, and for servers that join."""
    leader = settled_leader()
    leader.propose(b"x")
    acknowledge_all(leader)

    leader.take_snapshot()
    leader.propose(b"y")

    assert {type(message) for message in leader.sent()} == {AppendEntries}


def test_a_snapshot_with_new_information_replaces_the_whole_log() -> None:
    """Paper 7: the log is superseded and may hold uncommitted entries that conflict."""
    follower = holding(1, 1, 2, 2)

    follower.receive(install(snapshot(9, 4)))

    assert (follower.core.log.first_index, follower.core.log.last_index) == (10, 9)
    assert follower.disk.entries == []


def test_a_snapshot_of_a_prefix_keeps_the_entries_that_follow() -> None:
    """Paper 7: by retransmission or by mistake; the entries behind it are still valid (Figure 13, step 6)."""
    follower = holding(1, 1, 1)

    follower.receive(install(snapshot(2, 1)))

    assert follower.core.log.entry(3).term == 1
    assert follower.core.log.commit_index == 2


# Figure 13, InstallSnapshot, receiver implementation


def test_figure_13_step_1_an_older_term_is_answered_at_once_and_not_followed() -> None:
    """Paper Figure 13, 1: reply immediately if term < currentTerm."""
    follower = holding(1)

    follower.receive(install(snapshot(9, 4), sender="c", term=4))

    assert follower.core.log.last_index == 1
    assert follower.sent()[0].term == 5


def test_figure_13_step_5_an_older_snapshot_is_discarded() -> None:
    """Paper Figure 13, 5: a snapshot with a smaller index than what is there brings nothing (known bug 41)."""
    follower = holding(1)
    follower.receive(install(snapshot(9, 4)))

    follower.receive(install(snapshot(8, 4)))

    assert follower.core.log.snapshot.index == 9
    assert [reply.match_index for reply in follower.sent(InstallSnapshotReply)] == [9, 9]


def test_figure_13_step_8_the_snapshots_configuration_is_loaded() -> None:
    """Paper Figure 13, 8: reset the state machine, and load the snapshot's cluster configuration."""
    follower = holding(1)

    follower.receive(install(snapshot(9, 4, FOUR)))

    assert follower.core.configuration == FOUR
    assert follower.core.applied_index == 9


def test_an_install_makes_its_sender_the_leader_and_counts_as_hearing_it() -> None:
    """Paper 7 and 5.2: it is a leader's RPC like AppendEntries; the receiver does not time out on it."""
    follower = Replica()
    follower.now_ms += 300

    follower.receive(install(snapshot(9, 4), term=5))

    assert (follower.core.state.leader, follower.term) == ("b", 5)
    assert follower.core.next_deadline_ms() >= follower.now_ms + 400
