"""Role, term, vote and leader: the only file that assigns them.

Legal moves are a table; an unlisted one is a bug of ours and raises with the recent history.

    FOLLOWER ──timeout──> PRE_CANDIDATE ──pre-vote won──> CANDIDATE ──won──> LEADER
        ^                       │ (without PreVote, or on TimeoutNow: straight to CANDIDATE)
        └──────── higher term, a leader of this term, a lost vote, lost quorum ──────────┘
"""

from collections import deque

from raft.core.types import NOBODY, HardState, NodeId, Role, Term

LEGAL_MOVES: frozenset[tuple[Role, Role]] = frozenset(
    {
        (Role.FOLLOWER, Role.FOLLOWER),
        (Role.FOLLOWER, Role.PRE_CANDIDATE),
        (Role.FOLLOWER, Role.CANDIDATE),
        (Role.PRE_CANDIDATE, Role.PRE_CANDIDATE),
        (Role.PRE_CANDIDATE, Role.CANDIDATE),
        (Role.PRE_CANDIDATE, Role.FOLLOWER),
        (Role.CANDIDATE, Role.CANDIDATE),
        (Role.CANDIDATE, Role.PRE_CANDIDATE),
        (Role.CANDIDATE, Role.FOLLOWER),
        (Role.CANDIDATE, Role.LEADER),
        (Role.LEADER, Role.FOLLOWER),
    }
)


class IllegalMove(AssertionError):
    """A role change that the protocol does not allow."""


class ServerState:
    """One node's place in its group."""

    __slots__ = ("_history", "_id", "elections", "leader", "leader_changes", "role", "term", "vote")

    def __init__(self, id: NodeId, hard_state: HardState) -> None:
        self._id = id
        self.role = Role.FOLLOWER
        #: Latest term that this node has seen; only grows (paper 5.1).
        self.term: Term = hard_state.term
        #: Whom this node voted for in `term`; changes at most once within a term.
        self.vote: NodeId = hard_state.vote
        #: Leader of `term`, as far as this node knows.
        self.leader: NodeId = NOBODY
        #: Campaigns started and leaders seen since this core was made.
        self.elections = 0
        self.leader_changes = 0
        self._history: deque[tuple[Role, Role, Term]] = deque(maxlen=16)

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote)

    def become_follower(self, term: Term, leader: NodeId) -> None:
        self._move(Role.FOLLOWER, term)
        self._follow(leader)

    def become_pre_candidate(self) -> None:
        """Ask whether a campaign could be won; term and vote stay (thesis 9.6)."""
        self._move(Role.PRE_CANDIDATE, self.term)
        self.leader = NOBODY

    def become_candidate(self) -> None:
        """Paper 5.2: increment the term, vote for oneself."""
        self._move(Role.CANDIDATE, self.term + 1)
        self.leader = NOBODY
        self.vote = self._id
        self.elections += 1

    def become_leader(self) -> None:
        self._move(Role.LEADER, self.term)
        self._follow(self._id)

    def grant_vote(self, candidate: NodeId) -> None:
        assert self.role is Role.FOLLOWER and self.vote in (NOBODY, candidate), "one vote a term (paper 5.2)"
        self.vote = candidate

    def _follow(self, leader: NodeId) -> None:
        assert not (leader and self.leader and leader != self.leader), "two leaders in one term"
        if leader and leader != self.leader:
            self.leader_changes += 1
        self.leader = leader

    def _move(self, role: Role, term: Term) -> None:
        self._history.append((self.role, role, term))
        if (self.role, role) not in LEGAL_MOVES:
            raise IllegalMove(f"{self._id}: {self.role.name} to {role.name}; recently {list(self._history)}")
        assert term >= self.term, "terms never fall (paper 5.1)"
        if term > self.term:
            self.vote = NOBODY
            self.leader = NOBODY
        elif role is Role.FOLLOWER and self.role is Role.LEADER:
            self.leader = NOBODY
        self.role, self.term = role, term
