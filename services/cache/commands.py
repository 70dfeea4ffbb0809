"""What can be said to the cache: one frozen dataclass per command.

The rule of this file: a command is on disk for as long as the log is kept, so an `OP` never changes its
meaning and a new field goes to the end with a default. Values are raw JSON bytes, exactly as the client sent
them; `node` is the id of the node that serves the client and is about to hold the line.
"""

from dataclasses import dataclass
from typing import ClassVar

#: Keys that one `FillMany` or `PutMany` may name.
KEYS_MAX = 1000

#: Longest time to live that a command may carry: one year, in milliseconds.
TTL_MS_MAX = 365 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Put:
    """Write one value. `if_version` None writes whatever is there; 0 only where the key is absent; another
    number only over exactly that version. `ttl_ms` None never expires."""

    OP: ClassVar[str] = "put"
    key: str
    value: bytes
    node: str
    ttl_ms: int | None = None
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class PutMany:
    """Write several values as one entry, all or none. Each item is `(key, value, ttl_ms, if_version)`; keys
    are distinct (the route refuses a key that is named twice)."""

    OP: ClassVar[str] = "mput"
    items: tuple[tuple[str, bytes, int | None, int | None], ...]
    node: str


@dataclass(frozen=True, slots=True)
class Fill:
    """Read one value and make `node` a holder of its line."""

    OP: ClassVar[str] = "fill"
    key: str
    node: str


@dataclass(frozen=True, slots=True)
class FillMany:
    """Read several values as one entry and make `node` a holder of each line."""

    OP: ClassVar[str] = "mfill"
    keys: tuple[str, ...]
    node: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a value. `if_version` as in `Put`, except that 0 never matches a value that is there."""

    OP: ClassVar[str] = "delete"
    key: str
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class Incr:
    """Add `by` to a whole number; an absent key counts as 0. The line keeps its expiry unless `ttl_ms` is
    given."""

    OP: ClassVar[str] = "incr"
    key: str
    by: int
    node: str
    ttl_ms: int | None = None


Command = Put | PutMany | Fill | FillMany | Delete | Incr
