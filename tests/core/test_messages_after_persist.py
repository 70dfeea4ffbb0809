"""What may leave before the disk has answered, and what must wait: every kind of message, one by one.

The rule of the design: nothing of a new term or vote leaves before both are durable, and no success is reported
of entries that are not. Pre-votes and granted answers to them bind nobody and name no term of the sender's.
"""

from collections.abc import Callable

import pytest

from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.core.types import Configuration, HardState, SnapshotMeta
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    entries,
    follower_of,
    settled_leader,
    vote_reply,
    vote_request,
)


def slow(replica: Replica) -> Replica:
    """From now on its disk answers only when the test says so."""
    replica.disk_holds = True
    return replica


def in_a_new_term(term: int = 5) -> Replica:
    """A follower that has just heard of a new term from its leader c; the disk has not answered yet."""
    follower = slow(follower_of("b", 1))
    follower.receive(append("c", term))
    assert follower.writes_waiting
    return follower


def candidate() -> Replica:
    """A candidate whose own vote is on its way to the disk."""
    node = slow(Replica())
    node.time_out()
    node.receive(*(vote_reply(request) for request in node.sent(RequestVote)[:1]))
    assert node.core.durable_hard_state.term < node.term
    return node


REPLIES_IN_A_NEW_TERM: dict[str, tuple[Message, type]] = {
    "append accepted": (append("c", 5), AppendEntriesReply),
    "append refused for its place": (append("c", 5, (7, 4)), AppendEntriesReply),
    "append refused for its term": (append("b", 1), AppendEntriesReply),
    "snapshot that brings nothing": (
        InstallSnapshot("c", "a", 5, 9, SnapshotMeta(0, 0, 0, THREE)),
        InstallSnapshotReply,
    ),
    "vote refused": (vote_request("b", 5), RequestVoteReply),
    "pre-vote refused": (vote_request("b", 3, pre_vote=True), RequestVoteReply),
    "read refused": (ReadIndex("b", "a", 5, 3), ReadIndexReply),
    "read refused for its term": (ReadIndex("b", "a", 2, 3), ReadIndexReply),
}


@pytest.mark.parametrize(
    ("message", "reply"), REPLIES_IN_A_NEW_TERM.values(), ids=REPLIES_IN_A_NEW_TERM.keys()
)
def test_no_reply_names_a_term_that_is_not_durable(message: Message, reply: type) -> None:
    """known bugs 1 and 3: after a crash the node would not remember the term that it made others believe in."""
    follower = in_a_new_term()

    follower.receive(message)
    assert follower.sent() == []

    follower.sync()
    assert reply in {type(sent) for sent in follower.sent()}


def test_a_vote_leaves_only_once_it_is_durable() -> None:
    """known bug 1: two votes in one term."""
    voter = slow(Replica())

    voter.receive(vote_request("b", 1))
    assert voter.sent() == []
    voter.sync()

    assert voter.disk.hard_state == HardState(1, "b")
    assert voter.one_sent(RequestVoteReply).granted


def test_a_vote_in_a_term_that_is_durable_already_waits_too() -> None:
    """known bug 1: the term alone on disk does not keep a restarted node from voting for another."""
    voter = slow(Replica(disk=Disk(HardState(3))))

    voter.receive(vote_request("b", 3))
    assert voter.sent() == []
    voter.sync()

    assert voter.disk.hard_state == HardState(3, "b")
    assert voter.one_sent(RequestVoteReply).granted


def test_vote_requests_leave_only_once_the_own_vote_is_durable() -> None:
    """The design: vote *requests* included. After a crash it could vote for another in the same term."""
    node = candidate()
    assert node.sent(RequestVote) == []

    node.sync()

    assert node.disk.hard_state == HardState(1, "a")
    assert [request.to for request in node.sent(RequestVote)] == ["b", "c"]


def test_the_own_vote_counts_only_once_it_is_durable() -> None:
    """known bug 4: the single voter elects itself when its disk has answered, not before."""
    alone = slow(Replica(configuration=Configuration(("a",))))

    alone.time_out()
    assert not alone.leads
    alone.sync()

    assert alone.leads


def test_pre_votes_and_grants_of_them_leave_at_once() -> None:
    """They bind nobody (thesis 9.6): a disk that is slow must not slow down finding out who could win."""
    asker, granter = slow(Replica()), slow(Replica("b"))
    granter.receive(vote_request("c", 7, (0, 0), to="b"))

    asker.time_out()
    granter.receive(vote_request("a", 8, (0, 0), to="b", pre_vote=True))

    assert [request.pre_vote for request in asker.sent(RequestVote)] == [True, True]
    assert granter.writes_waiting == 1
    assert granter.one_sent(RequestVoteReply).pre_vote


def test_an_append_is_acknowledged_only_once_its_entries_are_durable() -> None:
    """known bugs 3 and 53: an acknowledgement is a promise."""
    follower = slow(follower_of("b", 1))

    follower.receive(append("b", 1, new=entries(1, 1)))
    assert follower.sent() == []
    follower.sync()

    assert follower.one_sent(AppendEntriesReply).match_index == 2


def test_a_heartbeat_is_acknowledged_while_the_disk_is_busy() -> None:
    """It vouches for nothing new; waiting would make a slow disk look like a dead node."""
    follower = follower_of("b", 1)
    follower.receive(append("b", 1, new=entries(1)))
    follower.sent()
    slow(follower).receive(append("b", 1, (1, 1), entries(1, first=2)))

    follower.receive(append("b", 1, (1, 1), sequence=5))

    reply = follower.one_sent(AppendEntriesReply)
    assert (reply.sequence, reply.match_index) == (5, 1)


