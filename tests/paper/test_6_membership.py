"""Raft paper, section 6: cluster membership changes.

The paper's joint consensus is not used: one server at a time, thesis section 4 (test_thesis_4_*.py). What the
section says of both is here.
"""

from raft.core.messages import AppendEntries, RequestVoteReply
from raft.core.types import Configuration
from tests.core.replica import (
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    follower_of,
    settled_leader,
    vote_request,
)
from tests.paper.groups import anything, elected, leaders, propose

FOUR = Configuration(("a", "b", "c", "d"))


def test_a_server_uses_the_latest_configuration_in_its_log_committed_or_not() -> None:
    """Paper 6: once a server adds a new configuration entry to its log, it uses it for all future decisions."""
    leader = settled_leader()

    leader.configure(FOUR)

    assert leader.core.configuration == FOUR
    assert leader.core.log.commit_index == 1
    assert "d" in {request.to for request in leader.sent(AppendEntries)}


def test_configurations_travel_as_entries_of_the_log() -> None:
    """Paper 6: stored and communicated using special entries in the replicated log."""
    cluster = elected()

    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"), ("d",))))
    cluster.settle(anything)

    learned = {cluster.nodes[id].core.configuration for id in "abc"}
    assert learned == {Configuration(("a", "b", "c"), ("d",))}


def test_new_servers_join_without_a_vote_and_are_sent_the_log() -> None:
    """Paper 6: non-voting members: replicated to, not considered for majorities."""
    leader = settled_leader()
    leader.configure(Configuration(("a", "b", "c"), ("d",)))

    assert "d" in {request.to for request in leader.sent(AppendEntries)}
    leader.propose(b"x")
    acknowledge_all(leader, "d")

    assert leader.core.log.commit_index == 1


def test_the_change_proceeds_once_the_new_server_has_caught_up() -> None:
    """Paper 6."""
    cluster = elected()
    propose(cluster, "a", *[b"%d" % number for number in range(100)])
    cluster.add("d", Configuration())

    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"), ("d",))))
    cluster.run(1_000)

    assert {cluster.nodes[id].core.configuration for id in "abcd"} == {FOUR}
    assert cluster.nodes["d"].commands == cluster.nodes["a"].commands


def test_a_leader_that_is_not_part_of_the_new_configuration_steps_down_when_it_is_committed() -> None:
    """Paper 6; until then it manages a group that it is no part of, and does not count itself in majorities."""
    leader = settled_leader()
    leader.configure(Configuration(("b", "c")))
    requests = leader.sent(AppendEntries)

    leader.receive(acknowledge(requests[0]))
    assert (leader.leads, leader.core.log.commit_index) == (True, 1)
    leader.receive(acknowledge(requests[1]))

    assert (leader.leads, leader.core.log.commit_index) == (False, 2)


def test_a_vote_request_is_disregarded_while_a_current_leader_is_believed_to_exist() -> None:
    """Paper 6: within the minimum election timeout of hearing from it, neither term nor vote is given."""
    follower = follower_of("b", 1)
    follower.now_ms += 399

    follower.receive(vote_request("removed", 8, (9, 1)))

    assert (follower.term, follower.core.state.vote) == (1, "")
    assert not follower.one_sent(RequestVoteReply).granted


def test_ordinary_elections_are_not_affected_by_that() -> None:
    """Paper 6: each server waits at least a minimum election timeout before it starts one."""
    voter, candidate = follower_of("b", 1), follower_of("b", 1, id="c")
    voter.now_ms += 400

    candidate.time_out()

    assert candidate.now_ms - 1_000 >= 400
    voter.receive(vote_request("c", 2))
    assert voter.one_sent(RequestVoteReply).granted


def test_removed_servers_cannot_disrupt_the_group() -> None:
    """Paper 6: they receive no heartbeats, time out, and ask in vain (known bug 14)."""
    cluster = elected(FOUR)
    cluster.cuts = {("a", "d")}
    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"))))

    cluster.run(20_000)

    assert leaders(cluster) == [("a", 1)]
    assert cluster.nodes["d"].core.configuration == FOUR


def test_a_removed_server_without_pre_vote_cannot_disrupt_the_group_either() -> None:
    """Paper 6: its terms grow and nobody cares (known bug 14)."""
    cluster = elected(FOUR, pre_vote=False)
    cluster.cuts = {("a", "d")}
    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"))))

    cluster.run(20_000)

    assert leaders(cluster) == [("a", 1)]
    assert cluster.nodes["d"].term > 10


def test_a_group_serves_during_a_change() -> None:
    """Paper 6: clients' requests are answered throughout."""
    leader: Replica = settled_leader()
    leader.configure(FOUR)

    leader.propose(b"x")
    acknowledge_all(leader, "b", "c")

    assert leader.commands == [b"x"]


def test_a_server_outside_of_ones_configuration_is_listened_to() -> None:
    """Paper 6 and thesis 4.1: a new server could never learn its first entries otherwise."""
    joining = Replica("d", configuration=Configuration())

    joining.receive(append("a", 1, to="d"))

    assert joining.core.state.leader == "a"
