"""services/operations/refusals.py: each reason has its status, and what Raft raises keeps its meaning."""

import pytest

from raft import errors as raft_errors
from raft.errors import NotDone, OutcomeUnknown, RaftError
from services.operations.refusals import (
    DETAIL_BY_REASON,
    HEADERS_BY_REASON,
    STATUS_BY_REASON,
    from_raft,
    refused,
)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("bad_request", 400),
        ("unauthenticated", 401),
        ("forbidden", 403),
        ("no_such_route", 404),
        ("method_not_allowed", 405),
        ("deadlock", 409),
        ("fenced", 409),
        ("version_mismatch", 409),
        ("session_expired", 409),
        ("too_large", 413),
        ("unsupported_media_type", 415),
        ("idempotency_key_reused", 422),
        ("overloaded", 429),
        ("quota", 429),
        ("no_leader", 503),
        ("no_quorum", 503),
        ("storage_failed", 503),
        ("stopping", 503),
        ("outcome_unknown", 504),
    ],
)
def test_every_reason_of_the_contract_has_its_status_and_a_sentence(reason, status):
    """Goal: the table of errors of the HTTP contract, row by row."""
    assert STATUS_BY_REASON[reason] == status
    assert DETAIL_BY_REASON[reason].endswith(".")


@pytest.mark.parametrize("reason", ["locked", "timeout", "not_held", "empty", "stale_receipt", "not_found"])
def test_outcomes_of_operations_are_no_trouble(reason):
    """Goal: a lock that is held or a queue that is empty is an answer, with 200."""
    assert reason not in STATUS_BY_REASON


def test_what_may_be_sent_again_later_says_when():
    """Goal: `Retry-After` on every 429 and 503, and on nothing else."""
    waiting = {reason for reason, status in STATUS_BY_REASON.items() if status in (429, 503)}

    assert set(HEADERS_BY_REASON) == waiting
    assert all(int(headers["Retry-After"]) >= 1 for headers in HEADERS_BY_REASON.values())


def kinds_of_raft_error() -> list[type[RaftError]]:
    return [
        kind
        for kind in vars(raft_errors).values()
        if isinstance(kind, type) and issubclass(kind, RaftError) and kind not in (RaftError, NotDone)
    ]


@pytest.mark.parametrize("kind", kinds_of_raft_error())
def test_certainly_not_done_and_unknown_are_told_apart(kind):
    """Goal: 503 or 429 only where sending again is safe; 504 for everything else, and never the other way."""
    error = from_raft(kind())

    assert error is not None
    assert (error.status in (429, 503)) == issubclass(kind, NotDone)
    assert (error.status == 504) == issubclass(kind, OutcomeUnknown)


def test_a_new_kind_of_raft_error_promises_nothing():
    """Goal: an error that nobody gave a row is answered as unknown."""

    class Novel(RaftError):
        pass

    assert from_raft(Novel()).reason == "outcome_unknown"


def test_a_more_special_kind_is_answered_like_its_parent():
    """Goal: raft may refine its errors without changing the contract."""

    class NoLeaderInSight(raft_errors.NoLeader):
        pass

    assert from_raft(NoLeaderInSight()).reason == "no_leader"


def test_other_errors_are_not_raft_s():
    """Goal: a bug is answered as `internal`, not as trouble of the cluster."""
    assert from_raft(KeyError()) is None


def test_facts_stand_in_the_answer():
    """Goal: the body carries the facts, such as the highest token."""
    error = refused("fenced", highest_token=9)

    assert (error.status, error.facts, error.detail) == (409, {"highest_token": 9}, DETAIL_BY_REASON["fenced"])
