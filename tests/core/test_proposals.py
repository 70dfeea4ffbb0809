"""What a leader takes into its log, and when it says no."""

import pytest

from raft.core.errors import NotLeading, TooMuchUncommitted
from raft.core.messages import AppendEntries
from raft.core.types import EntryKind
from tests.core.replica import (
    acknowledge,
    acknowledge_all,
    append,
    entry,
    follower_of,
    leader_of,
    settled_leader,
)


def test_a_batch_takes_consecutive_places() -> None:
    """The driver places many clients' commands by the first one's index."""
    leader = settled_leader()

    first = leader.core.propose((b"x", b"y", b"z"), leader.now_ms)

    assert first == 2
    assert [leader.core.log.entry(first + i).data for i in range(3)] == [b"x", b"y", b"z"]


def test_an_empty_batch_appends_nothing() -> None:
    """A peer may forward none; that must not bring the leader down."""
    leader = settled_leader()

    leader.propose()

    assert leader.core.log.last_index == 1


def test_whoever_does_not_lead_refuses() -> None:
    """Paper 5.1: a follower sends the client on; nothing was appended."""
    follower = follower_of("b")

    for propose in (lambda: follower.propose(b"x"), lambda: follower.core.propose_advance(follower.now_ms)):
        with pytest.raises(NotLeading):
            propose()
    assert follower.core.log.last_index == 0


def test_the_uncommitted_tail_is_bounded() -> None:
    """known bug 35 (etcd#10167): proposals without a quorum must not eat the memory."""
    leader = settled_leader(uncommitted_bytes_max=100)
    leader.propose(b"x" * 60)

    with pytest.raises(TooMuchUncommitted):
        leader.propose(b"x" * 41)

    leader.propose(b"x" * 40)
    assert leader.core.uncommitted_bytes == 100


def test_a_refused_batch_is_refused_as_a_whole() -> None:
    """Half a batch would be placed where its clients do not look."""
    leader = settled_leader(uncommitted_bytes_max=100)
    leader.propose(b"x" * 60)

    with pytest.raises(TooMuchUncommitted):
        leader.propose(b"x" * 30, b"x" * 30)

    assert leader.core.log.last_index == 2


def test_the_first_proposal_always_fits() -> None:
    """Otherwise a command larger than the bound could never be replicated."""
    leader = settled_leader(uncommitted_bytes_max=10)

    leader.propose(b"x" * 50)

    with pytest.raises(TooMuchUncommitted):
        leader.propose(b"x")


def test_what_commits_makes_room() -> None:
    leader = settled_leader(uncommitted_bytes_max=100)
    leader.propose(b"x" * 100)

    acknowledge_all(leader)

    assert leader.core.uncommitted_bytes == 0
    leader.propose(b"x" * 100)


def test_a_new_leader_counts_what_earlier_terms_left_uncommitted() -> None:
    """The bound is on the log, not on one leadership."""
    node = follower_of("b", 1, uncommitted_bytes_max=100)
    node.receive(append("b", 1, new=[entry(1, 1, b"x" * 50), entry(2, 1, b"x" * 50)]))

    leader = leader_of(disk=node.disk, uncommitted_bytes_max=100)

    assert leader.core.uncommitted_bytes == 100
    with pytest.raises(TooMuchUncommitted):
        leader.propose(b"x")


def test_a_deposed_leader_owes_nothing() -> None:
    """The counter must not refuse a later leadership's writes."""
    leader = settled_leader(uncommitted_bytes_max=100)
    leader.propose(b"x" * 100)

    leader.receive(append("b", leader.term + 1, (1, 1)))

    assert leader.core.uncommitted_bytes == 0


def test_entries_are_stamped_with_the_leaders_cluster_time() -> None:
    """The design, section 4: it continues from the last entry's time and never falls."""
    leader = settled_leader()
    leader.pass_ms(40)
    leader.propose(b"x")
    leader.pass_ms(5)
    leader.propose(b"y")

    times = [leader.core.log.entry(index).time_ms for index in (1, 2, 3)]

    assert times[1] - times[0] >= 40
    assert times[2] - times[1] == 5


def test_cluster_time_stands_still_without_a_leader_and_never_falls() -> None:
    """No lease ends early because of a failover."""
    leader = settled_leader()
    leader.pass_ms(30)
    leader.propose(b"x")
    stamped = leader.core.log.last_time_ms

    leader.core.stalled(leader.now_ms)
    leader.now_ms += 60_000

    assert leader.core.cluster_time_ms(leader.now_ms) == stamped
    later = leader_of(disk=leader.disk, now_ms=leader.now_ms)
    assert stamped <= later.core.log.last_time_ms < stamped + 60_000


def test_an_advance_brings_time_and_nothing_else() -> None:
    leader = settled_leader()
    leader.pass_ms(20)

    index = leader.core.propose_advance(leader.now_ms)

    entry = leader.core.log.entry(index)
    assert (entry.kind, entry.data) == (EntryKind.ADVANCE, b"")


def test_what_was_proposed_since_goes_out_in_one_message() -> None:
    """Group commit without a timer: the batch is whatever came between two Readys."""
    leader = settled_leader()
    for command in (b"x", b"y", b"z"):
        leader.core.propose((command,), leader.now_ms)

    leader.drain()

    assert [len(request.entries) for request in leader.sent(AppendEntries)] == [3, 3]


def test_the_leaders_own_copy_counts_only_once_it_is_durable() -> None:
    """known bug 4: etcd#14370 lost writes of a single node."""
    leader = settled_leader()
    leader.disk_holds = True
    leader.propose(b"x")
    request = leader.one_sent(AppendEntries, "b")

    leader.receive(acknowledge(request))
    assert leader.core.log.commit_index == 1
    leader.sync()

    assert leader.core.log.commit_index == 2


def test_a_quorum_without_the_leader_commits() -> None:
    """Thesis 10.2.1: the leader may commit before its own disk has answered."""
    leader = settled_leader()
    leader.disk_holds = True
    leader.propose(b"x")

    leader.receive(*map(acknowledge, leader.sent(AppendEntries)))

    assert leader.core.log.commit_index == 2
    assert leader.commands == [b"x"]
