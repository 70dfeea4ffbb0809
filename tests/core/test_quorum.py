"""Majorities: tables in the spirit of etcd's quorum/testdata, and dumb twins for every group up to seven.

known bug 31: even sizes, the sorted prefix, majority less one.
"""

from functools import cache
from itertools import combinations, product

import pytest

from raft.core.quorum import VoteResult, quorum_size, quorum_value, vote_result

IDS = ("n1", "n2", "n3", "n4", "n5", "n6", "n7")


@cache
def majorities(voters: tuple[str, ...]) -> list[set[str]]:
    """Every set of voters that is more than half of them."""
    return [
        set(chosen)
        for size in range(len(voters) + 1)
        for chosen in combinations(voters, size)
        if 2 * size > len(voters)
    ]


def twin_quorum_value(values: dict[str, int], voters: tuple[str, ...]) -> int:
    """Straight from the definition: the best that all members of some majority have reached."""
    return max((min(values.get(v, 0) for v in chosen) for chosen in majorities(voters)), default=0)


def twin_vote_result(votes: dict[str, bool], voters: tuple[str, ...]) -> VoteResult:
    """Straight from the definition: some majority said yes; none can any more; or neither."""
    if any(all(votes.get(v) is True for v in chosen) for chosen in majorities(voters)):
        return VoteResult.WON
    if any(all(votes.get(v) is not False for v in chosen) for chosen in majorities(voters)):
        return VoteResult.PENDING
    return VoteResult.LOST


@pytest.mark.parametrize("size", range(1, 8))
def test_quorum_size_is_the_smallest_majority(size: int) -> None:
    """Two majorities share a member; two of anything smaller need not."""
    assert quorum_size(size) == min(len(chosen) for chosen in majorities(IDS[:size]))
    assert 2 * quorum_size(size) > size
    assert 2 * (quorum_size(size) - 1) <= size


@pytest.mark.parametrize("size", range(8))
def test_quorum_value_equals_its_twin(size: int) -> None:
    """Every assignment of few values, unknown ones included."""
    voters = IDS[:size]
    choices = (None, 1, 2, 3) if size <= 5 else (None, 1, 2)

    for picked in product(choices, repeat=size):
        values = {voter: value for voter, value in zip(voters, picked, strict=True) if value is not None}
        assert quorum_value(values, voters) == twin_quorum_value(values, voters), values


@pytest.mark.parametrize("size", range(8))
def test_vote_result_equals_its_twin(size: int) -> None:
    """Every assignment of yes, no and silence."""
    voters = IDS[:size]

    for picked in product((None, True, False), repeat=size):
        votes = {voter: vote for voter, vote in zip(voters, picked, strict=True) if vote is not None}
        assert vote_result(votes, voters) is twin_vote_result(votes, voters), votes


NOTHING = None
VALUE_TABLE = [
    # what each voter is known to hold, and what a majority therefore holds
    ((NOTHING,), 0),
    ((12,), 12),
    ((NOTHING, NOTHING), 0),
    ((12, NOTHING), 0),
    ((12, 5), 5),
    ((NOTHING, NOTHING, NOTHING), 0),
    ((12, NOTHING, NOTHING), 0),
    ((12, 5, NOTHING), 5),
    ((12, 5, 6), 6),
    ((12, 5, 4), 5),
    ((5, 5, NOTHING), 5),
    ((5, 5, 12), 5),
    ((100, 101, 103), 101),
    ((100, 101, 103, 104), 101),
    ((101, 104, 103, 103, NOTHING), 103),
    ((101, 102, 103, 103, NOTHING), 102),
    ((7, 7, 7, 1, 1, 1), 1),
    ((7, 7, 7, 7, 1, 1), 7),
]


@pytest.mark.parametrize(("known", "expected"), VALUE_TABLE)
def test_quorum_value_table(known: tuple[int | None, ...], expected: int) -> None:
    voters = IDS[: len(known)]
    values = {voter: value for voter, value in zip(voters, known, strict=True) if value is not None}

    assert quorum_value(values, voters) == expected


VOTE_TABLE = [
    ("", VoteResult.LOST),
    ("_", VoteResult.PENDING),
    ("n", VoteResult.LOST),
    ("y", VoteResult.WON),
    ("__", VoteResult.PENDING),
    ("n_", VoteResult.LOST),
    ("y_", VoteResult.PENDING),
    ("ny", VoteResult.LOST),
    ("yy", VoteResult.WON),
    ("n__", VoteResult.PENDING),
    ("y__", VoteResult.PENDING),
    ("yn_", VoteResult.PENDING),
    ("nn_", VoteResult.LOST),
    ("yyn", VoteResult.WON),
    ("ynn", VoteResult.LOST),
    ("yy__", VoteResult.PENDING),
    ("yyn_", VoteResult.PENDING),
    ("yynn", VoteResult.LOST),
    ("yyyn", VoteResult.WON),
    ("yynn_", VoteResult.PENDING),
    ("yyyn_", VoteResult.WON),
    ("nnn__", VoteResult.LOST),
    ("yyyyy", VoteResult.WON),
]


@pytest.mark.parametrize(("said", "expected"), VOTE_TABLE)
def test_vote_result_table(said: str, expected: VoteResult) -> None:
    voters = IDS[: len(said)]
    votes = {voter: vote == "y" for voter, vote in zip(voters, said, strict=True) if vote != "_"}

    assert vote_result(votes, voters) is expected


def test_only_voters_count() -> None:
    """A learner's or a stranger's answer moves nothing."""
    assert quorum_value({"n1": 3, "n2": 1, "x": 9, "y": 9}, ("n1", "n2", "n3")) == 1
    assert vote_result({"x": True, "y": True, "n1": True}, ("n1", "n2", "n3")) is VoteResult.PENDING
    assert vote_result({"x": False, "y": False, "n1": True}, ("n1", "n2", "n3")) is VoteResult.PENDING


def test_a_group_without_voters_decides_nothing() -> None:
    """A server that joins knows no configuration yet: it wins no election and commits nothing."""
    assert quorum_value({"n1": 9}, ()) == 0
    assert vote_result({"n1": True}, ()) is VoteResult.LOST
