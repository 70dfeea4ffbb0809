"""Answers that many operations give, and how a machine's answer becomes one.

The rule of the file: every answer has `ok`. With `ok` false it is an outcome that an operation is made to have,
such as a lock that is held, and has a `reason`; it travels with 200. Trouble is no answer but a refusal
(`services.operations.refusals`). A field that is `UNSET` is not sent. A field that an answer is given later has a
default: an answer that was kept before an upgrade is given again after it.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from services.operations.refusals import REFUSALS, refused

#: What a refusal says that is told again.
REPLAYED_REFUSAL = "This Idempotency-Key was refused before, and so it stays; use a new key to ask anew."


class Answer(Struct, kw_only=True):
    """It was done."""

    ok: bool = True
    #: True: this is what the same `Idempotency-Key` was answered before, and what holds of it now.
    replayed: bool | UnsetType = UNSET


class NotDone(Struct, kw_only=True):
    """It was not done, for a reason that is no trouble."""

    ok: bool = False
    reason: str
    detail: str | UnsetType = UNSET
    replayed: bool | UnsetType = UNSET


class NotKept(Answer, kw_only=True):
    """It was done under this `Idempotency-Key`, and the answer was too long to be kept."""

    answer: str


Done = TypeVar("Done")
Failed = TypeVar("Failed")


def told(result: dict[str, Any], done: type[Done], failed: type[Failed]) -> Done | Failed | NotKept:
    """The machine's answer as one of these.

    Raises:
        ApiError: it is a refusal.
    """
    if result["ok"]:
        return done_of(result, done)
    check(result)
    if "replayed" in result:
        result = {"detail": REPLAYED_REFUSAL, **result}
    return msgspec.convert(result, failed)


def done_of(result: dict[str, Any], done: type[Done]) -> Done | NotKept:
    """The answer of a machine that has no outcome but to do it.

    Raises:
        ApiError: it is a refusal.
    """
    if not result["ok"]:
        check(result)
        raise AssertionError(f"an outcome that nobody foresaw: {result}")
    if "answer" in result:
        return msgspec.convert(result, NotKept)
    return msgspec.convert(result, done)


def check(result: dict[str, Any]) -> None:
    """Raises: ApiError, where the machine's answer is a refusal."""
    reason = result.get("reason")
    if reason in REFUSALS:
        facts = {name: value for name, value in result.items() if name not in ("ok", "reason", "detail")}
        raise refused(reason, result.get("detail"), **facts)
