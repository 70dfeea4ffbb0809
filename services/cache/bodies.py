"""What clients may say to the cache: bodies and queries, and how their fields become a command's.

The rule of this file: plain data and checks; whatever is refused is refused here, with the field named.
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from common.api_error import ApiError, bad_request, check_name
from services.cache.replicated.commands import KEYS_MAX, LEASE_MS_DEFAULT, LEASE_MS_MAX, TTL_MS_MAX
from services.cache.replicated.machine import INTEGER_MAX, INTEGER_MIN
from services.cache.replicated.tags import TAGS_PER_LINE_MAX
from services.node.host import Host

#: Rows that one `/cache/lines` answers.
LINES_LIMIT_MAX = 1000
#: Longest wait for somebody else's fill, seconds.
WAIT_S_MAX = 300

Ttl = Annotated[float, Meta(gt=0, le=TTL_MS_MAX / 1000)]
Version = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Token = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Integer = Annotated[int, Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]
Limit = Annotated[int, Meta(ge=1, le=LINES_LIMIT_MAX)]
Wait = Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]
LeaseTtl = Annotated[float, Meta(gt=0, le=LEASE_MS_MAX / 1000)]
TagList = Annotated[list[str], Meta(max_length=TAGS_PER_LINE_MAX, description=f"up to {TAGS_PER_LINE_MAX}")]


class ItemBody(Struct, forbid_unknown_fields=True):
    key: str
    val: Raw = field(default_factory=Raw)
    value: Raw = field(default_factory=Raw)
    ttl: Ttl | None = None
    if_version: Annotated[Version | None, Meta(description="0: only if absent")] = None
    tags: TagList = []


class PutBody(ItemBody, forbid_unknown_fields=True):
    lease: Annotated[Token | None, Meta(description="under which the value was computed")] = None


class PutManyBody(Struct, forbid_unknown_fields=True):
    items: Annotated[
        list[ItemBody],
        Meta(min_length=1, max_length=KEYS_MAX, description="up to 1,000, each as in a put, without `lease`"),
    ]


class KeyBody(Struct, forbid_unknown_fields=True):
    key: str


class ReadBody(Struct, forbid_unknown_fields=True):
    """A read. With `stale_ok` it never waits for anybody, and what may be out of date says so; with `wait` or
    `lease_ttl` (seconds both) it takes the lease to fill an absent key, or waits for whoever has it."""

    key: str
    stale_ok: Annotated[
        bool,
        Meta(
            description="answer at once from what this node has applied; what may be out of date has "
            '`"stale": true`'
        ),
    ] = False
    wait: Wait | None = None
    lease_ttl: LeaseTtl | None = None

    @property
    def is_guarded(self) -> bool:
        return self.wait is not None or self.lease_ttl is not None


class KeysBody(Struct, forbid_unknown_fields=True):
    keys: Annotated[list[str], Meta(min_length=1, max_length=KEYS_MAX, description="up to 1,000")]


class DeleteBody(Struct, forbid_unknown_fields=True):
    key: str
    if_version: Version | None = None
    lease: Annotated[Token | None, Meta(description="only give this lease back")] = None


class IncrBody(Struct, forbid_unknown_fields=True):
    key: str
    by: Integer = 1
    ttl: Annotated[Ttl | None, Meta(description="none: the line keeps its expiry")] = None


class InvalidateBody(Struct, forbid_unknown_fields=True):
    tag: str


class LinesQuery(Struct, forbid_unknown_fields=True):
    prefix: str = ""
    after: str = ""
    limit: Limit = 100


class WatchQuery(Struct, forbid_unknown_fields=True):
    """Of one key, or of all keys that begin so."""

    key: str | None = None
    prefix: str | None = None
    since: Annotated[str | None, Meta(description="from behind a version or an event's id on")] = None


def item_of(here: Host, body: ItemBody) -> tuple[str, bytes, int | None, int | None, tuple[str, ...]]:
    """The checked `(key, value, ttl_ms, if_version, tags)` of one write."""
    key = key_of(here, body.key)
    val, value = bytes(body.val), bytes(body.value)
    if bool(val) == bool(value):
        raise bad_request("Give the value, as either `val` or `value`.")
    value = val or value
    value_bytes_max = here.settings.value_bytes_max
    if len(value) > value_bytes_max:
        detail = f"The value has {len(value)} bytes; at most {value_bytes_max} are allowed."
        raise ApiError(413, "too_large", detail)
    return key, value, ttl_ms_of(body.ttl), body.if_version, tags_of(here, body.tags)


def key_of(here: Host, key: str, field: str = "key") -> str:
    return check_name(key, field, here.settings.name_bytes_max)


def tags_of(here: Host, tags: list[str]) -> tuple[str, ...]:
    """Each once, in the order in which they came."""
    return tuple(dict.fromkeys(key_of(here, tag, "tags") for tag in tags))


def ttl_ms_of(ttl: float | None) -> int | None:
    return None if ttl is None else max(1, round(ttl * 1000))


def lease_ms_of(body: ReadBody) -> int:
    return LEASE_MS_DEFAULT if body.lease_ttl is None else max(1, round(body.lease_ttl * 1000))
