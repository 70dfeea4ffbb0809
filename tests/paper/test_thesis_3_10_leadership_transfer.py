"""Thesis, section 3.10: leadership transfer."""

import pytest

from raft.core.errors import TransferInProgress
from raft.core.messages import AppendEntries, RequestVote, TimeoutNow
from raft.core.types import Role
from tests.core.replica import Replica, acknowledge, acknowledge_all, follower_of, settled_leader
from tests.paper.groups import anything, elected, leaders, propose
from tests.scenarios.telling import kind_of


def test_leadership_passes_without_waiting_for_an_election_timeout() -> None:
    """Thesis 3.10: the target runs an election at once; no time passes at all here."""
    cluster = elected()
    before_ms = {id: cluster.nodes[id].now_ms for id in "abc"}

    cluster.at("a", lambda node: node.transfer("c"))
    cluster.settle(anything)

    assert leaders(cluster) == [("c", 2)]
    assert before_ms == {id: cluster.nodes[id].now_ms for id in "abc"}


def test_the_leader_stops_taking_requests_first() -> None:
    """Thesis 3.10, step 1."""
    leader = settled_leader()
    leader.transfer("b")

    with pytest.raises(TransferInProgress):
        leader.propose(b"x")


def test_the_target_is_brought_up_to_date_by_ordinary_replication() -> None:
    """Thesis 3.10, step 2: its log must match the leader's."""
    leader = settled_leader()
    leader.propose(b"x")
    request = leader.one_sent(AppendEntries, "b")

    leader.transfer("b")
    assert leader.sent(TimeoutNow) == []
    leader.receive(acknowledge(request))

    assert len(leader.sent(TimeoutNow)) == 1


def test_a_target_that_is_up_to_date_is_told_at_once() -> None:
    """Thesis 3.10, step 3."""
    leader = settled_leader()

    leader.transfer("c")

    assert leader.one_sent(TimeoutNow).to == "c"


def test_timeout_now_has_the_effect_of_the_election_timer() -> None:
    """Thesis 3.10: the target increments its term and becomes a candidate, without PreVote."""
    target = follower_of("b", 1)

    target.receive(TimeoutNow("b", "a", 1, 9))

    assert (target.role, target.term) == (Role.CANDIDATE, 2)
    assert all(not request.pre_vote for request in target.sent(RequestVote))


def test_the_targets_requests_are_heard_although_a_leader_is_known() -> None:
    """Thesis 3.10 and 4.2.3: they say that the leader asked for this election."""
    cluster = elected()

    cluster.at("a", lambda node: node.transfer("b"))
    cluster.deliver(lambda m: kind_of(m) == "timeout-now")
    requests = [m for m in cluster.flying if isinstance(m, RequestVote)]
    cluster.settle(anything)

    assert all(request.transfer for request in requests)
    assert cluster.nodes["c"].core.state.leader == "b"


def test_the_old_leader_steps_down_at_the_targets_next_message() -> None:
    """Thesis 3.10: it carries the new term; the transfer is complete."""
    cluster = elected()
    cluster.at("a", lambda node: node.transfer("b"))
    cluster.deliver(lambda m: kind_of(m) == "timeout-now")
    assert cluster.nodes["a"].leads

    cluster.deliver(lambda m: kind_of(m) == "vote" and m.to == "a")

    assert (cluster.nodes["a"].role, cluster.nodes["a"].term) == (Role.FOLLOWER, 2)


def test_a_transfer_that_does_not_complete_is_abandoned_after_an_election_timeout() -> None:
    """Thesis 3.10: the target may fail; the leader then resumes accepting requests (known bug 19)."""
    leader = settled_leader()
    leader.transfer("b")
    started_ms = leader.now_ms

    while leader.core.transfer.to:
        leader.pass_ms(10)
        acknowledge_all(leader, "b", "c")

    assert leader.leads
    assert leader.now_ms - started_ms <= leader.core.config.election_timeout_max_ms + 50
    leader.propose(b"x")


def test_a_target_that_was_only_slow_causes_one_more_election_at_worst() -> None:
    """Thesis 3.10: if the leader was mistaken and the target is alive, clients go on with whoever wins."""
    cluster = elected()
    cluster.at("a", lambda node: node.transfer("b"))
    late = [m for m in cluster.flying if isinstance(m, TimeoutNow)]
    cluster.drop(lambda m: isinstance(m, TimeoutNow))
    cluster.run(900)
    propose(cluster, "a", b"x")

    cluster.at("b", lambda node: node.receive(*late))
    cluster.settle(anything)

    assert leaders(cluster) == [("b", 2)]
    propose(cluster, "b", b"y")
    assert all(cluster.nodes[id].commands == [b"x", b"y"] for id in "abc")


def test_a_target_without_the_whole_log_could_not_win_anyway() -> None:
    """Thesis 3.10 with paper 5.4.1: safety does not rest on the leader's care."""
    cluster = elected()
    cluster.cuts = {("a", "b")}
    propose(cluster, "a", b"x")
    cluster.cuts = set()

    cluster.at("b", lambda node: node.receive(TimeoutNow("a", "b", 1, 9)))
    cluster.drop(lambda m: isinstance(m, AppendEntries))
    cluster.settle(lambda m: kind_of(m) in ("vote", "vote-reply"))

    assert not cluster.nodes["b"].leads


def test_nothing_is_lost_in_a_transfer() -> None:
    """Thesis 3.10: what was taken before is committed by the old leader or the new one."""
    cluster = elected()
    cluster.at("a", lambda node: node.propose(b"x"))
    cluster.at("a", lambda node: node.transfer("c"))

    cluster.settle(anything)

    node: Replica = cluster.nodes["c"]
    assert node.leads and node.commands == [b"x"]
