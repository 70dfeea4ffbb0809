"""Who of the voters answers, and the removals and promotions that follow from it (raft/core/answering.py)."""

import pytest

from raft.core.answering import check_removal
from raft.core.errors import ConfigurationBusy, VotersSilent
from raft.core.messages import AppendEntries
from raft.core.types import Configuration
from tests.core.replica import FIVE, THREE, Replica, acknowledge, heartbeat, leader_of, settled_leader

TIMEOUT_MS = 800


def silence(leader: Replica, *silent: str) -> Replica:
    """Let an election timeout pass in which these do not answer, and all others do."""
    end_ms = leader.now_ms + TIMEOUT_MS + 2 * leader.core.config.heartbeat_ms
    while leader.now_ms < end_ms:
        leader.receive(*(acknowledge(r) for r in heartbeat(leader) if r.to not in silent))
    assert leader.leads
    return leader


def heard_by_b_alone() -> Replica:
    """A new leader whose no-op b has acknowledged."""
    leader = leader_of()
    return leader.receive(*(acknowledge(request) for request in leader.sent(AppendEntries) if request.to == "b"))


def without(configuration: Configuration, removed: str) -> Configuration:
    return Configuration(tuple(voter for voter in configuration.voters if voter != removed))


def test_a_live_voter_is_not_removed_where_the_others_could_decide_nothing() -> None:
    """Of b and c one answers: what the leader proposed could never be committed, nor taken back."""
    leader = silence(settled_leader(), "c")

    with pytest.raises(VotersSilent) as refusal:
        leader.configure(without(THREE, "b"))

    assert "without b, 2 of the voters a, c would have to answer, and c does not: start c" in str(refusal.value)
    assert leader.core.configuration == THREE


def test_a_leader_does_not_remove_itself_and_leave_nobody_who_can_decide() -> None:
    """It is one of those who answer, and would not be one of those who stay."""
    leader = silence(settled_leader(), "c")

    with pytest.raises(VotersSilent):
        leader.configure(Configuration(("b", "c")))


def test_the_voter_that_does_not_answer_may_be_removed() -> None:
    leader = silence(settled_leader(), "c")

    assert leader.configure(without(THREE, "c")) == 2


def test_whoever_is_removed_while_a_majority_of_the_others_answers_may_go() -> None:
    leader = silence(settled_leader(FIVE), "e")

    assert leader.configure(without(FIVE, "d")) == 2


def test_all_that_are_silent_are_named() -> None:
    leader = silence(settled_leader(FIVE), "d", "e")

    with pytest.raises(VotersSilent) as refusal:
        leader.configure(without(FIVE, "b"))

    assert "d, e do not: start d or e, or remove one of them first" in str(refusal.value)


def test_a_learner_is_always_removed() -> None:
    """It counts in no majority."""
    leader = silence(settled_leader(Configuration(("a", "b", "c"), ("l",))), "c")

    assert leader.configure(THREE) == 2


def test_a_leader_that_has_not_heard_everybody_yet_says_neither_yes_nor_no() -> None:
    """A wrong refusal would send an operator to start what runs."""
    leader = heard_by_b_alone()

    with pytest.raises(ConfigurationBusy):
        leader.configure(without(THREE, "b"))

    leader.receive(*map(acknowledge, heartbeat(leader)))
    assert leader.configure(without(THREE, "b")) == 2


def test_a_leader_that_never_heard_a_voter_refuses_after_an_election_timeout() -> None:
    leader = silence(heard_by_b_alone(), "c")

    with pytest.raises(VotersSilent):
        leader.configure(without(THREE, "b"))


def test_who_answered_before_the_removal_was_asked_for_is_not_known_to_be_alive() -> None:
    """It may have been killed in between, and the leader may not have noticed yet."""
    leader = settled_leader()
    asked_ms = leader.now_ms
    with pytest.raises(ConfigurationBusy):
        check_removal(leader.core, without(THREE, "b"), after_ms=asked_ms)

    leader.receive(*(acknowledge(request) for request in heartbeat(leader) if request.to == "c"))

    check_removal(leader.core, without(THREE, "b"), after_ms=asked_ms)
    with pytest.raises(ConfigurationBusy):
        check_removal(leader.core, without(THREE, "c"), after_ms=asked_ms)


def test_a_learner_is_promoted_only_where_a_majority_of_the_voters_then_answers() -> None:
    """Four voters need three: with b and c silent, neither the promotion nor any other change could be committed."""
    leader = settled_leader(Configuration(("a", "b", "c"), ("l",)), check_quorum=False)
    silence(leader, "b", "c", "l")
    request = next(request for request in heartbeat(leader) if request.to == "l")

    leader.receive(acknowledge(request, applied=1))

    assert leader.core.configuration.learners == ("l",)
