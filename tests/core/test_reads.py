"""Read rounds: what is batched, what confirms a round, what refuses it (thesis 6.4)."""

from raft.core.messages import AppendEntries, ReadIndex, ReadIndexReply
from raft.core.ready import ReadState
from raft.core.types import Configuration, Role
from tests.core.replica import (
    FIVE,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    follower_of,
    leader_of,
    refuse,
    settled_leader,
)

TWO = Configuration(("a", "b"))


def test_reads_that_wait_together_share_one_round() -> None:
    """Thesis 6.4: the cost of a round is shared by every read that was there when it began."""
    leader = settled_leader()

    for context in (1, 2, 3):
        leader.core.read(context, leader.now_ms)
    leader.drain()

    assert len(leader.sent(AppendEntries)) == 2


def test_a_read_that_comes_during_a_round_waits_for_the_next() -> None:
    """The round under way was sent before it: it proves nothing for this read."""
    leader = settled_leader()
    leader.read(1)
    first_round = leader.sent(AppendEntries)
    leader.read(2)

    leader.receive(acknowledge(first_round[0]))

    assert leader.read_states == [ReadState(1, 1)]
    acknowledge_all(leader)
    assert leader.read_states == [ReadState(1, 1), ReadState(2, 1)]


def test_an_answer_to_something_sent_before_the_read_confirms_nothing() -> None:
    """Delayed heartbeat acknowledgements (known bug 67): only what was sent after the read came counts."""
    leader = settled_leader()
    leader.propose(b"x")
    before = leader.sent(AppendEntries)
    leader.read(1)

    leader.receive(*map(acknowledge, before))

    assert leader.read_states == []


def test_a_refusal_confirms_a_round_as_well_as_a_success() -> None:
    """Whoever refuses for its log still follows in this term."""
    leader = leader_of()
    noop = leader.sent(AppendEntries, "b")[0]
    leader.receive(acknowledge(noop))
    leader.sent()
    leader.read(1)
    request = leader.sent(AppendEntries, "c")[0]

    leader.receive(refuse(request, 0, 0))

    assert leader.read_states == [ReadState(1, 1)]


def test_a_later_heartbeat_confirms_a_round_whose_own_messages_were_lost() -> None:
    """Rounds are counted in sequences: any later answer proves more."""
    leader = settled_leader()
    leader.read(1)
    leader.sent()
    leader.pass_ms(50)

    leader.receive(acknowledge(leader.sent(AppendEntries, "b")[0]))

    assert leader.read_states == [ReadState(1, 1)]


def test_two_of_five_confirm_nothing() -> None:
    """A quorum, not a majority less one (known bug 31)."""
    leader = settled_leader(FIVE)
    leader.read(1)
    requests = leader.sent(AppendEntries)

    leader.receive(acknowledge(requests[0]))
    assert leader.read_states == []
    leader.receive(acknowledge(requests[1]))

    assert leader.read_states == [ReadState(1, 1)]


def test_the_same_follower_counts_once() -> None:
    """Duplicated acknowledgements (known bug 67)."""
    leader = settled_leader(FIVE)
    leader.read(1)
    request = leader.sent(AppendEntries)[0]

    leader.receive(acknowledge(request), acknowledge(request), acknowledge(request))

    assert leader.read_states == []


def test_a_learner_confirms_nothing() -> None:
    """Learners count in no quorum (thesis 4.2.1)."""
    leader = settled_leader(Configuration(("a", "b", "c"), ("l",)))
    leader.read(1)

    acknowledge_all(leader, "l")

    assert leader.read_states == []


def test_reads_wait_for_the_no_op_of_the_term() -> None:
    """known bug 66 (etcd#7331): before it has committed in its term a leader does not know what is committed."""
    leader = leader_of()
    noops = leader.sent(AppendEntries)

    leader.read(1)
    assert leader.sent() == []
    leader.receive(*map(acknowledge, noops))
    acknowledge_all(leader)

    assert leader.read_states == [ReadState(1, 1)]


def test_a_single_voter_confirms_its_own_reads() -> None:
    """known bug 17's neighbour: nobody else will ever answer."""
    alone = Replica(configuration=Configuration(("a",)))
    alone.time_out()

    alone.read(1)

    assert alone.read_states == [ReadState(1, 1)]


