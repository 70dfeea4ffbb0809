"""The requests of the lock service as structs, and the commands that they become.

The rule: both vocabularies are read by the same structs, `key` or `name`, `client_id` or `owner`, and exactly one
of each pair has to be there. Times in requests are seconds; they become whole milliseconds, and a short time never
becomes none.
"""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from common.web import bad_request, check_name
from services.lock.replicated.commands import Acquire, ForceRelease, Release, Renew
from services.node.host import Host

#: Longest ttl and longest wait, in seconds.
TTL_S_MAX = 30 * 24 * 3600
WAIT_S_MAX = 3600
#: Rows that one list answers.
LIST_MAX = 1000

Ttl = Annotated[float, Meta(gt=0, le=TTL_S_MAX)]
Wait = Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]
Mode = Literal["X", "S", "exclusive", "shared"]
Token = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]

_EXCLUSIVE_MODES = ("X", "exclusive")


class AcquireBody(Struct, forbid_unknown_fields=True):
    key: str | None = None
    name: str | None = None
    client_id: str | None = None
    owner: str | None = None
    mode: Mode = "X"
    ttl: Ttl | None = None
    wait: Wait = 0


class ReleaseBody(Struct, forbid_unknown_fields=True):
    key: str | None = None
    name: str | None = None
    client_id: str | None = None
    owner: str | None = None
    #: Release only this very hold.
    token: Token | None = None
    #: Sent along by users of the long vocabulary; an owner has one hold of a key, whatever its mode.
    mode: Raw = Raw()


class RenewBody(Struct, forbid_unknown_fields=True):
    ttl: Ttl
    key: str | None = None
    name: str | None = None
    client_id: str | None = None
    owner: str | None = None
    #: Renew only this very hold.
    token: Token | None = None
    mode: Raw = Raw()


class ForceReleaseBody(Struct, forbid_unknown_fields=True):
    """Without an owner, everybody's hold of the key is taken."""

    key: str | None = None
    name: str | None = None
    client_id: str | None = None
    owner: str | None = None


class ValidateBody(Struct, forbid_unknown_fields=True):
    token: Token
    key: str | None = None
    name: str | None = None


class StatusQuery(Struct, forbid_unknown_fields=True):
    key: str | None = None
    name: str | None = None


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
        body.mode in _EXCLUSIVE_MODES,
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
    """Raises: ApiError 400."""
    key = key_of(body, here)
    if body.owner is None and body.client_id is None:
        return ForceRelease(key)
    return ForceRelease(key, owner_of(body, here))


def key_of(body: AcquireBody | ReleaseBody | RenewBody | ValidateBody | StatusQuery, here: Host) -> str:
    """The lock's name in either vocabulary. Raises: ApiError 400."""
    return _one_of("key", body.key, "name", body.name, here)


def owner_of(body: AcquireBody | ReleaseBody | RenewBody | ForceReleaseBody, here: Host) -> str:
    """The owner's name in either vocabulary. Raises: ApiError 400."""
    return _one_of("client_id", body.client_id, "owner", body.owner, here)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, none only for no seconds."""
    return max(1, round(seconds * 1000)) if seconds else 0


def _one_of(short: str, short_value: str | None, long: str, long_value: str | None, here: Host) -> str:
    if short_value is None:
        if long_value is None:
            raise bad_request(f"The field `{short}` is missing; add it, or `{long}`, which means the same.")
        return check_name(long_value, long, here.settings.name_bytes_max)
    if long_value is not None:
        raise bad_request(f"The fields `{short}` and `{long}` mean the same; give one of them.")
    return check_name(short_value, short, here.settings.name_bytes_max)
