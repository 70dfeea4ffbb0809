"""Configurations: their bytes, which changes are legal, and the history that a log implies (thesis 4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core.errors import ConfigurationRefused, NotLeading
from raft.core.membership import (
    ConfigurationHistory,
    changed,
    decode_configuration,
    encode_configuration,
    is_readable,
)
from raft.core.messages import AppendEntries
from raft.core.types import Configuration, Entry, EntryKind
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
)

FOUR = Configuration(("a", "b", "c", "d"))
NODE_IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=12)


def configuration_entry(index: int, configuration: Configuration, term: int = 1) -> Entry:
    return entry(index, term, encode_configuration(configuration), EntryKind.CONFIGURATION)


# Bytes


@settings(max_examples=50)
@given(st.sets(NODE_IDS, max_size=9), st.sets(NODE_IDS, max_size=4))
def test_a_configuration_survives_its_bytes(voters: set[str], learners: set[str]) -> None:
    """Round trip; nothing of a membership change may be lost on disk or on the wire."""
    configuration = Configuration(tuple(sorted(voters)), tuple(sorted(learners)))

    assert decode_configuration(encode_configuration(configuration)) == configuration


def test_the_encoding_stays_as_it_is() -> None:
    """It stands in logs that later versions read."""
    assert encode_configuration(Configuration(("n1", "n2"), ("n3",))) == b"n1,n2;n3"
    assert decode_configuration(b";") == Configuration()
    agreed = Configuration(("n1", "n2"), ("n3",), lease_ms=600)
    assert encode_configuration(agreed) == b"n1,n2;n3;;;;600"
    assert decode_configuration(b"n1,n2;n3;;;;600") == agreed


@pytest.mark.parametrize("data", [b"", b"a", b"a;b;c", b"a;;;;;x", b"a;;;;;6;", b"\xff;", "é;".encode()])
def test_bytes_that_are_no_configuration_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_configuration(data)
    assert not is_readable(data)


def test_a_configuration_without_voters_is_not_readable() -> None:
    """Nothing could ever be decided with it."""
    assert not is_readable(b";l")
    assert is_readable(b"a;")


# Changes


def test_a_new_server_becomes_a_learner() -> None:
    assert changed(THREE, add="d") == Configuration(("a", "b", "c"), ("d",))


def test_a_learner_added_once_more_becomes_a_voter() -> None:
    assert changed(Configuration(("a", "b", "c"), ("d",)), add="d") == FOUR


def test_a_voter_and_a_learner_can_be_removed() -> None:
    both = Configuration(("a", "b"), ("l",))

    assert changed(both, remove="b") == Configuration(("a",), ("l",))
    assert changed(both, remove="l") == Configuration(("a", "b"))


@pytest.mark.parametrize(
    "change",
    [{"add": "a"}, {"remove": "x"}, {"remove": "a"}],
    ids=["votes already", "no member", "last voter"],
)
def test_a_change_that_changes_nothing_or_leaves_no_voter_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ConfigurationRefused):
        changed(Configuration(("a",), ("l",)), **change)


@settings(max_examples=50)
@given(st.sets(NODE_IDS, min_size=1, max_size=7), NODE_IDS)
def test_quorums_before_and_after_a_change_share_a_member(voters: set[str], id: str) -> None:
    """Thesis 4.1: the reason why one server at a time needs no joint consensus."""
    before = Configuration(tuple(sorted(voters)))
    after = Configuration(tuple(sorted(voters | {id})))

    smallest = len(before.voters) // 2 + 1 + len(after.voters) // 2 + 1

    assert smallest > len(set(before.voters) | set(after.voters))


# What a leader accepts


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(("a",)),
        Configuration(("a", "b", "c", "d", "e")),
        Configuration(("a", "b", "d")),
        Configuration(()),
    ],
    ids=["two removed", "two added", "one replaced", "nobody left"],
)
def test_more_than_one_voter_at_a_time_is_refused(configuration: Configuration) -> None:
    """Thesis 4.1: two changes at once could make two majorities without a common member."""
    leader = settled_leader()

    with pytest.raises(ConfigurationRefused):
        leader.configure(configuration)
    assert leader.core.log.last_index == 1


def test_two_learners_are_not_promoted_at_once() -> None:
    """Thesis 4.1: the members stay the same, but two more votes are two changes."""
    leader = settled_leader(Configuration(("a", "b", "c"), ("l", "m")))

    with pytest.raises(ConfigurationRefused):
        leader.configure(Configuration(("a", "b", "c", "l", "m")))
    assert leader.core.log.last_index == 1


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(("a", "b", "c"), ("c",)),
        Configuration(("c", "b", "a")),
        Configuration(("a", "b", "c"), ("x,y",)),
        Configuration(("a", "b", "c"), ("x;y",)),
        Configuration(("a", "b", "c"), ("é",)),
        Configuration(("a", "b", "c"), ("",)),
        Configuration(("a", "b", "c", "c")),
        Configuration(("a", "b", "c"), ("x", "y")),
    ],
    ids=["both", "unsorted", "comma", "semicolon", "not ASCII", "nobody", "twice", "two learners"],
)
def test_a_configuration_that_its_bytes_would_change_is_refused(configuration: Configuration) -> None:
    """What the leader would use and what the log would say must be the same."""
    leader = settled_leader()

    with pytest.raises(ConfigurationRefused):
        leader.configure(configuration)
    assert leader.core.log.last_index == 1


def test_a_change_before_the_no_op_is_committed_is_refused() -> None:
    """known bug 82: raft-dev 2015, the bug of the single-server change."""
    leader = leader_of()

    with pytest.raises(ConfigurationRefused):
        leader.configure(FOUR)


def test_a_change_while_another_is_uncommitted_is_refused() -> None:
    """Thesis 4.1: overlapping changes are not safe."""
    leader = settled_leader()
    leader.configure(Configuration(("a", "b", "c"), ("d",)))

    with pytest.raises(ConfigurationRefused):
        leader.configure(Configuration(("a", "b", "c"), ("e",)))


def test_a_change_left_uncommitted_by_an_earlier_leader_counts_too() -> None:
    """known bug 82: the new leader uses it, and takes no other before it is committed."""
    disk = Disk(log=[configuration_entry(1, FOUR)])
    disk.hard_state = disk.hard_state.__class__(1)
    leader = leader_of(disk=disk)

    assert leader.core.configuration == FOUR
    with pytest.raises(ConfigurationRefused):
        leader.configure(THREE)


def test_a_change_while_leadership_is_handed_over_is_refused() -> None:
    """The successor's log must stay complete."""
    leader = settled_leader()
    leader.transfer("b")

    with pytest.raises(ConfigurationRefused):
        leader.configure(FOUR)