def test_a_repeated_append_is_not_acknowledged_before_the_first_write_of_it() -> None:
    """The entries stand in memory, equal, and yet not on disk: the second answer waits as the first does."""
    follower = slow(follower_of("b", 1))
    follower.receive(append("b", 1, new=entries(1), sequence=1))

    follower.receive(append("b", 1, new=entries(1), sequence=2))

    assert follower.sent() == []
    follower.sync()
    assert [reply.sequence for reply in follower.sent(AppendEntriesReply)] == [1, 2]


def test_a_refused_append_is_answered_at_once() -> None:
    """A refusal promises nothing."""
    follower = slow(follower_of("b", 1))
    follower.receive(append("b", 1, new=entries(1)))

    follower.receive(append("b", 1, (9, 1)))

    assert not follower.one_sent(AppendEntriesReply).success


def test_a_snapshot_is_acknowledged_only_once_it_is_durable() -> None:
    """known bug 52's neighbour: the leader will never send these entries again."""
    follower = slow(follower_of("b", 1))

    follower.receive(InstallSnapshot("b", "a", 1, 2, SnapshotMeta(9, 1, 0, THREE)))
    assert follower.sent() == []
    follower.sync()

    assert follower.one_sent(InstallSnapshotReply).match_index == 9


def test_a_snapshot_of_entries_that_are_held_is_acknowledged_once_those_are_durable() -> None:
    """It is not installed: its prefix stands in the log, and the log is what has to be on disk."""
    follower = slow(follower_of("b", 1))
    follower.receive(append("b", 1, new=entries(1, 1)))

    follower.receive(InstallSnapshot("b", "a", 1, 2, SnapshotMeta(2, 1, 0, THREE)))

    assert follower.sent() == []
    follower.sync()
    assert follower.sent(InstallSnapshotReply)[0].match_index == 2


LEADER_SENDS: dict[str, tuple[Callable[[Replica], object], type]] = {
    "entries": (lambda leader: leader.propose(b"x"), AppendEntries),
    "heartbeat": (lambda leader: leader.pass_ms(50), AppendEntries),
    "read round": (lambda leader: leader.read(1), AppendEntries),
    "TimeoutNow": (lambda leader: leader.transfer("b"), TimeoutNow),
    "ReadIndex refusal": (
        lambda leader: leader.receive(ReadIndex("b", "a", leader.term - 1, 1)),
        ReadIndexReply,
    ),
}


@pytest.mark.parametrize(("action", "kind"), LEADER_SENDS.values(), ids=LEADER_SENDS.keys())
def test_a_leader_sends_without_waiting_for_its_own_disk(
    action: Callable[[Replica], object], kind: type
) -> None:
    """Thesis 10.2.1: its term is durable; entries go to the followers and to its own disk at the same time."""
    leader = slow(settled_leader())
    leader.core.propose((b"busy",), leader.now_ms)
    leader.drain().sent()
    for request in (append("a", leader.term, (1, 1), [leader.core.log.entry(2)], to="b"),):
        leader.receive(acknowledge(request))

    action(leader)

    assert leader.writes_waiting
    assert kind in {type(sent) for sent in leader.sent()}


def test_a_snapshot_is_offered_without_waiting_for_the_own_disk() -> None:
    """InstallSnapshot is the leader's sixth kind of message; its term is durable, so it leaves at once."""
    leader = settled_leader()
    leader.propose(b"lost on its way to b")
    acknowledge_all(leader, "c")
    leader.take_snapshot()
    slow(leader).propose(b"busy")
    leader.sent()
    leader.core.peer_lost("b", leader.now_ms)

    leader.drain()

    assert leader.writes_waiting
    assert [message.to for message in leader.sent(InstallSnapshot)] == ["b"]


def test_a_question_for_a_read_waits_for_the_term_that_it_names() -> None:
    """A follower of a new leader asks in a term that it may not remember yet."""
    follower = in_a_new_term()

    follower.read(1)
    assert follower.sent() == []
    follower.sync()

    assert follower.sent(ReadIndex)[0].term == 5


def test_messages_without_a_write_of_their_own_wait_for_those_in_the_queue() -> None:
    """raft/core/ready.py, rule 3: they come with the next Ready, whose `persist` may be empty."""
    follower = slow(follower_of("b", 1))
    follower.receive(append("b", 1, new=entries(1), sequence=1))
    follower.receive(append("b", 1, new=entries(1), sequence=2))
    assert follower.writes_waiting == 2

    follower.sync(1)
    assert [reply.sequence for reply in follower.sent(AppendEntriesReply)] == [1]
    follower.sync(1)

    assert [reply.sequence for reply in follower.sent(AppendEntriesReply)] == [2]


def test_term_and_vote_are_one_write() -> None:
    """known bug 2: a crash between two writes could leave the new term with the old vote."""
    voter = slow(follower_of("b", 1))

    voter.pass_ms(1_000)
    voter.core.receive(vote_request("c", 4), voter.now_ms)
    ready = voter.core.take_ready()

    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(4, "c")


def test_disk_of_a_crashed_node_holds_what_it_answered() -> None:
    """The whole of it once more, with a crash: what was said is remembered, what was not may be gone."""
    voter = slow(Replica(disk=Disk()))
    voter.receive(vote_request("b", 1))

    voter.restart()
    voter.disk_holds = False
    voter.receive(vote_request("c", 1))

    assert voter.one_sent(RequestVoteReply).granted
    voter.restart()
    voter.receive(vote_request("b", 1))
    assert not voter.one_sent(RequestVoteReply).granted
