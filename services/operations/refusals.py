"""What each `reason` means to a client: its HTTP status and a sentence that says what to do.

The rule of the file: a reason that is not in `TROUBLES` is the outcome of an operation, such as `locked` or `empty`,
and travels with 200. What Raft raises keeps its meaning: not done is 503 or 429 and may be sent again; an unknown
outcome is 504, and is never called a failure.
"""

from dataclasses import dataclass
from typing import Any

from common.web import ApiError
from raft.errors import (
    MembershipRefused,
    NoLeader,
    NoQuorum,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    Stopping,
    StorageFailed,
    TooLarge,
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row of the table of errors."""

    status: int
    detail: str
    #: Seconds for the `Retry-After` header; None where waiting alone does not help.
    retry_after_s: int | None = None


TROUBLES: dict[str, Trouble] = {
    "bad_request": Trouble(400, "The request cannot be understood; correct it and send it again."),
    "unauthenticated": Trouble(401, "Send the header `Authorization: Bearer <token>` with a token of this cluster."),
    "forbidden": Trouble(403, "This is not allowed with the token or from the place that it came from."),
    "no_such_route": Trouble(404, "There is no such route; check the path."),
    "method_not_allowed": Trouble(405, "The route is asked with another method; the `Allow` header names it."),
    "too_slow": Trouble(408, "The body came too slowly; not done, send it again over a better line."),
    "deadlock": Trouble(
        409, "Waiting would close a cycle of waiting owners; release what you hold of it, then try again."
    ),
    "fenced": Trouble(409, "A newer holder has a higher token; acquire the lock again before going on."),
    "version_mismatch": Trouble(409, "The value has another version by now; read it again and decide anew."),
    "membership_refused": Trouble(409, "The members cannot be changed so; `GET /admin/members` shows who they are."),
    "session_expired": Trouble(409, "The session has ended and its locks are released; open a new one."),
    "too_large": Trouble(413, "The request is too large; send less at a time."),
    "unsupported_media_type": Trouble(415, "The body must be JSON; send `Content-Type: application/json`."),
    "idempotency_key_reused": Trouble(
        422, "This Idempotency-Key came with another request before; use a new key for a new request."
    ),
    "overloaded": Trouble(429, "Too many requests are waiting; not done, send it again a little later.", 1),
    "quota": Trouble(429, "A limit of this queue or store is reached; take something out of it first.", 1),
    "internal": Trouble(500, "This node met an error of its own; its log has the details."),
    "no_leader": Trouble(503, "No leader is elected at the moment; not done, send it again.", 1),
    "no_quorum": Trouble(503, "The leader cannot reach a majority of the nodes; not done, send it again.", 1),
    "storage_failed": Trouble(
        503, "The disk of this node failed or is full; not done, send it again or to another node.", 1
    ),
    "stopping": Trouble(503, "This node is shutting down; not done, send it again or to another node.", 1),
    "not_ready": Trouble(503, "This node cannot serve all its groups yet; use another node or wait.", 1),
    "outcome_unknown": Trouble(
        504, "It may or may not have been done: send it again with the same Idempotency-Key to find out."
    ),
}

STATUS_BY_REASON: dict[str, int] = {reason: trouble.status for reason, trouble in TROUBLES.items()}
DETAIL_BY_REASON: dict[str, str] = {reason: trouble.detail for reason, trouble in TROUBLES.items()}
#: Only reasons that come with further headers.
HEADERS_BY_REASON: dict[str, dict[str, str]] = {
    reason: {"Retry-After": str(trouble.retry_after_s)}
    for reason, trouble in TROUBLES.items()
    if trouble.retry_after_s is not None
}

_REASON_BY_RAFT_ERROR: dict[type[RaftError], str] = {
    NotLeader: "no_leader",
    NoLeader: "no_leader",
    NoQuorum: "no_quorum",
    Overloaded: "overloaded",
    StorageFailed: "storage_failed",
    TooLarge: "too_large",
    Stopping: "stopping",
    MembershipRefused: "membership_refused",
    OutcomeUnknown: "outcome_unknown",
}


def api_error(reason: str, detail: str | None = None, **facts: Any) -> ApiError:
    """The error for a reason of the table; `facts` become further fields of the answer."""
    trouble = TROUBLES[reason]
    return ApiError(
        trouble.status,
        reason,
        detail or trouble.detail,
        facts=facts,
        headers=HEADERS_BY_REASON.get(reason),
    )


def from_raft(error: Exception) -> ApiError | None:
    """What a client is told where Raft raised `error`; None where it is not Raft's."""
    for kind in type(error).__mro__:
        reason = _REASON_BY_RAFT_ERROR.get(kind)
        if reason is not None:
            return api_error(reason)
    # A kind of error without a row promises nothing, so neither may the answer.
    return api_error("outcome_unknown") if isinstance(error, RaftError) else None