def test_a_follower_refuses_a_change() -> None:
    with pytest.raises(NotLeading):
        follower_of().configure(FOUR)


# History


def test_the_latest_configuration_in_the_log_counts_committed_or_not() -> None:
    """Thesis 4.1."""
    history = ConfigurationHistory(0, THREE, [configuration_entry(2, FOUR)])

    assert history.latest == FOUR
    assert history.latest_index == 2


def test_replacing_the_entry_brings_the_earlier_configuration_back() -> None:
    """Thesis 4.1: a server falls back when a change is removed from its log."""
    history = ConfigurationHistory(0, THREE, [configuration_entry(2, FOUR)])

    assert history.append([entry(2, 2)])

    assert history.latest == THREE


def test_entries_that_replace_nothing_change_nothing() -> None:
    history = ConfigurationHistory(0, THREE, [configuration_entry(2, FOUR)])

    assert not history.append([entry(3, 1)])
    assert history.latest == FOUR


def test_a_snapshot_carries_the_configuration_of_its_index() -> None:
    """known bug 46: neither an older nor a newer one."""
    history = ConfigurationHistory(0, THREE, [configuration_entry(2, FOUR), configuration_entry(5, THREE)])

    assert [history.at(index) for index in (1, 2, 4, 5)] == [THREE, FOUR, FOUR, THREE]


def test_compaction_keeps_the_configuration_in_force() -> None:
    """The entry may be gone; what it said is not."""
    history = ConfigurationHistory(0, THREE, [configuration_entry(2, FOUR), configuration_entry(5, THREE)])

    history.compact(4)

    assert history.at(4) == FOUR
    assert history.latest == THREE
    assert history.append([entry(5, 2)])
    assert history.latest == FOUR


