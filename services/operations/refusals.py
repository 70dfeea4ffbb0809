"""What each `reason` of a refusal means to a client: its HTTP status and a sentence that says what to do.

The rule of the file: a reason that is not in `REFUSALS` is the outcome of an operation, such as `locked` or `empty`,
and travels with 200. What Raft raises keeps its meaning: not done is 503 or 429 and may be sent again; an unknown
outcome is 504, and is never called a failure. Facts are further fields of the answer: each refusal has some of those
that its row names.
"""

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from common.api_error import ApiError
from raft.errors import (
    MembershipRefused,
    NoLeader,
    NoQuorum,
    NotKnownToAll,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    Stopping,
    StorageFailed,
    TooLarge,
)


class CycleStep(Struct):
    """An owner of a cycle, and whom it waits for."""

    owner: str
    waits_for_key: str
    held_by: str


class Cycle(Struct):
    cycle: list[CycleStep]
    cycle_length: int


class Limited(Struct):
    limit: str | UnsetType = UNSET
    limit_value: int | UnsetType = UNSET


class Fenced(Struct):
    highest_token: int
    valid: bool


class OtherVersion(Struct):
    key: str
    version: int


class OtherValue(Struct):
    key: str
    value: int


class NotReady(Struct):
    reasons: dict[str, str] | UnsetType = UNSET


class Membership(Struct):
    group: str | UnsetType = UNSET
    done: list[str] | UnsetType = UNSET


