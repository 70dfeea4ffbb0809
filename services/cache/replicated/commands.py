"""What can be said to the cache: one frozen dataclass per command.

The rule of this file: a command is on disk for as long as the log is kept, so an `OP` never changes its
meaning and a new field goes to the end with a default, and into `ADDED`, so that an `Idempotency-Key` from before the
upgrade still fits its request. Values are raw JSON bytes, exactly as the client sent them; `node` is the id of the
node that serves the client and is about to hold the line.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

#: Keys that one `FillMany` or `PutMany` may name.
KEYS_MAX = 1000

#: Longest time to live that a command may carry: one year, in milliseconds.
TTL_MS_MAX = 365 * 24 * 3600 * 1000

#: Longest lease to fill that a command may ask for, and the one that is asked for where nobody says how long.
LEASE_MS_MAX = 300_000
LEASE_MS_DEFAULT = 10_000

#: `(key, value, ttl_ms, if_version)` of one write, and its tags where it has any.
PutItem = (
    tuple[str, bytes, int | None, int | None] | tuple[str, bytes, int | None, int | None, tuple[str, ...]]
)


@dataclass(frozen=True, slots=True)
class Put:
    """Write one value. `if_version` None writes whatever is there; 0 only where the key is absent; another
    number only over exactly that version. `ttl_ms` None never expires. With `lease`, only where that lease to fill
    the key still stands."""

    OP: ClassVar[str] = "put"
    ADDED: ClassVar[dict[str, Any]] = {"tags": (), "lease": None}
    key: str
    value: bytes
    node: str
    ttl_ms: int | None = None
    if_version: int | None = None
    tags: tuple[str, ...] = ()
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class PutMany:
    """Write several values as one entry, all or none. Keys are distinct (the route refuses a key that is named
    twice)."""

    OP: ClassVar[str] = "mput"
    items: tuple[PutItem, ...]
    node: str


@dataclass(frozen=True, slots=True)
class Fill:
    """Read one value and make `node` a holder of its line. With `lease_ms`, an absent key is leased to `asker` (the
    serving node's present life) for so long, unless another has the lease. `claim` is the `Idempotency-Key` of the
    request, empty where it has none: who asks again with it is told the same lease, by whatever node. (None: an entry
    of the version before. Telling a lease again changed nothing then, so it must not when that entry is replayed.)
    `beside`: the node that was told it last before keeps it as well, until it gives it back. Without, it is taken
    from that one."""

    OP: ClassVar[str] = "fill"
    ADDED: ClassVar[dict[str, Any]] = {"lease_ms": 0, "asker": "", "claim": None, "beside": False}
    FIELDS_SINCE: ClassVar[dict[str, int]] = {"beside": 2}
    key: str
    node: str
    lease_ms: int = 0
    asker: str = ""
    claim: str | None = None
    beside: bool = False


@dataclass(frozen=True, slots=True)
class FillMany:
    """Read several values as one entry and make `node` a holder of each line."""

    OP: ClassVar[str] = "mfill"
    keys: tuple[str, ...]
    node: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a value. `if_version` as in `Put`, except that 0 never matches a value that is there. With `lease`, only
    give that lease to fill the key back."""

    OP: ClassVar[str] = "delete"
    ADDED: ClassVar[dict[str, Any]] = {"lease": None}
    key: str
    if_version: int | None = None
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class GiveBack:
    """End leases that were told to nobody. Each is `(key, token, told)`, with the index of the entry that told it to
    the node which gives it back: one that it was told again since is not meant, and one that another node has
    stays."""

    OP: ClassVar[str] = "giveback"
    leases: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Incr:
    """Add `by` to a whole number; an absent key counts as 0. The line keeps its tags, and its expiry unless `ttl_ms`
    is given."""

    OP: ClassVar[str] = "incr"
    key: str
    by: int
    node: str
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Invalidate:
    """Remove every value that carries `tag`."""

    OP: ClassVar[str] = "invalidate"
    tag: str


Command = Put | PutMany | Fill | FillMany | Delete | GiveBack | Incr | Invalidate