# Learners


def learner_group(**config: int) -> Replica:
    return settled_leader(Configuration(("a", "b", "c"), ("l",)), **config)


def test_a_learner_that_has_caught_up_is_promoted() -> None:
    """Thesis 4.2.1; automatically, once it lacks few entries and has applied some."""
    leader = learner_group()
    request = next(r for r in heartbeats(leader) if r.to == "l")

    leader.receive(acknowledge(request, applied=1))
    acknowledge_all(leader)

    assert leader.core.configuration == Configuration(("a", "b", "c", "l"))


def test_a_learner_that_lags_is_not_promoted() -> None:
    """`learner_lag_max` entries are what a promotion may have to wait for."""
    leader = learner_group(learner_lag_max=3)
    for _ in range(4):
        leader.propose(b"x")
    acknowledge_all(leader, "b", "c")
    request = next(r for r in heartbeats(leader) if r.to == "l")

    leader.receive(acknowledge(request, applied=1))

    assert leader.core.configuration.learners == ("l",)


def test_a_learner_that_has_applied_nothing_is_not_promoted() -> None:
    """Its log may be a prefix that it cannot use yet."""
    leader = learner_group()
    request = next(r for r in heartbeats(leader) if r.to == "l")

    leader.receive(acknowledge(request, applied=0))

    assert leader.core.configuration.learners == ("l",)


def test_a_promotion_waits_for_a_change_that_is_under_way() -> None:
    """One change at a time, automatic ones included; the next acknowledgement tries again."""
    leader = learner_group()
    leader.configure(Configuration(("a", "b", "c"), ("l", "m")))
    requests = {request.to: request for request in leader.sent(AppendEntries)}
    leader.receive(acknowledge(requests["l"], applied=1))
    assert leader.core.configuration.learners == ("l", "m")

    leader.receive(acknowledge(requests["b"]))
    leader.receive(*(acknowledge(r, applied=1) for r in heartbeats(leader) if r.to == "l"))

    assert leader.core.configuration.voters == ("a", "b", "c", "l")


def heartbeats(leader: Replica) -> list[AppendEntries]:
    leader.sent()
    leader.pass_ms(leader.core.config.heartbeat_ms)
    return leader.sent(AppendEntries)


# A leader that is removed


def test_a_removed_leader_steps_down_once_its_removal_is_committed() -> None:
    """Thesis 4.2.2; its last messages tell the others that it is committed."""
    leader = settled_leader()
    leader.configure(Configuration(("b", "c")))
    removal = leader.sent(AppendEntries)

    leader.receive(acknowledge(removal[0]))
    assert leader.leads
    leader.receive(acknowledge(removal[1]))

    assert not leader.leads
    assert {message.leader_commit for message in leader.sent(AppendEntries)} == {2}


def test_a_removed_leader_tells_the_commit_of_its_removal_before_it_goes() -> None:
    """Nobody else could tell the others before a new leader has committed something: it must not be put off."""
    leader = settled_leader(commit_notice_ms=40)
    leader.configure(Configuration(("b", "c")))
    removal = [request for request in leader.sent(AppendEntries) if request.entries]

    leader.receive(*map(acknowledge, removal))

    assert not leader.leads
    told = [message.to for message in leader.sent(AppendEntries) if message.leader_commit == 2]
    assert told == ["b", "c"]


def test_a_removed_server_never_campaigns_again() -> None:
    """known bug 14."""
    leader = settled_leader()
    leader.configure(Configuration(("b", "c")))
    acknowledge_all(leader)
    term = leader.term

    leader.run_ms(20_000)

    assert leader.term == term
    assert leader.sent() == []


def test_a_follower_uses_a_new_configuration_as_soon_as_it_stands_in_its_log() -> None:
    """Thesis 4.1: committed or not."""
    follower = follower_of("b", 1)

    follower.receive(append("b", 1, new=[configuration_entry(1, FOUR)]))

    assert follower.core.configuration == FOUR
    assert follower.core.log.commit_index == 0
