"""What the locks answer. Times are seconds from now, 0 where they have passed."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from services.operations.answers import Answer, NotDone

ModeName = Literal["exclusive", "shared"]


class Holder(Struct):
    owner: str
    mode: ModeName
    #: Through which it asked.
    node: str
    token: int
    #: None: held until released.
    expires_in_s: float | None


class CurrentHolder(Struct):
    owner: str
    mode: ModeName
    node: str


class Granted(Answer, kw_only=True):
    """`token` rises with every grant; `expires_in_s` is null where the lock is held until released."""

    token: int
    mode: ModeName
    expires_in_s: float | None


class NotGranted(NotDone, kw_only=True):
    """Held by others: `locked`; waited in vain: `timeout`. The holder with the lowest token is `current`. A granted
    request that is sent again once its lock has ended: `not_held`."""

    reason: Literal["locked", "timeout", "not_held"]
    current: CurrentHolder | UnsetType | None = UNSET
    holders: list[Holder] | UnsetType = UNSET
    holder_count: int | UnsetType = UNSET
    queue_length: int | UnsetType = UNSET
    token: int | UnsetType = UNSET


class Released(Answer, kw_only=True):
    """It is free, or the next in line has it."""


class Free(NotDone, kw_only=True):
    """Nobody holds it, or not the owner that was named."""

    reason: Literal["not_held"]


class NotHeld(NotDone, kw_only=True):
    """The owner does not hold it, or not by that token."""

    reason: Literal["not_held"]
    token: int | UnsetType = UNSET


class NotValid(NotDone, kw_only=True):
    """The hold of that token has ended, or never was, and nobody has taken over."""

    reason: Literal["not_held"]
    valid: bool


class ForceReleased(Answer, kw_only=True):
    """`released` shows up to 16 of the holds."""

    released: list[Holder]
    released_count: int


class Valid(Answer, kw_only=True):
    """The hold that the token names."""

    valid: bool
    key: str
    owner: str
    mode: ModeName
    node: str
    token: int
    expires_in_s: float | None


class Waiter(Struct):
    owner: str
    mode: ModeName
    node: str
    deadline_in_s: float


class Status(Answer, kw_only=True):
    """Holders, lowest token first, and waiters in the order of the line, up to 1,000 of each."""

    key: str
    held: bool
    mode: ModeName | None
    holders: list[Holder]
    holder_count: int
    waiters: list[Waiter]
    queue_length: int


class ListedLock(Struct):
    key: str
    mode: ModeName
    holders: list[Holder]
    holder_count: int
    queue_length: int


class Listed(Answer, kw_only=True):
    """Held locks in the order of their keys; `next` is the `after` of the next page, null at the end."""

    locks: list[ListedLock]
    next: str | None


#: Fields of the machine's answers that hold cluster time, and what a client sees in their place.
_SECONDS_NAMES = {"expires_ms": "expires_in_s", "deadline_ms": "deadline_in_s"}


def in_seconds(answer: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """A copy of a machine's answer in which every cluster time has become seconds from now."""
    worded = {}
    for name, value in answer.items():
        if name in _SECONDS_NAMES:
            worded[_SECONDS_NAMES[name]] = None if value is None else max(0, value - now_ms) / 1000
        elif type(value) is list:
            worded[name] = [in_seconds(item, now_ms) for item in value]
        else:
            worded[name] = value
    return worded


def page_of(rows: list[dict[str, Any]], following: str | None, now_ms: int) -> Listed:
    return Listed(
        locks=msgspec.convert([in_seconds(row, now_ms) for row in rows], list[ListedLock]), next=following
    )
