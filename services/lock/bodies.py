"""What can be asked of the locks, and the commands that it becomes.

Times in requests are seconds; they become whole milliseconds, and a short time never becomes none.
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from services.lock.replicated.commands import Acquire, ForceRelease, Release, Renew
from services.node.host import Host
from services.operations.vocabulary import Mode, is_exclusive, name_of

#: Longest ttl and longest wait, in seconds.
TTL_S_MAX = 30 * 24 * 3600
WAIT_S_MAX = 3600
#: Rows that one list answers.
LIST_MAX = 1000

Ttl = Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
Token = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


class LockBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """A lock, by its name."""

    key: str | None = None
    name: str | None = None


class OwnedBody(LockBody, forbid_unknown_fields=True, kw_only=True):
    """A lock, and who holds it or wants to."""

    client_id: str | None = None
    owner: str | None = None


class AcquireBody(OwnedBody, forbid_unknown_fields=True, kw_only=True):
    mode: Annotated[Mode, Meta(description="`X` or `exclusive`, the default; `S` or `shared`")] = "X"
    ttl: Annotated[Ttl | None, Meta(description="none: until released")] = None
    wait: Annotated[float, Meta(ge=0, le=WAIT_S_MAX, description=f"0: at once; up to {WAIT_S_MAX}")] = 0


class HoldBody(OwnedBody, forbid_unknown_fields=True, kw_only=True):
    """An owner's hold of a lock. It has one of a key, whatever its mode: that may be said along."""

    token: Annotated[Token | None, Meta(description="only this very hold")] = None
    mode: Raw = field(default_factory=Raw)


class ReleaseBody(HoldBody, forbid_unknown_fields=True, kw_only=True):
    pass


class RenewBody(HoldBody, forbid_unknown_fields=True, kw_only=True):
    ttl: Ttl


class ForceReleaseBody(LockBody, forbid_unknown_fields=True, kw_only=True):
    client_id: Annotated[str | None, Meta(description="none: everybody's hold", extra={"optional": True})] = None
    owner: str | None = None


class ValidateBody(LockBody, forbid_unknown_fields=True, kw_only=True):
    token: Token


class ListQuery(Struct, forbid_unknown_fields=True):
    prefix: str = ""
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 100


def acquire_of(body: AcquireBody, here: Host) -> Acquire:
    """Raises: ApiError 400."""
    wait_ms = milliseconds(body.wait)
    return Acquire(
        key_of(body, here),
        owner_of(body, here),
        is_exclusive(body.mode),
        None if body.ttl is None else milliseconds(body.ttl),
        wait_ms,
        here.new_waiter_id() if wait_ms else "",
        here.node_id,
        here.boot,
    )


def release_of(body: ReleaseBody, here: Host) -> Release:
    """Raises: ApiError 400."""
    return Release(key_of(body, here), owner_of(body, here), body.token)


def renew_of(body: RenewBody, here: Host) -> Renew:
    """Raises: ApiError 400."""
    return Renew(key_of(body, here), owner_of(body, here), milliseconds(body.ttl), body.token)


def force_release_of(body: ForceReleaseBody, here: Host) -> ForceRelease:
    """Without an owner, everybody's hold of the key is taken. Raises: ApiError 400."""
    key = key_of(body, here)
    if body.owner is None and body.client_id is None:
        return ForceRelease(key)
    return ForceRelease(key, owner_of(body, here))


def key_of(body: LockBody, here: Host) -> str:
    """The lock's name in either vocabulary. Raises: ApiError 400."""
    return name_of(body, "key", here.settings.name_bytes_max)


def owner_of(body: OwnedBody | ForceReleaseBody, here: Host) -> str:
    """The owner's name in either vocabulary. Raises: ApiError 400."""
    return name_of(body, "client_id", here.settings.name_bytes_max)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, none only for no seconds."""
    return max(1, round(seconds * 1000)) if seconds else 0
