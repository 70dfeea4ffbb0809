"""Thesis, section 4.2: availability. New servers (4.2.1), removing the leader (4.2.2), disruptive servers (4.2.3),
and that the group can always go on (4.2.4)."""

from raft.core.messages import AppendEntries, RequestVote, RequestVoteReply
from raft.core.types import Configuration, Role
from tests.core.replica import (
    THREE,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    follower_of,
    heartbeat,
    settled_leader,
    vote_reply,
    vote_request,
)
from tests.paper.groups import anything, elect, elected, leaders, propose

FOUR = Configuration(("a", "b", "c", "d"))
WITH_LEARNER = Configuration(("a", "b", "c"), ("d",))


# 4.2.1 Catching up new servers


def test_a_new_server_is_sent_the_log_and_counts_in_no_majority() -> None:
    """Thesis 4.2.1: it joins as a non-voting member, neither for votes nor for commitment."""
    leader = settled_leader()
    leader.configure(WITH_LEARNER)
    acknowledge_all(leader)
    leader.propose(b"x")

    requests = {request.to: request for request in leader.sent(AppendEntries)}
    leader.receive(acknowledge(requests["d"]))

    assert leader.core.log.commit_index == 2
    assert "d" not in leader.core.configuration.voters


def test_a_learner_neither_campaigns_nor_is_asked_for_its_vote() -> None:
    """Thesis 4.2.1."""
    learner = Replica("d", configuration=WITH_LEARNER)
    voter = Replica("a", configuration=WITH_LEARNER)

    learner.run_ms(10_000)
    voter.time_out()

    assert learner.sent(RequestVote) == []
    assert {request.to for request in voter.sent(RequestVote)} == {"b", "c"}


def test_it_becomes_a_voter_once_it_has_caught_up() -> None:
    """Thesis 4.2.1: so that the change does not hold up commits; here within `learner_lag_max` entries."""
    cluster = elected(learner_lag_max=4, append_entries_max=2)
    propose(cluster, "a", *[b"%d" % number for number in range(40)])
    cluster.add("d", Configuration())
    cluster.at("a", lambda node: node.configure(WITH_LEARNER))
    lags = []

    for _ in range(400):
        leader = cluster.nodes["a"]
        if "d" in leader.core.configuration.voters:
            break
        lags.append(leader.core.log.last_index - leader.core.progress["d"].match_index)
        if not cluster.deliver(anything, count=1):
            cluster.at("a", lambda node: node.pass_ms(50))

    assert cluster.nodes["a"].core.configuration == FOUR
    assert lags[0] > 4 >= lags[-1]


def test_a_server_that_never_catches_up_stays_without_a_vote_and_can_be_removed() -> None:
    """Thesis 4.2.1: the leader must not wait for ever for a server that is unavailable or too slow."""
    leader = settled_leader()
    leader.configure(WITH_LEARNER)
    for _ in range(50):
        leader.propose(b"x")
        leader.receive(*(acknowledge(request) for request in heartbeat(leader) if request.to != "d"))
        acknowledge_all(leader, "b", "c")

    assert leader.core.configuration == WITH_LEARNER
    leader.configure(THREE)
    acknowledge_all(leader)

    assert leader.core.configuration == THREE


def test_an_empty_log_is_met_in_one_refusal() -> None:
    """Thesis 4.2.1: a new server's answer tells the length of its log, so that nextIndex drops at once."""
    cluster = elected()
    propose(cluster, "a", *[b"%d" % number for number in range(50)])
    cluster.add("d", Configuration())
    cluster.at("a", lambda node: node.configure(WITH_LEARNER))
    cluster.take_trace()

    cluster.settle(lambda m: "d" in (m.sender, m.to))

    refusals = [line for line in cluster.take_trace() if line.startswith("d -> a") and "refused" in line]
    assert len(refusals) == 1
    assert cluster.nodes["d"].core.log.last_index >= 52


# 4.2.2 Removing the current leader


def test_a_leader_manages_a_group_that_it_is_no_part_of_until_that_is_committed() -> None:
    """Thesis 4.2.2: it replicates, but does not count itself."""
    leader = settled_leader()
    leader.configure(Configuration(("b", "c")))
    leader.propose(b"x")
    last = {request.to: request for request in leader.sent(AppendEntries)}

    leader.receive(acknowledge(last["b"]))

    assert leader.leads
    assert leader.core.log.commit_index == 1


def test_it_steps_down_when_its_removal_is_committed() -> None:
    """Thesis 4.2.2: the others elect one of themselves."""
    cluster = elected()

    cluster.at("a", lambda node: node.configure(Configuration(("b", "c"))))
    cluster.run(3_000)

    assert [id in "bc" for id, _ in leaders(cluster)] == [True]
    assert cluster.nodes["a"].role is Role.FOLLOWER


def removed_and_restarted() -> Replica:
    """a of a group of two: its own removal stands in its log alone."""
    leader = settled_leader(Configuration(("a", "b")))
    leader.configure(Configuration(("b",)))
    leader.restart()
    return leader