class Elsewhere(Struct):
    """Where an operation is carried out that this node does not have."""

    operation: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    groups: list[str] | UnsetType = UNSET
    addresses: list[str] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table."""

    status: int
    #: What the client is told, where there is nothing better to say.
    detail: str
    #: When it is given, and what to do, for the docs.
    when: str
    #: Seconds for the `Retry-After` header; None where waiting alone does not help.
    retry_after_s: int | None = None
    #: What else the answer may hold.
    facts: type[Struct] | None = None


REFUSALS: dict[str, Refusal] = {
    "bad_request": Refusal(
        400, "The request cannot be understood; correct it and send it again.",
        "Not JSON, a wrong type, a missing or unknown field. `detail` names the field.",
    ),
    "unauthenticated": Refusal(
        401, "Send the header `Authorization: Bearer <token>` with a token of this cluster.",
        "Tokens are in use and none, or an unknown one, was sent.",
    ),
    "forbidden": Refusal(
        403, "This is not allowed with the token or from the place that it came from.",
        "The token's role may not do this, or the request came by a foreign name or from a foreign page.",
    ),
    "no_such_route": Refusal(
        404, "There is no such route; check the path.",
        "`detail` names the nearest route. An operation of a group that this node does not carry: `group` and, where "
        "the node knows them, the `addresses` of nodes that do.",
        facts=Elsewhere,
    ),
    "method_not_allowed": Refusal(
        405, "The route is asked with another method; the `Allow` header names it.", "`Allow` names the method.",
    ),
    "too_slow": Refusal(
        408, "The body came too slowly; not done, send it again over a better line.",
        "The body came too slowly. Not done.",
    ),
    "deadlock": Refusal(
        409, "Waiting would close a cycle of waiting owners; release what you hold of it, then try again.",
        "Waiting would close a cycle; `cycle` shows up to 16 of its `cycle_length` steps.", facts=Cycle,
    ),
    "fenced": Refusal(
        409, "A newer holder has a higher token; acquire the lock again before going on.",
        "A newer holder has a higher token, `highest_token`.", facts=Fenced,
    ),
    "version_mismatch": Refusal(
        409, "The value has another version by now; read it again and decide anew.",
        "The value has another version by now; `version` is the present one.", facts=OtherVersion,
    ),
    "lease_lost": Refusal(
        409,
        "The lease has ended: its time ran out, or the key or a tag of it was written, removed or invalidated "
        "meanwhile. What you have may be out of date; read the key again.",
        "The lease to fill the key has ended; `version` is the present one, 0 where the key is absent.",
        facts=OtherVersion,
    ),
    "not_an_integer": Refusal(
        409, "The value is no whole number of 64 bits; put one before you count with it.",
        "What is to be counted with is no whole number.", facts=OtherVersion,
    ),
    "out_of_range": Refusal(
        409, "The sum would leave the range of 64-bit numbers; count by less or put another value.",
        "The sum would have over 64 bits; `value` is the present one.", facts=OtherValue,
    ),
    "membership_refused": Refusal(
        409, "The members cannot be changed so; `GET /admin/members` shows who they are.",
        "The members cannot be changed so; `detail` says why.", facts=Membership,
    ),
    "session_expired": Refusal(
        409, "The session has ended and its locks are released; open a new one.", "The session has ended.",
    ),
    "too_large": Refusal(413, "The request is too large; send less at a time.", "Send less."),
    "unsupported_media_type": Refusal(
        415, "The body must be JSON; send `Content-Type: application/json`.",
        "Send `Content-Type: application/json`.",
    ),
    "idempotency_key_reused": Refusal(
        422, "This Idempotency-Key came with another request before; use a new key for a new request.",
        "The key came with another request before.",
    ),
    "overloaded": Refusal(
        429, "Too many requests are waiting; not done, send it again a little later.",
        "Too much is waiting. Not done; later, with `Retry-After`.", 1, Limited,
    ),
    "quota": Refusal(
        429, "A limit of this queue or store is reached; take something out of it first.",
        "A limit of a queue, a lock or the store is reached. Not done.", 1, Limited,
    ),
    "internal": Refusal(
        500, "This node met an error of its own; its log has the details.",
        "A fault of the node's own; its log has the details.",
    ),
    "no_leader": Refusal(
        503, "No leader is elected at the moment; not done, send it again.",
        "Nobody leads at the moment. Not done: send it again.", 1,
    ),
    "no_quorum": Refusal(
        503, "The leader cannot reach a majority of the nodes; not done, send it again.",
        "A majority cannot be reached. Not done: send it again.", 1,
    ),
    "storage_failed": Refusal(
        503, "The disk of this node failed or is full; not done, send it again or to another node.",
        "This node's disk failed or is full. Not done: ask another node.", 1,
    ),
    "stopping": Refusal(
        503, "This node is shutting down; not done, send it again or to another node.",
        "This node is shutting down. Not done: ask another node.", 1,
    ),
    "not_ready": Refusal(
        503, "This node cannot serve all its groups yet; use another node or wait.",
        "`/readyz`: this node cannot serve all its groups yet; `reasons` by group. Of a change: not every node of "
        "the group knows it yet; upgrade all of them first. Not done.", 1, NotReady,
    ),
    "outcome_unknown": Refusal(
        504, "It may or may not have been done: send it again with the same Idempotency-Key to find out.",
        "It may or may not have been done. Send it again with the same `Idempotency-Key`.",
    ),
}  # fmt: skip

#: What any operation may be refused with, before it is carried out or because of a fault.
ALWAYS = (
    "bad_request", "unauthenticated", "forbidden", "too_slow", "too_large", "unsupported_media_type", "overloaded",
    "internal",
)  # fmt: skip
#: What a linearizable read may be refused with besides.
READ = ("no_leader", "no_quorum", "storage_failed", "stopping", "outcome_unknown")
#: What a replicated command may be refused with besides.
WRITE = (*READ, "idempotency_key_reused", "quota")
#: What a replicated command may be refused with besides that came later (`SINCE`, `FIELDS_SINCE`).
LATER = ("not_ready",)

STATUS_BY_REASON: dict[str, int] = {reason: refusal.status for reason, refusal in REFUSALS.items()}
DETAIL_BY_REASON: dict[str, str] = {reason: refusal.detail for reason, refusal in REFUSALS.items()}
#: Only reasons that come with further headers.
HEADERS_BY_REASON: dict[str, dict[str, str]] = {
    reason: {"Retry-After": str(refusal.retry_after_s)}
    for reason, refusal in REFUSALS.items()
    if refusal.retry_after_s is not None
}

_REASON_BY_RAFT_ERROR: dict[type[RaftError], str] = {
    NotLeader: "no_leader",
    NoLeader: "no_leader",
    NoQuorum: "no_quorum",
    Overloaded: "overloaded",
    StorageFailed: "storage_failed",
    NotKnownToAll: "not_ready",
    TooLarge: "too_large",
    Stopping: "stopping",
    MembershipRefused: "membership_refused",
    OutcomeUnknown: "outcome_unknown",
}


def refused(reason: str, detail: str | None = None, **facts: Any) -> ApiError:
    """The error for a reason of the table; `facts` become further fields of the answer."""
    refusal = REFUSALS[reason]
    return ApiError(
        refusal.status,
        reason,
        detail or refusal.detail,
        facts=facts,
        headers=HEADERS_BY_REASON.get(reason),
    )


def from_raft(error: Exception) -> ApiError | None:
    """What a client is told where Raft raised `error`; None where it is not Raft's."""
    for kind in type(error).__mro__:
        reason = _REASON_BY_RAFT_ERROR.get(kind)
        if reason is not None:
            return refused(reason, sentence_of(error) if kind is NotKnownToAll else None)
    # A kind of error without a row promises nothing, so neither may the answer.
    return refused("outcome_unknown") if isinstance(error, RaftError) else None


def sentence_of(error: Exception) -> str:
    """The text of an error of ours, which begins small and has no end, as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
