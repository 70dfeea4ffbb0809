"""Raft paper, section 5.6: timing and availability."""

from itertools import pairwise

from raft.core.config import CoreConfig
from tests.core.replica import Replica
from tests.paper.groups import anything, elected, leaders, propose


def test_safety_does_not_depend_on_timing() -> None:
    """Paper 5.6: no incorrect result because something happens faster or slower than expected. Here clocks of
    all servers jump ahead at random places, and whatever two servers both applied is the same."""
    cluster = elected()
    for number, jump_ms in enumerate((0, 900, 10, 400, 0, 5_000, 399, 801)):
        id = "abc"[number % 3]
        cluster.nodes[id].now_ms += jump_ms
        cluster.at(id, lambda node: node.pass_ms(1))
        cluster.settle(anything)
        for leader, _ in leaders(cluster):
            cluster.at(leader, lambda node, number=number: node.propose(b"%d" % number))
        cluster.deliver(anything, count=3)
    cluster.run(5_000)

    applied = [cluster.nodes[id].commands for id in "abc"]

    assert applied[0] and applied[0] == applied[1] == applied[2]


def test_broadcast_time_is_well_below_the_election_timeout() -> None:
    """Paper 5.6: broadcastTime << electionTimeout. The defaults let seven heartbeats in a row be lost."""
    config = CoreConfig(id="a")

    assert config.election_timeout_min_ms >= 8 * config.heartbeat_ms


def test_a_leader_is_elected_within_a_few_timeouts_of_the_old_ones_death() -> None:
    """Paper 5.6: the group is unavailable for roughly the election timeout."""
    for crash_after_ms in range(0, 100, 10):
        cluster = elected()
        cluster.run(crash_after_ms)
        cluster.crash("a")

        cluster.run(2_000)

        assert len(leaders(cluster)) == 1


def test_a_majority_that_can_talk_makes_progress() -> None:
    """Paper 5.6 and 5.2: the system is available as long as a majority is up and can communicate."""
    cluster = elected()
    cluster.crash("c")

    propose(cluster, "a", b"x")

    assert cluster.nodes["a"].commands == [b"x"]


def test_without_a_majority_nothing_is_committed() -> None:
    """Paper 5.6: and nothing wrong happens either."""
    cluster = elected()
    cluster.crash("b")
    cluster.crash("c")

    cluster.at("a", lambda node: node.propose(b"x"))
    cluster.run(5_000)

    assert cluster.nodes["a"].commands == []
    assert leaders(cluster) == []


def test_heartbeats_come_at_their_interval() -> None:
    """Paper 5.6: often enough, and not more often than that."""
    cluster = elected()
    leader: Replica = cluster.nodes["a"]
    beats = []

    for _ in range(100):
        leader.pass_ms(10)
        if leader.sent():
            beats.append(leader.now_ms)

    gaps = {later - earlier for earlier, later in pairwise(beats)}
    assert gaps == {50}