def test_a_round_ends_when_the_voters_it_waited_for_are_removed() -> None:
    """With the last other voter gone nobody is left to answer, and every later read would wait behind it."""
    leader = settled_leader(TWO)
    leader.read(1)
    leader.sent()

    leader.configure(Configuration(("a",)))

    assert leader.read_states == [ReadState(1, 1)]
    leader.read(2)
    assert leader.read_states[1].context == 2


def test_whoever_waits_is_refused_when_the_leader_steps_down() -> None:
    """A refusal (index 0) sends the reader on; silence would cost it its whole patience."""
    leader = settled_leader()
    leader.read(1)
    leader.receive(ReadIndex("b", "a", leader.term, 77))
    leader.sent()

    leader.receive(append("c", leader.term + 1))

    assert leader.read_states == [ReadState(1, 0)]
    assert leader.one_sent(ReadIndexReply).index == 0


def test_a_follower_asks_its_leader_and_hands_out_the_answer() -> None:
    """Thesis 6.4: a follower serves the read once it has applied up to the index."""
    follower = follower_of("b", 3)

    follower.read(9)
    question = follower.one_sent(ReadIndex)
    follower.receive(ReadIndexReply("b", "a", 3, question.sequence, 5))

    assert question.to == "b"
    assert follower.read_states == [ReadState(9, 5)]


def test_a_node_without_a_leader_refuses_at_once() -> None:
    node = Replica()

    node.read(4)

    assert node.read_states == [ReadState(4, 0)]


def test_a_question_to_a_node_that_does_not_lead_is_refused() -> None:
    follower = follower_of("b", 3)

    follower.receive(ReadIndex("c", "a", 3, 8))

    assert follower.one_sent(ReadIndexReply) == ReadIndexReply("a", "c", 3, 8, 0)


def test_a_question_from_an_older_term_is_refused_with_the_newer_one() -> None:
    """The asker follows a leader that was deposed; it learns so before it asks again."""
    leader = settled_leader()

    leader.receive(ReadIndex("b", "a", leader.term - 1, 8))

    assert leader.one_sent(ReadIndexReply) == ReadIndexReply("a", "b", leader.term, 8, 0)


def test_a_duplicated_question_is_answered_under_the_same_context_and_harms_nobody() -> None:
    """known bug 67: contexts are never reused, so a second answer finds nobody that waits under it."""
    leader = settled_leader()

    leader.receive(ReadIndex("b", "a", leader.term, 8), ReadIndex("b", "a", leader.term, 8))
    requests = leader.sent(AppendEntries)
    leader.receive(*map(acknowledge, requests))

    replies = leader.sent(ReadIndexReply)
    assert {(reply.sequence, reply.index) for reply in replies} == {(8, 1)}


def test_reads_beyond_the_limit_are_refused() -> None:
    """`reads_waiting_max`: no queue without a bound."""
    leader = settled_leader(reads_waiting_max=2)

    for context in (1, 2, 3):
        leader.core.read(context, leader.now_ms)
    leader.drain()

    assert leader.read_states == [ReadState(3, 0)]


def test_the_index_is_the_commit_index_when_the_round_began() -> None:
    """Thesis 6.4, step 2: a bound from below; what commits during the round need not be waited for."""
    leader = settled_leader()
    leader.read(1)
    round_sent = leader.sent(AppendEntries)
    leader.propose(b"x")
    leader.receive(acknowledge(leader.sent(AppendEntries, "b")[0]))
    assert leader.core.log.commit_index == 2

    leader.receive(*map(acknowledge, round_sent))

    assert leader.read_states == [ReadState(1, 1)]


def test_a_deposed_leader_that_has_not_noticed_confirms_no_read() -> None:
    """Thesis 6.4: it can reach nobody, so its round stays open until CheckQuorum ends it."""
    leader = settled_leader()

    leader.read(1)
    leader.run_ms(leader.core.config.election_timeout_max_ms + 100)

    assert leader.role is not Role.LEADER
    assert leader.read_states == [ReadState(1, 0)]
