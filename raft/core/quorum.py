"""Majorities as pure functions (paper 5.2, 5.3). A group without voters cannot decide anything."""

from collections.abc import Mapping, Sequence
from enum import Enum

from raft.core.types import NodeId


class VoteResult(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def quorum_size(voters: int) -> int:
    """The smallest size of a group of voters such that any two groups of that size share a member."""
    return voters // 2 + 1


def quorum_value(values: Mapping[NodeId, int], voters: Sequence[NodeId]) -> int:
    """The largest value that a quorum of `voters` has reached; a voter without a value counts as 0.

    With match indexes this is the index that is safely replicated, with acknowledged sequences the newest
    round that a quorum confirmed, with times the moment of the last contact with a quorum.
    """
    if not voters:
        return 0
    reached = sorted((values.get(voter, 0) for voter in voters), reverse=True)
    return reached[quorum_size(len(voters)) - 1]


def vote_result(votes: Mapping[NodeId, bool], voters: Sequence[NodeId]) -> VoteResult:
    """Whether an election with these votes is decided. Votes of non-voters do not count."""
    if not voters:
        return VoteResult.LOST
    needed = quorum_size(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
