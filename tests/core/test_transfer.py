"""Leadership transfer's bookkeeping: what ends it, and that nothing of it stays behind (thesis 3.10)."""

import pytest

from raft.core.errors import TransferInProgress
from raft.core.messages import AppendEntries, InstallSnapshot, InstallSnapshotReply, RequestVote, TimeoutNow
from raft.core.types import Configuration, Role
from tests.core.replica import (
    acknowledge,
    acknowledge_all,
    append,
    heartbeat,
    leader_of,
    refuse,
    settled_leader,
    vote_reply,
    vote_request,
)


def test_the_flag_is_cleared_when_the_leader_is_deposed() -> None:
    """known bug 19: a later leadership of the same node must take proposals again."""
    leader = settled_leader()
    leader.transfer("b")

    leader.receive(append("b", leader.term + 1))

    assert leader.core.transfer.to == ""
    assert not leader.core.transfer.told


def test_a_new_leadership_after_a_transfer_takes_proposals() -> None:
    """known bug 19: transfer, lose the quorum, be elected again, write."""
    leader = settled_leader()
    leader.transfer("b")
    leader.run_ms(2 * leader.core.config.election_timeout_max_ms)
    assert not leader.leads
    again = leader_of(disk=leader.disk)
    acknowledge_all(again)

    index = again.propose(b"x")
    acknowledge_all(again)

    assert again.core.log.commit_index == index


def test_the_same_core_takes_proposals_after_it_lost_leadership_in_a_transfer_and_won_it_back() -> None:
    """known bug 19, without a restart in between."""
    leader = settled_leader()
    leader.transfer("b")
    leader.core.stalled(leader.now_ms)
    leader.drain()
    leader.time_out()
    for _ in range(2):
        leader.receive(vote_reply(leader.sent(RequestVote, "c")[0]))

    assert leader.leads
    leader.propose(b"x")


def test_nothing_is_proposed_while_a_transfer_runs() -> None:
    """The successor's log must stay complete (thesis 3.10, step 1)."""
    leader = settled_leader()
    leader.transfer("b")

    with pytest.raises(TransferInProgress):
        leader.propose(b"x")


def test_a_transfer_that_leads_nowhere_ends_within_an_election_timeout() -> None:
    """Thesis 3.10: the leader resumes; here b and c go on acknowledging heartbeats, and b never campaigns."""
    leader = settled_leader()
    leader.transfer("b")

    for _ in range(17):
        leader.pass_ms(50)
        acknowledge_all(leader)

    assert leader.leads
    leader.propose(b"x")


def test_a_transfer_ends_in_time_though_reads_keep_the_leader_busy() -> None:
    """known bug 19: a read round counts as a heartbeat to the followers, but must not stop the leader's clock."""
    leader = settled_leader()
    leader.transfer("b")

    for context in range(90):
        leader.read(context)
        acknowledge_all(leader)
        leader.pass_ms(10)

    assert leader.leads
    leader.propose(b"x")


@pytest.mark.parametrize("to", ["a", "d", "l", ""])
def test_only_another_voter_can_be_the_successor(to: str) -> None:
    """Not the leader itself, a stranger, a learner or nobody."""
    leader = settled_leader(Configuration(("a", "b", "c"), ("l",)))

    assert not leader.transfer(to)
    leader.propose(b"x")


def test_a_second_transfer_does_not_replace_the_first() -> None:
    """The first successor may already campaign."""
    leader = settled_leader()
    assert leader.transfer("b")

    assert not leader.transfer("c")
    assert leader.core.transfer.to == "b"


def test_a_follower_cannot_transfer_leadership() -> None:
    leader = settled_leader()
    leader.receive(append("b", leader.term + 1))

    assert not leader.transfer("c")


def test_timeout_now_waits_until_the_successor_holds_everything() -> None:
    """Thesis 3.10, step 2; it leaves once, with the acknowledgement that completes the log."""
    leader = settled_leader()
    leader.propose(b"x")
    request = leader.one_sent(AppendEntries, "b")

    leader.transfer("b")
    assert leader.sent(TimeoutNow) == []
    leader.receive(acknowledge(request))
    leader.receive(acknowledge(request))

    assert [message.to for message in leader.sent(TimeoutNow)] == ["b"]


def test_a_successor_that_catches_up_by_a_snapshot_is_told_too() -> None:
    """The snapshot may reach to the very end of the log: no append follows that could complete the transfer."""
    leader = settled_leader()
    leader.propose(b"lost on its way to b")
    acknowledge_all(leader, "c")
    leader.take_snapshot()
    leader.receive(*(acknowledge(request) for request in heartbeat(leader) if request.to == "b"))
    leader.transfer("b")
    leader.receive(refuse(leader.one_sent(AppendEntries, "b"), 1, 1))
    snapshot = leader.one_sent(InstallSnapshot, "b")

    leader.receive(InstallSnapshotReply("b", "a", leader.term, snapshot.sequence, snapshot.snapshot.index))

    assert [message.to for message in leader.sent(TimeoutNow)] == ["b"]


def test_a_leader_that_hands_over_still_answers_its_followers_reads() -> None:
    """known bug 73: a read round proves leadership by itself; a transfer neither spoils nor bypasses it."""
    leader = settled_leader()
    leader.transfer("b")

    leader.read(7)
    assert leader.read_states == []
    acknowledge_all(leader)

    assert [(state.context, state.index) for state in leader.read_states] == [(7, 1)]


def test_the_vote_request_of_a_transfer_is_heard_by_those_that_hear_the_leader() -> None:
    """Thesis 4.2.3: without the flag they would refuse it."""
    follower = settled_leader()
    follower.receive(append("b", 5))
    follower.sent()

    follower.receive(vote_request("c", 6, (9, 5), transfer=True))

    assert follower.term == 6
    assert follower.core.state.vote == "c"
    assert follower.role is Role.FOLLOWER
