"""Thesis, section 6.4: processing read-only queries more efficiently (ReadIndex)."""

from raft.core.messages import AppendEntries, ReadIndex, ReadIndexReply
from raft.core.ready import ReadState
from raft.core.types import HardState
from tests.core.replica import (
    FIVE,
    Disk,
    acknowledge,
    acknowledge_all,
    append,
    entries,
    follower_of,
    leader_of,
    settled_leader,
)
from tests.paper.groups import elect, elected, propose


def test_step_1_a_leader_that_has_not_committed_in_its_term_waits() -> None:
    """Thesis 6.4, step 1: it does not know the commit index until its no-op is committed (known bugs 39, 66)."""
    leader = leader_of(FIVE, disk=Disk(HardState(3), entries(1, 3)))
    noops = leader.sent(AppendEntries)

    leader.read(1)
    leader.receive(acknowledge(noops[0]))
    assert leader.read_states == []
    leader.receive(acknowledge(noops[1]))
    acknowledge_all(leader)

    assert leader.read_states == [ReadState(1, 3)]


def test_step_2_the_read_index_is_the_commit_index_when_the_read_came() -> None:
    """Thesis 6.4, step 2: a lower bound for the state that the query sees: never less than was committed then."""
    leader = settled_leader()
    leader.propose(b"x")
    acknowledge_all(leader)
    assert leader.core.log.commit_index == 2

    leader.read(1)
    acknowledge_all(leader)

    assert leader.read_states == [ReadState(1, 2)]


def test_step_3_a_new_round_of_heartbeats_is_acknowledged_by_a_majority() -> None:
    """Thesis 6.4, step 3: so that no newer leader existed when they were sent."""
    leader = settled_leader(FIVE)
    leader.read(1)
    round_sent = leader.sent(AppendEntries)
    assert {request.to for request in round_sent} == set("bcde")

    leader.receive(acknowledge(round_sent[0]))
    assert leader.read_states == []
    leader.receive(acknowledge(round_sent[1]))

    assert leader.read_states == [ReadState(1, 1)]


def test_step_3_acknowledgements_of_earlier_messages_do_not_count() -> None:
    """Thesis 6.4, step 3: *new*: a deposed leader may still be receiving answers from before (known bug 67)."""
    leader = settled_leader()
    leader.pass_ms(50)
    earlier = leader.sent(AppendEntries)

    leader.read(1)
    leader.receive(*map(acknowledge, earlier))

    assert leader.read_states == []


def test_step_4_the_read_is_served_once_that_index_is_applied() -> None:
    """Thesis 6.4, step 4: the core names the index; whoever asked waits for its own apply."""
    follower = follower_of("b", 1)
    follower.read(1)
    question = follower.one_sent(ReadIndex)

    follower.receive(ReadIndexReply("b", "a", 1, question.sequence, 3))
    assert follower.read_states == [ReadState(1, 3)]
    assert follower.core.applied_index == 0
    follower.receive(append("b", 1, new=entries(1, 1, 1), commit=3))

    assert follower.core.applied_index == 3


def test_one_round_serves_every_read_that_was_waiting() -> None:
    """Thesis 6.4: the cost of confirming leadership is shared."""
    leader = settled_leader()
    for context in range(100):
        leader.core.read(context, leader.now_ms)
    leader.drain()

    round_sent = leader.sent(AppendEntries)
    leader.receive(acknowledge(round_sent[0]))

    assert len(round_sent) == 2
    assert len(leader.read_states) == 100


def test_a_follower_asks_the_leader_for_an_index_and_serves_the_read_itself() -> None:
    """Thesis 6.4: followers take the load of the queries; steps 1 to 3 stay with the leader."""
    cluster = elected()
    propose(cluster, "a", b"x")

    cluster.at("b", lambda node: node.read(9))
    cluster.settle(lambda m: True)

    assert "b: read 9 may be served at 2" in cluster.take_trace()
    assert cluster.nodes["b"].core.applied_index >= 2


def test_a_leader_that_was_replaced_unnoticed_names_no_index() -> None:
    """Thesis 6.4: this is what step 3 is for; a partitioned leader keeps its readers waiting, then refuses."""
    cluster = elected(FIVE)
    cluster.cuts = {(x, y) for x in "ab" for y in "cde"} | {(y, x) for x in "ab" for y in "cde"}
    elect(cluster, "c")
    propose(cluster, "c", b"newer")
    cluster.take_trace()

    cluster.at("a", lambda node: node.read(1))
    cluster.at("b", lambda node: node.read(2))
    cluster.run(2_000)

    told = [line for line in cluster.take_trace() if "read" in line]
    assert told and all("refused" in line for line in told)


def test_reads_are_confirmed_while_writes_go_on() -> None:
    """Thesis 6.4: a read neither waits for the log's end nor for new entries."""
    leader = settled_leader()
    leader.read(1)
    round_sent = leader.sent(AppendEntries)
    leader.propose(b"uncommitted")

    leader.receive(acknowledge(round_sent[0]))

    assert leader.read_states == [ReadState(1, 1)]


def test_no_read_relies_on_clocks() -> None:
    """Thesis 6.4.1 offers leases; these reads do without: however little time has passed, a round is needed."""
    leader = settled_leader()
    leader.pass_ms(50)
    acknowledge_all(leader)

    leader.read(1)

    assert leader.read_states == []
