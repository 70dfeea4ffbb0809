"""Role, term, vote and leader: the table of legal moves, and the assertions that the paper implies."""

from itertools import product

import pytest

from raft.core.state import LEGAL_MOVES, IllegalMove, ServerState
from raft.core.types import NOBODY, HardState, Role


def in_role(role: Role, term: int = 3) -> ServerState:
    """A server in this role and term, by legal moves."""
    state = ServerState("a", HardState(term - 1 if role in (Role.CANDIDATE, Role.LEADER) else term))
    if role is Role.PRE_CANDIDATE:
        state.become_pre_candidate()
    elif role is Role.CANDIDATE:
        state.become_candidate()
    elif role is Role.LEADER:
        state.become_candidate()
        state.become_leader()
    assert (state.role, state.term) == (role, term)
    return state


MOVES = {
    Role.FOLLOWER: lambda state: state.become_follower(state.term, NOBODY),
    Role.PRE_CANDIDATE: lambda state: state.become_pre_candidate(),
    Role.CANDIDATE: lambda state: state.become_candidate(),
    Role.LEADER: lambda state: state.become_leader(),
}


@pytest.mark.parametrize(("before", "after"), list(product(Role, Role)))
def test_every_move_is_legal_or_raises(before: Role, after: Role) -> None:
    """Paper Figure 4, with the pre-candidate of thesis 9.6: the table is the whole truth."""
    state = in_role(before)

    if (before, after) in LEGAL_MOVES:
        MOVES[after](state)
        assert state.role is after
    else:
        with pytest.raises(IllegalMove):
            MOVES[after](state)


def test_a_leader_can_only_step_down() -> None:
    """Paper Figure 4: a leader never campaigns."""
    assert {after for before, after in LEGAL_MOVES if before is Role.LEADER} == {Role.FOLLOWER}


def test_only_a_candidate_becomes_leader() -> None:
    """Paper Figure 4."""
    assert {before for before, after in LEGAL_MOVES if after is Role.LEADER} == {Role.CANDIDATE}


def test_an_illegal_move_tells_the_recent_history() -> None:
    """A bug of ours must be readable from its message alone."""
    state = in_role(Role.LEADER)

    with pytest.raises(IllegalMove, match=r"LEADER to CANDIDATE.*CANDIDATE.*LEADER"):
        state.become_candidate()


def test_a_term_never_falls() -> None:
    """Paper 5.1."""
    with pytest.raises(AssertionError):
        in_role(Role.FOLLOWER, term=3).become_follower(2, NOBODY)


def test_a_new_term_forgets_vote_and_leader() -> None:
    """Paper 5.2: one vote a term, and nobody leads a term that nobody has won yet."""
    state = in_role(Role.FOLLOWER)
    state.grant_vote("b")
    state.become_follower(3, "b")

    state.become_follower(4, NOBODY)

    assert (state.vote, state.leader) == (NOBODY, NOBODY)


def test_a_vote_is_never_changed_within_a_term() -> None:
    """Paper 5.2; granting it again to the same candidate is no change (known bug 13)."""
    state = in_role(Role.FOLLOWER)
    state.grant_vote("b")
    state.grant_vote("b")

    with pytest.raises(AssertionError):
        state.grant_vote("c")


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.LEADER, Role.PRE_CANDIDATE])
def test_only_a_follower_grants_a_vote(role: Role) -> None:
    with pytest.raises(AssertionError):
        in_role(role).grant_vote("b")


def test_a_candidate_votes_for_itself_in_the_next_term() -> None:
    """Paper 5.2."""
    state = in_role(Role.FOLLOWER, term=3)

    state.become_candidate()

    assert state.hard_state == HardState(4, "a")


def test_a_pre_candidate_keeps_term_and_vote() -> None:
    """Thesis 9.6: it binds nobody, itself included."""
    state = in_role(Role.FOLLOWER, term=3)
    state.grant_vote("b")

    state.become_pre_candidate()

    assert state.hard_state == HardState(3, "b")
    assert state.leader == NOBODY


def test_two_leaders_in_one_term_are_an_assertion() -> None:
    """Paper 5.2, election safety (known bug 16)."""
    state = in_role(Role.FOLLOWER)
    state.become_follower(3, "b")

    with pytest.raises(AssertionError):
        state.become_follower(3, "c")


def test_a_leader_that_steps_down_knows_no_leader() -> None:
    """known bug 7 (etcd#8334): believing in itself it would refuse all pre-votes."""
    state = in_role(Role.LEADER)

    state.become_follower(3, NOBODY)

    assert state.leader == NOBODY


def test_campaigns_and_leaders_are_counted() -> None:
    state = in_role(Role.LEADER)
    state.become_follower(5, "b")
    state.become_follower(5, "b")

    assert (state.elections, state.leader_changes) == (1, 2)
