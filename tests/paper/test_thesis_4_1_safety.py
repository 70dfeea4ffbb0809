"""Thesis, section 4.1: safety of membership changes, one server at a time."""

import pytest

from raft.core.errors import ConfigurationRefused
from raft.core.membership import encode_configuration
from raft.core.messages import AppendEntries, RequestVoteReply
from raft.core.types import Configuration, Entry, EntryKind, HardState
from tests.core.replica import (
    THREE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    entry,
    follower_of,
    leader_of,
    settled_leader,
    vote_request,
)
from tests.paper.groups import anything, elected, leaders

FOUR = Configuration(("a", "b", "c", "d"))


def change(index: int, configuration: Configuration, term: int = 1) -> Entry:
    return entry(index, term, encode_configuration(configuration), EntryKind.CONFIGURATION)


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(("a", "b", "c", "d", "e")),
        Configuration(("a",)),
        Configuration(("a", "b", "d")),
        Configuration(("a", "b"), ("d",)),
    ],
    ids=["two added", "two removed", "one replaced", "a voter out and a learner in"],
)
def test_only_one_server_is_added_or_removed_at_a_time(configuration: Configuration) -> None:
    """Thesis 4.1: it prevents two majorities without a common member, of the old and the new configuration."""
    leader = settled_leader()

    with pytest.raises(ConfigurationRefused):
        leader.configure(configuration)


def test_a_new_configuration_is_an_entry_of_the_log() -> None:
    """Thesis 4.1: appended and replicated by the ordinary mechanism."""
    leader = settled_leader()

    index = leader.configure(FOUR)

    assert leader.core.log.entry(index).kind is EntryKind.CONFIGURATION
    assert {r.to for r in leader.sent(AppendEntries) if r.entries} >= {"b", "c"}


@pytest.mark.parametrize("where", ["leader", "follower", "restarted"])
def test_it_takes_effect_on_each_server_as_soon_as_it_is_in_its_log(where: str) -> None:
    """Thesis 4.1: servers never wait for a configuration entry to be committed."""
    if where == "leader":
        server = settled_leader()
        server.configure(FOUR)
    elif where == "follower":
        server = follower_of("b", 1)
        server.receive(append("b", 1, new=[change(1, FOUR)]))
    else:
        server = Replica(disk=Disk(HardState(1), [change(1, FOUR)]))

    assert server.core.configuration == FOUR
    assert server.core.log.commit_index < server.core.configurations.latest_index


def test_a_majority_of_the_new_configuration_commits_the_change() -> None:
    """Thesis 4.1: of C_new, not of C_old: three of four here."""
    leader = settled_leader()
    leader.configure(FOUR)
    requests = {request.to: request for request in leader.sent(AppendEntries)}

    leader.receive(acknowledge(requests["b"]))
    assert leader.core.log.commit_index == 1
    leader.receive(acknowledge(requests["c"]))

    assert leader.core.log.commit_index == 2


def test_a_change_is_complete_when_it_is_committed_and_only_then_may_the_next_begin() -> None:
    """Thesis 4.1: overlapping changes would make unsafe majorities."""
    leader = settled_leader()
    leader.configure(FOUR)

    with pytest.raises(ConfigurationRefused):
        leader.configure(THREE)
    acknowledge_all(leader)
    leader.configure(THREE)

    assert leader.core.configuration == THREE


def test_a_server_falls_back_when_the_entry_is_removed_from_its_log() -> None:
    """Thesis 4.1: an uncommitted change may be lost with its leader."""
    follower = follower_of("b", 1)
    follower.receive(append("b", 1, new=[change(1, FOUR)]))

    follower.receive(append("c", 2, (0, 0), [entry(1, 2)]))

    assert follower.core.configuration == THREE


def test_appends_are_accepted_from_a_leader_outside_of_the_own_configuration() -> None:
    """Thesis 4.1: the caller's configuration is what counts; a new server could never be added otherwise."""
    server = Replica()

    server.receive(append("stranger", 3, new=[entry(1, 3)]))

    assert server.core.state.leader == "stranger"
    assert server.log_terms == [3]


def test_a_vote_is_given_to_a_candidate_outside_of_the_own_configuration() -> None:
    """Thesis 4.1: it may be needed to keep the group available; term and log decide as ever."""
    server = Replica()

    server.receive(vote_request("stranger", 3))

    assert server.one_sent(RequestVoteReply).granted


def test_a_server_that_votes_nowhere_still_gives_its_vote() -> None:
    """Thesis 4.1: requests are answered without consulting the own configuration; the asker knows who counts."""
    learner = Replica("l", configuration=Configuration(("a", "b", "c"), ("l",)))

    learner.receive(vote_request("b", 3, to="l"))

    assert learner.one_sent(RequestVoteReply).granted


def test_a_leader_commits_in_its_own_term_before_it_changes_anything() -> None:
    """The correction to thesis 4.1 (raft-dev, July 2015; known bug 82)."""
    leader = leader_of()

    with pytest.raises(ConfigurationRefused):
        leader.configure(FOUR)
    acknowledge_all(leader)
    leader.configure(FOUR)


def test_two_leaders_changes_in_two_terms_never_make_two_majorities() -> None:
    """Thesis 4.1 with that correction: a's change reaches nobody, b's is committed, and a cannot come back."""
    cluster = elected(FOUR)
    cluster.cuts = {("a", id) for id in "bcd"} | {(id, "a") for id in "bcd"}
    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c", "d", "e"))))
    cluster.run(2_000)
    (new_leader, term), *_ = [pair for pair in leaders(cluster) if pair[0] != "a"]
    cluster.at(new_leader, lambda node: node.configure(Configuration(("b", "c", "d"))))
    cluster.run(500)
    cluster.add("e", Configuration())

    cluster.cuts = set()
    cluster.run(5_000)

    assert leaders(cluster) == [(new_leader, term)]
    assert cluster.nodes[new_leader].core.configuration.voters == ("b", "c", "d")


def test_configurations_agree_everywhere_in_the_end() -> None:
    """Thesis 4.1: they are replicated like any entry."""
    cluster = elected()
    cluster.add("d", Configuration())

    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"), ("d",))))
    cluster.settle(anything)
    cluster.run(500)

    assert {cluster.nodes[id].core.configuration for id in "abcd"} == {FOUR}