def test_a_server_that_is_not_in_its_latest_configuration_still_starts_elections() -> None:
    """Thesis 4.2.2 (Figure 4.6): it may be needed until the change is committed."""
    server = removed_and_restarted()

    server.time_out()

    assert server.role is Role.PRE_CANDIDATE
    assert [request.to for request in server.sent(RequestVote)] == ["b"]


def test_it_does_not_count_its_own_vote() -> None:
    """Thesis 4.2.2: unless it is part of its latest configuration."""
    server = removed_and_restarted()
    server.time_out()
    pre_vote = server.one_sent(RequestVote)
    assert not server.leads and server.role is Role.PRE_CANDIDATE

    server.receive(vote_reply(pre_vote))
    assert server.role is Role.CANDIDATE
    server.receive(vote_reply(server.one_sent(RequestVote)))

    assert server.leads


def test_the_last_other_server_is_enough_to_finish_the_removal() -> None:
    """Thesis 4.2.2, Figure 4.6: the removed server wins, commits its removal and goes."""
    cluster = elected(Configuration(("a", "b")))
    cluster.cuts = {("a", "b"), ("b", "a")}
    cluster.at("a", lambda node: node.configure(Configuration(("b",))))
    cluster.crash("a")
    cluster.restart("a")
    cluster.cuts = set()

    elect_removed = cluster.nodes["a"]
    cluster.run(6_000)

    assert not elect_removed.leads
    assert [id for id, _ in leaders(cluster)] == ["b"]
    assert cluster.nodes["b"].core.configuration == Configuration(("b",))


# 4.2.3 Disruptive servers


def test_a_server_that_hears_its_leader_gives_neither_term_nor_vote() -> None:
    """Thesis 4.2.3: within the minimum election timeout of hearing from the current leader."""
    follower = follower_of("b", 1)
    follower.now_ms += 399

    follower.receive(vote_request("x", 50, (99, 49)))

    assert follower.term == 1
    assert not follower.one_sent(RequestVoteReply).granted


def test_the_leader_itself_is_not_deposed_by_a_higher_term_in_a_vote_request() -> None:
    """Thesis 4.2.3: it would be the first that a disruptive server reaches."""
    leader = settled_leader()

    leader.receive(vote_request("x", 50, (99, 49)))

    assert (leader.leads, leader.term) == (True, 1)


def test_a_vote_request_that_the_leader_asked_for_is_an_exception() -> None:
    """Thesis 4.2.3: the flag of a leadership transfer."""
    follower = follower_of("b", 1)

    follower.receive(vote_request("c", 2, (9, 1), transfer=True))

    assert follower.one_sent(RequestVoteReply).granted


def test_a_removed_server_that_campaigns_for_ever_disturbs_nobody() -> None:
    """Thesis 4.2.3: a thousand election timeouts of it (known bug 14)."""
    leader = settled_leader(FOUR)
    leader.configure(THREE)
    acknowledge_all(leader, "b", "c")
    removed = Replica("d", configuration=FOUR, pre_vote=False)

    for _ in range(1_000):
        removed.time_out()
        for request in removed.sent(RequestVote, "a"):
            removed.receive(*leader.receive(request).sent(to="d"))
        acknowledge_all(leader, "b", "c")
        heartbeat_answers = heartbeat(leader)
        leader.receive(*(acknowledge(beat) for beat in heartbeat_answers))

    assert (leader.leads, leader.term) == (True, 1)
    assert removed.term >= 1_000


# 4.2.4 Availability argument


def test_a_leader_can_be_elected_in_the_middle_of_a_change() -> None:
    """Thesis 4.2.4: at every step of it, whoever crashes."""
    for steps in range(8):
        cluster = elected()
        cluster.add("d", Configuration())
        cluster.at("a", lambda node: node.configure(FOUR))
        for _ in range(steps):
            cluster.deliver(anything, count=2)
        cluster.crash("a")

        cluster.run(5_000)

        assert len(leaders(cluster)) == 1, steps


def test_a_leader_that_is_elected_in_the_middle_can_finish_or_undo_the_change() -> None:
    """Thesis 4.2.4: it maintains its leadership and serves clients throughout."""
    cluster = elected()
    cluster.add("d", Configuration())
    cluster.at("a", lambda node: node.configure(FOUR))
    cluster.deliver(lambda m: m.to == "b")
    cluster.crash("a")
    elect(cluster, "b")

    propose(cluster, "b", b"x")
    cluster.at("b", lambda node: node.configure(Configuration(("b", "c", "d"))))
    cluster.run(1_000)

    assert cluster.nodes["d"].core.configuration == Configuration(("b", "c", "d"))
    assert cluster.nodes["d"].commands == [b"x"]


def test_a_follower_outside_of_the_configuration_costs_nothing() -> None:
    """Thesis 4.2.4: the leader stops sending to it, and waits for it no more."""
    leader = settled_leader()
    leader.configure(Configuration(("a", "b")))

    sent_to = {request.to for request in leader.sent(AppendEntries)}
    leader.receive(append("c", 1))

    assert sent_to == {"b"}
    assert "c" not in leader.core.progress
