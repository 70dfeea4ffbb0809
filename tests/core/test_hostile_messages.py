"""What a peer may send without bringing a core down: whatever breaks the protocol is dropped and counted."""

import pytest

from raft.core.membership import encode_configuration
from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    ReadIndexReply,
    TimeoutNow,
)
from raft.core.types import Configuration, EntryKind, Role, SnapshotMeta
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    append,
    entries,
    entry,
    follower_of,
    settled_leader,
    vote_request,
)

MALFORMED = {
    "a gap behind the previous entry": append("b", 1, (0, 0), [entry(2, 1)]),
    "a gap between two entries": append("b", 1, (0, 0), [entry(1, 1), entry(3, 1)]),
    "the same index twice": append("b", 1, (0, 0), [entry(1, 1), entry(1, 1)]),
    "an entry of a later term than the message's": append("b", 1, (0, 0), [entry(1, 2)]),
    "terms that fall": append("b", 2, (0, 0), [entry(1, 2), entry(2, 1)]),
    "an entry of an earlier term than the previous one": append("b", 2, (0, 2), [entry(1, 1)]),
    "a configuration that is none": append("b", 1, (0, 0), [entry(1, 1, b"\xff;;", EntryKind.CONFIGURATION)]),
    "a negative previous index": append("b", 1, (-1, 0), [entry(0, 1)]),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_append_is_counted_and_changes_no_log(message: AppendEntries) -> None:
    """`receive` never raises for what a peer sent."""
    follower = follower_of("b", message.term)

    follower.receive(message)

    assert follower.core.rejected_messages == 1
    assert follower.core.log.last_index == 0
    assert follower.sent() == []


def test_an_append_that_would_change_a_committed_entry_is_refused() -> None:
    """Paper 5.4.3: a committed entry never changes, whoever says otherwise."""
    follower = follower_of("b", 1)
    follower.receive(append("b", 1, (0, 0), entries(1, 1), commit=2))

    follower.receive(append("c", 2, (1, 1), [entry(2, 2)]))

    assert follower.log_terms == [1, 1]
    assert follower.core.rejected_messages == 1


def test_a_message_for_another_node_is_counted_and_dropped() -> None:
    """A wrong address in a configuration must not make one node act for another."""
    follower = follower_of("b", 1)

    follower.receive(append("b", 5, to="c"))

    assert follower.core.rejected_messages == 1
    assert follower.term == 1


def test_a_message_that_names_this_node_as_its_sender_is_counted_and_dropped() -> None:
    """Two processes were given one id: neither may follow or depose itself."""
    leader = settled_leader()

    leader.receive(append("a", leader.term + 1), vote_request("a", leader.term + 1))

    assert leader.leads
    assert leader.core.rejected_messages == 2


def test_a_second_leader_of_the_same_term_is_not_followed() -> None:
    """Paper 5.2, election safety: at most one leader a term; the other one is a bug or a liar."""
    follower = follower_of("b", 1)

    follower.receive(append("c", 1, (0, 0), [entry(1, 1)]))

    assert follower.core.state.leader == "b"
    assert follower.core.log.last_index == 0
    assert follower.core.rejected_messages == 1


def test_a_leader_does_not_follow_a_second_leader_of_its_term() -> None:
    """The same, seen from the leader."""
    leader = settled_leader()

    leader.receive(append("b", leader.term))

    assert leader.leads
    assert leader.core.rejected_messages == 1


def test_an_acknowledgement_of_entries_that_were_never_sent_counts_for_nothing() -> None:
    """A match index behind the leader's own log would commit what does not exist."""
    leader = settled_leader()

    leader.receive(
        AppendEntriesReply("b", "a", leader.term, leader.core.last_sequence, True, match_index=99),
        InstallSnapshotReply("c", "a", leader.term, leader.core.last_sequence, match_index=99),
    )

    assert leader.core.log.commit_index == 1
    assert leader.core.progress["b"].match_index == 1
    assert leader.core.rejected_messages == 2


def test_replies_of_strangers_count_for_nothing() -> None:
    """Only members have a progress."""
    leader = settled_leader()
    leader.propose(b"x")

    leader.receive(
        AppendEntriesReply("x", "a", leader.term, leader.core.last_sequence, True, match_index=2),
        AppendEntriesReply("y", "a", leader.term, leader.core.last_sequence, True, match_index=2),
        InstallSnapshotReply("z", "a", leader.term, leader.core.last_sequence, match_index=2),
    )

    assert leader.core.log.commit_index == 1
    assert "x" not in leader.core.progress


def test_timeout_now_from_anyone_but_the_leader_starts_no_election() -> None:
    """Thesis 3.10: only the leader may name its successor."""
    follower = follower_of("b", 1)

    follower.receive(TimeoutNow("c", "a", 1, 1))

    assert follower.role is Role.FOLLOWER


def test_a_snapshot_without_voters_is_not_installed() -> None:
    """Its receiver could never elect anyone again, and would hand it on."""
    follower = follower_of("b", 1)

    follower.receive(InstallSnapshot("b", "a", 1, 2, SnapshotMeta(5, 1, 0, Configuration())))

    assert follower.core.log.last_index == 0
    assert follower.core.rejected_messages == 1


def test_a_read_index_reply_that_nobody_asked_for_reaches_the_driver_under_its_context() -> None:
    """Contexts are the driver's: it knows which it asked under, and forgets the others (etcd-io/raft#397)."""
    follower = follower_of("b", 1)

    follower.receive(ReadIndexReply("b", "a", 1, 12345, 7))

    assert [(state.context, state.index) for state in follower.read_states] == [(12345, 7)]


def test_a_configuration_entry_is_checked_before_any_entry_is_taken() -> None:
    """All or nothing: a half-taken message would leave a log that no leader sent."""
    good = encode_configuration(THREE)
    follower = Replica(disk=Disk(log=entries(1)))

    follower.receive(
        append(
            "b",
            1,
            (1, 1),
            [entry(2, 1, good, EntryKind.CONFIGURATION), entry(3, 1, b"no", EntryKind.CONFIGURATION)],
        )
    )

    assert follower.core.log.last_index == 1
