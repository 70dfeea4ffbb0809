"""Thesis, section 3.8: persisted state and server restarts."""

from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVoteReply
from raft.core.types import Configuration, HardState, SnapshotMeta
from tests.core.replica import (
    FIVE,
    THREE,
    Disk,
    Replica,
    acknowledge,
    append,
    entries,
    follower_of,
    settled_leader,
    vote_request,
)
from tests.paper.groups import elect, elected, group, leaders, propose


def test_term_and_vote_survive_a_restart() -> None:
    """Thesis 3.8: each server persists its current term and vote, to prevent voting twice in a term."""
    server = Replica()
    server.receive(vote_request("b", 7)).sent()

    server.restart()

    assert server.core.state.hard_state == HardState(7, "b")


def test_a_term_that_was_only_heard_of_survives_too() -> None:
    """Thesis 3.8: or a deposed leader could replace log entries of a newer one."""
    server = Replica()
    server.receive(append("b", 7, new=entries(7)))

    server.restart()
    server.receive(append("c", 6, (0, 0), entries(6)))

    assert server.log_terms == [7]


def test_nothing_is_answered_before_it_is_persisted() -> None:
    """Thesis 3.8 with Figure 3.1: updated on stable storage before responding to RPCs."""
    server = Replica()
    server.disk_holds = True

    server.receive(vote_request("b", 7))
    server.receive(append("c", 8, new=entries(8)))
    assert server.sent() == []
    server.sync()

    assert [type(reply) for reply in server.sent()] == [RequestVoteReply, AppendEntriesReply]


def test_entries_are_persisted_before_they_count_as_replicated() -> None:
    """Thesis 3.8: so that committed entries are not lost when servers restart; followers and leader alike."""
    follower, leader = follower_of("b", 1), settled_leader()
    follower.disk_holds = leader.disk_holds = True

    follower.receive(append("b", 1, new=entries(1)))
    leader.propose(b"x")
    leader.receive(acknowledge(leader.one_sent(AppendEntries, "b")))

    assert follower.sent() == []
    assert leader.core.log.commit_index == 1


def test_committed_entries_survive_a_restart_of_everybody() -> None:
    """Thesis 3.8: they are neither lost nor uncommitted."""
    cluster = elected(FIVE)
    propose(cluster, "a", b"x", b"y")
    for id in tuple(cluster.up):
        cluster.crash(id)
    for id in "abcde":
        cluster.restart(id)

    cluster.run(3_000)

    assert all(cluster.nodes[id].commands == [b"x", b"y"] for id in "abcde")


def test_the_commit_index_may_be_lost() -> None:
    """Thesis 3.8: it is reinitialised and recovers once a leader has committed an entry of its own."""
    cluster = elected()
    propose(cluster, "a", b"x")
    for id in tuple(cluster.up):
        cluster.crash(id)
        cluster.restart(id)
    assert {cluster.nodes[id].core.log.commit_index for id in "abc"} == {0}

    elect(cluster, "b")

    assert {cluster.nodes[id].core.log.commit_index for id in "abc"} == {3}


def test_a_volatile_state_machine_is_rebuilt_from_snapshot_and_log() -> None:
    """Thesis 3.8: by reapplying the entries behind the latest snapshot, each once."""
    disk = Disk(HardState(2), entries(1, 2, first=6), SnapshotMeta(5, 1, 0, THREE))
    server = Replica(disk=disk)
    assert server.core.applied_index == 5

    server.receive(append("b", 2, (7, 2), commit=7))

    assert [e.index for e in server.applied] == [6, 7]


def test_a_server_that_lost_its_state_is_brought_up_like_a_new_one() -> None:
    """Thesis 3.8: it cannot safely return as who it was; it rejoins by a change of membership. Here the wiped
    server comes as a learner: it is fed everything, and no quorum counts it before it has caught up."""
    cluster = elected()
    propose(cluster, "a", b"x")
    cluster.crash("c")
    cluster.at("a", lambda node: node.configure(Configuration(("a", "b"))))
    cluster.run(200)
    cluster.down.discard("c")
    cluster.add("c", Configuration())

    cluster.at("a", lambda node: node.configure(Configuration(("a", "b"), ("c",))))
    counted = cluster.nodes["a"].core.configuration.voters
    cluster.run(1_000)

    assert counted == ("a", "b")
    assert cluster.nodes["a"].core.configuration == THREE
    assert cluster.nodes["c"].commands == [b"x"]


def test_a_group_of_fresh_servers_elects_a_leader() -> None:
    """Thesis 3.8: nothing persisted is the state of a first start."""
    cluster = group()

    cluster.run(2_000)

    assert len(leaders(cluster)) == 1
